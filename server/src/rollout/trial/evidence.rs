//! Closing looks: what the silence of the hour just past says of the lots and draws that were made
//! before. It judges nothing.

use super::{
    State, Trial,
    coverage::{Draw, contribution},
    heard::{HOURS, Span},
    looks::{Arm, Cell, Cells, LOOKS, Stakes, Word, of_lot, tolerant},
    lots::Batch,
    room::share_of,
    roster::Device,
};

/// The most words that are kept for localisation: the first ones, which are about the devices that
/// were let in first.
const WORDS: usize = 2_000_000;

/// One silent or seen device of a look.
struct Seen {
    device: Device,
    cell: Cell,
    arm: Arm,
    chance: f64,
    silent: bool,
}

impl Trial {
    /// Closes every look whose last hour is over.
    pub(super) fn close_looks(&mut self) {
        for look in 0..LOOKS.len() {
            self.close_lots(look);
            self.close_draws(look);
        }
    }

    fn close_lots(&mut self, look: usize) {
        let Some(hour) = self.hour.checked_sub(LOOKS[look].to + 1) else { return };
        let Some(batch) = self.lots.of(hour) else { return };
        let seen = self.see(batch, look);
        if !seen.iter().any(|seen| seen.silent) {
            return;
        }
        let mut cells = Cells::default();
        for seen in &seen {
            cells.count(seen.cell, seen.silent);
        }
        let shares = cells.shares(self.terms.disturbed);
        for seen in seen.iter().filter(|seen| seen.silent) {
            let Some(stakes) = shares.stakes(seen.cell) else { continue };
            let chance = tolerant(seen.chance, self.terms.tolerance);
            let change = of_lot(&stakes, seen.arm, chance);
            let groups = *self.roster.groups_of(seen.device);
            self.silence.add(&groups, look, &change);
            self.remember(seen.device, look, seen.arm, &change);
        }
    }

    /// The lots of a batch as they stand at a look: a control counts only if it still may not install.
    fn see(&self, batch: &Batch, look: usize) -> Vec<Seen> {
        let (from, to) = (batch.hour + LOOKS[look].from, batch.hour + LOOKS[look].to);
        let (span, awake) = (
            Span::of(from, to),
            Span::of(batch.hour.saturating_sub(1), batch.hour.saturating_sub(1)),
        );
        // The same hours some whole days earlier, before the lot; where that is too long ago to be
        // remembered, everybody counts as regular.
        let shift = LOOKS[look].to.div_ceil(24) * 24;
        let usual = (shift + LOOKS[look].to < HOURS - 2 && from >= shift)
            .then(|| Span::of(from - shift, to - shift));
        batch
            .lots
            .iter()
            .filter_map(|lot| {
                if self.is_held(lot.device) {
                    return None;
                }
                let member = self.roster.devices[lot.device as usize];
                let closing = self.limits[member.kind as usize].max(lot.limit);
                let (before, limit) = (share_of(lot.before), share_of(lot.limit));
                if lot.arm == Arm::Control && member.bucket.0 < closing {
                    return None;
                }
                Some(Seen {
                    device: lot.device,
                    cell: Cell::of(
                        self.roster.kind(lot.device),
                        self.heard.any(lot.device, awake),
                        usual.is_none_or(|usual| self.heard.any(lot.device, usual)),
                    ),
                    arm: lot.arm,
                    chance: batch.sample.chance(before, limit, share_of(closing)),
                    silent: !self.heard.any(lot.device, span),
                })
            })
            .collect()
    }

    fn close_draws(&mut self, look: usize) {
        let due: Vec<Draw> =
            self.draws.iter().filter(|draw| draw.closes(look) == self.hour).cloned().collect();
        for draw in due {
            self.close_draw(&draw, look);
        }
    }

    fn close_draw(&mut self, draw: &Draw, look: usize) {
        let present: Vec<(Device, u32)> = draw.present().collect();
        if !present.iter().any(|(device, _)| *device == draw.chosen) || self.is_held(draw.chosen) {
            return;
        }
        let seen: Vec<(Device, Cell, bool)> = present
            .iter()
            .map(|(device, slot)| {
                let span = Span::of(slot + LOOKS[look].from, slot + LOOKS[look].to);
                let cell = Cell::of(self.roster.kind(*device), true, true);
                (*device, cell, !self.heard.any(*device, span))
            })
            .collect();
        if !seen.iter().any(|(_, _, silent)| *silent) {
            return;
        }
        let mut cells = Cells::default();
        for (_, cell, silent) in &seen {
            cells.count(*cell, *silent);
        }
        let shares = cells.shares(self.terms.disturbed);
        let stakes: Vec<(Device, Option<Stakes>)> = seen
            .iter()
            .map(|(device, cell, silent)| (*device, silent.then(|| shares.stakes(*cell)).flatten()))
            .collect();
        for (place, group) in (*self.roster.groups_of(draw.chosen)).into_iter().enumerate() {
            let own: Vec<&(Device, Option<Stakes>)> = stakes
                .iter()
                .filter(|(device, _)| self.roster.groups_of(*device)[place] == group)
                .collect();
            let silent: Vec<Stakes> = own.iter().filter_map(|(_, stakes)| *stakes).collect();
            let chosen = own.iter().find(|(device, _)| *device == draw.chosen);
            let chosen = chosen.and_then(|(_, stakes)| stakes.as_ref());
            let change = contribution(chosen, &silent, own.len(), self.terms.tolerance);
            self.silence.add(&[group], look, &change);
            if place == 0 && chosen.is_some() {
                self.remember(draw.chosen, look, Arm::Treated, &change);
            }
        }
    }

    fn remember(&mut self, device: Device, look: usize, arm: Arm, change: &Stakes) {
        if self.words.len() < WORDS {
            let stakes = change.map(|change| change as f32);
            self.words.push(Word { device, look: look as u8, arm, stakes });
        }
    }

    /// Whether a device was let in.
    pub(super) fn is_treated(&self, device: Device) -> bool {
        match self.cases[device as usize].state {
            State::Waiting | State::Drawn => false,
            State::Begun | State::Healthy | State::Soaked | State::Failed | State::Nothing => true,
        }
    }
}
