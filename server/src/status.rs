//! What the gatekeeper reports and people read: verdicts, and the state of every rollout. Data for
//! the API, the operator's tool and tests; nothing is decided here.
//!
//! These types cross the gatekeeper's socket in bincode and the API in JSON.

use lockgate_shared::{
    act::RiskClass,
    bucket::Limit,
    facts::Facts,
    group::{GroupKind, Habit},
    id::{
        ChannelId, CohortId, DeviceId, Digest, GroupId, PersonId, ProductId, RepositoryId,
        RolloutId,
    },
    rollout::Stop,
    time::{Moment, Seconds},
    version::Version,
};
use serde::{Deserialize, Serialize};

/// A numbered decision of the gatekeeper, kept for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Rising without gaps, from 1.
    pub number: u64,
    /// When.
    pub at: Moment,
    /// About what.
    pub about: About,
    /// What was decided.
    pub decision: Decision,
    /// Every reason, in sentences that can be read out.
    pub reasons: Vec<String>,
}

/// What a verdict is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    /// An entry of the stream, by offset: an act, a publication, a stop, an enrolment, a letter.
    Entry(u64),
    /// A stage of a rollout.
    Stage(RolloutId, CohortId),
    /// A whole rollout.
    Rollout(RolloutId),
    /// The repository: re-signing, expiry.
    Repository,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// An entry takes effect.
    Accepted,
    /// An entry does not count.
    Refused,
    /// A stage opens, or opens further.
    Open,
    /// Not yet.
    Wait,
    /// Groups are kept back.
    Hold,
    /// The breaker stopped the rollout.
    Halt,
    /// The rollout is complete.
    Complete,
    /// A person ended the rollout.
    End,
}

/// The state of everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The repository.
    pub repository: RepositoryId,
    /// When it was made.
    pub at: Moment,
    /// Every entry below this offset is counted.
    pub letters_offset: u64,
    /// The gatekeeper's tick.
    pub tick_s: Seconds,
    /// The rollouts, oldest first.
    pub rollouts: Vec<RolloutStatus>,
    /// Numbered stops that no lift has ended.
    pub stops: Vec<Stop>,
    /// When signed metadata ends.
    pub expiries: Vec<Expiry>,
    /// Devices per product, channel and cohort.
    pub cohorts: Vec<CohortStatus>,
    /// What an operator should look at: contradictions in letters, lost outcomes, clones.
    pub alarms: Vec<Alarm>,
    /// What is wrong with the stream of letters, where something is: a gatekeeper that cannot hear lets
    /// nobody in.
    pub hearing: Option<String>,
    /// What devices there are: only in a report in which it is new. The letter box keeps it apart.
    pub fleet: Option<FleetStatus>,
}

/// What devices there are, kind by kind: what a plan is tried on. It names no device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetStatus {
    /// When it was counted.
    pub at: Moment,
    /// Kinds, the largest first, at most [`KINDS`].
    pub kinds: Vec<KindStatus>,
    /// Devices of further kinds.
    pub left_out: u32,
}

/// Kinds in one report: as many as a fleet of a million devices usually has, in half a megabyte.
pub const KINDS: usize = 2_000;

/// Devices alike in every group, and in the same cohort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindStatus {
    /// The product.
    pub product: ProductId,
    /// The channel.
    pub channel: ChannelId,
    /// The cohort.
    pub cohort: CohortId,
    /// How many there are.
    pub devices: u32,
    /// The words of their groups.
    pub words: KindWords,
    /// When they are usually on.
    pub habit: Habit,
    /// For each hour of the day, in UTC, the percentage of days on which one of them was heard, over
    /// the last five days.
    pub heard: [u8; 24],
    /// Installs by devices of its hardware in rollouts that are complete.
    pub installs: u32,
    /// Of these, those that failed: not by the releases' fault, because the rollouts went on.
    pub failed: u32,
}

impl KindWords {
    /// The facts of a device with these words.
    pub fn facts(&self) -> Facts {
        Facts {
            vendor: self.vendor.clone(),
            model: self.model.clone(),
            arch: self.arch.clone(),
            os_id: self.os_id.clone(),
            os_version: self.os_version.clone(),
            firmware_version: self.firmware_version.clone(),
            configuration: self.configuration.clone(),
            time_zone: self.time_zone.clone(),
            ..Facts::default()
        }
    }
}

/// The words that make a device's groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct KindWords {
    /// Who made the hardware.
    pub vendor: String,
    /// The hardware model.
    pub model: String,
    /// The processor architecture.
    pub arch: String,
    /// The operating system's id.
    pub os_id: String,
    /// Its version.
    pub os_version: String,
    /// The firmware's version.
    pub firmware_version: String,
    /// The owner's label for its settings.
    pub configuration: String,
    /// The IANA time zone.
    pub time_zone: String,
}

/// One rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutStatus {
    /// The rollout.
    pub rollout: RolloutId,
    /// Its product.
    pub product: ProductId,
    /// Its channel.
    pub channel: ChannelId,
    /// Its version.
    pub version: Version,
    /// SHA-256 of its manifest.
    pub manifest: Digest,
    /// Who answers for it.
    pub owner: PersonId,
    /// Its risk class.
    pub risk: RiskClass,
    /// The start's moment.
    pub started: Moment,
    /// How it stands.
    pub state: RolloutState,
    /// Its stages, in the ladder's order.
    pub stages: Vec<StageStatus>,
    /// Groups with failures, worst first, at most 20.
    pub groups: Vec<GroupStatus>,
    /// What each group of a stage in trial has shown; nothing for stages that count.
    pub coverage: Vec<CoverageStatus>,
}

/// A stage's coverage matrix: its attribute values, pairs and strata, and what each has shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageStatus {
    /// The stage's cohort.
    pub cohort: CohortId,
    /// The step inside the stage.
    pub phase: String,
    /// Devices that take part.
    pub devices: u32,
    /// The smallest group that is listed.
    pub group_least: u32,
    /// Groups of so many devices and more, the largest first, at most [`COVERED`].
    pub groups: Vec<GroupCoverage>,
    /// Further groups: those without a device of their own come first into the list.
    pub left_out: u32,
    /// Of all groups of that size, those without a device that was named or has begun.
    pub without: u32,
}

/// Groups of a stage in one report: a matrix of 40 kB.
pub const COVERED: usize = 300;

/// One group's part of a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCoverage {
    /// The group.
    pub group: GroupId,
    /// What its devices have in common.
    pub kind: GroupKind,
    /// The values, for people.
    pub label: String,
    /// Its devices in this stage.
    pub devices: u32,
    /// Let in by name.
    pub named: u32,
    /// Begun.
    pub begun: u32,
    /// Reported themselves well.
    pub well: u32,
    /// Well for as long as the plan asks.
    pub soaked: u32,
    /// Failed.
    pub failed: u32,
    /// How far it is open.
    pub limit: Limit,
    /// Who decides how far that is.
    pub guard: CoverageGuard,
}

impl GroupCoverage {
    /// Whether no device of it was named or has begun.
    pub const fn is_bare(&self) -> bool {
        self.named == 0 && self.begun == 0
    }
}

/// Who decides how far a group is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CoverageGuard {
    /// What its own devices showed.
    Own,
    /// The stage's schedule.
    Stage,
    /// A hold: nobody.
    Held,
}

/// How a rollout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutState {
    /// Climbing.
    Running,
    /// A person paused it, or all of which it is part.
    Paused,
    /// The breaker stopped it.
    Halted,
    /// Every stage is open and baked.
    Complete,
    /// Ended by a person.
    Ended,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageStatus {
    /// Its cohort.
    pub cohort: CohortId,
    /// Devices in the cohort now.
    pub devices: u32,
    /// Devices that the limit lets in.
    pub authorised: u32,
    /// Devices that began to install.
    pub treated: u32,
    /// Devices that keep the new release.
    pub confirmed: u32,
    /// Devices that went back.
    pub rolled_back: u32,
    /// Devices that came to nothing before activation.
    pub failed: u32,
    /// Devices of which nobody knows.
    pub inconclusive: u32,
    /// Treated devices that said nothing for too long.
    pub silent: u32,
    /// The limit; none while it is closed.
    pub limit: Option<Limit>,
    /// When it opened.
    pub opened: Option<Moment>,
    /// When its limit reached the ceiling.
    pub full: Option<Moment>,
    /// The gate's last decision about it.
    pub decision: Decision,
    /// With every reason.
    pub reasons: Vec<String>,
}

/// Evidence in one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// Its words, where a device's facts gave them.
    pub label: String,
    /// Treated devices.
    pub treated: u32,
    /// Of these, confirmed.
    pub confirmed: u32,
    /// Of these, rolled back or silent.
    pub harmed: u32,
}

/// Devices of a cohort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CohortStatus {
    /// The product.
    pub product: ProductId,
    /// The channel.
    pub channel: ChannelId,
    /// The cohort.
    pub cohort: CohortId,
    /// Its devices.
    pub devices: u32,
}

/// When a role's metadata ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    /// The role.
    pub role: String,
    /// Its version.
    pub version: u64,
    /// When it ends.
    pub expires: Moment,
}

/// Something an operator should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// When it was noticed.
    pub at: Moment,
    /// Which device, where it is about one.
    pub device: Option<DeviceId>,
    /// What, in a sentence.
    pub text: String,
}
