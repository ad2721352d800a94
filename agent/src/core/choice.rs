//! Which release a product goes for, out of what the server and the people say. Every entry of the
//! rollout file is held against its signed start and its manifest, then against the device; each gets
//! a verdict with all its reasons, newest first, and the newest without any is chosen.
//!
//! It believes no entry that contradicts what people signed, and passes over none in silence.

use std::{cmp::Reverse, collections::BTreeMap};

use lockgate_shared::{
    act::{Act, SignedAct, Start},
    bucket::{Bucket, Limit},
    cut::cut,
    eligibility::{self, Candidate, Device, Preferences, Reason, ServerView},
    facts::{Conditions, Facts},
    grant::{self, Given},
    id::{ChannelId, CohortId, DeviceId, Digest, ProductId, RolloutId, TenantId},
    limits,
    manifest::{ArtifactKind, Manifest},
    pace::{self, Memory, VerifiedRollout},
    pin::{Asker, Pin},
    policy::Policy,
    rollout::{RolloutEntry, RolloutFile},
    time::Moment,
    version::Version,
    window::{Freeze, Window},
    wire::{Orders, ReasonRecord, RolloutView},
};

use super::recall::{self, Back, Recalls, Standing};

/// What a product is decided by.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// Who may sign what.
    pub policy: &'a Policy,
    /// The product's rollout file, if there is one for this device.
    pub file: Option<&'a RolloutFile>,
    /// The manifests at hand, by the digest of their bytes.
    pub manifests: &'a BTreeMap<Digest, Manifest>,
    /// The recalls that matter to the device.
    pub recalls: &'a Recalls,
    /// What the device remembers of the product's rollouts.
    pub memory: &'a Memory,
    /// When the newest verified timestamp was issued.
    pub timestamp_issued: Option<Moment>,
    /// The device.
    pub own: Own<'a>,
    /// The moment, by the guarded clock.
    pub now: Moment,
}

/// The device that decides.
#[derive(Clone, Copy)]
pub struct Own<'a> {
    /// Its id.
    pub id: DeviceId,
    /// Its tenant.
    pub tenant: &'a TenantId,
    /// The product.
    pub product: &'a ProductId,
    /// The channel it follows.
    pub channel: &'a ChannelId,
    /// What it is.
    pub facts: &'a Facts,
    /// What it finds now.
    pub conditions: &'a Conditions,
    /// What its slots can hold.
    pub takes: ArtifactKind,
    /// The version that runs.
    pub running: Option<&'a Version>,
    /// Every pin that holds for it.
    pub pins: &'a [(Asker, &'a Pin)],
    /// Its windows: its owner's own, and those it was told.
    pub windows: &'a [&'a [Window]],
    /// What its owner asks for.
    pub preferences: Preferences,
    /// Its freezes.
    pub freezes: &'a [Freeze],
    /// How it stands to what it runs.
    pub standing: Standing,
    /// Versions that failed on it.
    pub failed: &'a [Version],
    /// What it was told.
    pub orders: &'a Orders,
}

/// What was decided.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Every entry of the file, newest version first.
    pub considered: Vec<Considered>,
    /// The index of the one to go for.
    pub chosen: Option<usize>,
    /// Versions whose rollouts are complete and that nobody recalled.
    pub complete: Vec<Version>,
    /// The way back, where what runs is recalled.
    pub back: Option<Back>,
}

/// One entry of the file and what came of it.
#[derive(Clone, Debug)]
pub struct Considered {
    /// Its rollout.
    pub rollout: RolloutId,
    /// Its signed start; without one the entry is not believed at all.
    pub start: Option<Start>,
    /// The device's cohort in it.
    pub cohort: Option<CohortId>,
    /// The device's place in it.
    pub bucket: Option<Bucket>,
    /// How far it is open to the device.
    pub limit: Option<Limit>,
    /// What came of it.
    pub finding: Finding,
}

/// What came of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing speaks against it.
    Go,
    /// Everything that speaks against it now.
    Against(Vec<Reason>),
    /// It contradicts what people signed, or its manifest is not at hand.
    Refused(String),
}

/// Decides.
pub fn decide(situation: &Situation<'_>) -> Choice {
    let entries = situation.file.map_or(&[][..], |file| &file.rollouts);
    let mut believed: Vec<(&RolloutEntry, Option<Start>, Result<VerifiedRollout, String>)> =
        entries
            .iter()
            .map(|entry| {
                let start = pace::verify_start(entry, situation.policy);
                let verified = verify(situation, entry, start.as_ref());
                (entry, start.ok(), verified)
            })
            .collect();
    believed.sort_by_key(|(_, start, _)| Reverse(version_of(start.as_ref())));
    let complete = complete(situation, believed.iter().filter_map(|(_, _, v)| v.as_ref().ok()));
    let considered: Vec<Considered> = believed
        .iter()
        .map(|(entry, start, verified)| {
            consider(situation, &complete, entry, start.clone(), verified.as_ref())
        })
        .collect();
    let chosen = considered.iter().position(|one| one.finding == Finding::Go);
    let back = recall::back(situation, &device(situation, &complete), &server(situation));
    Choice { considered, chosen, complete, back }
}

/// The channel that a device follows for a product: a signed grant's, its owner's, or the policy's
/// default.
pub fn channel(
    policy: &Policy,
    owner: Option<&ChannelId>,
    grant: Option<&ChannelId>,
    product: &ProductId,
) -> Option<ChannelId> {
    grant.or(owner).or_else(|| policy.default_place(product).map(|(channel, _)| channel)).cloned()
}

/// What signed grants give this device for a product now.
pub fn granted(
    policy: &Policy,
    grants: &[SignedAct],
    device: &DeviceId,
    product: &ProductId,
    now: Moment,
) -> Option<Given> {
    let verified = grants.iter().filter_map(|act| act.verify(policy).ok());
    let given = verified.filter_map(|act| match act.act() {
        Act::Grant(grant) if grant.device == *device && grant.product == *product => {
            Some(Given::by(grant))
        }
        Act::Grant(_) | Act::Start(_) | Act::Approve(_) | Act::Lift(_) | Act::Waive(_) => None,
    });
    grant::newest(given, now)
}

/// The manifests that a decision needs: those of verified starts on the device's channel, and of
/// these only the ones that it may go to or that its pin counts.
pub fn wanted(
    policy: &Policy,
    file: &RolloutFile,
    channel: &ChannelId,
    pins: &[(Asker, &Pin)],
    running: Option<&Version>,
) -> Vec<Start> {
    let counts_all = pins.iter().any(|(_, pin)| match pin {
        Pin::NMinus1 | Pin::NMinus2 => true,
        Pin::Latest | Pin::Exact(_) => false,
    });
    file.rollouts
        .iter()
        .filter_map(|entry| pace::verify_start(entry, policy).ok())
        .filter(|start| start.channel == *channel)
        .filter(|start| counts_all || running.is_none_or(|running| start.version > *running))
        .collect()
}

fn version_of(start: Option<&Start>) -> Option<Version> {
    start.map(|start| start.version.clone())
}

fn verify(
    situation: &Situation<'_>,
    entry: &RolloutEntry,
    start: Result<&Start, &pace::PaceError>,
) -> Result<VerifiedRollout, String> {
    let start = start.map_err(ToString::to_string)?;
    let manifest = situation
        .manifests
        .get(&start.manifest)
        .ok_or_else(|| "its manifest is not at hand".to_owned())?;
    let memory = situation.memory.rollouts.get(&entry.rollout);
    pace::verify(entry, situation.policy, manifest, &start.manifest, memory)
        .map_err(|error| error.to_string())
}

fn complete<'a>(
    situation: &Situation<'_>,
    verified: impl Iterator<Item = &'a VerifiedRollout>,
) -> Vec<Version> {
    verified
        .filter(|rollout| rollout.start().channel == *situation.own.channel)
        .filter(|rollout| {
            let manifest = situation.manifests.get(&rollout.start().manifest);
            let memory = situation.memory.rollouts.get(&rollout.entry().rollout);
            manifest
                .zip(memory)
                .is_some_and(|(manifest, memory)| rollout.complete(manifest, memory, situation.now))
        })
        .map(|rollout| rollout.start().version.clone())
        .filter(|version| !situation.recalls.contains_key(version))
        .collect()
}

fn consider(
    situation: &Situation<'_>,
    complete: &[Version],
    entry: &RolloutEntry,
    start: Option<Start>,
    verified: Result<&VerifiedRollout, &String>,
) -> Considered {
    let memory = situation.memory.rollouts.get(&entry.rollout);
    let own = &situation.own;
    let bucket = start.as_ref().map(|s| Bucket::of(&s.manifest, &s.channel, &own.id));
    let (cohort, limit) = memory.map_or((None, None), |memory| {
        (Some(memory.cohort.clone()), entry.limit_for(&memory.cohort, &memory.groups))
    });
    if let Some(reason) = not_newer(situation, start.as_ref()) {
        let finding = Finding::Against(vec![reason]);
        return Considered { rollout: entry.rollout, start, cohort, bucket, limit, finding };
    }
    let recalled = start.as_ref().and_then(|s| recall::against(situation.recalls, &s.version));
    // Where nothing of the release could be read, that says more than that its recall could not.
    let unread = |finding: &Finding| matches!(finding, Finding::Refused(_)) && verified.is_err();
    if let Some(finding) = recalled.filter(|finding| !unread(finding)) {
        return Considered { rollout: entry.rollout, start, cohort, bucket, limit, finding };
    }
    let finding = match (verified, memory) {
        (Err(why), _) => Finding::Refused(why.clone()),
        (Ok(_), None) => Finding::Refused("it was not seen before this decision".into()),
        (Ok(rollout), Some(memory)) => match situation.manifests.get(&rollout.start().manifest) {
            None => Finding::Refused("its manifest is not at hand".into()),
            Some(manifest) => weigh(situation, complete, &Candidate { rollout, manifest, memory }),
        },
    };
    Considered { rollout: entry.rollout, start, cohort, bucket, limit, finding }
}

/// A release that is not newer than what runs and that no pin counts: nobody fetched its manifest,
/// because its signed start says enough.
fn not_newer(situation: &Situation<'_>, start: Option<&Start>) -> Option<Reason> {
    let (start, running) = (start?, situation.own.running?);
    let fetched = situation.manifests.contains_key(&start.manifest);
    (!fetched && start.version <= *running)
        .then(|| Reason::NotNewer { running: running.clone(), offered: start.version.clone() })
}

fn weigh(situation: &Situation<'_>, complete: &[Version], candidate: &Candidate<'_>) -> Finding {
    let (device, server) = (device(situation, complete), server(situation));
    let answer = eligibility::eligibility(candidate, &device, &server, situation.now);
    if answer.go() { Finding::Go } else { Finding::Against(answer.reasons) }
}

fn device<'a>(situation: &Situation<'a>, complete: &'a [Version]) -> Device<'a> {
    let own = &situation.own;
    Device {
        id: own.id,
        tenant: own.tenant,
        product: own.product,
        channel: own.channel,
        facts: own.facts,
        conditions: own.conditions,
        takes: own.takes,
        running: own.running,
        pins: own.pins,
        complete,
        windows: own.windows,
        freezes: own.freezes,
        preferences: own.preferences,
        failed: own.failed,
    }
}

fn server<'a>(situation: &Situation<'a>) -> ServerView<'a> {
    ServerView {
        memory: situation.memory,
        passed: &situation.own.orders.stops,
        letters_offset: situation.file.map_or(0, |file| file.letters_offset),
        timestamp_issued: situation.timestamp_issued,
    }
}

impl Choice {
    /// What is newer than what runs, on the device's own channel.
    pub fn open(
        &self,
        channel: &ChannelId,
        running: Option<&Version>,
    ) -> impl Iterator<Item = &Considered> {
        self.considered.iter().filter(move |one| {
            one.start.as_ref().is_some_and(|start| {
                start.channel == *channel && running.is_none_or(|running| start.version > *running)
            })
        })
    }

    /// The rollouts as a letter carries them: those with an open question, and those that the device
    /// was let into.
    pub fn views(
        &self,
        channel: &ChannelId,
        running: Option<&Version>,
        memory: &Memory,
        treated: &dyn Fn(&RolloutId) -> bool,
    ) -> Vec<RolloutView> {
        let open: Vec<RolloutId> = self.open(channel, running).map(|one| one.rollout).collect();
        self.considered
            .iter()
            .filter(|one| open.contains(&one.rollout) || treated(&one.rollout))
            .filter_map(|one| {
                let memory = memory.rollouts.get(&one.rollout)?;
                let groups = match memory.first_letter {
                    None => memory.groups.clone(),
                    Some(_) => Vec::new(),
                };
                Some(RolloutView {
                    rollout: one.rollout,
                    cohort: memory.cohort.clone(),
                    bucket: one.bucket?,
                    habit: memory.habit,
                    groups,
                    treated: treated(&one.rollout),
                    reasons: one.reasons(),
                })
            })
            .take(limits::LETTER_ROLLOUTS)
            .collect()
    }
}

impl Considered {
    /// Everything against it, as a letter carries it.
    pub fn reasons(&self) -> Vec<ReasonRecord> {
        self.finding.reasons()
    }

    /// When everything against it may have passed by time alone.
    pub fn until(&self) -> Option<Moment> {
        self.finding.until()
    }
}

impl Finding {
    /// Everything against it, as a letter carries it.
    pub fn reasons(&self) -> Vec<ReasonRecord> {
        match self {
            Self::Go => Vec::new(),
            Self::Against(reasons) => {
                reasons.iter().take(limits::LETTER_REASONS).map(ReasonRecord::of).collect()
            }
            Self::Refused(why) => vec![ReasonRecord { code: 0, text: short(why) }],
        }
    }

    /// Everything against it, as its owner reads it: longer than a letter carries.
    pub fn told(&self) -> Vec<ReasonRecord> {
        match self {
            Self::Go => Vec::new(),
            Self::Against(reasons) => reasons
                .iter()
                .take(limits::LETTER_REASONS)
                .map(|reason| told(reason.code(), &reason.to_string()))
                .collect(),
            Self::Refused(why) => vec![told(0, why)],
        }
    }

    /// When everything against it may have passed by time alone: the latest moment, and none if
    /// anything does not pass by itself.
    pub fn until(&self) -> Option<Moment> {
        match self {
            Self::Go | Self::Refused(_) => None,
            Self::Against(reasons) => {
                let each: Option<Vec<Moment>> = reasons.iter().map(Reason::until).collect();
                each?.into_iter().max()
            }
        }
    }
}

/// A text cut to what a letter carries.
pub fn short(text: &str) -> String {
    cut(text, limits::LETTER_TEXT)
}

/// A reason as the device keeps it for its owner.
pub fn told(code: u16, text: &str) -> ReasonRecord {
    ReasonRecord { code, text: cut(text, limits::OWNER_TEXT) }
}

#[cfg(test)]
#[path = "choice_tests.rs"]
pub(crate) mod tests;
