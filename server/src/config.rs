//! The server's configuration: one TOML file whose sections serve one role each. It is read once, and
//! what cannot work is refused with the setting's name before anything starts.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use lockgate_shared::time::Seconds;
use serde::Deserialize;
use thiserror::Error;

use crate::signer::KeyRef;

/// The longest time between two polls that the server may ask for: a day, or a stop comes late.
const MAX_POLL: u64 = 86_400;
/// The longest tick of the journal: beyond it a check-in waits noticeably for nothing.
const MAX_JOURNAL_TICK_MS: u64 = 1_000;
/// The longest time between two sweeps: what lies between them is replayed at a start.
const MAX_SWEEP: u64 = 3_600;
/// The longest tick of the gate and of anything that the gatekeeper repeats: a week.
const MAX_INTERVAL: u64 = 7 * 86_400;
/// The longest life of signed metadata: a year.
const MAX_EXPIRY: u64 = 366 * 86_400;

/// Everything the file may hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The letter box.
    pub api: Option<Api>,
    /// Its certificate.
    pub tls: Option<Tls>,
    /// What devices are told about polling.
    #[serde(default)]
    pub polls: Polls,
    /// The gatekeeper.
    pub gatekeeper: Option<Gatekeeper>,
}

/// The letter box.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its folder: `store.db`, `artifacts/`, `audit.log`.
    pub state: PathBuf,
    /// The repository's folder (`metadata/`, `targets/`), which it only reads.
    pub repository: PathBuf,
    /// The Unix socket where the gatekeeper comes to pull.
    pub socket: PathBuf,
    /// The trust anchor.
    pub anchor: PathBuf,
    /// How often the device table is swept to disk.
    #[serde(default = "Api::sweep")]
    pub sweep_s: Seconds,
    /// How long letters are gathered for one sync.
    #[serde(default = "Api::journal_tick")]
    pub journal_tick_ms: u64,
    /// Letters of one device in a minute; beyond it is told to wait. Sixty times what a device needs
    /// that polls every half minute: it sends one letter a poll, and a few while it installs.
    #[serde(default = "Api::device_letters")]
    pub device_letters_per_minute: u32,
    /// Letters and enrolments from one address in a minute, verified or not: a site of a hundred
    /// thousand devices behind one address that poll every five minutes sends 20,000.
    #[serde(default = "Api::address_requests")]
    pub address_requests_per_minute: u32,
    /// How long letters stay in the journal after they are swept and the gatekeeper has them: thirty
    /// days, for people who look into a rollout that went wrong.
    #[serde(default = "Api::letters_kept")]
    pub letters_kept_s: Seconds,
}

/// The letter box's certificate.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate and its chain, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

/// What devices are told about polling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Polls {
    /// Between two polls.
    pub interval_s: Seconds,
    /// At most this much is added.
    pub jitter_s: Seconds,
    /// The longest pause between retries.
    pub backoff_max_s: Seconds,
}

/// The gatekeeper.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gatekeeper {
    /// Its folder: `gatekeeper.db`, `audit.log`.
    pub state: PathBuf,
    /// The repository's folder, which it alone writes.
    pub repository: PathBuf,
    /// The letter box's Unix socket.
    pub socket: PathBuf,
    /// Its keys.
    pub keys: OnlineKeySource,
    /// The trust anchor.
    pub anchor: PathBuf,
    /// How often the gates are asked.
    #[serde(default = "Gatekeeper::tick")]
    pub tick_s: Seconds,
    /// How often the timestamp is signed again.
    #[serde(default = "Gatekeeper::timestamp_interval")]
    pub timestamp_interval_s: Seconds,
    /// How long a timestamp is good.
    #[serde(default = "Gatekeeper::timestamp_expiry")]
    pub timestamp_expiry_s: Seconds,
    /// How long a snapshot is good.
    #[serde(default = "Gatekeeper::week")]
    pub snapshot_expiry_s: Seconds,
    /// How long the role `rollouts` is good.
    #[serde(default = "Gatekeeper::week")]
    pub rollouts_expiry_s: Seconds,
}

/// Where the gatekeeper's keys are. Nobody is there to type when it starts: files are plain, and a
/// token's PIN comes from the file that its address names as `pin-source`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OnlineKeySource {
    /// Every `*.key` of a folder: the present ones, and those that will follow.
    Folder(PathBuf),
    /// Each by its name: a file, `pkcs11:…`, or `command:…`.
    List(Vec<KeyRef>),
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read `{path}`\nhint: name the file with `--config`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML of this shape.
    #[error("`{path}` cannot be used: {message}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A number out of bounds.
    #[error("`{setting}` is {found}, it must be {min} to {max}")]
    Bounds {
        /// The setting.
        setting: &'static str,
        /// What stands there.
        found: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A section that this role needs.
    #[error(
        "section `[{0}]` is missing\nhint: this command needs it; see `lockgate-server --help`"
    )]
    Missing(&'static str),
}

impl Config {
    /// Reads and checks a file. Relative paths in it are relative to its folder.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        Self::parse(&text, folder).map_err(|error| match error {
            ConfigError::Shape { message, .. } => {
                ConfigError::Shape { path: path.to_owned(), message }
            }
            ConfigError::Read { .. } | ConfigError::Bounds { .. } | ConfigError::Missing(_) => {
                error
            }
        })
    }

    /// Reads and checks the file's text; relative paths are relative to `folder`.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| ConfigError::Shape {
            path: folder.to_owned(),
            message: error.to_string(),
        })?;
        for path in config.paths() {
            // `join` leaves an absolute path as it is.
            *path = folder.join(&*path);
        }
        config.check()?;
        Ok(config)
    }

    /// The letter box's section.
    pub fn api(&self) -> Result<&Api, ConfigError> {
        self.api.as_ref().ok_or(ConfigError::Missing("api"))
    }

    /// The certificate's section.
    pub fn tls(&self) -> Result<&Tls, ConfigError> {
        self.tls.as_ref().ok_or(ConfigError::Missing("tls"))
    }

    /// The gatekeeper's section.
    pub fn gatekeeper(&self) -> Result<&Gatekeeper, ConfigError> {
        self.gatekeeper.as_ref().ok_or(ConfigError::Missing("gatekeeper"))
    }

    fn paths(&mut self) -> Vec<&mut PathBuf> {
        let mut paths = Vec::new();
        if let Some(api) = &mut self.api {
            paths.extend([&mut api.state, &mut api.repository, &mut api.socket, &mut api.anchor]);
        }
        if let Some(tls) = &mut self.tls {
            paths.extend([&mut tls.certificate, &mut tls.key]);
        }
        if let Some(gate) = &mut self.gatekeeper {
            paths.extend([&mut gate.state, &mut gate.repository, &mut gate.socket]);
            paths.push(&mut gate.anchor);
            match &mut gate.keys {
                OnlineKeySource::Folder(folder) => paths.push(folder),
                OnlineKeySource::List(list) => {
                    paths.extend(list.iter_mut().filter_map(|key| match key {
                        KeyRef::File(path) => Some(path),
                        KeyRef::Token(_) | KeyRef::Command(_) => None,
                    }));
                }
            }
        }
        paths
    }

    fn check(&self) -> Result<(), ConfigError> {
        let polls = &self.polls;
        within("polls.interval_s", polls.interval_s.0, 1, MAX_POLL)?;
        within("polls.jitter_s", polls.jitter_s.0, 0, MAX_POLL)?;
        within("polls.backoff_max_s", polls.backoff_max_s.0, 1, MAX_POLL)?;
        if let Some(api) = &self.api {
            within("api.sweep_s", api.sweep_s.0, 1, MAX_SWEEP)?;
            within("api.journal_tick_ms", api.journal_tick_ms, 0, MAX_JOURNAL_TICK_MS)?;
            let most = u64::from(u32::MAX);
            let letters = u64::from(api.device_letters_per_minute);
            within("api.device_letters_per_minute", letters, 1, most)?;
            let requests = u64::from(api.address_requests_per_minute);
            within("api.address_requests_per_minute", requests, 1, most)?;
            within("api.letters_kept_s", api.letters_kept_s.0, 0, MAX_EXPIRY)?;
        }
        if let Some(gate) = &self.gatekeeper {
            within("gatekeeper.tick_s", gate.tick_s.0, 1, MAX_INTERVAL)?;
            for (setting, value) in [
                ("gatekeeper.timestamp_expiry_s", gate.timestamp_expiry_s),
                ("gatekeeper.snapshot_expiry_s", gate.snapshot_expiry_s),
                ("gatekeeper.rollouts_expiry_s", gate.rollouts_expiry_s),
            ] {
                within(setting, value.0, 1, MAX_EXPIRY)?;
            }
            // A timestamp must be signed again before it ends.
            let most = MAX_INTERVAL.min(gate.timestamp_expiry_s.0.saturating_sub(1).max(1));
            let interval = gate.timestamp_interval_s.0;
            within("gatekeeper.timestamp_interval_s", interval, 1, most)?;
        }
        Ok(())
    }
}

impl Api {
    const fn sweep() -> Seconds {
        Seconds(180)
    }

    const fn journal_tick() -> u64 {
        3
    }

    const fn device_letters() -> u32 {
        120
    }

    const fn address_requests() -> u32 {
        60_000
    }

    const fn letters_kept() -> Seconds {
        Seconds(30 * 86_400)
    }
}

impl Gatekeeper {
    const fn tick() -> Seconds {
        Seconds(300)
    }

    const fn timestamp_interval() -> Seconds {
        Seconds(600)
    }

    const fn timestamp_expiry() -> Seconds {
        Seconds(86_400)
    }

    const fn week() -> Seconds {
        Seconds(7 * 86_400)
    }
}

impl Default for Polls {
    fn default() -> Self {
        Self { interval_s: Seconds(300), jitter_s: Seconds(60), backoff_max_s: Seconds(3_600) }
    }
}

fn within(setting: &'static str, found: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&found) {
        Ok(())
    } else {
        Err(ConfigError::Bounds { setting, found, min, max })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const API: &str = "[api]\nlisten = '127.0.0.1:8443'\nstate = 'state'\nrepository = '/srv/repository'\nsocket = 'gate.sock'\nanchor = 'root.json'\n";

    #[test]
    fn relative_paths_belong_to_the_files_folder_and_absolute_ones_stay() {
        let config = Config::parse(API, Path::new("/etc/lockgate")).expect("a configuration");
        let api = config.api().expect("the section");
        assert_eq!(api.state, Path::new("/etc/lockgate/state"));
        assert_eq!(api.repository, Path::new("/srv/repository"));
        assert_eq!(api.journal_tick_ms, 3);
        assert!(matches!(config.gatekeeper(), Err(ConfigError::Missing("gatekeeper"))));
    }

    #[test]
    fn the_gatekeepers_keys_are_a_folder_or_each_by_its_name() {
        let keys = |keys: &str| {
            let text = format!(
                "[gatekeeper]\nstate='s'\nrepository='r'\nsocket='k'\nanchor='a'\nkeys={keys}\n"
            );
            let config = Config::parse(&text, Path::new("/etc")).expect("a configuration");
            config.gatekeeper.expect("the section").keys
        };
        assert_eq!(keys("'online'"), OnlineKeySource::Folder("/etc/online".into()));
        let OnlineKeySource::List(list) =
            keys("['a.key', 'pkcs11:object=b?module-path=/m.so', 'command:/bin/sign c']")
        else {
            panic!("a list");
        };
        let shown: Vec<String> = list.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["/etc/a.key", "pkcs11:object=b?module-path=/m.so", "command:/bin/sign c"]
        );
    }

    #[test]
    fn a_misspelt_setting_is_refused() {
        let text = format!("{API}sweep = 3\n");
        assert!(matches!(Config::parse(&text, Path::new("")), Err(ConfigError::Shape { .. })));
    }

    #[test]
    fn a_timestamp_that_would_end_before_it_is_signed_again_is_refused() {
        let text = "[gatekeeper]\nstate='s'\nrepository='r'\nsocket='k'\nkeys='k'\nanchor='a'\ntimestamp_interval_s=600\ntimestamp_expiry_s=600\n";
        let refused = Config::parse(text, Path::new(""));
        assert!(matches!(
            refused,
            Err(ConfigError::Bounds { setting: "gatekeeper.timestamp_interval_s", .. })
        ));
    }

    /// A letter box with everything below one folder, which does not wait for more letters.
    pub(crate) fn api(folder: &Path) -> Api {
        Api {
            listen: "127.0.0.1:0".parse().expect("an address"),
            state: folder.join("api"),
            repository: folder.join("repository"),
            socket: folder.join("socket"),
            anchor: folder.join("root.json"),
            sweep_s: Seconds(60),
            journal_tick_ms: 1,
            device_letters_per_minute: Api::device_letters(),
            address_requests_per_minute: Api::address_requests(),
            letters_kept_s: Api::letters_kept(),
        }
    }
}
