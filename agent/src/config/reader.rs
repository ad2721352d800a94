//! Takes values of a wanted form out of a table, and notes everything that is wrong with it instead of
//! stopping at the first. What was never asked for is unknown, and the nearest known name is offered.

use std::{collections::BTreeSet, ops::RangeInclusive, path::PathBuf, str::FromStr};

use super::{
    Fault,
    fragments::{Node, Place, Table, Value},
};
use crate::near::nearest;

/// The longest text of any value.
const MAX_TEXT: usize = 4096;

/// A table being read.
pub(super) struct Reader<'a, 'f> {
    table: &'a Table,
    place: &'a Place,
    /// The table's name before a key: empty, or `preferences.`.
    prefix: &'static str,
    asked: BTreeSet<&'static str>,
    faults: &'f mut Vec<Fault>,
}

/// Whether a key must be there, with a line to copy.
#[derive(Clone, Copy)]
pub(super) enum Need {
    /// It must; the reader is shown this line.
    Must(&'static str),
    /// It may; should it be wrong, this line would be right.
    May(&'static str),
}

impl Need {
    const fn line(self) -> &'static str {
        match self {
            Self::Must(line) | Self::May(line) => line,
        }
    }
}

impl<'a, 'f> Reader<'a, 'f> {
    pub(super) fn new(
        table: &'a Table,
        place: &'a Place,
        prefix: &'static str,
        faults: &'f mut Vec<Fault>,
    ) -> Self {
        Self { table, place, prefix, asked: BTreeSet::new(), faults }
    }

    /// A text.
    pub(super) fn text(&mut self, key: &'static str, need: Need) -> Option<String> {
        let node = self.take(key, need)?;
        let Value::Text(text) = &node.value else {
            self.fault(node, format!("expected a string, found {}", node.value.form()), need);
            return None;
        };
        if text.is_empty() || text.len() > MAX_TEXT {
            self.fault(node, format!("`{key}` must have 1 to {MAX_TEXT} bytes"), need);
            return None;
        }
        Some(text.clone())
    }

    /// A text that a type of ours reads. Its error speaks for itself, with its own hint or the line.
    pub(super) fn parsed<T: FromStr<Err: ToString>>(
        &mut self,
        key: &'static str,
        need: Need,
    ) -> Option<T> {
        let text = self.text(key, need)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let node = &self.table.0.get(key)?.1;
                self.foreign(&node.place, &error.to_string(), need);
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
        need: Need,
    ) -> Option<T> {
        let text = self.text(key, need)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let node = &self.table.0.get(key)?.1;
        self.fault(node, format!("`{key}` is {}, not `{text}`", known.join(" or ")), need);
        None
    }

    /// An absolute path: the agent's working folder is not its owner's.
    pub(super) fn path(&mut self, key: &'static str, need: Need) -> Option<PathBuf> {
        let path = PathBuf::from(self.text(key, need)?);
        let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
        if path.is_absolute() && !climbs {
            return Some(path);
        }
        let node = &self.table.0.get(key)?.1;
        let what = format!("`{}` is not an absolute path without `..`", path.display());
        self.fault(node, what, need);
        None
    }

    /// A whole number within bounds.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<u64>,
        unit: &str,
        need: Need,
    ) -> Option<u64> {
        self.number_because(key, bounds, unit, "", need)
    }

    /// The same, with a reason for the bounds that its reader cannot guess.
    pub(super) fn number_because(
        &mut self,
        key: &'static str,
        bounds: RangeInclusive<u64>,
        unit: &str,
        why: &str,
        need: Need,
    ) -> Option<u64> {
        let node = self.take(key, need)?;
        let Value::Number(number) = node.value else {
            self.fault(node, format!("expected {unit}, found {}", node.value.form()), need);
            return None;
        };
        let number = number.and_then(|number| u64::try_from(number).ok());
        if let Some(number) = number.filter(|number| bounds.contains(number)) {
            return Some(number);
        }
        let what = format!("`{key}` must be {} to {}{why}", bounds.start(), bounds.end());
        self.fault(node, what, need);
        None
    }

    /// True or false.
    pub(super) fn flag(&mut self, key: &'static str, need: Need) -> Option<bool> {
        let node = self.take(key, need)?;
        if let Value::Flag(flag) = node.value {
            return Some(flag);
        }
        self.fault(node, format!("expected true or false, found {}", node.value.form()), need);
        None
    }

    /// A list of texts, with the place of each.
    pub(super) fn texts(&mut self, key: &'static str, need: Need) -> Option<Vec<(String, Place)>> {
        let node = self.take(key, need)?;
        let Value::List(list) = &node.value else {
            self.fault(node, format!("expected a list, found {}", node.value.form()), need);
            return None;
        };
        let mut texts = Vec::new();
        for item in list {
            let Value::Text(text) = &item.value else {
                let what = format!("expected a string in the list, found {}", item.value.form());
                self.fault(item, what, need);
                return None;
            };
            texts.push((text.clone(), item.place.clone()));
        }
        Some(texts)
    }

    /// A table, such as `[facts]`.
    pub(super) fn table(&mut self, key: &'static str) -> Option<(&'a Table, &'a Place)> {
        let need = Need::May("");
        let node = self.take(key, need)?;
        if let Value::Table(table) = &node.value {
            return Some((table, &node.place));
        }
        self.fault_with(
            node,
            format!("expected a table, found {}", node.value.form()),
            format!("write `[{key}]` on a line of its own and its keys below"),
        );
        None
    }

    /// Tables of one kind, such as each `[[product]]`.
    pub(super) fn tables(&mut self, key: &'static str, max: usize) -> Vec<(&'a Table, &'a Place)> {
        let hint = format!("write `[[{key}]]` on a line of its own and its keys below");
        let Some(node) = self.take(key, Need::May("")) else { return Vec::new() };
        let Value::List(list) = &node.value else {
            let what = format!("expected `[[{key}]]`, found {}", node.value.form());
            self.fault_with(node, what, hint);
            return Vec::new();
        };
        if list.len() > max {
            let what = format!("{} times `[[{key}]]`, at most {max} are allowed", list.len());
            self.fault_with(node, what, "take some out".to_owned());
            return Vec::new();
        }
        let mut tables = Vec::new();
        for item in list {
            let Value::Table(table) = &item.value else {
                let what = format!("expected `[[{key}]]`, found {}", item.value.form());
                self.fault_with(item, what, hint.clone());
                continue;
            };
            tables.push((table, &item.place));
        }
        tables
    }

    /// Where a key's value stands; the table's place when it is absent.
    pub(super) fn place_of(&self, key: &str) -> &'a Place {
        self.table.0.get(key).map_or(self.place, |(_, node)| &node.place)
    }

    /// Notes an error of another module, with its hint if it has one.
    pub(super) fn foreign(&mut self, place: &Place, text: &str, need: Need) {
        let (what, hint) = match text.split_once("\nhint: ") {
            Some((what, hint)) => (what.to_owned(), hint.to_owned()),
            None => (text.to_owned(), write_line(need)),
        };
        self.faults.push(Fault { place: place.clone(), what, hint });
    }

    /// Everything that was not asked for is unknown.
    pub(super) fn finish(self) {
        for (key, (place, _)) in &self.table.0 {
            if self.asked.contains(key.as_str()) {
                continue;
            }
            let hint = match nearest(key, self.asked.iter().copied()) {
                Some(known) => format!("did you mean `{}{known}`?", self.prefix),
                None => {
                    let known: Vec<String> =
                        self.asked.iter().map(|known| format!("`{known}`")).collect();
                    format!("known here: {}", known.join(", "))
                }
            };
            let what = format!("unknown key `{}{key}`", self.prefix);
            self.faults.push(Fault { place: place.clone(), what, hint });
        }
    }

    fn take(&mut self, key: &'static str, need: Need) -> Option<&'a Node> {
        self.asked.insert(key);
        let found = self.table.0.get(key).map(|(_, node)| node);
        if found.is_none()
            && let Need::Must(_) = need
        {
            self.faults.push(Fault {
                place: self.place.clone(),
                what: format!("`{}{key}` is missing", self.prefix),
                hint: write_line(need),
            });
        }
        found
    }

    fn fault(&mut self, node: &Node, what: String, need: Need) {
        self.fault_with(node, what, write_line(need));
    }

    fn fault_with(&mut self, node: &Node, what: String, hint: String) {
        self.faults.push(Fault { place: node.place.clone(), what, hint });
    }
}

fn write_line(need: Need) -> String {
    format!("write `{}`", need.line())
}
