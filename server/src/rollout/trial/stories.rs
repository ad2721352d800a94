//! Rollouts told from start to end on fleets that poll once an hour: what must hold, whatever the
//! release does.

use lockgate_shared::{
    bucket::Bucket,
    facts::Facts,
    group::{Habit, groups_of},
    id::{ChannelId, DeviceId},
};

use super::{
    judge::Verdict,
    roster::{Likeness, Member, Noise},
    *,
};

const MODELS: u32 = 4;

/// A fleet of devices that are always on and do what the gate allows.
struct Fleet {
    trial: Trial,
    hour: u32,
    begun: Vec<Option<u32>>,
    told: Vec<Option<Fate>>,
    /// Whom more than its bucket keeps back, at an hour.
    kept: fn(u32, u32) -> bool,
}

/// What a release does to a device of this number that began so many hours ago.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Well,
    Fails,
    Silent,
}

impl Fleet {
    fn new(devices: u32) -> Self {
        Self::drawn(devices, 3)
    }

    /// A fleet whose names are drawn by this salt.
    fn drawn(devices: u32, salt: u8) -> Self {
        let trial = Trial::new(Terms::routine(), roster(devices), Digest([salt; 32]));
        let (begun, told) = (vec![None; devices as usize], vec![None; devices as usize]);
        Self { trial, hour: 0, begun, told, kept: |_, _| false }
    }

    fn hour(&mut self, fate: &dyn Fn(u32, u32) -> Fate) {
        self.trial.begin_hour(self.hour);
        for device in 0..self.begun.len() as u32 {
            self.poll(device, fate);
        }
        self.hour += 1;
    }

    fn poll(&mut self, device: u32, fate: &dyn Fn(u32, u32) -> Fate) {
        let place = device as usize;
        let Some(begun) = self.begun[place] else {
            if (self.kept)(device, self.hour) {
                self.trial.letter(device, Letter::Kept);
                return;
            }
            // As the agent does it: it reads what is published, decides, and says what came of it.
            if self.hour >= BEFORE && self.trial.admits(device) {
                self.begun[place] = Some(self.hour);
                self.trial.letter(device, Letter::Begins);
            } else {
                self.trial.letter(device, Letter::AtRisk);
            }
            return;
        };
        let fate = fate(device, self.hour - begun);
        let told = self.told[place].replace(fate) == Some(fate);
        match fate {
            Fate::Silent => {}
            Fate::Fails if !told => self.trial.letter(device, Letter::Failed(None)),
            Fate::Well if !told => self.trial.letter(device, Letter::Healthy),
            Fate::Well | Fate::Fails => self.trial.letter(device, Letter::On),
        }
    }

    fn play(&mut self, hours: u32, fate: &dyn Fn(u32, u32) -> Fate) {
        for _ in 0..BEFORE + hours {
            self.hour(fate);
        }
    }

    fn let_in(&self) -> usize {
        self.begun.iter().flatten().count()
    }
}

#[test]
fn a_good_release_reaches_everybody_and_holds_nobody() {
    let mut fleet = Fleet::new(400);
    fleet.play(96, &|_, _| Fate::Well);
    assert_eq!(*fleet.trial.verdict(), Verdict::Open);
    assert!(fleet.trial.holds().is_empty());
    assert_eq!(fleet.let_in(), 400);
}

#[test]
fn who_won_a_lot_and_has_not_read_so_yet_wins_no_second_one() {
    // Everybody writes before it reads: at risk, though the limit has reached it.
    let mut fleet = Fleet::new(400);
    fleet.play(40, &|_, _| Fate::Well);
    let waits = |device: &u32| fleet.trial.cases[*device as usize].state == State::Waiting;
    let late: Vec<u32> = (0..400).filter(waits).collect();
    for hour in 0..20 {
        fleet.trial.begin_hour(fleet.hour + hour);
        late.iter().for_each(|device| fleet.trial.letter(*device, Letter::AtRisk));
    }
    let mut won = vec![0; 400];
    for batch in fleet.trial.lots.all() {
        let lots = batch.lots.iter().filter(|lot| lot.arm == Arm::Treated);
        lots.for_each(|lot| won[lot.device as usize] += u32::from(late.contains(&lot.device)));
    }
    assert!(won.contains(&1), "some won");
    assert!(won.iter().all(|times| *times <= 1), "{won:?}");
}

#[test]
fn sentinels_that_never_come_and_one_that_fails_do_not_keep_everybody_waiting_for_good() {
    // Most are pinned, and the first that is let in fails.
    let mut fleet = Fleet::new(40);
    fleet.kept = |device, _| device % 4 != 0;
    let first = std::cell::Cell::new(None);
    fleet.play(300, &|device, _| match first.get() {
        None => {
            first.set(Some(device));
            Fate::Fails
        }
        Some(bad) if bad == device => Fate::Fails,
        Some(_) => Fate::Well,
    });
    assert_eq!(*fleet.trial.verdict(), Verdict::Open);
    assert_eq!(fleet.let_in(), 10, "all that are not pinned");
}

#[test]
fn sentinels_whose_windows_are_closed_are_replaced_one_at_a_time() {
    let mut fleet = Fleet::new(400);
    fleet.kept = |_, hour| hour < BEFORE + 48;
    fleet.play(48, &|_, _| Fate::Silent);
    let waiting = fleet.trial.drawn().count();
    assert!((6..=12).contains(&waiting), "{waiting} were named in two days");
}

#[test]
fn a_release_that_bricks_every_device_stops_at_the_first_five() {
    let mut fleet = Fleet::new(400);
    fleet.play(60, &|_, _| Fate::Silent);
    assert!(fleet.let_in() <= 7, "{} were let in", fleet.let_in());
    assert_eq!(*fleet.trial.verdict(), Verdict::Halt);
    let sentence = &fleet.trial.holds()[0].sentence;
    assert!(sentence.starts_with("Halted: 5 of 5 devices went silent"), "{sentence}");
}

#[test]
fn a_release_that_fails_on_every_device_halts_with_its_failures_counted() {
    let mut fleet = Fleet::new(400);
    fleet.play(60, &|_, _| Fate::Fails);
    assert!(fleet.let_in() <= 7, "{} were let in", fleet.let_in());
    assert_eq!(*fleet.trial.verdict(), Verdict::Halt);
    assert!(fleet.trial.holds()[0].sentence.contains("that were let in failed"));
}

#[test]
fn a_bad_model_is_kept_small_while_the_others_go_on() {
    let mut fleet = Fleet::new(800);
    fleet.play(100, &|device, _| if model(device) == 3 { Fate::Fails } else { Fate::Well });
    let bad = |device: &usize| model(*device as u32) == 3;
    let begun = |bad_ones: bool| {
        let devices = (0..800).filter(|device| bad(device) == bad_ones);
        devices.filter(|device| fleet.begun[*device].is_some()).count()
    };
    assert!(begun(true) <= 8, "{} of the bad model were let in", begun(true));
    assert_ne!(*fleet.trial.verdict(), Verdict::Halt);
    assert_eq!(begun(false), 600, "all the others");
}

/// Plays a fleet in which one of the four models fails from this age on, and says in which hour it was
/// held, how many of the model were let in, and in which hour all others were.
fn bad_model(devices: u32, salt: u8, from: u32) -> (Option<u32>, usize, Option<u32>) {
    let mut fleet = Fleet::drawn(devices, salt);
    let bad = |device: u32| model(device) == 3;
    let fate = |device, age| if bad(device) && age >= from { Fate::Fails } else { Fate::Well };
    let (mut held, mut done) = (None, None);
    for hour in 0..BEFORE + 130 {
        fleet.hour(&fate);
        let begun = |device: u32| fleet.begun[device as usize].is_some();
        if !fleet.trial.holds().is_empty() {
            held.get_or_insert(hour.saturating_sub(BEFORE));
        }
        if (0..devices).filter(|device| !bad(*device)).all(begun) {
            done.get_or_insert(hour.saturating_sub(BEFORE));
        }
    }
    let harmed = (0..devices)
        .filter(|device| bad(*device))
        .filter(|device| fleet.begun[*device as usize].is_some());
    (held, harmed.count(), done)
}

#[test]
fn in_a_small_fleet_a_bad_model_is_held_within_four_days_however_the_names_fall() {
    for (devices, from) in [(24, 1), (40, 1), (100, 1), (24, 6), (40, 6), (100, 6)] {
        for salt in 0..8 {
            let told = bad_model(devices, salt, from);
            let (held, harmed, done) = told;
            let place = format!("{devices} devices, salt {salt}, from {from} h: {told:?}");
            assert!(held.is_some_and(|hour| hour <= 96), "{place}");
            assert!(harmed <= 14 && harmed < devices as usize / 4 + 1, "{place}");
            assert!(done.is_some_and(|hour| hour <= 100), "{place}");
        }
    }
}

#[test]
fn in_a_small_fleet_a_good_release_is_as_quick_as_in_a_large_one() {
    for devices in [5, 12, 18, 24, 40, 100] {
        for salt in 0..5 {
            let mut fleet = Fleet::drawn(devices, salt);
            fleet.play(70, &|_, _| Fate::Well);
            assert_eq!(fleet.let_in(), devices as usize, "{devices} devices, salt {salt}");
        }
    }
}

#[test]
fn a_late_failure_puts_off_the_ramp_until_those_that_were_there_have_lived_and_no_longer() {
    let mut fleet = Fleet::new(400);
    let (mut ramp, mut first) = (None, None);
    for _ in 0..BEFORE + 100 {
        first = first.or_else(|| fleet.begun.iter().position(Option::is_some));
        let fate = |device: u32, age: u32| {
            let fails = first == Some(device as usize) && age >= 30;
            if fails { Fate::Fails } else { Fate::Well }
        };
        fleet.hour(&fate);
        if fleet.trial.phase() >= clock::Phase::Ramp {
            ramp.get_or_insert(fleet.hour - BEFORE);
        }
    }
    assert!(ramp.is_some_and(|hour| (45..55).contains(&hour)), "{ramp:?}");
    assert_eq!((*fleet.trial.verdict(), fleet.let_in()), (Verdict::Open, 400));
}

#[test]
fn sentinels_that_fall_silent_and_prove_nothing_are_replaced() {
    let mut fleet = Fleet::new(40);
    fleet.trial = Trial::new(Terms::routine(), roster_of(40, Habit::Unknown), Digest([3; 32]));
    let lost = std::cell::RefCell::new(std::collections::BTreeSet::new());
    fleet.play(200, &|device, _| {
        let mut lost = lost.borrow_mut();
        if lost.len() < 4 {
            lost.insert(device);
        }
        if lost.contains(&device) { Fate::Silent } else { Fate::Well }
    });
    assert_eq!((*fleet.trial.verdict(), fleet.let_in()), (Verdict::Open, 40));
}

#[test]
fn devices_lost_a_day_later_are_few_because_nobody_soaked() {
    let mut fleet = Fleet::new(400);
    fleet.play(80, &|_, age| if age > 24 { Fate::Silent } else { Fate::Well });
    assert_eq!(*fleet.trial.verdict(), Verdict::Halt);
    assert!(fleet.let_in() <= 40, "{} were let in", fleet.let_in());
}

#[test]
fn whoever_was_let_in_stays_let_in_until_a_hold() {
    let mut fleet = Fleet::new(300);
    let mut before = vec![false; 300];
    for _ in 0..BEFORE + 90 {
        fleet.hour(&|_, _| Fate::Well);
        let now: Vec<bool> = (0..300)
            .map(|device| fleet.trial.admits(device) || fleet.begun[device as usize].is_some())
            .collect();
        assert!(before.iter().zip(&now).all(|(before, now)| !before || *now));
        before = now;
    }
}

#[test]
fn when_everybody_falls_silent_the_gate_waits() {
    let mut fleet = Fleet::new(400);
    fleet.play(48, &|_, _| Fate::Well);
    let clock = fleet.trial.clock().hours();
    let begun = fleet.let_in();
    for _ in 0..10 {
        // Nobody is heard: the server is out of reach.
        fleet.trial.begin_hour(fleet.hour);
        fleet.hour += 1;
    }
    assert!(fleet.trial.clock().hours() <= clock + 3.0);
    assert_eq!(fleet.let_in(), begun);
    assert_ne!(*fleet.trial.verdict(), Verdict::Halt);
}

#[test]
fn what_one_tenants_devices_alone_say_holds_that_tenant_and_nobody_else() {
    let mut fleet = Fleet::new(400);
    let whose = |device: u32| u16::from(device.is_multiple_of(5));
    let tenants = (0..400).map(whose).collect();
    let names = vec!["acme".into(), "globex".into()];
    fleet.trial =
        Trial::new(Terms::routine(), roster(400).belongs(tenants, names), Digest([3; 32]));
    fleet.play(110, &|device, _| if whose(device) == 1 { Fate::Fails } else { Fate::Well });
    let holds = fleet.trial.holds();
    assert!(matches!(holds, [only] if only.tenant == Some(1)), "{holds:?}");
    assert!(holds[0].sentence.contains("tenant globex alone"), "{holds:?}");
    assert_eq!(*fleet.trial.verdict(), Verdict::Open);
    let begun = |tenant| {
        (0..400).filter(|n| whose(*n) == tenant && fleet.begun[*n as usize].is_some()).count()
    };
    assert_eq!(begun(0), 320, "the others go on");
    assert!(begun(1) <= 12, "{} of the one tenant's were let in", begun(1));
    let before = begun(1);
    fleet.trial.forgive_tenant("globex");
    for _ in 0..40 {
        fleet.hour(&|_, _| Fate::Well);
    }
    let after = (0..400).filter(|n| whose(*n) == 1 && fleet.begun[*n as usize].is_some()).count();
    assert!(after > before, "a person looked, and they go on");
}

#[test]
fn the_order_of_letters_within_an_hour_changes_nothing() {
    let forwards = told_in_order(false);
    let backwards = told_in_order(true);
    assert_eq!(forwards, backwards);
}

fn told_in_order(backwards: bool) -> Vec<Option<u32>> {
    let mut fleet = Fleet::new(300);
    let fate =
        |device: u32, _: u32| if device.is_multiple_of(40) { Fate::Fails } else { Fate::Well };
    for _ in 0..BEFORE + 60 {
        fleet.trial.begin_hour(fleet.hour);
        for number in 0..300 {
            fleet.poll(if backwards { 299 - number } else { number }, &fate);
        }
        fleet.hour += 1;
    }
    fleet.begun
}

const fn model(device: u32) -> u32 {
    device % MODELS
}

fn roster(devices: u32) -> Roster {
    roster_of(devices, Habit::AlwaysOn)
}

fn roster_of(devices: u32, habit: Habit) -> Roster {
    let kinds: Vec<Likeness> = (0..MODELS)
        .map(|model| {
            let facts = Facts {
                vendor: "Acme".into(),
                model: format!("Slate {model}"),
                os_id: "debian".into(),
                ..Facts::default()
            };
            let groups = groups_of(&facts, habit);
            Likeness {
                groups: groups
                    .into_iter()
                    .map(|group| (group.id, group.kind, group.label))
                    .collect(),
                habit,
                zone: 0,
                noise: Noise { prompt: 0.004, late: 0.001 },
            }
        })
        .collect();
    let channel: ChannelId = "stable".parse().expect("a name");
    let members = (0..devices)
        .map(|device| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&device.to_be_bytes());
            let bucket = Bucket::of(&Digest([9; 32]), &channel, &DeviceId(id));
            Member { kind: model(device), bucket }
        })
        .collect();
    Roster::new(kinds, members)
}
