//! The reasons against an install: the question each belongs to, its number for letters and programs,
//! when it may go away by itself, and its words. Finds none of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    bucket::{Bucket, Limit},
    id::{CohortId, ProductId},
    manifest::ArtifactKind,
    pin::{Asker, Pin},
    rollout::StopKind,
    time::{Moment, Seconds},
    version::Version,
};

/// The order of questions, and the question to which a reason belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// Is it this device's product, and newer than what it runs?
    Product,
    /// Does it fit the hardware and system?
    Platform,
    /// Is it what channel and pin ask for?
    Channel,
    /// May it be installed from the running version?
    Barrier,
    /// Is anything stopped?
    Hold,
    /// Is the stage of its cohort open?
    Stage,
    /// Does its bucket lie below the limit?
    Bucket,
    /// Is a maintenance window open?
    Window,
    /// Is there a freeze?
    Freeze,
    /// Is there power?
    Power,
    /// Is there a network it may use?
    Network,
    /// Is there room?
    Disk,
}

/// One reason why a device does not install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Another product.
    OtherProduct(ProductId),
    /// Not newer than what runs, and no recall allows the way back.
    NotNewer {
        /// What runs.
        running: Version,
        /// What is offered.
        offered: Version,
    },
    /// It failed on this device before.
    FailedBefore(Version),
    /// Its makers recalled it.
    Recalled {
        /// It.
        version: Version,
        /// Why.
        reason: String,
    },
    /// What runs cannot be undone on this device, also by a recall.
    NoWayBack(Version),
    /// No artifact for this platform.
    NoArtifact,
    /// The hardware model is not among those named.
    Model,
    /// The operating system is not among those named.
    Os,
    /// Too little memory.
    Memory {
        /// In MiB.
        has: u32,
        /// In MiB.
        needs: u32,
    },
    /// The artifact is of a kind that the product's slots on this device cannot hold.
    Kind {
        /// What it is.
        is: ArtifactKind,
        /// What they hold.
        takes: ArtifactKind,
    },
    /// On another channel.
    OtherChannel,
    /// The pin asks for another version.
    Pinned {
        /// The pin.
        pin: Pin,
        /// What it asks for, if that exists.
        wants: Option<Version>,
        /// Who set it.
        by: Asker,
    },
    /// A version in between may not be skipped.
    Barrier(Version),
    /// A numbered stop binds.
    Stopped {
        /// Its number.
        number: u64,
        /// Its kind.
        kind: StopKind,
        /// Its reason.
        reason: String,
    },
    /// A stop passed on by the server binds.
    PassedStop(String),
    /// The rollout was ended for good.
    Ended,
    /// The newest timestamp is too old to act on.
    StaleTimestamp {
        /// The most that the ladder allows.
        allowed: Seconds,
    },
    /// The cohort has no stage in the ladder.
    NoStage(CohortId),
    /// The cohort's stage is not open.
    StageClosed(CohortId),
    /// The stage before has not been open for its bake, by what the device itself saw.
    Baking {
        /// The device's cohort.
        cohort: CohortId,
        /// The earliest moment.
        until: Moment,
    },
    /// The floor, counted from the start, has not come by the device's clock.
    Floor(Moment),
    /// The rollout file does not know this device's groups yet.
    NotCountedYet,
    /// The way back that a recall opened has closed.
    RecallOver(Moment),
    /// The bucket lies above the limit.
    AboveLimit {
        /// The device's bucket.
        bucket: Bucket,
        /// Its limit.
        limit: Limit,
    },
    /// No window is open.
    WindowClosed {
        /// The next opening.
        next: Option<Moment>,
    },
    /// The windows cannot be evaluated.
    WindowUnknown(String),
    /// A freeze.
    Frozen {
        /// Until.
        until: Moment,
        /// Why.
        reason: String,
    },
    /// On battery with too little charge.
    Battery(u8),
    /// Paid by volume.
    Metered,
    /// Too little room.
    Disk {
        /// In MiB.
        has: u32,
        /// In MiB.
        needs: u64,
    },
}

impl Reason {
    /// The code of [`Reason::AboveLimit`]: the bucket keeps the device back.
    pub const ABOVE_LIMIT: u16 = 701;

    /// The code of [`Reason::NotNewer`]: the device runs what is offered, or something newer.
    pub const NOT_NEWER: u16 = 102;

    /// The question it answers with no.
    pub const fn question(&self) -> Question {
        match self {
            Self::OtherProduct(_)
            | Self::NotNewer { .. }
            | Self::FailedBefore(_)
            | Self::Recalled { .. }
            | Self::NoWayBack(_) => Question::Product,
            Self::NoArtifact | Self::Model | Self::Os | Self::Memory { .. } | Self::Kind { .. } => {
                Question::Platform
            }
            Self::OtherChannel | Self::Pinned { .. } => Question::Channel,
            Self::Barrier(_) => Question::Barrier,
            Self::Stopped { .. }
            | Self::PassedStop(_)
            | Self::Ended
            | Self::StaleTimestamp { .. } => Question::Hold,
            Self::NoStage(_)
            | Self::StageClosed(_)
            | Self::Baking { .. }
            | Self::Floor(_)
            | Self::NotCountedYet
            | Self::RecallOver(_) => Question::Stage,
            Self::AboveLimit { .. } => Question::Bucket,
            Self::WindowClosed { .. } | Self::WindowUnknown(_) => Question::Window,
            Self::Frozen { .. } => Question::Freeze,
            Self::Battery(_) => Question::Power,
            Self::Metered => Question::Network,
            Self::Disk { .. } => Question::Disk,
        }
    }

    /// A number for letters and programs. Numbers are never reused.
    pub const fn code(&self) -> u16 {
        match self {
            Self::OtherProduct(_) => 101,
            Self::NotNewer { .. } => Self::NOT_NEWER,
            Self::FailedBefore(_) => 103,
            Self::Recalled { .. } => 104,
            Self::NoWayBack(_) => 105,
            Self::NoArtifact => 201,
            Self::Model => 202,
            Self::Os => 203,
            Self::Memory { .. } => 204,
            Self::Kind { .. } => 205,
            Self::OtherChannel => 301,
            Self::Pinned { .. } => 302,
            Self::Barrier(_) => 401,
            Self::Stopped { .. } => 501,
            Self::PassedStop(_) => 502,
            Self::Ended => 503,
            Self::StaleTimestamp { .. } => 504,
            Self::NoStage(_) => 601,
            Self::StageClosed(_) => 602,
            Self::Baking { .. } => 603,
            Self::Floor(_) => 604,
            Self::NotCountedYet => 605,
            Self::RecallOver(_) => 606,
            Self::AboveLimit { .. } => Self::ABOVE_LIMIT,
            Self::WindowClosed { .. } => 801,
            Self::WindowUnknown(_) => 802,
            Self::Frozen { .. } => 901,
            Self::Battery(_) => 1001,
            Self::Metered => 1101,
            Self::Disk { .. } => 1201,
        }
    }

    /// When this reason may go away by the passing of time alone.
    pub const fn until(&self) -> Option<Moment> {
        match self {
            Self::Baking { until, .. } | Self::Frozen { until, .. } => Some(*until),
            Self::Floor(moment) => Some(*moment),
            Self::WindowClosed { next } => *next,
            Self::OtherProduct(_)
            | Self::NotNewer { .. }
            | Self::FailedBefore(_)
            | Self::Recalled { .. }
            | Self::NoWayBack(_)
            | Self::RecallOver(_)
            | Self::NoArtifact
            | Self::Model
            | Self::Os
            | Self::Memory { .. }
            | Self::Kind { .. }
            | Self::OtherChannel
            | Self::Pinned { .. }
            | Self::Barrier(_)
            | Self::Stopped { .. }
            | Self::PassedStop(_)
            | Self::Ended
            | Self::StaleTimestamp { .. }
            | Self::NoStage(_)
            | Self::StageClosed(_)
            | Self::NotCountedYet
            | Self::AboveLimit { .. }
            | Self::WindowUnknown(_)
            | Self::Battery(_)
            | Self::Metered
            | Self::Disk { .. } => None,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherProduct(product) => write!(f, "it is a release of `{product}`"),
            Self::NotNewer { running, offered } => {
                write!(f, "{offered} is not newer than {running}, which runs")
            }
            Self::FailedBefore(version) => write!(f, "{version} failed on this device before"),
            Self::Recalled { version, reason } => write!(f, "{version} is recalled: {reason}"),
            Self::NoWayBack(version) => {
                write!(f, "{version} cannot be undone on this device: {NO_WAY_BACK}")
            }
            Self::RecallOver(until) => write!(f, "the way back closed at {until}"),
            Self::NoArtifact => f.write_str("it has no artifact for this platform"),
            Self::Model => f.write_str("it is not for this hardware model"),
            Self::Os => f.write_str("it is not for this operating system"),
            Self::Memory { has, needs } => {
                write!(f, "it needs {needs} MiB of memory, here are {has}")
            }
            Self::Kind { is, takes } => {
                let (is, takes) = (is.name(), takes.name());
                write!(
                    f,
                    "it is of kind `{is}`, and this device's slots for the product hold `{takes}`"
                )
            }
            Self::OtherChannel => f.write_str("it goes out on another channel"),
            Self::Pinned { pin, wants, by } => pinned(f, pin, wants.as_ref(), *by),
            Self::Barrier(version) => write!(f, "{version} or later must run first"),
            Self::Stopped { number, kind, reason } => {
                write!(f, "{} {number}: {reason}", kind.name())
            }
            Self::PassedStop(reason) => write!(f, "stopped by the server: {reason}"),
            Self::Ended => f.write_str("the rollout was ended"),
            Self::StaleTimestamp { allowed } => {
                write!(f, "nothing newer than {allowed} was heard from the signers")
            }
            Self::NoStage(cohort) => write!(f, "its ladder has no stage for cohort `{cohort}`"),
            Self::StageClosed(cohort) => write!(f, "the stage of cohort `{cohort}` is not open"),
            Self::Baking { cohort, until } => {
                write!(f, "the stage before `{cohort}` bakes until {until}")
            }
            Self::Floor(moment) => write!(f, "its stage opens no earlier than {moment}"),
            Self::NotCountedYet => {
                f.write_str("the gatekeeper has not counted this device's first letter yet")
            }
            Self::AboveLimit { limit, .. } => {
                write!(f, "its turn has not come: {limit} of the cohort is open")
            }
            Self::WindowClosed { next } => window_closed(f, *next),
            Self::WindowUnknown(error) => write!(f, "the maintenance window is unclear: {error}"),
            Self::Frozen { until, reason } => write!(f, "frozen until {until}: {reason}"),
            Self::Battery(percent) => write!(f, "on battery with {percent} % left"),
            Self::Metered => f.write_str("the network is paid by volume"),
            Self::Disk { has, needs } => write!(f, "it needs {needs} MiB of disk, {has} are free"),
        }
    }
}

/// Why what runs cannot be undone.
const NO_WAY_BACK: &str = "it is irreversible, or what was before it cannot read its data";

fn pinned(
    f: &mut fmt::Formatter<'_>,
    pin: &Pin,
    wants: Option<&Version>,
    by: Asker,
) -> fmt::Result {
    match (pin, wants) {
        (Pin::Exact(version), _) => write!(f, "this device is pinned to {version} ({by})"),
        (pin, Some(wants)) => write!(f, "this device is pinned to {pin} ({by}), which is {wants}"),
        (pin, None) => write!(
            f,
            "this device is pinned to {pin} ({by}), and the channel has no such release yet"
        ),
    }
}

fn window_closed(f: &mut fmt::Formatter<'_>, next: Option<Moment>) -> fmt::Result {
    match next {
        Some(next) => write!(f, "the maintenance window opens at {next}"),
        None => f.write_str("no maintenance window opens this week"),
    }
}
