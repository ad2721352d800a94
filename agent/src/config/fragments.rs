//! Reads the configuration's files and lays them over one another, with every value remembering the
//! file, line and column it came from.
//!
//! `agent.toml` first, then the drop-ins beside it, `agent.d/NN-name.toml`, in the order of their
//! numbers. A later file wins key by key; `[[product]]` is merged by its name, `[[window]]` is added.
//! It says nothing about what the keys mean: that is [`super::settings`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::de::{DeTable, DeValue};

use super::{ConfigError, Fault};

/// The largest file: a configuration of eight products and 32 windows has some 6 KiB.
pub const FILE_BYTES: u64 = 256 * 1024;
/// The most drop-ins: one for each of a few packages and teams.
pub const DROP_INS: usize = 64;

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<PathBuf>,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// A value by its form.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Number(Option<i64>),
    Fraction,
    Flag(bool),
    Moment,
    List(Vec<Node>),
    Table(Table),
}

/// A table: its keys, each with the place where it was last written.
#[derive(Clone, Debug, Default)]
pub(super) struct Table(pub(super) BTreeMap<String, (Place, Node)>);

impl Value {
    /// What it is, to a person.
    pub(super) const fn form(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Number(_) => "a number",
            Self::Fraction => "a number with a fraction",
            Self::Flag(_) => "true or false",
            Self::Moment => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// Every file of the configuration in one table. Faults of form end it; the rest is for later.
pub(super) fn read(main: &Path) -> Result<(Place, Table), ConfigError> {
    let mut faults = Vec::new();
    let mut merged = Table::default();
    let mut files = vec![main.to_path_buf()];
    files.extend(drop_ins(main, &mut faults)?);
    for file in files {
        let text = read_text(&file)?;
        let file = Arc::new(file);
        match parse(&file, &text) {
            Ok(table) => {
                twice(&table, &mut faults);
                merge(&mut merged, table);
            }
            Err(found) => faults.extend(found),
        }
    }
    let start = Place { file: Arc::new(main.to_path_buf()), line: 1, column: 1 };
    if faults.is_empty() { Ok((start, merged)) } else { Err(ConfigError::Faults(faults)) }
}

/// The drop-ins' folder: `agent.d` beside `agent.toml`.
pub fn folder(main: &Path) -> PathBuf {
    main.with_extension("d")
}

/// The drop-ins in their order. What does not end in `.toml` is left alone, as are hidden files:
/// package managers and editors keep their copies there.
fn drop_ins(main: &Path, faults: &mut Vec<Fault>) -> Result<Vec<PathBuf>, ConfigError> {
    let folder = folder(main);
    let failed = |source| ConfigError::Read { path: folder.clone(), source };
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with('.') || !name.ends_with(".toml") {
            continue;
        }
        if ordered(name) {
            names.insert(name.to_owned());
        } else {
            let file = Arc::new(folder.join(name));
            faults.push(Fault {
                place: Place { file, line: 1, column: 1 },
                what: format!("the drop-in `{name}` has no place in the order"),
                hint: format!("begin its name with two digits, such as `50-{name}`"),
            });
        }
        if names.len() > DROP_INS {
            return Err(ConfigError::TooMany { folder, max: DROP_INS });
        }
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// Two digits and a dash: with other names `9-x` would come after `10-x`, and `Z` before `a`.
fn ordered(name: &str) -> bool {
    let mut chars = name.chars();
    let digits = chars.by_ref().take(2).filter(char::is_ascii_digit).count() == 2;
    digits && chars.next() == Some('-')
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_path_buf(), source };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_path_buf(), max: FILE_BYTES });
    }
    Ok(text)
}

fn parse(file: &Arc<PathBuf>, text: &str) -> Result<Table, Vec<Fault>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let source = Source { file, text };
    if errors.is_empty() {
        return Ok(source.table(table.get_ref()));
    }
    Err(errors
        .iter()
        .map(|error| Fault {
            place: source.place(error.span().map_or(0, |span| span.start)),
            what: error.message().to_lowercase().replace('\n', ", "),
            hint: "texts stand in double quotes, lists in `[…]`, and each key on a line of its own"
                .to_owned(),
        })
        .collect())
}

/// The same product twice in one file: somebody meant two, or forgot one.
fn twice(table: &Table, faults: &mut Vec<Fault>) {
    let Some((_, Node { value: Value::List(products), .. })) = table.0.get("product") else {
        return;
    };
    let mut seen: BTreeMap<&str, &Place> = BTreeMap::new();
    for product in products {
        let Some((name, place)) = name_of(product) else { continue };
        if let Some(first) = seen.insert(name, place) {
            faults.push(Fault {
                place: place.clone(),
                what: format!("product `{name}` stands twice in this file"),
                hint: format!("line {} has it first; keep one of the two", first.line),
            });
        }
    }
}

fn merge(base: &mut Table, later: Table) {
    for (key, (place, node)) in later.0 {
        let Some((old_place, old)) = base.0.get_mut(&key) else {
            base.0.insert(key, (place, node));
            continue;
        };
        match (&mut old.value, node.value) {
            (Value::Table(old), Value::Table(new)) => merge(old, new),
            (Value::List(old), Value::List(new)) if key == "product" => merge_products(old, new),
            (Value::List(old), Value::List(new)) if key == "window" => old.extend(new),
            (slot, new) => {
                *slot = new;
                old.place = node.place;
                *old_place = place;
            }
        }
    }
}

fn merge_products(base: &mut Vec<Node>, later: Vec<Node>) {
    for product in later {
        let name = name_of(&product).map(|(name, _)| name.to_owned());
        let same = base
            .iter_mut()
            .find(|old| name.is_some() && name_of(old).map(|(name, _)| name) == name.as_deref());
        match (same, product) {
            (
                Some(Node { value: Value::Table(old), .. }),
                Node { value: Value::Table(new), .. },
            ) => merge(old, new),
            (_, product) => base.push(product),
        }
    }
}

fn name_of(product: &Node) -> Option<(&str, &Place)> {
    let Value::Table(table) = &product.value else { return None };
    let (_, node) = table.0.get("name")?;
    let Value::Text(name) = &node.value else { return None };
    Some((name, &node.place))
}

/// A file's text, to make places of offsets.
struct Source<'a> {
    file: &'a Arc<PathBuf>,
    text: &'a str,
}

impl Source<'_> {
    fn place(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place {
            file: self.file.clone(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).map_or(0, |line| line.chars().count()) + 1,
        }
    }

    fn table(&self, table: &DeTable<'_>) -> Table {
        let entries = table.iter().map(|(key, value)| {
            let node = self.node(value.get_ref(), value.span().start);
            (key.get_ref().to_string(), (self.place(key.span().start), node))
        });
        let mut fields = BTreeMap::new();
        fields.extend(entries);
        Table(fields)
    }

    fn node(&self, value: &DeValue<'_>, offset: usize) -> Node {
        let value = match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => {
                Value::Number(i64::from_str_radix(number.as_str(), number.radix()).ok())
            }
            DeValue::Float(_) => Value::Fraction,
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Datetime(_) => Value::Moment,
            DeValue::Array(list) => Value::List(
                list.iter().map(|item| self.node(item.get_ref(), item.span().start)).collect(),
            ),
            DeValue::Table(table) => Value::Table(self.table(table)),
        };
        Node { value, place: self.place(offset) }
    }
}
