//! How well the gatekeeper hears the letter box. It counts listened time, which only grows, and says
//! when so much was missed that nobody may be let in on the strength of it.
//!
//! The stream is a journal: a pull that reaches its end has heard everything up to that moment, however
//! often the socket broke in between. So a break alone costs nothing, and breaking the socket again and
//! again hides nobody's silence: silence is measured in listened time, and listened time never starts
//! anew. What is lost is time in which the end was not reached for long: then devices may have had
//! nowhere to call, and it counts for nobody.

use std::collections::VecDeque;

use lockgate_shared::time::{Moment, Seconds};

/// Between two pulls that reach the end, at most this counts as listened: two minutes are a restart of
/// the letter box with a long journal. Whoever is away for longer was deaf.
const GAP: Seconds = Seconds(120);
/// Deafness is judged over the last hour: long enough that a restart does not ring, short enough that
/// an attack of an afternoon does.
const LOOK_BACK: Seconds = Seconds(3_600);
/// Seconds of deafness within [`LOOK_BACK`] from which people are called: more than any restart takes.
const DEAF_ALARM: Seconds = Seconds(600);
/// From half of [`LOOK_BACK`] on, gates wait: what was not heard outweighs what was.
const DEAF_WAIT: Seconds = Seconds(1_800);
/// Breaks within [`LOOK_BACK`] from which people are called: an honest letter box breaks the stream when
/// it is restarted, which nobody does every five minutes.
const BREAKS_ALARM: usize = 12;
/// Spans that are remembered: above [`BREAKS_ALARM`] and above the gaps that an hour can hold.
const KEPT: usize = 64;

/// What was heard, and what was not.
#[derive(Clone, Debug, Default)]
pub struct Hearing {
    listened: Seconds,
    caught_up: Option<Moment>,
    breaks: VecDeque<Moment>,
    deaf: VecDeque<(Moment, Moment)>,
    broken: bool,
}

/// How the hearing is, for gates and people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Well.
    Good,
    /// People should look; gates go on.
    Poor(String),
    /// Gates wait.
    Deaf(String),
}

impl Hearing {
    /// Hearing that goes on from what an earlier run had listened.
    pub fn new(listened: Seconds) -> Self {
        Self { listened, ..Self::default() }
    }

    /// A pull reached the end of the stream.
    pub fn caught_up(&mut self, now: Moment) {
        if let Some(before) = self.caught_up {
            let gap = now.since(before);
            if gap <= GAP {
                self.listened = Seconds(self.listened.0.saturating_add(gap.0));
            } else {
                self.deaf.push_back((before, now));
                bound(&mut self.deaf);
            }
        }
        // A clock that was set back must not make the next gap longer than it was.
        self.caught_up = Some(now);
        self.broken = false;
    }

    /// A pull or a report failed.
    pub fn broke(&mut self, now: Moment) {
        // A letter box that is down breaks once, not at each attempt to reach it.
        if !self.broken {
            self.breaks.push_back(now);
            bound(&mut self.breaks);
        }
        self.broken = true;
    }

    /// The time listened, over all runs.
    pub const fn listened(&self) -> Seconds {
        self.listened
    }

    /// How it is.
    pub fn condition(&self, now: Moment) -> Condition {
        let Some(last) = self.caught_up else {
            return Condition::Deaf(
                "the letter box has not been heard to its end since the start".into(),
            );
        };
        if now.since(last) > GAP {
            return Condition::Deaf(format!(
                "the letter box has not been heard to its end since {last}"
            ));
        }
        let from = now.minus(LOOK_BACK);
        let deaf = Seconds(
            self.deaf.iter().map(|(begin, end)| end.since(from.max(*begin)).0).sum::<u64>(),
        );
        let minutes = deaf.0.div_ceil(60);
        if deaf >= DEAF_WAIT {
            return Condition::Deaf(format!(
                "of the last hour {minutes} minutes were not heard: the letter box was away too long"
            ));
        }
        let breaks = self.breaks.iter().filter(|at| from <= **at).count();
        if deaf >= DEAF_ALARM {
            return Condition::Poor(format!(
                "of the last hour {minutes} minutes were not heard: is somebody breaking the stream?"
            ));
        }
        if breaks >= BREAKS_ALARM {
            return Condition::Poor(format!(
                "the stream broke {breaks} times within the last hour: is somebody breaking it?"
            ));
        }
        Condition::Good
    }
}

fn bound<T>(list: &mut VecDeque<T>) {
    while list.len() > KEPT {
        list.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaking_the_stream_between_pulls_takes_nothing_from_listened_time() {
        let mut hearing = Hearing::new(Seconds(7));
        for minute in 0..=60 {
            hearing.caught_up(Moment(60 * minute));
            hearing.broke(Moment(60 * minute + 1));
            hearing.broke(Moment(60 * minute + 2));
        }
        assert_eq!(hearing.listened(), Seconds(3_607));
        let Condition::Poor(text) = hearing.condition(Moment(3_660)) else {
            panic!("nobody was called")
        };
        assert!(text.contains("broke 60 times"), "{text}");
    }

    #[test]
    fn long_deafness_counts_for_nobody_and_gates_wait_until_enough_was_heard_again() {
        let mut hearing = Hearing::default();
        assert!(matches!(hearing.condition(Moment(0)), Condition::Deaf(_)));
        hearing.caught_up(Moment(0));
        assert_eq!(hearing.condition(Moment(GAP.0.cast_signed())), Condition::Good);
        assert!(matches!(hearing.condition(Moment(121)), Condition::Deaf(_)));
        hearing.caught_up(Moment(2_000));
        assert_eq!(hearing.listened(), Seconds(0));
        assert!(matches!(hearing.condition(Moment(2_000)), Condition::Deaf(_)));
        for at in (2_060..6_000).step_by(60) {
            hearing.caught_up(Moment(at));
        }
        assert_eq!(hearing.condition(Moment(5_990)), Condition::Good);
        assert_eq!(hearing.listened(), Seconds(5_960 - 2_000));
    }

    #[test]
    fn a_restart_of_the_letter_box_rings_no_bell() {
        let mut hearing = Hearing::default();
        hearing.caught_up(Moment(0));
        hearing.broke(Moment(1));
        hearing.caught_up(Moment(90));
        assert_eq!(hearing.condition(Moment(91)), Condition::Good);
        assert_eq!(hearing.listened(), Seconds(90));
    }
}
