//! May this device install this release now? One pure function that device, server and operator's
//! tool all ask, and that names every reason against it at once, in one fixed order.

mod reason;

use serde::{Deserialize, Serialize};

use crate::{
    bucket::Bucket,
    facts::{Conditions, Facts},
    id::{DeviceId, ProductId, TenantId},
    manifest::{Artifact, Manifest},
    pace::{Memory, RolloutMemory, VerifiedRollout},
    pin::Pin,
    rollout::{PassedStop, Scope, ScopeOf},
    time::Moment,
    version::Version,
    window::{self, Freeze, Opening, Window},
};

pub use reason::{Question, Reason};

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
    /// The version in its active slot.
    pub running: Option<&'a Version>,
    /// Its pin.
    pub pin: &'a Pin,
    /// Versions of its channel whose rollouts are complete, by what it checked itself.
    pub complete: &'a [Version],
    /// Its maintenance windows.
    pub windows: &'a [Window],
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
pub struct Word<'a> {
    /// Stops the device has seen, and its rollouts.
    pub memory: &'a Memory,
    /// Stops passed on by the API server.
    pub passed: &'a [PassedStop],
    /// When the rollout file was issued.
    pub file_issued: Moment,
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
    word: &Word<'_>,
    now: Moment,
) -> Answer<'a> {
    let start = candidate.rollout.start();
    let artifact = candidate.manifest.artifact_for(device.facts);
    let bucket = Bucket::of(&start.manifest, &start.channel, &device.id);
    let mut reasons = Vec::new();
    product(candidate, device, &mut reasons);
    platform(candidate, device, &mut reasons);
    channel(candidate, device, &mut reasons);
    holds(candidate, device, word, now, &mut reasons);
    stage(candidate, word, now, &mut reasons);
    limit(candidate, bucket, &mut reasons);
    calendar(device, now, &mut reasons);
    conditions(candidate, device, &mut reasons);
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

fn platform(candidate: &Candidate<'_>, device: &Device<'_>, reasons: &mut Vec<Reason>) {
    let (facts, asks) = (device.facts, &candidate.manifest.compatibility);
    if candidate.manifest.artifact_for(facts).is_none() {
        reasons.push(Reason::NoArtifact);
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
    if *device.pin != Pin::Latest {
        let wants = device.pin.version(device.complete);
        if wants != Some(&manifest.version) {
            reasons.push(Reason::Pinned { pin: device.pin.clone(), wants: wants.cloned() });
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
    word: &Word<'_>,
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
    for stop in word.memory.stops.values().filter(|stop| stop.scope.covers(&about)) {
        reasons.push(Reason::Stopped {
            number: stop.number,
            kind: stop.kind,
            reason: stop.reason.clone(),
        });
    }
    let covers = |scope: &Scope| scope.covers(&about);
    for stop in word.passed {
        // A file issued after the stop says all there is to say about it.
        if stop.since >= word.file_issued && covers(&stop.scope) {
            reasons.push(Reason::PassedStop(stop.reason.clone()));
        }
    }
    let allowed = candidate.manifest.ladder.timestamp_max_age_s;
    let fresh = word.timestamp_issued.is_some_and(|issued| now.since(issued) <= allowed);
    if !fresh {
        reasons.push(Reason::StaleTimestamp { allowed });
    }
}

fn stage(candidate: &Candidate<'_>, word: &Word<'_>, now: Moment, reasons: &mut Vec<Reason>) {
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
    if memory.first_letter.is_none_or(|offset| word.letters_offset <= offset) {
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
    match window::opening(device.windows, now) {
        Ok(Opening::Open { .. }) => {}
        Ok(Opening::Closed { next }) => reasons.push(Reason::WindowClosed { next }),
        // When in doubt a device waits and says so.
        Err(error) => reasons.push(Reason::WindowUnknown(error.to_string())),
    }
    for freeze in device.freezes.iter().filter(|f| f.from <= now && now < f.until) {
        reasons.push(Reason::Frozen { until: freeze.until, reason: freeze.reason.clone() });
    }
}

fn conditions(candidate: &Candidate<'_>, device: &Device<'_>, reasons: &mut Vec<Reason>) {
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
    let unpacked = candidate.manifest.artifact_for(device.facts).map_or(0, Artifact::unpacked);
    let spare = candidate.manifest.compatibility.min_free_disk_mib.unwrap_or_default();
    let needs = unpacked.div_ceil(1 << 20).saturating_add(u64::from(spare));
    if let Some(has) = found.free_disk_mib
        && u64::from(has) < needs
    {
        reasons.push(Reason::Disk { has, needs });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bucket::Limit,
        id::ChannelId,
        pace::tests::{START, World, open},
        rollout::{Stop, StopKind},
        time::Seconds,
        window::Weekday,
    };

    #[test]
    fn a_device_whose_turn_it_is_goes() {
        let asked = Asked::new();
        assert_eq!(asked.reasons(), Vec::<u16>::new());
    }

    #[test]
    fn every_reason_is_named_at_once_and_in_the_fixed_order() {
        let mut asked = Asked::new();
        asked.facts.ram_mib = 1;
        asked.world.manifest.compatibility.min_ram_mib = Some(512);
        asked.pin = Pin::Exact("9.9.9".parse().expect("a version"));
        asked.world.entry.ended = Some(START);
        asked.limit(Limit::NOBODY);
        asked.freezes =
            vec![Freeze { from: START, until: asked.now.plus(Seconds(9)), reason: "fair".into() }];
        asked.conditions =
            Conditions { on_battery: Some(true), battery_percent: Some(5), ..asked.conditions };
        asked.conditions.metered = Some(true);
        asked.conditions.free_disk_mib = Some(0);
        assert_eq!(asked.reasons(), [204, 302, 503, 701, 901, 1001, 1101, 1201]);
    }

    #[test]
    fn only_the_bucket_being_open_puts_a_device_at_risk() {
        let mut asked = Asked::new();
        asked.limit(Limit::NOBODY);
        assert!(asked.at_risk());
        asked.conditions.metered = Some(true);
        assert!(!asked.at_risk());
    }

    #[test]
    fn a_bucket_on_the_coverage_list_is_let_in_early() {
        let mut asked = Asked::new();
        asked.limit(Limit::NOBODY);
        let bucket = asked.with(|answer| answer.bucket);
        asked.world.entry.coverage = vec![bucket];
        asked.look();
        assert_eq!(asked.reasons(), Vec::<u16>::new());
    }

    #[test]
    fn nothing_is_installed_that_is_not_newer_or_that_failed_here() {
        let mut asked = Asked::new();
        for running in ["1.1.0", "1.2.0"] {
            asked.running = Some(running.parse().expect("a version"));
            assert_eq!(asked.reasons(), [102]);
        }
        asked.running = Some("1.0.0".parse().expect("a version"));
        asked.failed = vec!["1.1.0".parse().expect("a version")];
        assert_eq!(asked.reasons(), [103]);
    }

    #[test]
    fn a_barrier_may_not_be_skipped() {
        let mut asked = Asked::new();
        asked.world.manifest.barrier = Some("1.0.5".parse().expect("a version"));
        assert_eq!(asked.reasons(), [401]);
        asked.running = Some("1.0.5".parse().expect("a version"));
        assert_eq!(asked.reasons(), Vec::<u16>::new());
    }

    #[test]
    fn a_pinned_device_takes_its_own_line_and_says_why_not_the_newest() {
        let mut asked = Asked::new();
        asked.pin = Pin::NMinus1;
        asked.complete = vec!["1.0.0".parse().expect("v"), "1.1.0".parse().expect("v")];
        assert_eq!(asked.reasons(), [302]);
        asked.complete.push("1.2.0".parse().expect("v"));
        assert_eq!(asked.reasons(), Vec::<u16>::new());
    }

    #[test]
    fn a_stop_passed_on_binds_until_a_file_issued_after_it_says_more() {
        let mut asked = Asked::new();
        asked.passed = vec![PassedStop {
            scope: Scope::Tenant("acme".parse().expect("a name")),
            since: START,
            reason: "call me".into(),
        }];
        asked.file_issued = START;
        assert_eq!(asked.reasons(), [502]);
        asked.file_issued = START.plus(Seconds(1));
        assert_eq!(asked.reasons(), Vec::<u16>::new());
    }

    #[test]
    fn a_numbered_stop_binds_whom_it_covers() {
        for (scope, binds) in [
            (Scope::Everything, true),
            (Scope::Product("app".parse().expect("a name")), true),
            (Scope::Product("other".parse().expect("a name")), false),
            (Scope::Tenant("acme".parse().expect("a name")), true),
            (Scope::Cohort("app".parse().expect("a"), "general".parse().expect("a")), true),
            (Scope::Cohort("app".parse().expect("a"), "dogfood".parse().expect("a")), false),
        ] {
            let mut asked = Asked::new();
            let stop = Stop {
                number: 3,
                kind: StopKind::Pause,
                scope: scope.clone(),
                since: START,
                reason: "drill".into(),
            };
            asked.world.memory.stops.insert(3, stop);
            assert_eq!(asked.reasons() == [501], binds, "{scope:?}");
        }
    }

    #[test]
    fn whoever_withholds_news_stops_the_device() {
        let mut asked = Asked::new();
        asked.timestamp_issued = Some(asked.now.minus(Seconds(3601)));
        assert_eq!(asked.reasons(), [504]);
        asked.timestamp_issued = None;
        assert_eq!(asked.reasons(), [504]);
    }

    #[test]
    fn a_device_waits_for_the_bake_it_saw_itself_and_until_it_is_counted() {
        let mut asked = Asked::new();
        asked.now = START.plus(Seconds(100));
        asked.timestamp_issued = Some(asked.now);
        let memory = asked.memory();
        memory.last_not_open.insert("dogfood".parse().expect("a"), START.plus(Seconds(50)));
        assert_eq!(asked.reasons(), [603]);
        let mut asked = Asked::new();
        asked.memory().first_letter = Some(10);
        assert_eq!(asked.reasons(), [605]);
        asked.memory().first_letter = None;
        assert_eq!(asked.reasons(), [605]);
    }

    #[test]
    fn a_window_that_cannot_be_evaluated_keeps_the_device_waiting() {
        let mut asked = Asked::new();
        asked.windows = vec![Window {
            zone: "No/Where".into(),
            days: [Weekday::Mon].into(),
            hour: 1,
            minute: 0,
            length_s: Seconds(60),
        }];
        assert_eq!(asked.reasons(), [802]);
    }

    /// A device of cohort `general` in a rollout that is open to everybody and baked.
    struct Asked {
        world: World,
        now: Moment,
        facts: Facts,
        conditions: Conditions,
        running: Option<Version>,
        pin: Pin,
        complete: Vec<Version>,
        windows: Vec<Window>,
        freezes: Vec<Freeze>,
        failed: Vec<Version>,
        passed: Vec<PassedStop>,
        file_issued: Moment,
        timestamp_issued: Option<Moment>,
    }

    impl Asked {
        fn new() -> Self {
            let mut world = World::new();
            world.entry.stages.push(open("general", 60, Limit::EVERYBODY));
            let now = START.plus(Seconds(1_000));
            let mut asked = Self {
                world,
                now,
                facts: Facts::default(),
                conditions: Conditions::default(),
                running: Some("1.0.0".parse().expect("a version")),
                pin: Pin::Latest,
                complete: Vec::new(),
                windows: Vec::new(),
                freezes: Vec::new(),
                failed: Vec::new(),
                passed: Vec::new(),
                file_issued: START,
                timestamp_issued: Some(now),
            };
            asked.look();
            asked.memory().first_letter = Some(3);
            asked
        }

        fn look(&mut self) {
            let entry = self.world.entry.clone();
            self.world.see(&entry, START.plus(Seconds(200)));
        }

        fn limit(&mut self, limit: Limit) {
            self.world.entry.stages[1].limit = limit;
        }

        fn memory(&mut self) -> &mut RolloutMemory {
            let rollout = self.world.entry.rollout;
            self.world.memory.rollouts.get_mut(&rollout).expect("it was seen")
        }

        fn reasons(&self) -> Vec<u16> {
            self.with(|answer| answer.reasons.iter().map(Reason::code).collect())
        }

        fn at_risk(&self) -> bool {
            self.with(|answer| answer.bucket_alone())
        }

        fn with<T>(&self, read: impl FnOnce(&Answer<'_>) -> T) -> T {
            let world = &self.world;
            let rollout = world.verify(&world.entry).expect("agrees");
            let candidate = Candidate {
                rollout: &rollout,
                manifest: &world.manifest,
                memory: &world.memory.rollouts[&world.entry.rollout],
            };
            let channel: ChannelId = "stable".parse().expect("a name");
            let device = Device {
                id: DeviceId([5; 32]),
                tenant: &"acme".parse().expect("a name"),
                product: &"app".parse().expect("a name"),
                channel: &channel,
                facts: &self.facts,
                conditions: &self.conditions,
                running: self.running.as_ref(),
                pin: &self.pin,
                complete: &self.complete,
                windows: &self.windows,
                freezes: &self.freezes,
                preferences: Preferences::default(),
                failed: &self.failed,
            };
            let word = Word {
                memory: &world.memory,
                passed: &self.passed,
                file_issued: self.file_issued,
                letters_offset: 10,
                timestamp_issued: self.timestamp_issued,
            };
            read(&eligibility(&candidate, &device, &word, self.now))
        }
    }
}
