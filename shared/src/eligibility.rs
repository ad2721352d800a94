//! May this device install this release now? One pure function that device, server and operator's
//! tool all ask, and that names every reason against it at once, in one fixed order.

mod reason;
mod way_back;

use serde::{Deserialize, Serialize};

use crate::{
    bucket::Bucket,
    facts::{Conditions, Facts},
    id::{DeviceId, ProductId, TenantId},
    manifest::{Artifact, ArtifactKind, Manifest},
    pace::{Memory, RolloutMemory, VerifiedRollout},
    pin::{self, Asker, Pin},
    rollout::{PassedStop, Scope, ScopeOf},
    time::{Moment, Seconds},
    version::Version,
    window::{self, Freeze, Opening, Window},
};

pub use reason::{Question, Reason};
pub use way_back::{WayBack, way_back};

/// A release that a device may be about to install.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The rollout, checked against what people signed.
    pub rollout: &'a VerifiedRollout,
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// What the device remembers of it.
    pub memory: &'a RolloutMemory,
}

/// The device that asks.
#[derive(Clone, Debug)]
pub struct Device<'a> {
    /// Its id.
    pub id: DeviceId,
    /// Its tenant.
    pub tenant: &'a TenantId,
    /// The product in question.
    pub product: &'a ProductId,
    /// The channel it follows for that product.
    pub channel: &'a crate::id::ChannelId,
    /// What it is.
    pub facts: &'a Facts,
    /// What it finds now.
    pub conditions: &'a Conditions,
    /// What its slots for the product can hold.
    pub takes: ArtifactKind,
    /// The version in its active slot.
    pub running: Option<&'a Version>,
    /// Every pin that holds for it, and who asked for each: all of them bind.
    pub pins: &'a [(Asker, &'a Pin)],
    /// Versions of its channel whose rollouts are complete, by what it checked itself.
    pub complete: &'a [Version],
    /// Its maintenance windows, a list for each who set some: one of each list must be open.
    pub windows: &'a [&'a [Window]],
    /// Its freezes.
    pub freezes: &'a [Freeze],
    /// What its owner asks for.
    pub preferences: Preferences,
    /// Versions it tried and that failed on it: not tried again unless told by signature.
    pub failed: &'a [Version],
}

/// What a device's owner asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Preferences {
    /// Least charge in percent to install on battery.
    pub min_battery_percent: u8,
    /// Whether to install over a network paid by volume.
    pub metered: MeteredUse,
}

/// Whether a network paid by volume may carry updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeteredUse {
    /// No.
    #[default]
    Refuse,
    /// Yes.
    Allow,
}

impl Default for Preferences {
    fn default() -> Self {
        // Enough to survive an install and one boot of an ordinary laptop.
        Self { min_battery_percent: 30, metered: MeteredUse::Refuse }
    }
}

/// What the server side says at this moment.
#[derive(Clone, Copy, Debug)]
pub struct ServerView<'a> {
    /// Stops the device has seen, and its rollouts.
    pub memory: &'a Memory,
    /// Stops passed on by the API server.
    pub passed: &'a [PassedStop],
    /// Every letter below this offset was counted in it.
    pub letters_offset: u64,
    /// When the newest verified timestamp was issued.
    pub timestamp_issued: Option<Moment>,
}

/// The answer: which artifact, or why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The artifact for this device, if there is one.
    pub artifact: Option<&'a Artifact>,
    /// The device's bucket in this rollout.
    pub bucket: Bucket,
    /// Every reason against installing now, in the order of [`Question`]; none means go.
    pub reasons: Vec<Reason>,
}

impl Answer<'_> {
    /// Whether nothing speaks against it.
    pub const fn go(&self) -> bool {
        self.reasons.is_empty()
    }

    /// Whether the bucket is the one open question: such a device is in the risk set, where being let
    /// in is a lot with a known chance.
    pub fn bucket_alone(&self) -> bool {
        !self.reasons.is_empty()
            && self.reasons.iter().all(|reason| reason.question() == Question::Bucket)
    }
}

/// May `device` install `candidate` at `now`?
pub fn eligibility<'a>(
    candidate: &Candidate<'a>,
    device: &Device<'_>,
    server: &ServerView<'_>,
    now: Moment,
) -> Answer<'a> {
    let start = candidate.rollout.start();
    let artifact = candidate.manifest.artifact_for(device.facts);
    let bucket = Bucket::of(&start.manifest, &start.channel, &device.id);
    let mut reasons = Vec::new();
    product(candidate, device, &mut reasons);
    platform(candidate.manifest, device, &mut reasons);
    channel(candidate, device, &mut reasons);
    holds(candidate, device, server, now, &mut reasons);
    stage(candidate, server, now, &mut reasons);
    limit(candidate, bucket, &mut reasons);
    calendar(device, now, &mut reasons);
    conditions(candidate.manifest, device, &mut reasons);
    debug_assert!(reasons.is_sorted_by_key(Reason::question), "the order is fixed");
    Answer { artifact, bucket, reasons }
}

fn product(candidate: &Candidate<'_>, device: &Device<'_>, reasons: &mut Vec<Reason>) {
    let manifest = candidate.manifest;
    if manifest.product != *device.product {
        reasons.push(Reason::OtherProduct(manifest.product.clone()));
    }
    if let Some(running) = device.running
        && manifest.version <= *running
    {
        reasons
            .push(Reason::NotNewer { running: running.clone(), offered: manifest.version.clone() });
    }
    if device.failed.contains(&manifest.version) {
        reasons.push(Reason::FailedBefore(manifest.version.clone()));
    }
}

fn platform(manifest: &Manifest, device: &Device<'_>, reasons: &mut Vec<Reason>) {
    let (facts, asks) = (device.facts, &manifest.compatibility);
    match manifest.artifact_for(facts) {
        None => reasons.push(Reason::NoArtifact),
        Some(artifact) if artifact.kind != device.takes => {
            reasons.push(Reason::Kind { is: artifact.kind, takes: device.takes });
        }
        Some(_) => {}
    }
    let model = format!("{} {}", facts.vendor, facts.model);
    if !asks.models.is_empty() && !asks.models.contains(&model) {
        reasons.push(Reason::Model);
    }
    if !asks.os_ids.is_empty() && !asks.os_ids.contains(&facts.os_id) {
        reasons.push(Reason::Os);
    }
    if let Some(needs) = asks.min_ram_mib
        && facts.ram_mib < needs
    {
        reasons.push(Reason::Memory { has: facts.ram_mib, needs });
    }
}

fn channel(candidate: &Candidate<'_>, device: &Device<'_>, reasons: &mut Vec<Reason>) {
    let (start, manifest) = (candidate.rollout.start(), candidate.manifest);
    if start.channel != *device.channel {
        reasons.push(Reason::OtherChannel);
    }
    for (by, pin) in pin::strictest(device.pins) {
        let wants = pin.version(device.complete);
        if wants != Some(&manifest.version) {
            reasons.push(Reason::Pinned { pin: pin.clone(), wants: wants.cloned(), by });
        }
    }
    if let (Some(barrier), Some(running)) = (&manifest.barrier, device.running)
        && running < barrier
    {
        reasons.push(Reason::Barrier(barrier.clone()));
    }
}

fn holds(
    candidate: &Candidate<'_>,
    device: &Device<'_>,
    server: &ServerView<'_>,
    now: Moment,
    reasons: &mut Vec<Reason>,
) {
    let entry = candidate.rollout.entry();
    let about = ScopeOf {
        rollout: &entry.rollout,
        product: &candidate.manifest.product,
        cohort: &candidate.memory.cohort,
        tenant: device.tenant,
        groups: &candidate.memory.groups,
    };
    if entry.ended.is_some() || candidate.memory.ended.is_some() {
        reasons.push(Reason::Ended);
    }
    for stop in server.memory.stops.values().filter(|stop| stop.scope.covers(&about)) {
        reasons.push(Reason::Stopped {
            number: stop.number,
            kind: stop.kind,
            reason: stop.reason.clone(),
        });
    }
    let covers = |scope: &Scope| scope.covers(&about);
    for stop in server.passed {
        // A file that counts the stop says all there is to say about it.
        if stop.offset >= server.letters_offset && covers(&stop.scope) {
            reasons.push(Reason::PassedStop(stop.reason.clone()));
        }
    }
    stale(candidate.manifest.ladder.timestamp_max_age_s, server, now, reasons);
}

fn stale(allowed: Seconds, server: &ServerView<'_>, now: Moment, reasons: &mut Vec<Reason>) {
    let fresh = server.timestamp_issued.is_some_and(|issued| now.since(issued) <= allowed);
    if !fresh {
        reasons.push(Reason::StaleTimestamp { allowed });
    }
}

fn stage(
    candidate: &Candidate<'_>,
    server: &ServerView<'_>,
    now: Moment,
    reasons: &mut Vec<Reason>,
) {
    let (entry, start) = (candidate.rollout.entry(), candidate.rollout.start());
    let (ladder, memory) = (&candidate.manifest.ladder, candidate.memory);
    let Some((index, signed)) = ladder.stage_of(&memory.cohort) else {
        reasons.push(Reason::NoStage(memory.cohort.clone()));
        return;
    };
    let floor = start.moment.plus(signed.floor_s);
    if now < floor {
        reasons.push(Reason::Floor(floor));
    }
    if entry.limit_for(&memory.cohort, &[]).is_none() {
        reasons.push(Reason::StageClosed(memory.cohort.clone()));
    }
    let before = index.checked_sub(1).and_then(|index| ladder.stages.get(index));
    if let Some(before) = before
        && let Some(last) = memory.last_not_open.get(&before.cohort)
        && now < last.plus(before.bake_s)
    {
        let until = last.plus(before.bake_s);
        reasons.push(Reason::Baking { cohort: memory.cohort.clone(), until });
    }
    // The answer that told the offset is signed by nobody. So the file must also be a later one than
    // that in which the device first saw the rollout, and must know each of the device's groups.
    let counted = memory
        .first_letter
        .is_some_and(|offset| offset.max(memory.first_offset) < server.letters_offset);
    if !counted || !memory.groups.iter().all(|group| entry.known.may_hold(group)) {
        reasons.push(Reason::NotCountedYet);
    }
}

fn limit(candidate: &Candidate<'_>, bucket: Bucket, reasons: &mut Vec<Reason>) {
    let entry = candidate.rollout.entry();
    let memory = candidate.memory;
    let Some(limit) = entry.limit_for(&memory.cohort, &memory.groups) else { return };
    if !limit.admits(bucket) && !entry.coverage.contains(&bucket) {
        reasons.push(Reason::AboveLimit { bucket, limit });
    }
}

fn calendar(device: &Device<'_>, now: Moment, reasons: &mut Vec<Reason>) {
    for windows in device.windows {
        match window::opening(windows, now) {
            Ok(Opening::Open { .. }) => {}
            Ok(Opening::Closed { next }) => reasons.push(Reason::WindowClosed { next }),
            // When in doubt a device waits and says so.
            Err(error) => reasons.push(Reason::WindowUnknown(error.to_string())),
        }
    }
    for freeze in device.freezes.iter().filter(|f| f.from <= now && now < f.until) {
        reasons.push(Reason::Frozen { until: freeze.until, reason: freeze.reason.clone() });
    }
}

fn conditions(manifest: &Manifest, device: &Device<'_>, reasons: &mut Vec<Reason>) {
    let (found, wants) = (device.conditions, device.preferences);
    if found.on_battery == Some(true)
        && let Some(percent) = found.battery_percent
        && percent < wants.min_battery_percent
    {
        reasons.push(Reason::Battery(percent));
    }
    if found.metered == Some(true) && wants.metered == MeteredUse::Refuse {
        reasons.push(Reason::Metered);
    }
    let unpacked = manifest.artifact_for(device.facts).map_or(0, Artifact::unpacked);
    let spare = manifest.compatibility.min_free_disk_mib.unwrap_or_default();
    let needs = unpacked.div_ceil(1 << 20).saturating_add(u64::from(spare));
    if let Some(has) = found.free_disk_mib
        && u64::from(has) < needs
    {
        reasons.push(Reason::Disk { has, needs });
    }
}

#[cfg(test)]
mod tests;
