//! The devices of a question as the simulator takes them: so many of each kind, in the cohorts of the
//! ladder, with the days that they were seen to have. It makes up what nobody was told: which site a device
//! is at.

use jiff::{Timestamp, tz::TimeZone};
use lockgate_server::{
    preflight::Question,
    rollout::trial::{
        clock::Phase,
        roster::{Likeness, Member, Noise, Roster, expected},
    },
    status::KindStatus,
};
use lockgate_shared::{
    bucket::Bucket,
    group::{Group, Habit, groups_of},
    id::{DeviceId, Digest},
    manifest::Gate,
};

use crate::sim::{
    TICKS_PER_HOUR,
    dice::Dice,
    fleet::{Device, Fleet, Kind, LATE, NOISE, hit_kinds},
    scenario::Scenario,
};

/// Devices that are simulated at most: a larger fleet is tried with fewer of each kind, because what a
/// trial costs hardly depends on the size, and an operator waits for the answer.
pub(super) const DEVICES: u32 = 20_000;
/// Installs from which a model's own failures count in place of the usual.
const INSTALLS: u32 = 150;
/// The share of hours in which a device that is always on is heard, in percent.
const ALWAYS: u32 = 75;
/// The only step of a stage that counts.
const COUNTED: &str = "counted";
/// Steps that a stage has at most: those of a trial.
pub(super) const STEPS: usize = Phase::ALL.len();

/// What all simulations have in common.
pub(super) struct Town {
    /// Kinds, by number.
    pub(super) kinds: Vec<KindOf>,
    /// The devices, by rising number: their kinds.
    devices: Vec<u32>,
    /// Of each stage, its devices by rising number.
    pub(super) members: Vec<Vec<u32>>,
    phases: Vec<Vec<&'static str>>,
}

/// A kind of device.
pub(super) struct KindOf {
    /// Its groups with their words.
    pub(super) groups: Vec<Group>,
    /// Its habit, as the gate knows it.
    pub(super) habit: Habit,
    /// Its time zone.
    pub(super) zone: String,
    /// What is known of its noise.
    pub(super) known: Noise,
    sim: Kind,
}

impl Town {
    /// The town of a question.
    pub(super) fn of(question: &Question) -> Self {
        let stages = &question.ladder.stages;
        let place = |kind: &KindStatus| stages.iter().position(|stage| stage.cohort == kind.cohort);
        let placed: Vec<(usize, &KindStatus)> =
            question.kinds.iter().filter_map(|kind| Some((place(kind)?, kind))).collect();
        let all: u64 = placed.iter().map(|(_, kind)| u64::from(kind.devices)).sum();
        let mut town = Self {
            kinds: Vec::new(),
            devices: Vec::new(),
            members: vec![Vec::new(); stages.len()],
            phases: stages.iter().map(|stage| phases(&stage.gate)).collect(),
        };
        for (stage, kind) in placed {
            let number = town.kinds.len() as u32;
            town.kinds.push(kind_of(kind, question.at.0));
            for _ in 0..scaled(kind.devices, all) {
                if let Some(members) = town.members.get_mut(stage) {
                    members.push(town.devices.len() as u32);
                }
                town.devices.push(number);
            }
        }
        town
    }

    /// How many devices there are.
    pub(super) fn devices(&self) -> u32 {
        self.devices.len() as u32
    }

    /// The steps inside a stage.
    pub(super) fn phases(&self, stage: usize) -> &[&'static str] {
        self.phases.get(stage).map(Vec::as_slice).unwrap_or_default()
    }

    /// A device's kind.
    pub(super) fn kind(&self, device: u32) -> &KindOf {
        &self.kinds[self.devices[device as usize] as usize]
    }

    /// The fleet of one simulation.
    pub(super) fn fleet(&self, question: &Question, scenario: &Scenario, seed: u64) -> Fleet {
        let dice = Dice(seed).of(u64::from(self.devices()));
        let sites = (self.devices() / 40).clamp(4, 60_000);
        let kinds: Vec<Kind> = self.kinds.iter().map(|kind| kind.sim).collect();
        let likenesses = self.kinds.iter().map(|kind| Likeness {
            groups: kind.groups.iter().map(|g| (g.id, g.kind, g.label.clone())).collect(),
            habit: kind.habit,
            zone: 0,
            noise: kind.known,
        });
        let salt = Digest::of_parts(
            "lockgate plan v1",
            &[&question.subject.manifest.0, &seed.to_be_bytes()],
        );
        let members = self.devices.iter().zip(0u32..).map(|(kind, device)| Member {
            kind: *kind,
            bucket: Bucket::of(&salt, &question.subject.channel, &id(device)),
        });
        let roster = Roster::new(likenesses.collect(), members.collect());
        let hit_kinds = hit_kinds(&kinds, &roster, scenario, dice);
        let site = |device: u32| dice.of(1).of(u64::from(device)).zipf(sites, 0.6) as u16;
        let devices = self.devices.iter().zip(0u32..);
        Fleet {
            dice,
            kinds,
            devices: devices
                .map(|(kind, device)| Device { kind: *kind, site: site(device) })
                .collect(),
            // Devices poll by their place in the stage, not by that in the fleet.
            phases: [0; TICKS_PER_HOUR as usize + 1],
            roster,
            hit_kinds,
            sites,
        }
    }
}

/// A device's id: by rising number.
pub(super) fn id(device: u32) -> DeviceId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&device.to_be_bytes());
    DeviceId(id)
}

/// How many of a kind are simulated: one at least.
fn scaled(devices: u32, all: u64) -> u32 {
    if all <= u64::from(DEVICES) || devices == 0 {
        return devices;
    }
    let share = u64::from(devices) * u64::from(DEVICES) / all;
    u32::try_from(share).unwrap_or(DEVICES).max(1)
}

fn phases(gate: &Gate) -> Vec<&'static str> {
    match gate {
        Gate::Count(_) => vec![COUNTED],
        Gate::Trial(_) => Phase::ALL.map(Phase::name).into(),
    }
}

fn kind_of(kind: &KindStatus, at: i64) -> KindOf {
    let ahead = ahead(&kind.words.time_zone, at);
    let noise = if kind.installs >= INSTALLS {
        f64::from(kind.failed) / f64::from(kind.installs)
    } else {
        NOISE
    };
    let known = expected(kind.failed, kind.installs);
    KindOf {
        groups: groups_of(&kind.words.facts(), kind.habit),
        habit: kind.habit,
        zone: kind.words.time_zone.clone(),
        known: Noise { prompt: known, late: known },
        sim: Kind {
            values: [0; 4],
            habit: habit(kind, ahead),
            ahead,
            noise: Noise { prompt: noise * (1.0 - LATE), late: noise * LATE },
            away: false,
            window: false,
        },
    }
}

/// Hours ahead of UTC at this moment; none where the zone is unknown.
fn ahead(zone: &str, at: i64) -> i32 {
    let found = TimeZone::get(zone).ok().zip(Timestamp::from_second(at).ok());
    found.map_or(0, |(zone, at)| zone.to_offset(at).seconds() / 3_600)
}

/// The habit by which a kind's days are simulated: what it signed, or where its devices do not know it
/// yet, what the hours tell in which they were heard.
fn habit(kind: &KindStatus, ahead: i32) -> Habit {
    match kind.habit {
        Habit::AlwaysOn | Habit::Office | Habit::Home | Habit::Duty => return kind.habit,
        Habit::Unknown => {}
    }
    let heard = |hours: std::ops::Range<i32>| -> u32 {
        hours
            .map(|local| {
                let utc = (local - ahead).rem_euclid(24) as usize;
                u32::from(kind.heard.get(utc).copied().unwrap_or(0))
            })
            .sum()
    };
    let all = heard(0..24);
    if all == 0 || all >= 24 * ALWAYS {
        return Habit::AlwaysOn;
    }
    match (heard(7..18), heard(16..24)) {
        (day, _) if day * 3 >= all * 2 => Habit::Office,
        (_, evening) if evening * 3 >= all * 2 => Habit::Home,
        (_, _) => Habit::Duty,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_habit_that_no_device_knows_yet_is_read_from_the_hours_in_which_they_were_heard() {
        let kind = |hours: std::ops::Range<usize>| {
            let mut heard = [0; 24];
            heard[hours].fill(90);
            let known = super::super::tests::kind("general", "Slate 3", 1);
            KindStatus { habit: Habit::Unknown, heard, ..known }
        };
        assert_eq!(habit(&kind(0..24), 0), Habit::AlwaysOn);
        assert_eq!(habit(&kind(0..0), 0), Habit::AlwaysOn, "nothing was heard of it yet");
        assert_eq!(habit(&kind(8..17), 0), Habit::Office);
        assert_eq!(habit(&kind(8..17), 9), Habit::Home, "evening in Tokyo");
        assert_eq!(habit(&KindStatus { habit: Habit::Duty, ..kind(0..24) }, 0), Habit::Duty);
    }

    #[test]
    fn a_fleet_that_is_too_large_keeps_every_kind() {
        assert_eq!(scaled(300, 10_000), 300);
        assert_eq!(scaled(500_000, 1_000_000), DEVICES / 2);
        assert_eq!(scaled(3, 1_000_000), 1);
    }
}
