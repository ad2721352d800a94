//! A fleet of made-up devices in compact arrays: what they are, where, whom a scenario hits. Devices
//! stand in the order of the five minutes of the hour in which they poll, so that a tick walks over a
//! piece of the arrays.

use std::collections::BTreeMap;

use lockgate_server::rollout::trial::roster::{Likeness, Member, Noise, Roster, expected};
use lockgate_shared::{
    bucket::Bucket,
    facts::Facts,
    group::{GroupKind, Habit, groups_of},
    id::{ChannelId, DeviceId, Digest},
};

use super::{
    TICKS_PER_HOUR,
    dice::Dice,
    scenario::{Scenario, Who},
};

/// Hardware models; each has firmware of its own.
pub const MODELS: u32 = 24;
/// The channel that everybody follows.
pub const CHANNEL: &str = "stable";
const OSES: u32 = 8;
const FIRMWARES: u32 = 3;
const CONFIGURATIONS: u32 = 8;
const ZONES: [(&str, i32); 4] = [
    ("Europe/Berlin", 1),
    ("America/New_York", -5),
    ("Asia/Tokyo", 9),
    ("America/Los_Angeles", -8),
];
/// The usual share of installs that fail and that no release is to blame for.
pub const NOISE: f64 = 0.003;
/// Of these, the share that shows after the trial.
pub const LATE: f64 = 0.15;

/// A fleet under one scenario.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// Where its chance comes from.
    pub dice: Dice,
    /// What devices are alike in.
    pub kinds: Vec<Kind>,
    /// The devices.
    pub devices: Vec<Device>,
    /// For each tick of the hour, the first device that polls in it; and the end.
    pub phases: [u32; TICKS_PER_HOUR as usize + 1],
    /// The devices as the gate knows them.
    pub roster: Roster,
    /// Whether a kind is hit.
    pub hit_kinds: Vec<bool>,
    /// Sites.
    pub sites: u32,
}

/// What devices are alike in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kind {
    /// Attributes by number: hardware, OS, firmware, configuration.
    pub values: [u8; 4],
    /// When they are on.
    pub habit: Habit,
    /// Hours ahead of UTC.
    pub ahead: i32,
    /// What fails without anybody's fault.
    pub noise: Noise,
    /// Whether the model is away on many days.
    pub away: bool,
    /// Whether the model has a window, and leaves early.
    pub window: bool,
}

/// One device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its kind.
    pub kind: u32,
    /// Its site.
    pub site: u16,
}

impl Fleet {
    /// The fleet of this size, scenario and seed.
    pub fn new(size: u32, scenario: &Scenario, seed: u64) -> Self {
        let dice = Dice(seed).of(u64::from(size));
        let sites = (size / 40).clamp(4, 60_000);
        let mut numbers: BTreeMap<([u8; 4], u8, u8), u32> = BTreeMap::new();
        let mut keys: Vec<([u8; 4], u8, u8)> = Vec::new();
        let devices: Vec<Device> = (0..size)
            .map(|device| {
                let (key, site) = draw(dice.of(1).of(u64::from(device)), dice, sites);
                let kind = *numbers.entry(key).or_insert_with(|| {
                    keys.push(key);
                    keys.len() as u32 - 1
                });
                Device { kind, site }
            })
            .collect();
        let kinds: Vec<Kind> = keys.iter().map(|key| kind(*key, scenario, dice)).collect();
        let roster = roster(&kinds, &keys, &devices, dice);
        let hit_kinds = hit_kinds(&kinds, &roster, scenario, dice);
        let mut phases = [0; TICKS_PER_HOUR as usize + 1];
        for (phase, place) in phases.iter_mut().enumerate() {
            *place = (u64::from(size) * phase as u64 / u64::from(TICKS_PER_HOUR)) as u32;
        }
        Self { dice, kinds, devices, phases, roster, hit_kinds, sites }
    }

    /// A device's kind.
    #[inline]
    pub fn kind(&self, device: u32) -> &Kind {
        &self.kinds[self.devices[device as usize].kind as usize]
    }

    /// A device's id.
    pub fn id(device: u32) -> DeviceId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&u64::from(device).to_be_bytes());
        DeviceId(id)
    }

    /// The release's manifest, as far as buckets ask.
    pub fn manifest(&self) -> Digest {
        manifest(self.dice)
    }

    /// What a device says it is.
    pub fn facts(&self, device: u32) -> Facts {
        let place = self.devices[device as usize].kind as usize;
        facts(&self.kinds[place].values, self.roster.kinds[place].zone)
    }

    /// Whether the release is bad for a device.
    pub fn is_hit(&self, device: u32, scenario: &Scenario) -> bool {
        let Some(hit) = &scenario.hit else { return false };
        let dice = self.dice.of(3).of(u64::from(device));
        self.in_population(device, scenario) && dice.hits(hit.rate)
    }

    /// Whether a device is of the population that a fault is about.
    pub fn in_population(&self, device: u32, scenario: &Scenario) -> bool {
        let Some(hit) = &scenario.hit else { return false };
        match hit.who {
            Who::All => true,
            Who::Share(share) | Who::Hidden(share) => {
                self.dice.of(4).of(u64::from(device)).hits(share)
            }
            Who::Attribute(_) | Who::Pair(_) => {
                self.hit_kinds[self.devices[device as usize].kind as usize]
            }
        }
    }
}

/// A device's attributes, habit and zone by number, and its site.
fn draw(own: Dice, fleet: Dice, sites: u32) -> (([u8; 4], u8, u8), u16) {
    let site = own.of(1).zipf(sites.min(400), 0.6) + 400 * own.of(8).below((sites / 400).max(1));
    let site = site.min(sites - 1);
    let model = own.of(2).zipf(MODELS, 1.1);
    // Models prefer systems and configurations of their own, as models do.
    let os = (own.of(3).zipf(OSES, 1.3) + fleet.of(50).of(u64::from(model / 3)).below(3)) % OSES;
    let firmware = own.of(4).zipf(FIRMWARES, 1.0);
    let configuration = (own.of(5).zipf(CONFIGURATIONS, 1.2)
        + fleet.of(51).of(u64::from(site)).below(2))
        % CONFIGURATIONS;
    let habit = match own.of(6).below(100) {
        0..30 => 0,
        30..70 => 1,
        70..90 => 2,
        _ => 3,
    };
    let zone = match fleet.of(52).of(u64::from(site)).below(100) {
        0..45 => 0,
        45..75 => 1,
        75..90 => 2,
        _ => 3,
    };
    let values = [model, os, firmware, configuration].map(|value| value as u8);
    ((values, habit, zone), site as u16)
}

fn kind(key: ([u8; 4], u8, u8), scenario: &Scenario, dice: Dice) -> Kind {
    let (values, habit, zone) = key;
    let beside = &scenario.beside;
    let model = dice.of(60).of(u64::from(values[0]));
    let usual = NOISE * beside.noise * [0.3, 0.5, 0.8, 1.0, 1.5, 2.0][model.below(6) as usize];
    let all = if model.of(1).hits(beside.noisy_models) { usual.max(0.03) } else { usual };
    Kind {
        values,
        habit: [Habit::AlwaysOn, Habit::Office, Habit::Home, Habit::Duty][usize::from(habit)],
        ahead: ZONES[usize::from(zone)].1,
        noise: Noise { prompt: all * (1.0 - LATE), late: all * LATE },
        away: model.of(2).hits(beside.own_habits),
        window: model.of(3).hits(beside.windows),
    }
}

/// The devices as the gate knows them: groups by the published rule, buckets by the manifest's hash, and
/// noise from what earlier releases did to models like theirs.
fn roster(kinds: &[Kind], keys: &[([u8; 4], u8, u8)], devices: &[Device], dice: Dice) -> Roster {
    let mut owned = [0u32; MODELS as usize];
    for device in devices {
        owned[usize::from(kinds[device.kind as usize].values[0])] += 1;
    }
    let mut noises = [Noise::default(); MODELS as usize];
    for (model, noise) in noises.iter_mut().enumerate() {
        if let Some(kind) = kinds.iter().find(|kind| usize::from(kind.values[0]) == model) {
            *noise = known(kind, owned[model], dice);
        }
    }
    let likenesses = kinds
        .iter()
        .zip(keys)
        .map(|(kind, key)| Likeness {
            groups: groups_of(&facts(&kind.values, key.2), kind.habit)
                .into_iter()
                .map(|group| (group.id, group.kind, group.label))
                .collect(),
            habit: kind.habit,
            zone: key.2,
            noise: noises[usize::from(kind.values[0])],
        })
        .collect();
    let manifest = manifest(dice);
    let channel: ChannelId = CHANNEL.parse().expect("a name that is written here");
    let members = devices
        .iter()
        .enumerate()
        .map(|(number, device)| {
            let id = Fleet::id(number as u32);
            Member { kind: device.kind, bucket: Bucket::of(&manifest, &channel, &id) }
        })
        .collect();
    Roster::new(likenesses, members)
}

fn manifest(dice: Dice) -> Digest {
    Digest::of_parts("lockgate simulated release v1", &[&dice.0.to_be_bytes()])
}

/// What a server knows of a model's noise after two releases.
fn known(kind: &Kind, owned: u32, dice: Dice) -> Noise {
    let installs = 2 * owned;
    let draw = dice.of(61).of(u64::from(kind.values[0]));
    let failures = |share: f64, dice: Dice| {
        (0..installs).filter(|install| dice.of(u64::from(*install)).hits(share)).count() as u32
    };
    Noise {
        prompt: expected(failures(kind.noise.prompt, draw.of(1)), installs),
        late: expected(failures(kind.noise.late, draw.of(2)), installs),
    }
}

fn facts(values: &[u8; 4], zone: u8) -> Facts {
    let [model, os, firmware, configuration] = *values;
    Facts {
        vendor: ["Acme", "Borealis", "Cobalt"][usize::from(model % 3)].into(),
        model: format!("Model {model}"),
        arch: "x86_64".into(),
        os_id: ["debian", "yocto"][usize::from(os % 2)].into(),
        os_version: format!("{}", 10 + os / 2),
        firmware_version: format!("{model}.{firmware}"),
        configuration: format!("plan-{configuration}"),
        time_zone: ZONES[usize::from(zone)].0.into(),
        ..Facts::default()
    }
}

/// The kinds that a fault of one attribute or a pair is about: the value whose share is closest to what
/// the scenario asks for, among those of one level.
pub(crate) fn hit_kinds(
    kinds: &[Kind],
    roster: &Roster,
    scenario: &Scenario,
    dice: Dice,
) -> Vec<bool> {
    let asked = match scenario.hit.map(|hit| hit.who) {
        Some(Who::Attribute(share)) => Some((1..5, share)),
        Some(Who::Pair(share)) => Some((7..12, share)),
        Some(Who::All | Who::Share(_) | Who::Hidden(_)) | None => None,
    };
    let Some((places, share)) = asked else { return vec![false; kinds.len()] };
    let telling = |kind: GroupKind| places.clone().any(|place| GroupKind::ALL[place] == kind);
    let mut fitting: Vec<(u64, u32)> = (0..roster.groups.len() as u32)
        .filter(|group| telling(roster.groups[*group as usize].kind))
        .map(|group| {
            let off = (roster.share(group) / share).ln().abs();
            // Steps of a quarter: among groups about as close, chance decides.
            ((off * 4.0) as u64, group)
        })
        .collect();
    fitting.sort_by_key(|(off, group)| (*off, dice.of(70).of(u64::from(*group)).0));
    let chosen = fitting.first().map_or(u32::MAX, |(_, group)| *group);
    roster.kinds.iter().map(|kind| kind.groups.contains(&chosen)).collect()
}
