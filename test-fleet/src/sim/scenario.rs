//! Scenarios as data: who is hit, how, after which delay, and what else goes on. One TOML file each in
//! `test-fleet/scenarios`; unknown fields are refused. It describes and simulates nothing.
//!
//! ```toml
//! about = "a pair of attributes goes silent a day after the install"
//! [hit]                    # left out: a good release
//! who = { pair = 0.003 }   # "all", { share = 0.05 }, { attribute = 0.02 }, { pair = 0.003 }, { hidden = 0.03 }
//! rate = 1.0               # of those, the share that is really hit
//! how = "silent"           # "explicit", "silent", "half", "crash-loop"
//! after_h = 24.0           # hours after activation
//! [beside]                 # all optional
//! start = "tuesday"        # or "friday"
//! noise = 1.0              # times the usual 0.3 % of failures that are nobody's fault
//! noisy_models = 0.0       # share of hardware models that fail in 3 % of installs
//! site_outages = 0.02      # chance of an outage for each site and day
//! outage = { share = 0.3, from_h = 40.0, hours = 10.0 }  # these sites, or with share 1 the server
//! power_cuts = 0.0         # chance that an outage makes an install in progress fail
//! holiday = { share = 0.33, from_h = 20.0, hours = 96.0 }
//! own_habits = 0.0         # share of models that are away on 30 % of days
//! flaky = 0.0              # share of hours in which any device is unreachable
//! windows = 0.0            # share of models that install from 10 to 13 o'clock only, and leave early
//! batteries = 0.0          # share of devices whose battery is low in half of the hours
//! slow_links = 0.0         # share of devices that take hours to download
//! churn = 0.01             # share of devices that leave for good in 30 days
//! ```

use std::{fs, io, path::Path};

use serde::Deserialize;
use thiserror::Error;

/// One scenario.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name: the file's.
    #[serde(default)]
    pub name: String,
    /// In words.
    pub about: String,
    /// Who is hit; nobody by a good release.
    pub hit: Option<Hit>,
    /// What else goes on.
    #[serde(default)]
    pub beside: Beside,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hit {
    /// The population.
    pub who: Who,
    /// The share of it that is hit.
    #[serde(default = "one")]
    pub rate: f64,
    /// How it shows.
    pub how: How,
    /// Hours after activation.
    #[serde(default)]
    pub after_h: f64,
}

/// A population.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// Everybody.
    All,
    /// A share of all, by chance.
    Share(f64),
    /// The value of one attribute that about this share has.
    Attribute(f64),
    /// The pair of values that about this share has.
    Pair(f64),
    /// A share of all, alike in what no attribute shows.
    Hidden(f64),
}

/// How a fault shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// The device fails its probes or goes back, and says so.
    Explicit,
    /// It is never heard again.
    Silent,
    /// Every other poll does not come through.
    Half,
    /// It restarts for some hours, unreachable, then goes back and says so.
    CrashLoop,
}

/// What else goes on.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Beside {
    /// The weekday and hour of the start.
    pub start: Start,
    /// Times the usual noise.
    pub noise: f64,
    /// Share of models that fail in 3 % of installs.
    pub noisy_models: f64,
    /// Chance of an outage for each site and day.
    pub site_outages: f64,
    /// A great outage.
    pub outage: Option<Span>,
    /// Chance that an outage makes an install in progress fail.
    pub power_cuts: f64,
    /// Some sites' office and home devices stay off.
    pub holiday: Option<Span>,
    /// Share of models that are away on 30 % of days.
    pub own_habits: f64,
    /// Share of hours in which any device is unreachable.
    pub flaky: f64,
    /// Share of models with windows.
    pub windows: f64,
    /// Share of devices with weak batteries.
    pub batteries: f64,
    /// Share of devices with slow links.
    pub slow_links: f64,
    /// Share of devices that leave in 30 days.
    pub churn: f64,
}

/// A share of sites for some hours of the rollout.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// Of sites.
    pub share: f64,
    /// Hours after the start.
    pub from_h: f64,
    /// How long.
    pub hours: f64,
}

/// When a rollout starts, by UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// Monday, 9 o'clock.
    Monday,
    /// Tuesday, 9 o'clock.
    #[default]
    Tuesday,
    /// Friday, 15 o'clock.
    Friday,
}

impl Start {
    /// Hours since Monday, 0 o'clock.
    pub const fn hour(self) -> u32 {
        match self {
            Self::Monday => 9,
            Self::Tuesday => 24 + 9,
            Self::Friday => 4 * 24 + 15,
        }
    }
}

impl Default for Beside {
    fn default() -> Self {
        Self {
            start: Start::Tuesday,
            noise: 1.0,
            noisy_models: 0.0,
            site_outages: 0.02,
            outage: None,
            power_cuts: 0.0,
            holiday: None,
            own_habits: 0.0,
            flaky: 0.0,
            windows: 0.0,
            batteries: 0.0,
            slow_links: 0.0,
            churn: 0.01,
        }
    }
}

const fn one() -> f64 {
    1.0
}

/// Why scenarios cannot be read.
#[derive(Debug, Error)]
pub enum ScenarioError {
    /// The folder or a file.
    #[error("cannot read `{path}`")]
    Read {
        /// Which.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// What stands in it.
    #[error("`{path}` is no scenario")]
    Parse {
        /// Which.
        path: String,
        /// The cause.
        #[source]
        source: Box<toml::de::Error>,
    },
}

/// All scenarios of a folder, by name.
pub fn read(folder: &Path) -> Result<Vec<Scenario>, ScenarioError> {
    let fail =
        |path: &Path, source| ScenarioError::Read { path: path.display().to_string(), source };
    let mut scenarios = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| fail(folder, source))? {
        let path = entry.map_err(|source| fail(folder, source))?.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(|source| fail(&path, source))?;
        let mut scenario: Scenario = toml::from_str(&text).map_err(|source| {
            ScenarioError::Parse { path: path.display().to_string(), source: Box::new(source) }
        })?;
        scenario.name =
            path.file_stem().map(|stem| stem.to_string_lossy().into()).unwrap_or_default();
        scenarios.push(scenario);
    }
    scenarios.sort_by(|a, b| (a.hit.is_some(), &a.name).cmp(&(b.hit.is_some(), &b.name)));
    Ok(scenarios)
}
