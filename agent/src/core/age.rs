//! How old the state on the disk is, by a counter that nothing sets back. The journal says at which
//! step of the counter it was last written; a copy that was made before that step says less than the
//! counter, and is known for one.
//!
//! A step is written down before it is taken and again after it, so that the journal is at most one
//! behind, and only while it says so: a power cut between the two locks nobody out. A step is taken
//! when something rose that a copy must not set back, never for a poll, and so many times a day at
//! most. It tells a copy that was put back; it does not tell a journal that was edited.

use std::{collections::BTreeSet, fmt};

use lockgate_shared::{id::DeviceId, time::Moment};

/// Steps in a day, at most: 24 a day are 87 600 in ten years, and makers of TPMs promise 100 000
/// writes. What rises beyond that waits for the next day.
pub const STEPS_A_DAY: u32 = 24;
/// What ends it.
const WAY_OUT: &str = "stop the agent, remove `enrolment.json` and `device.key` from its state folder, and enrol anew; it then is another device";
const DAY_S: i64 = 86_400;
/// So many words are marks.
const MARKS: usize = 5;
/// Stands where nothing is recalled.
const NONE: &str = "-";

/// What rises in the life of a state and must not fall again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Version of the trusted root.
    pub root: u64,
    /// Version of the top-level targets, by which people delegate.
    pub targets: u64,
    /// How many releases it confirmed, undid or gave up on in its life.
    pub outcomes: u64,
    /// The highest stop that it has seen.
    pub stop: u64,
    /// What it knows to be recalled, each as `app/1.0.0`.
    pub recalled: BTreeSet<String>,
}

/// The journal's word on the counter. It stands there as one line, [`Tally::read`]: as a table it would
/// cost the agent twenty kilobytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Whose it is: an enrolment begins anew.
    pub device: DeviceId,
    /// Where the counter stood after the last step that was seen to end.
    pub value: u64,
    /// What that step covers.
    pub marks: Marks,
    /// What the next step covers, where it was begun.
    pub rising: Option<Marks>,
    /// The day of the last step, counted from 1970.
    pub day: i64,
    /// How many steps that day has seen.
    pub steps: u32,
}

/// What the counter says of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Age {
    /// It is the newest.
    Newest(Tally),
    /// It was copied before the counter's last steps.
    Older {
        /// Where the state says that the counter stands.
        says: u64,
        /// Where it stands.
        stands: u64,
    },
    /// The counter stands below it: it is not the one that the state was written with.
    Other {
        /// Where the state says that the counter stands.
        says: u64,
        /// Where it stands.
        stands: u64,
    },
}

/// Holds a state's tally against the counter.
pub fn judge(tally: Tally, stands: u64) -> Age {
    let says = tally.value;
    if stands == says {
        return Age::Newest(Tally { rising: None, ..tally });
    }
    if tally.rising.is_some() && says.checked_add(1) == Some(stands) {
        return Age::Newest(tally.ended());
    }
    if stands > says { Age::Older { says, stands } } else { Age::Other { says, stands } }
}

impl Age {
    /// What is wrong with a state that is not the newest, and the way out.
    pub fn problem(&self) -> Option<String> {
        let (what, says, stands) = match self {
            Self::Newest(_) => return None,
            Self::Older { says, stands } => (
                "it is older than the TPM knows it, restored from a backup or a copy",
                says,
                stands,
            ),
            Self::Other { says, stands } => {
                ("the TPM's counter is not the one that it was written with", says, stands)
            }
        };
        Some(format!(
            "nothing is installed by this state: {what} (it says {says}, the counter {stands}); what \
             is installed runs on\nhint: {WAY_OUT}"
        ))
    }
}

impl Marks {
    /// Whether anything here is above what `covered` has.
    fn rose_above(&self, covered: &Self) -> bool {
        self.root > covered.root
            || self.targets > covered.targets
            || self.outcomes > covered.outcomes
            || self.stop > covered.stop
            || !self.recalled.is_subset(&covered.recalled)
    }

    /// The highest of both. Of recalls, the ones that matter now: the others are settled.
    fn joined(self, other: &Self) -> Self {
        Self {
            root: self.root.max(other.root),
            targets: self.targets.max(other.targets),
            outcomes: self.outcomes.max(other.outcomes),
            stop: self.stop.max(other.stop),
            recalled: self.recalled,
        }
    }
}

impl Tally {
    /// The tally of a state that was enrolled with the counter at `start` and counted nothing since.
    pub fn begun(device: DeviceId, start: u64) -> Self {
        Self {
            device,
            value: start,
            marks: Marks::default(),
            rising: None,
            day: i64::MIN,
            steps: 0,
        }
    }

    /// Whether it is time for a step.
    pub fn is_due(&self, marks: &Marks, now: Moment) -> bool {
        marks.rose_above(&self.marks) && (self.day != day(now) || self.steps < STEPS_A_DAY)
    }

    /// To be written down before the step that covers `marks`.
    pub fn beginning(&self, marks: Marks, now: Moment) -> Self {
        let today = day(now);
        let before = if self.day == today { self.steps } else { 0 };
        Self {
            device: self.device,
            value: self.value,
            rising: Some(marks.joined(&self.marks)),
            marks: self.marks.clone(),
            day: today,
            steps: before.saturating_add(1),
        }
    }

    /// To be written down after the step.
    pub fn ended(self) -> Self {
        let value = self.value.saturating_add(1);
        let marks = self.rising.unwrap_or(self.marks);
        Self { value, marks, rising: None, ..self }
    }
}

impl Tally {
    /// Out of its line.
    pub fn read(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let [device, value, day, steps, covered @ ..] = words.as_slice() else { return None };
        let (marks, rising) = covered.split_at_checked(MARKS)?;
        Some(Self {
            device: device.parse().ok()?,
            value: value.parse().ok()?,
            day: day.parse().ok()?,
            steps: steps.parse().ok()?,
            marks: Marks::read(marks)?,
            rising: if rising.is_empty() { None } else { Some(Marks::read(rising)?) },
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, value, marks, rising, day, steps } = self;
        write!(f, "{device} {value} {day} {steps} {marks}")?;
        rising.iter().try_for_each(|rising| write!(f, " {rising}"))
    }
}

impl Marks {
    fn read(words: &[&str]) -> Option<Self> {
        let [root, targets, outcomes, stop, names] = words else { return None };
        let mut recalled = BTreeSet::new();
        for name in names.split(',').filter(|name| *name != NONE) {
            recalled.insert(name.to_owned());
        }
        Some(Self {
            root: root.parse().ok()?,
            targets: targets.parse().ok()?,
            outcomes: outcomes.parse().ok()?,
            stop: stop.parse().ok()?,
            recalled,
        })
    }
}

impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { root, targets, outcomes, stop, recalled } = self;
        write!(f, "{root} {targets} {outcomes} {stop} ")?;
        if recalled.is_empty() {
            return f.write_str(NONE);
        }
        for (index, name) in recalled.iter().enumerate() {
            write!(f, "{}{name}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

fn day(moment: Moment) -> i64 {
    moment.0.div_euclid(DAY_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment(1_795_000_000);

    #[test]
    fn a_copy_from_before_a_step_is_older_and_the_newest_state_is_not() {
        let start = Tally::begun(DeviceId([1; 32]), 7);
        assert_eq!(judge(start.clone(), 7), Age::Newest(start.clone()));
        let copy = start.clone();
        let after = start.beginning(marks(1), NOW).ended();
        assert_eq!(judge(after.clone(), 8), Age::Newest(after));
        assert_eq!(judge(copy, 8), Age::Older { says: 7, stands: 8 });
    }

    #[test]
    fn a_power_cut_on_either_side_of_a_step_makes_no_copy_of_the_state() {
        let begun = Tally::begun(DeviceId([1; 32]), 7).beginning(marks(1), NOW);
        // Before the counter rose: the step is as good as never begun, and due again.
        let Age::Newest(before) = judge(begun.clone(), 7) else { panic!("it is the newest") };
        assert_eq!((before.value, &before.rising), (7, &None));
        assert!(before.is_due(&marks(1), NOW), "what it was to cover is covered by nothing");
        // After it, and before that was written down.
        let Age::Newest(after) = judge(begun.clone(), 8) else { panic!("it is the newest") };
        assert_eq!((after.value, &after.rising), (8, &None));
        assert!(!after.is_due(&marks(1), NOW));
        // One more step than was begun is somebody else's.
        assert_eq!(judge(begun, 9), Age::Older { says: 7, stands: 9 });
    }

    #[test]
    fn a_counter_below_the_state_is_not_its_own() {
        let tally = Tally::begun(DeviceId([1; 32]), 7);
        assert_eq!(judge(tally, 3), Age::Other { says: 7, stands: 3 });
    }

    #[test]
    fn nothing_new_takes_no_step_and_each_thing_that_rises_does() {
        let tally = Tally::begun(DeviceId([1; 32]), 7).beginning(marks(3), NOW).ended();
        assert!(!tally.is_due(&marks(3), NOW));
        assert!(!tally.is_due(&Marks { recalled: BTreeSet::new(), ..marks(2) }, NOW));
        let risen: [fn(&mut Marks); 5] = [
            |marks| marks.root = 4,
            |marks| marks.targets = 4,
            |marks| marks.outcomes = 4,
            |marks| marks.stop = 4,
            |marks| marks.recalled = ["app/2.0.0".to_owned()].into(),
        ];
        for rise in risen {
            let mut marks = marks(3);
            rise(&mut marks);
            assert!(tally.is_due(&marks, NOW), "{marks:?}");
        }
    }

    #[test]
    fn a_day_of_whatever_rises_wears_the_tpm_no_more_than_it_bears() {
        let mut tally = Tally::begun(DeviceId([1; 32]), 0);
        let mut second = 0;
        for outcomes in 1..=2000 {
            // From one midnight to the next.
            let now = Moment((NOW.0 / DAY_S) * DAY_S + second);
            second += DAY_S / 2000;
            if tally.is_due(&marks(outcomes), now) {
                tally = tally.beginning(marks(outcomes), now).ended();
            }
        }
        assert_eq!(tally.value, u64::from(STEPS_A_DAY));
        let tomorrow = Moment((NOW.0 / DAY_S + 1) * DAY_S);
        assert!(tally.is_due(&marks(2000), tomorrow), "what rose meanwhile is forgotten");
        for outcomes in 2000..4000 {
            if tally.is_due(&marks(outcomes), tomorrow) {
                tally = tally.beginning(marks(outcomes), tomorrow).ended();
            }
        }
        assert_eq!(tally.value, 2 * u64::from(STEPS_A_DAY), "a day takes from the next one");
    }

    #[test]
    fn what_fell_and_rises_again_takes_no_second_step() {
        let tally = Tally::begun(DeviceId([1; 32]), 0).beginning(marks(9), NOW).ended();
        // A product was removed from the device, and with it the stops that it had seen.
        let fallen = Marks { root: 10, ..marks(3) };
        assert!(tally.is_due(&fallen, NOW));
        let tally = tally.beginning(fallen, NOW).ended();
        let again = Marks { root: 10, ..marks(9) };
        assert!(!tally.is_due(&again, NOW), "what was covered is covered");
    }

    #[test]
    fn a_tally_is_read_as_it_was_written_and_nothing_else_is_one() {
        let mut two = marks(2);
        two.recalled.insert("app/1.1.0".to_owned());
        let begun = Tally::begun(DeviceId([1; 32]), u64::MAX);
        let rising = begun.beginning(two, NOW);
        let ended = begun.beginning(Marks::default(), NOW).ended();
        for tally in [begun, rising, ended] {
            let line = tally.to_string();
            assert_eq!(Tally::read(&line), Some(tally));
            assert_eq!(Tally::read(&format!("{line} 1")), None, "{line}");
            let (short, _) = line.rsplit_once(' ').expect("several words");
            assert_eq!(Tally::read(short), None, "{short}");
        }
        assert_eq!(Tally::read(""), None);
    }

    fn marks(n: u64) -> Marks {
        let recalled = ["app/1.0.0".to_owned()].into();
        Marks { root: n, targets: n, outcomes: n, stop: n, recalled }
    }
}
