//! A hold in one sentence that an operator can read out. It decides nothing.

use lockgate_shared::group::GroupKind;
use serde::{Deserialize, Serialize};

use super::roster::Entry;

/// The numbers of a hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Devices of the group that were let in.
    pub let_in: u32,
    /// Of these, devices that failed.
    pub failed: u32,
    /// Of these, devices that fell silent at the look that says most.
    pub silent: u32,
    /// That look's first hour after being let in.
    pub from_h: u32,
    /// Its last.
    pub within_h: u32,
    /// Polls of devices like them at which only the bucket kept them back.
    pub controls: u32,
    /// Of these, those after which the device fell silent in the same hours.
    pub controls_silent: u32,
    /// Whether silence says more than failures.
    pub by_silence: bool,
}

/// "Held: 4 of 31 hardware Acme Slate 3 …".
pub fn sentence(group: &Entry, facts: &Facts, odds: f64) -> String {
    let (verb, who) = if group.kind == GroupKind::Fleet {
        ("Halted", "devices".to_owned())
    } else {
        ("Held", format!("{} {}", group.kind.name(), group.label))
    };
    let odds = round(odds);
    let Facts { let_in, failed, silent, from_h, within_h, controls, controls_silent, .. } = facts;
    if !facts.by_silence {
        return format!(
            "{verb}: {failed} of {let_in} {who} that were let in failed; odds {odds} to 1"
        );
    }
    let hours = match from_h {
        1 => format!("within {within_h} h of"),
        _ => format!("{from_h} to {within_h} h after"),
    };
    let also = if *failed > 0 { format!("; {failed} failed") } else { String::new() };
    format!(
        "{verb}: {silent} of {let_in} {who} went silent {hours} being let in{also}; of {controls} polls of devices like them that were not, {controls_silent} were followed by the same silence; odds {odds} to 1"
    )
}

/// A number that can be said: its two leading digits.
fn round(odds: f64) -> String {
    if !odds.is_finite() || odds >= 1e9 {
        return "more than 1,000,000,000".to_owned();
    }
    let digits = odds.max(1.0).log10().floor().max(1.0) - 1.0;
    let step = 10f64.powf(digits);
    let number = ((odds / step).round() * step) as u64;
    let text = number.to_string();
    let mut out = String::new();
    for (place, digit) in text.chars().enumerate() {
        if place > 0 && (text.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use lockgate_shared::id::GroupId;

    use super::*;

    #[test]
    fn a_hold_can_be_read_out() {
        let group = Entry {
            id: GroupId([1; 8]),
            kind: GroupKind::OsFirmware,
            label: "debian 12 Acme 1.2".into(),
            size: 300,
        };
        let facts = Facts {
            let_in: 31,
            silent: 4,
            from_h: 1,
            within_h: 2,
            controls: 212,
            controls_silent: 3,
            by_silence: true,
            ..Facts::default()
        };
        assert_eq!(
            sentence(&group, &facts, 9_042.0),
            "Held: 4 of 31 os-firmware debian 12 Acme 1.2 went silent within 2 h of being let in; of 212 polls of devices like them that were not, 3 were followed by the same silence; odds 9,000 to 1"
        );
        let facts = Facts { let_in: 40, failed: 6, ..Facts::default() };
        assert_eq!(
            sentence(&Entry { kind: GroupKind::Fleet, ..group }, &facts, 3e12),
            "Halted: 6 of 40 devices that were let in failed; odds more than 1,000,000,000 to 1"
        );
    }
}
