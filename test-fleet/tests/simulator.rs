//! The simulator's shortcuts against the real thing. A thousand devices live through some days twice: once
//! in the simulator, once with the agent's own machine and the rules that it asks, letter by letter through
//! the door by which the gatekeeper hears them. Who installs when, what every letter says and what the
//! gate publishes must be the same to the bit.
//!
//! The world is not an agent's: when a device is on, how long an install takes and whether it fails are
//! the simulator's in both. So is that a poll comes once an hour, that a download is over within it, that a
//! trial goes on while its device sleeps, and that each device knows its habit: what a month of polls
//! teaches about it is told apart below.

use std::{collections::BTreeMap, path::Path};

use ed25519_dalek::SigningKey;
use lockgate_agent::{
    core::{
        habit::Hours,
        machine::{
            self, Consent, Device as Slots, Effect, Event, Now, Plan, PlannedArtifact, State,
        },
        trial::{Answer, Health, Said},
    },
    slots::Slot,
};
use lockgate_server::rollout::trial::{
    BEFORE, Letter,
    stage::{Age, Entrant, StageTrial},
    terms::Terms,
};
use lockgate_shared::{
    act::{Act, CohortSize, RiskClass, SignedAct, Start},
    bucket::{Bucket, Limit},
    eligibility::{
        self, Answer as Eligibility, Candidate, Device, Preferences, Reason, ServerView,
    },
    facts::{Conditions, Facts},
    group::{GroupKind, Habit, KnownGroups, groups_of},
    id::{Digest, TenantId},
    manifest::{self, ArtifactKind, Gate as Rule, Manifest},
    pace::{self, Memory, RolloutMemory, Sight, VerifiedRollout},
    policy::Policy as People,
    rollout::{GroupLimit, OpenStage, RolloutEntry, RolloutFile, Scope, Stop, StopKind},
    sign,
    terms::TrialTerms,
    time::{Moment, Seconds},
    version::Version,
    window::Window,
    wire::OutcomeKind,
};
use lockgate_test_fleet::sim::{
    TICKS_PER_HOUR,
    fate::{Install, World},
    fleet::{CHANNEL, Fleet},
    policy::{Gate, Look, Policy as _, Standing, Update, salt},
    presence::WINDOW_H,
    run::Run,
    scenario::{self, Beside, Hit, How, Scenario, Who},
    watch::{Observer, Watch},
};

const DEVICES: u32 = 1_000;
/// From the start to the end of the ramp, with holds on the way.
const HOURS: u32 = 66;
/// Monday, 5 January 2026, 0 o'clock UTC: no clock is changed in the weeks after it.
const MONDAY: i64 = 1_767_571_200;
/// A gate tick.
const TICK_S: u64 = 3_600 / TICKS_PER_HOUR as u64;

#[test]
fn a_thousand_devices_do_in_the_simulator_what_real_agents_do() {
    let beside =
        Beside { windows: 0.33, batteries: 0.3, slow_links: 0.15, power_cuts: 0.2, ..world() };
    let hit = Hit { who: Who::Attribute(0.12), rate: 1.0, how: How::Explicit, after_h: 0.0 };
    let told = alike(&scenario(Some(hit), beside), 22);
    assert!(told.holds > 0 && told.halts == 0, "a group is held: {told:?}");
    assert!(told.begun > 200 && told.kept > 5_000 && told.failed > 2, "{told:?}");
    let hit = Hit { who: Who::All, rate: 1.0, how: How::Silent, after_h: 3.0 };
    let told = alike(&scenario(Some(hit), world()), 11);
    assert!(told.begun > 3 && told.halts > 0, "{told:?}");
}

#[test]
fn a_month_of_polls_teaches_most_devices_the_habit_that_the_simulator_gives_them() {
    let scenario = scenario(None, Beside::default());
    let fleet = Fleet::new(300, &scenario, 4);
    let world = World::new(&fleet, &scenario);
    let mut learnt: BTreeMap<Habit, (u32, u32)> = BTreeMap::new();
    for device in 0..300 {
        let zone = fleet.facts(device).time_zone;
        let mut hours = Hours::default();
        for tick in (0..28 * 24 * TICKS_PER_HOUR).filter(|tick| tick % 12 == device % 12) {
            if world.calendar.reaches(&fleet, device, tick) {
                hours.note(moment(tick), Seconds(0), &zone);
            }
        }
        let habit = fleet.kind(device).habit;
        let (all, same) = learnt.entry(habit).or_default();
        (*all, *same) = (*all + 1, *same + u32::from(hours.habit() == habit));
    }
    // The others keep hours of their own: that costs the gate power and never validity.
    for (habit, least) in [(Habit::AlwaysOn, 90), (Habit::Office, 90), (Habit::Home, 60)] {
        let (all, same) = learnt[&habit];
        assert!(100 * same >= least * all, "{habit:?}: {same} of {all}");
    }
}

/// What was compared, so that a test can ask that it was something.
#[derive(Debug, Default)]
struct Told {
    begun: usize,
    kept: usize,
    failed: usize,
    holds: usize,
    halts: usize,
}

/// What one hour of a rollout publishes.
#[derive(Debug, Clone, PartialEq)]
struct Published {
    limit: Limit,
    groups: Vec<GroupLimit>,
    coverage: Vec<Bucket>,
    holds: Vec<String>,
    halted: bool,
}

fn alike(scenario: &Scenario, seed: u64) -> Told {
    let fleet = Fleet::new(DEVICES, scenario, seed);
    let observer = Noted { log: vec![Vec::new(); DEVICES as usize], published: Vec::new() };
    let mut watch = Watch { gate: Gate::new(&fleet, Terms::routine()), observer };
    Run::new(&fleet, scenario).play(&mut watch, HOURS);
    let noted = watch.observer;
    let mut real = Real::new(&fleet, scenario);
    // A run that was halted ends some hours later.
    for hour in 0..BEFORE + noted.published.len() as u32 {
        real.hour(hour);
    }
    for (hour, (simulated, real)) in noted.published.iter().zip(&real.published).enumerate() {
        assert_eq!(simulated, real, "published in hour {hour}");
    }
    // The simulator leaves off some hours after a halt.
    let last = noted.log.iter().flatten().map(|(hour, _)| *hour).max().unwrap_or_default();
    for (device, (simulated, real)) in noted.log.iter().zip(&real.log).enumerate() {
        let until = real.partition_point(|(hour, _)| *hour <= last);
        assert_eq!(simulated[..], real[..until], "device {device}");
    }
    let all = || noted.log.iter().flatten();
    let count = |update: Update| all().filter(|(_, other)| *other == update).count();
    let last = noted.published.last().expect("hours were played");
    Told {
        begun: count(Update::Waits(Standing::Begins)),
        kept: count(Update::Waits(Standing::Kept)),
        failed: all().filter(|(_, update)| matches!(update, Update::Failed(_))).count(),
        holds: last.holds.len(),
        halts: usize::from(last.halted),
    }
}

/// Everything that passes the simulator's gate, written down.
struct Noted {
    log: Vec<Vec<(u32, Update)>>,
    published: Vec<Published>,
}

impl Observer for Noted {
    fn begin_hour(&mut self, gate: &mut Gate, hour: u32, look: &Look<'_>) {
        gate.begin_hour(hour, look);
        if hour >= BEFORE {
            let trial = &gate.0;
            let bucket = |device| trial.roster().devices[device as usize].bucket;
            let narrower = trial.narrower().into_iter();
            self.published.push(Published {
                limit: trial.fleet_limit(),
                groups: narrower.map(|(group, limit)| GroupLimit { group, limit }).collect(),
                coverage: trial.drawn().map(bucket).collect(),
                holds: gate.sentences(),
                halted: gate.halted(),
            });
        }
    }

    fn letter(&mut self, gate: &mut Gate, device: u32, hour: u32, update: Update) {
        gate.letter(device, hour, update);
        if hour >= BEFORE {
            self.log[device as usize].push((hour, update));
        }
    }
}

/// The same fleet, with the real agent's machine in every device.
struct Real<'a> {
    world: World<'a>,
    papers: Papers,
    agents: Vec<Agent>,
    heard: Vec<u128>,
    stage: Option<StageTrial>,
    file: Option<File>,
    log: Vec<Vec<(u32, Update)>>,
    published: Vec<Published>,
}

/// One device's agent: its machine, its slots, and what waits to be told.
struct Agent {
    facts: Facts,
    windows: Vec<Window>,
    memory: RolloutMemory,
    state: State,
    slots: Slots,
    failed: Vec<Version>,
    outcomes: Vec<OutcomeKind>,
    begun: Option<u32>,
    told_begun: bool,
    letter_due: bool,
    length: u32,
    hit: bool,
}

/// What people signed.
struct Papers {
    people: People,
    manifest: Manifest,
    digest: Digest,
    entry: RolloutEntry,
    tenant: TenantId,
}

/// What is published in an hour, as a device verified it.
struct File {
    rollout: VerifiedRollout,
    memory: Memory,
}

impl<'a> Real<'a> {
    fn new(fleet: &'a Fleet, scenario: &'a Scenario) -> Self {
        let world = World::new(fleet, scenario);
        let papers = Papers::new(fleet, moment(world.calendar.start));
        let agents = (0..DEVICES).map(|device| Agent::new(&world, &papers, device)).collect();
        Self {
            world,
            papers,
            agents,
            heard: vec![0; DEVICES as usize],
            stage: None,
            file: None,
            log: vec![Vec::new(); DEVICES as usize],
            published: Vec::new(),
        }
    }

    fn hour(&mut self, hour: u32) {
        if hour == BEFORE {
            self.stage = Some(self.open());
        }
        if let Some(stage) = &mut self.stage {
            stage.pass(Seconds(u64::from(hour - BEFORE) * 3_600));
            let published = Published::of(stage);
            self.file = Some(self.papers.file(&published, stage));
            self.published.push(published);
        }
        for phase in 0..TICKS_PER_HOUR {
            let now = hour * TICKS_PER_HOUR + phase;
            self.tick(hour, now);
        }
    }

    /// The stage opens: who takes part is known by what was heard before.
    fn open(&self) -> StageTrial {
        let roster = &self.world.fleet.roster;
        let entrants = (0..DEVICES).map(|device| {
            let agent = &self.agents[device as usize];
            let kind = self.world.fleet.kind(device);
            Entrant {
                device: Fleet::id(device),
                bucket: roster.devices[device as usize].bucket,
                groups: groups_of(&agent.facts, kind.habit),
                habit: kind.habit,
                zone: agent.facts.time_zone.clone(),
                noise: roster.kind(device).noise,
                history: self.heard[device as usize],
                watched: true,
                tenant: self.papers.tenant.clone(),
            }
        });
        let salt = salt(self.world.fleet);
        StageTrial::new(&TrialTerms::default(), 1_000_000, entrants.collect(), salt, Seconds(0))
    }

    fn tick(&mut self, hour: u32, now: u32) {
        let tick = self.world.calendar.start - BEFORE * TICKS_PER_HOUR + now;
        if !now.is_multiple_of(TICKS_PER_HOUR)
            && let Some(stage) = &mut self.stage
        {
            // The gatekeeper looks at what was reported, and a stop is published at once.
            stage.look();
            self.file = Some(self.papers.file(&Published::of(stage), stage));
        }
        let mut trials: Vec<u32> = (0..DEVICES)
            .filter(|device| matches!(self.agents[*device as usize].state, State::Trial { .. }))
            .collect();
        trials.sort_by_key(|device| (self.agents[*device as usize].begun, *device));
        for device in trials {
            self.tries(device, tick, now);
            if std::mem::take(&mut self.agents[device as usize].letter_due)
                && self.reaches(device, tick, now)
            {
                self.writes(device, hour, &[]);
            }
        }
        let (from, to) = {
            let phases = &self.world.fleet.phases;
            let phase = (now % TICKS_PER_HOUR) as usize;
            (phases[phase], phases[phase + 1])
        };
        for device in from..to {
            if self.reaches(device, tick, now) {
                self.polls(device, hour, tick, now);
            }
        }
    }

    fn install(&self, device: u32, now: u32) -> Option<Install> {
        let agent = &self.agents[device as usize];
        let begun = agent.begun?;
        Some(Install { hit: agent.hit, age: now - begun, length: agent.length })
    }

    fn reaches(&self, device: u32, tick: u32, now: u32) -> bool {
        let agent = &self.agents[device as usize];
        let back = matches!(agent.state, State::Failed { .. });
        let loops = self.world.scenario.hit.is_some_and(|hit| hit.how == How::CrashLoop);
        let lost = self
            .install(device, now)
            .is_some_and(|install| self.world.silences(device, install, tick) && !(back && loops));
        !lost && self.world.calendar.reaches(self.world.fleet, device, tick)
    }

    /// Five minutes of a trial.
    fn tries(&mut self, device: u32, tick: u32, now: u32) {
        let install = self.install(device, now).expect("on trial since it began");
        if install.age == 0 {
            return;
        }
        let ends = install.age >= install.length;
        if ends && self.world.fails_in_trial(device, install, tick) {
            let why = "it does not start".to_owned();
            self.feed(device, Event::RestartFailed { why }, tick, now);
        } else {
            self.feed(device, Event::Tick, tick, now);
        }
    }

    fn polls(&mut self, device: u32, hour: u32, tick: u32, now: u32) {
        if self.file.is_none() {
            self.heard[device as usize] |= 1 << (128 - (BEFORE - hour));
            return;
        }
        let place = device as usize;
        if let (State::Confirmed { .. }, Some(install)) =
            (&self.agents[place].state, self.install(device, now))
            && self.agents[place].outcomes.is_empty()
            && self.world.fails_late(device, install)
        {
            // Its owner finds it broken.
            let plan = Box::new(self.papers.plan(moment(tick)));
            self.feed(device, Event::GoBack(plan, Consent::GoBack), tick, now);
        }
        let (event, reasons) = self.decides(device, tick);
        self.feed(device, event, tick, now);
        self.agents[place].letter_due = false;
        self.writes(device, hour, &reasons);
    }

    /// What the device finds: the release, or everything against it.
    fn decides(&self, device: u32, tick: u32) -> (Event, Vec<u16>) {
        let agent = &self.agents[device as usize];
        if agent.slots.active == Some(Slot::B) {
            return (Event::NothingNewer, Vec::new());
        }
        let answer = self.asks(device, tick);
        let codes: Vec<u16> = answer.reasons.iter().map(Reason::code).collect();
        if answer.go() {
            return (Event::Chosen(Box::new(self.papers.plan(moment(tick)))), codes);
        }
        (Event::Refused { until: None, reasons: Vec::new() }, codes)
    }

    fn asks(&self, device: u32, tick: u32) -> Eligibility<'_> {
        let (agent, now) = (&self.agents[device as usize], moment(tick));
        let file = self.file.as_ref().expect("it began");
        let weak = self.world.calendar.is_weak(self.world.fleet, device, tick);
        let conditions = Conditions {
            on_battery: Some(weak),
            battery_percent: Some(if weak { 12 } else { 90 }),
            ..Conditions::default()
        };
        let (manifest, start) = (&self.papers.manifest, file.rollout.start());
        let windows = [&agent.windows[..]];
        let running = "1.0.0".parse().expect("a version");
        let asker = Device {
            id: Fleet::id(device),
            tenant: &self.papers.tenant,
            product: &manifest.product,
            channel: &start.channel,
            facts: &agent.facts,
            conditions: &conditions,
            takes: ArtifactKind::App,
            running: Some(&running),
            pins: &[],
            complete: &[],
            windows: if agent.windows.is_empty() { &[] } else { &windows },
            freezes: &[],
            preferences: Preferences::default(),
            failed: &agent.failed,
        };
        let server = ServerView {
            memory: &file.memory,
            passed: &[],
            letters_offset: 1,
            timestamp_issued: Some(now),
        };
        let candidate = Candidate { rollout: &file.rollout, manifest, memory: &agent.memory };
        eligibility::eligibility(&candidate, &asker, &server, now)
    }

    /// An event, and all that follows from it at once.
    fn feed(&mut self, device: u32, event: Event, tick: u32, now: u32) {
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let agent = &mut self.agents[device as usize];
            let uptime = Seconds(u64::from(now) * TICK_S);
            let at = Now { clock: moment(tick), uptime };
            let step = machine::step(agent.state.clone(), event, &agent.slots, at);
            agent.state = step.state;
            if agent.state.plan().is_some() {
                agent.begun.get_or_insert(now);
            }
            for effect in step.effects {
                events.extend(self.performs(device, effect, tick, now));
            }
        }
    }

    fn performs(&mut self, device: u32, effect: Effect, tick: u32, now: u32) -> Option<Event> {
        let digest = self.papers.digest;
        let cleared = (effect == Effect::LastLook).then(|| self.asks(device, tick).go());
        let agent = &mut self.agents[device as usize];
        match effect {
            Effect::Fetch => {
                agent.slots.b = Some(digest);
                Some(Event::Fetched)
            }
            Effect::VerifySlot { .. } => Some(Event::Verified),
            Effect::LastLook => {
                assert_eq!(cleared, Some(true), "nothing changed since it was chosen");
                Some(Event::Cleared { manifest: digest })
            }
            Effect::Activate { slot } => {
                agent.slots.active = Some(slot);
                Some(Event::Activated)
            }
            Effect::RunProbe { probe } => {
                // The product comes up as late as the install takes long.
                let up = agent.begun.is_some_and(|begun| now + 1 >= begun + agent.length);
                let health = if up { Health::Held } else { Health::Failed };
                let said = Said { health, detail: String::new() };
                Some(Event::Probed(Answer { probe, said, latency_ms: 1 }))
            }
            Effect::RecordOutcome { outcome } => {
                agent.outcomes.push(outcome.kind);
                None
            }
            Effect::RememberFailed { version } => {
                agent.failed.push(version);
                None
            }
            Effect::SendLetter => {
                agent.letter_due = true;
                None
            }
            Effect::DiscardSlot { .. } | Effect::Restart => None,
        }
    }

    /// A letter, as the gatekeeper takes it in: a sign of life, the view, the outcomes.
    fn writes(&mut self, device: u32, hour: u32, reasons: &[u16]) {
        let (id, site) = (Fleet::id(device), self.world.fleet.devices[device as usize].site);
        let agent = &mut self.agents[device as usize];
        let stage = self.stage.as_mut().expect("it began");
        stage.hear(&id, Letter::On, Age::Fresh);
        let alone =
            !reasons.is_empty() && reasons.iter().all(|reason| *reason == Reason::ABOVE_LIMIT);
        let view = match (agent.begun.is_some(), alone) {
            (true, _) => Letter::Begins,
            (false, true) => Letter::AtRisk,
            (false, false) => Letter::Kept,
        };
        stage.hear(&id, view, Age::Fresh);
        let first = agent.begun.is_some() && !std::mem::replace(&mut agent.told_begun, true);
        let mut update = match view {
            Letter::AtRisk => Update::Waits(Standing::AtRisk),
            Letter::Kept => Update::Waits(Standing::Kept),
            Letter::Begins if first => Update::Waits(Standing::Begins),
            Letter::Begins
            | Letter::BeginsApart
            | Letter::On
            | Letter::Healthy
            | Letter::Failed(_)
            | Letter::Nothing => Update::On,
        };
        for outcome in std::mem::take(&mut agent.outcomes) {
            let site = u32::from(site);
            let (letter, news) = match outcome {
                OutcomeKind::Confirmed => (Letter::Healthy, Update::Healthy),
                OutcomeKind::RolledBack => (Letter::Failed(Some(site)), Update::Failed(site)),
                OutcomeKind::Failed | OutcomeKind::Inconclusive => {
                    panic!("{outcome:?} does not happen here")
                }
            };
            stage.hear(&id, letter, Age::Fresh);
            update = news;
        }
        self.log[device as usize].push((hour, update));
    }
}

impl Published {
    fn of(stage: &StageTrial) -> Self {
        Self {
            limit: stage.limit(),
            groups: stage.groups(),
            coverage: stage.coverage(),
            holds: stage.trial().holds().iter().map(|hold| hold.sentence.clone()).collect(),
            halted: stage.halt().is_some(),
        }
    }
}

impl Agent {
    fn new(world: &World<'_>, papers: &Papers, device: u32) -> Self {
        let (kind, facts) = (world.fleet.kind(device), world.fleet.facts(device));
        let window = Window {
            zone: facts.time_zone.clone(),
            days: serde_json::from_str(r#"["mon", "tue", "wed", "thu", "fri", "sat", "sun"]"#)
                .expect("every day"),
            hour: WINDOW_H.start as u8,
            minute: 0,
            length_s: Seconds(u64::from(WINDOW_H.end - WINDOW_H.start) * 3_600),
        };
        Self {
            memory: papers.sees(&facts, kind.habit, moment(world.calendar.start)),
            facts,
            windows: if kind.window { vec![window] } else { Vec::new() },
            state: State::Idle,
            slots: Slots { active: Some(Slot::A), a: Some(Digest::of(b"1.0.0")), b: None },
            failed: Vec::new(),
            outcomes: Vec::new(),
            begun: None,
            told_begun: false,
            letter_due: false,
            length: world.calendar.install(world.fleet, device),
            hit: world.fleet.is_hit(device, world.scenario),
        }
    }
}

impl Papers {
    fn new(fleet: &Fleet, start: Moment) -> Self {
        let key = SigningKey::from_bytes(&[1; 32]);
        let people = people(&key);
        let manifest = release();
        let digest = fleet.manifest();
        let act = Start {
            repository: people.repository.clone(),
            product: manifest.product.clone(),
            channel: CHANNEL.parse().expect("a name"),
            version: manifest.version.clone(),
            manifest: digest,
            moment: start,
            cohorts: vec![CohortSize {
                cohort: "general".parse().expect("a name"),
                devices: DEVICES,
            }],
            owner: "ben".parse().expect("a name"),
            risk: RiskClass::Routine,
            plan: Digest::of(b"plan"),
        };
        let rollout = act.rollout();
        let mut signed = SignedAct::unsigned(&Act::Start(act)).expect("an act");
        signed.sign(&key);
        let entry = RolloutEntry {
            rollout,
            start: signed,
            approvals: Vec::new(),
            stages: vec![OpenStage {
                cohort: "general".parse().expect("a name"),
                opened: start,
                limit: Limit::NOBODY,
                full: None,
                groups: Vec::new(),
            }],
            groups: Vec::new(),
            known: KnownGroups::default(),
            coverage: Vec::new(),
            complete: None,
            ended: None,
        };
        let tenant = "acme".parse().expect("a name");
        Self { people, manifest, digest, entry, tenant }
    }

    /// What a device remembers of a rollout that it sees for the first time, and whose first letter about
    /// it was counted.
    fn sees(&self, facts: &Facts, habit: Habit, now: Moment) -> RolloutMemory {
        let cohort = |_: &Start| "general".parse().expect("a name");
        let mut memory = Memory::default();
        let sight = Sight { facts, habit, cohort: &cohort, now };
        memory.observe(&self.written(self.entry.clone(), now, 0), &self.people, &sight);
        let mut seen = memory.rollouts.remove(&self.entry.rollout).expect("it counts");
        seen.first_letter = Some(0);
        seen
    }

    fn written(&self, entry: RolloutEntry, now: Moment, letters_offset: u64) -> RolloutFile {
        RolloutFile {
            repository: self.people.repository.clone(),
            product: self.manifest.product.clone(),
            model: Facts::default().model_id(),
            issued: now,
            letters_offset,
            rollouts: vec![entry],
            stops: Vec::new(),
            lifts: Vec::new(),
        }
    }

    /// What the gatekeeper signs in an hour, held against what people signed.
    fn file(&self, published: &Published, stage: &StageTrial) -> File {
        let mut entry = self.entry.clone();
        entry.stages[0].limit = published.limit;
        entry.stages[0].groups.clone_from(&published.groups);
        entry.coverage.clone_from(&published.coverage);
        let rollout = pace::verify(&entry, &self.people, &self.manifest, &self.digest, None)
            .expect("it agrees with the ladder");
        let mut memory = Memory::default();
        let holds = stage.trial().holds().iter();
        for (number, hold) in (1..).zip(holds) {
            let group = &stage.trial().roster().groups[hold.group as usize];
            let scope = if group.kind == GroupKind::Fleet {
                Scope::Rollout(entry.rollout)
            } else {
                Scope::Groups(entry.rollout, vec![group.id])
            };
            memory.stops.insert(number, stop(number, scope));
        }
        if published.halted {
            memory.stops.insert(0, stop(0, Scope::Rollout(entry.rollout)));
        }
        File { rollout, memory }
    }

    fn plan(&self, now: Moment) -> Plan {
        let artifact = &self.manifest.artifacts[0];
        Plan {
            rollout: self.entry.rollout,
            manifest: self.digest,
            version: self.manifest.version.clone(),
            product: self.manifest.product.clone(),
            artifact: PlannedArtifact {
                kind: artifact.kind,
                size: artifact.size,
                sha256: artifact.sha256,
            },
            from: Some(Slot::A),
            to: Slot::B,
            trial: self.manifest.trial.clone(),
            previous: Some("1.0.0".parse().expect("a version")),
            irreversible: false,
            strands_data: false,
            chosen: now,
        }
    }
}

fn stop(number: u64, scope: Scope) -> Stop {
    Stop { number, kind: StopKind::Hold, scope, since: Moment(MONDAY), reason: "held".into() }
}

fn release() -> Manifest {
    let text = r#"{
        "format": 1, "product": "app", "version": "1.1.0", "severity": "routine",
        "artifacts": [{"kind": "app", "size": 10, "sha256": "SHA", "files": []}],
        "trial": {
            "probes": [{"name": "answers", "kind": "command", "argv": ["bin/app"],
                "timeout_s": 5, "interval_s": 300}],
            "soak_s": 300, "deadline_s": 21600, "attempts": 3
        },
        "ladder": {"stages": [{"cohort": "general", "floor_s": 0, "bake_s": 60, "trial": {}}]}
    }"#;
    let text = text.replace("SHA", &Digest::of(b"artifact").to_string());
    let manifest: Manifest = serde_json::from_str(&text).expect("a manifest");
    assert_eq!(manifest.format, manifest::MANIFEST_FORMAT);
    assert!(matches!(&manifest.ladder.stages[0].gate, Rule::Trial(terms)
        if **terms == TrialTerms::default()));
    manifest
}

fn people(key: &SigningKey) -> People {
    let text = r#"{
        "format": 1, "repository": "trial",
        "people": {"ben": {"keys": ["KEY"], "roles": ["approver"]}},
        "approvals": {"start_routine": 1, "start_security": 1, "start_emergency": 1, "stage": 1,
            "lift": 1, "grant": 1, "waiver": 1},
        "tenants": {}, "products": {}
    }"#;
    let text = text.replace("KEY", &sign::public(key).to_string());
    serde_json::from_str(&text).expect("a policy")
}

fn moment(tick: u32) -> Moment {
    Moment(MONDAY).plus(Seconds(u64::from(tick) * TICK_S))
}

/// Sites lose power, and everything else that happens in an ordinary week.
fn world() -> Beside {
    Beside { site_outages: 0.1, ..Beside::default() }
}

fn scenario(hit: Option<Hit>, beside: Beside) -> Scenario {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios"));
    let quiet = scenario::read(folder)
        .expect("scenarios")
        .into_iter()
        .find(|scenario| scenario.name == "good-quiet")
        .expect("a scenario of the folder");
    Scenario { hit, beside, ..quiet }
}
