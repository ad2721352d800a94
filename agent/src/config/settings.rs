//! What the owner may configure, and the bounds of each value. [`Settings`] exists only when all of it
//! is right, so nothing further on checks it again.
//!
//! It says nothing about trust: no key here can make the agent accept what the repository's people did
//! not sign.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use lockgate_shared::{
    eligibility::{MeteredUse, Preferences},
    facts::MAX_FACT,
    id::{ChannelId, ProductId},
    limits,
    pin::Pin,
    time::Seconds,
    window::{Weekday, Window},
};

use super::{
    Fault,
    fragments::{Place, Table},
    reader::{
        Need::{self, May, Must},
        Reader,
    },
};
use crate::{facts::Overrides, tpm, transport::Origin};

/// Polls at least this far apart: ten seconds is for trying out, and no fleet's server can pay more.
pub const POLL_LEAST_S: u64 = 10;
/// And at most: a week, beyond which no stop would arrive in time to matter.
pub const POLL_MOST_S: u64 = 7 * 86_400;
/// Polls unless the owner or the server says otherwise (design: five minutes).
pub const POLL_DEFAULT_S: u64 = 300;
/// Other places to read the repository from: a site's own, a region's, a spare.
pub const MIRRORS: usize = 8;
/// The most words of a restart command.
pub const RESTART_WORDS: usize = 64;
/// How long a restart command may take unless its product says otherwise.
pub const RESTART_DEFAULT_S: u64 = 30;
/// And at most: it holds up the agent's only thread.
pub const RESTART_MOST_S: u64 = 600;

/// The configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where letters go, and the repository if no mirror has it.
    pub server: Origin,
    /// Where the repository is read from first, in this order. Not trusted any more than the server.
    pub mirrors: Vec<Origin>,
    /// The agent's own folder.
    pub state: PathBuf,
    /// The trusted root that came with the installer or the image.
    pub anchor: PathBuf,
    /// The authorities that may vouch for the server's certificate, in PEM.
    pub ca: PathBuf,
    /// Where the device's key is kept.
    pub tpm: TpmSettings,
    /// How far apart polls are until the server says otherwise.
    pub poll: Seconds,
    /// What the owner says of the device instead of what the agent finds.
    pub facts: Overrides,
    /// What speaks against installing just now.
    pub preferences: Preferences,
    /// What is updated, by name; at least one.
    pub products: BTreeMap<ProductId, ProductSettings>,
    /// The owner's own maintenance windows; with none, any time is good.
    pub windows: Vec<Window>,
}

/// Where the device's key is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmSettings {
    /// Whether a key that is made is sealed.
    pub sealing: Sealing,
    /// The kernel's device, or a Unix socket of a program that plays a TPM.
    pub device: PathBuf,
    /// The counter's number; with none, one that follows from the state folder's path.
    pub counter: Option<u32>,
}

/// Whether a key that is made is sealed in the TPM. One that was made stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sealing {
    /// Where a TPM does it.
    Auto,
    /// It is, or it is not made.
    Require,
    /// It is not, and no TPM is asked for anything.
    Off,
}

impl Default for TpmSettings {
    fn default() -> Self {
        Self { sealing: Sealing::Auto, device: PathBuf::from(tpm::DEVICE), counter: None }
    }
}

/// One product on this device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductSettings {
    /// Its name in the policy.
    pub name: ProductId,
    /// How its two slots are kept.
    pub slots: SlotsKind,
    /// The folder that holds both slots.
    pub root: PathBuf,
    /// With `slots = "agent"`: the program that is replaced, the running one unless said otherwise.
    pub installed: Option<PathBuf>,
    /// The channel; the policy's default without one.
    pub channel: Option<ChannelId>,
    /// The owner's pin.
    pub pin: Pin,
    /// Run after each switch of the slot, with `LOCKGATE_SLOT_DIR` set. No shell is in between.
    pub restart: Option<Vec<String>>,
    /// How long that may take.
    pub restart_timeout: Duration,
}

/// How a product's two slots are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlotsKind {
    /// Two trees and one link that is swapped.
    Directory,
    /// The agent's own binary.
    Agent,
}

impl SlotsKind {
    /// Its word in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Agent => "agent",
        }
    }
}

/// Makes settings of a merged table, or says everything that is wrong with it.
pub(super) fn read(start: &Place, table: &Table) -> Result<Settings, Vec<Fault>> {
    let mut faults = Vec::new();
    let settings = read_root(start, table, &mut faults);
    match settings {
        Some(settings) if faults.is_empty() => Ok(settings),
        Some(_) | None => {
            // By file and line, as a person works through them.
            faults.sort_by(|a, b| order(&a.place).cmp(&order(&b.place)));
            Err(faults)
        }
    }
}

fn order(place: &Place) -> (&PathBuf, usize, usize) {
    (place.file.as_ref(), place.line, place.column)
}

fn read_root(start: &Place, table: &Table, faults: &mut Vec<Fault>) -> Option<Settings> {
    let mut root = Reader::new(table, start, "", faults);
    let server = root.parsed("server", Must("server = \"https://updates.example.org:8443\""));
    let mirrors = read_mirrors(&mut root);
    let state = root.path("state", Must("state = \"/var/lib/lockgate-agent\""));
    let anchor = root.path("anchor", Must("anchor = \"/etc/lockgate-agent/root.json\""));
    let ca = root.path("ca", Must("ca = \"/etc/lockgate-agent/ca.pem\""));
    let tpm = read_tpm(&mut root);
    let poll = root
        .number_because(
            "poll_s",
            POLL_LEAST_S..=POLL_MOST_S,
            "a number of seconds",
            ", it only counts until the server has named its own interval, which may be shorter",
            May("poll_s = 300"),
        )
        .unwrap_or(POLL_DEFAULT_S);
    let facts = root.table("facts");
    let preferences = root.table("preferences");
    let products = root.tables("product", limits::DEVICE_PRODUCTS);
    if products.is_empty() {
        let text = "no product is named\nhint: write `[[product]]` and below it `name = \"app\"`, `slots = \"directory\"`, `root = \"/opt/app\"`";
        root.foreign(root.place_of("product"), text, May(""));
    }
    let windows = root.tables("window", limits::WINDOWS);
    root.finish();

    let facts = facts.map(|(table, place)| read_facts(table, place, faults)).unwrap_or_default();
    let preferences = preferences
        .map(|(table, place)| read_preferences(table, place, faults))
        .unwrap_or_default();
    let products = read_products(&products, faults);
    let windows =
        windows.iter().filter_map(|(table, place)| read_window(table, place, faults)).collect();
    Some(Settings {
        server: server?,
        mirrors,
        state: state?,
        anchor: anchor?,
        ca: ca?,
        tpm,
        poll: Seconds(poll),
        facts,
        preferences,
        products,
        windows,
    })
}

fn read_mirrors(root: &mut Reader<'_, '_>) -> Vec<Origin> {
    let need = May("mirrors = [\"https://mirror.example.org\"]");
    let texts = root.texts("mirrors", need).unwrap_or_default();
    if texts.len() > MIRRORS {
        let place = root.place_of("mirrors");
        root.foreign(place, &format!("at most {MIRRORS} mirrors are tried"), need);
    }
    let mut mirrors = Vec::new();
    for (text, place) in texts {
        match text.parse::<Origin>() {
            Ok(origin) => mirrors.push(origin),
            Err(error) => root.foreign(&place, &error.to_string(), need),
        }
    }
    mirrors
}

fn read_tpm(root: &mut Reader<'_, '_>) -> TpmSettings {
    let default = TpmSettings::default();
    let words = [("auto", Sealing::Auto), ("require", Sealing::Require), ("off", Sealing::Off)];
    let sealing = root.word("tpm", &words, May("tpm = \"auto\""));
    let device = root.path("tpm_device", May("tpm_device = \"/dev/tpmrm0\""));
    let (first, last) = (u64::from(*tpm::COUNTERS.start()), u64::from(*tpm::COUNTERS.end()));
    let what = "the number of a counter";
    let why = ", the numbers that TPMs leave to their owners";
    let need = May("tpm_counter = 0x01820000");
    let counter = root.number_because("tpm_counter", first..=last, what, why, need);
    TpmSettings {
        sealing: sealing.unwrap_or(default.sealing),
        device: device.unwrap_or(default.device),
        counter: counter.and_then(|number| u32::try_from(number).ok()),
    }
}

fn read_products(
    tables: &[(&Table, &Place)],
    faults: &mut Vec<Fault>,
) -> BTreeMap<ProductId, ProductSettings> {
    let mut products: BTreeMap<ProductId, ProductSettings> = BTreeMap::new();
    let mut roots: BTreeMap<PathBuf, ProductId> = BTreeMap::new();
    for (table, place) in tables {
        let Some(product) = read_product(table, place, faults) else { continue };
        if let Some(other) = roots.insert(product.root.clone(), product.name.clone()) {
            faults.push(Fault {
                place: (*place).clone(),
                what: format!("`{}` and `{other}` have the same `root`", product.name),
                hint: "give each product slots of its own".to_owned(),
            });
        }
        products.insert(product.name.clone(), product);
    }
    products
}

fn read_product(table: &Table, place: &Place, faults: &mut Vec<Fault>) -> Option<ProductSettings> {
    let mut reader = Reader::new(table, place, "product.", faults);
    let name = reader.parsed("name", Must("name = \"app\""));
    let kinds = [SlotsKind::Directory, SlotsKind::Agent].map(|kind| (kind.name(), kind));
    let slots = reader.word("slots", &kinds, Must("slots = \"directory\""));
    let root = reader.path("root", Must("root = \"/opt/app\""));
    let installed =
        reader.path("installed", May("installed = \"/usr/lib/lockgate-agent/lockgate-agent\""));
    if let (Some(_), Some(SlotsKind::Directory)) = (&installed, slots) {
        let text = "`installed` goes with `slots = \"agent\"` only\nhint: take it out";
        reader.foreign(reader.place_of("installed"), text, May(""));
    }
    let channel = reader.parsed("channel", May("channel = \"stable\""));
    let pin = reader.parsed("pin", May("pin = \"latest\"")).unwrap_or_default();
    let restart = read_restart(&mut reader);
    let timeout = reader
        .number(
            "restart_timeout_s",
            1..=RESTART_MOST_S,
            "a number of seconds",
            May("restart_timeout_s = 30"),
        )
        .unwrap_or(RESTART_DEFAULT_S);
    reader.finish();
    Some(ProductSettings {
        name: name?,
        slots: slots?,
        root: root?,
        installed,
        channel,
        pin,
        restart,
        restart_timeout: Duration::from_secs(timeout),
    })
}

fn read_restart(reader: &mut Reader<'_, '_>) -> Option<Vec<String>> {
    const NEED: Need = May("restart = [\"systemctl\", \"restart\", \"app\"]");
    let words = reader.texts("restart", NEED)?;
    let fault = if words.is_empty() {
        Some("an empty command".to_owned())
    } else if words.len() > RESTART_WORDS {
        Some(format!("a command of more than {RESTART_WORDS} words"))
    } else if words.iter().any(|(word, _)| word.contains('\0')) {
        Some("a command with a zero byte in it".to_owned())
    } else if words.first().is_some_and(|(program, _)| program.trim().is_empty()) {
        Some("a command without a program".to_owned())
    } else {
        None
    };
    if let Some(fault) = fault {
        reader.foreign(reader.place_of("restart"), &fault, NEED);
        return None;
    }
    Some(words.into_iter().map(|(word, _)| word).collect())
}

fn read_preferences(table: &Table, place: &Place, faults: &mut Vec<Fault>) -> Preferences {
    let default = Preferences::default();
    let mut reader = Reader::new(table, place, "preferences.", faults);
    let percent = reader
        .number("min_battery_percent", 0..=100, "a percentage", May("min_battery_percent = 30"))
        .and_then(|percent| u8::try_from(percent).ok());
    let words = [("refuse", MeteredUse::Refuse), ("allow", MeteredUse::Allow)];
    let metered = reader.word("metered", &words, May("metered = \"refuse\""));
    reader.finish();
    Preferences {
        min_battery_percent: percent.unwrap_or(default.min_battery_percent),
        metered: metered.unwrap_or(default.metered),
    }
}

fn read_facts(table: &Table, place: &Place, faults: &mut Vec<Fault>) -> Overrides {
    const MIB: &str = "a number of MiB";
    let mut reader = Reader::new(table, place, "facts.", faults);
    let mut word = |key, line| {
        let text = reader.text(key, May(line))?;
        if text.len() <= MAX_FACT && !text.chars().any(char::is_control) {
            return Some(text);
        }
        let what = format!("`facts.{key}` must be printable and at most {MAX_FACT} bytes long");
        reader.foreign(reader.place_of(key), &what, May(line));
        None
    };
    let mut words = Overrides {
        vendor: word("vendor", "vendor = \"Acme\""),
        model: word("model", "model = \"Slate 3\""),
        arch: word("arch", "arch = \"x86_64\""),
        os_id: word("os_id", "os_id = \"debian\""),
        os_version: word("os_version", "os_version = \"12\""),
        kernel: word("kernel", "kernel = \"6.1\""),
        firmware_version: word("firmware_version", "firmware_version = \"1.2\""),
        configuration: word("configuration", "configuration = \"kiosk\""),
        time_zone: word("time_zone", "time_zone = \"Europe/Berlin\""),
        ..Overrides::default()
    };
    let most = u64::from(u32::MAX);
    let narrow = |number: Option<u64>| number.and_then(|number| u32::try_from(number).ok());
    words.ram_mib = narrow(reader.number("ram_mib", 1..=most, MIB, May("ram_mib = 4096")));
    words.disk_mib = narrow(reader.number("disk_mib", 1..=most, MIB, May("disk_mib = 32768")));
    let cpus = reader.number("cpus", 1..=u64::from(u16::MAX), "a number", May("cpus = 4"));
    words.cpus = cpus.and_then(|cpus| u16::try_from(cpus).ok());
    words.secure_boot = reader.flag("secure_boot", May("secure_boot = true"));
    words.tpm = reader.flag("tpm", May("tpm = true"));
    reader.finish();
    words
}

fn read_window(table: &Table, place: &Place, faults: &mut Vec<Fault>) -> Option<Window> {
    const DAYS: [(&str, Weekday); 7] = [
        ("mon", Weekday::Mon),
        ("tue", Weekday::Tue),
        ("wed", Weekday::Wed),
        ("thu", Weekday::Thu),
        ("fri", Weekday::Fri),
        ("sat", Weekday::Sat),
        ("sun", Weekday::Sun),
    ];
    const NEED: Need = Must("days = [\"mon\", \"tue\"]");
    let mut reader = Reader::new(table, place, "window.", faults);
    let zone = reader.text("zone", Must("zone = \"Europe/Berlin\""));
    let names = reader.texts("days", NEED);
    let hour = reader.number("hour", 0..=23, "an hour", Must("hour = 22"));
    let minute = reader.number("minute", 0..=59, "a minute", May("minute = 0"));
    let length = reader.number(
        "length_s",
        1..=lockgate_shared::window::MAX_WINDOW.0,
        "a number of seconds",
        Must("length_s = 7200"),
    );
    let mut days = BTreeSet::new();
    let mut good = true;
    for (name, place) in names.iter().flatten() {
        if let Some((_, day)) = DAYS.iter().find(|(word, _)| word == name) {
            days.insert(*day);
        } else {
            good = false;
            let text = format!(
                "`{name}` is not a day\nhint: use `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`"
            );
            reader.foreign(place, &text, NEED);
        }
    }
    reader.finish();
    let window = Window {
        zone: zone?,
        days,
        hour: u8::try_from(hour?).ok()?,
        minute: u8::try_from(minute.unwrap_or(0)).ok()?,
        length_s: Seconds(length?),
    };
    names.filter(|_| good)?;
    let Err(error) = window.check() else { return Some(window) };
    let mut reader = Reader::new(table, place, "window.", faults);
    reader.foreign(reader.place_of("zone"), &error.to_string(), NEED);
    None
}
