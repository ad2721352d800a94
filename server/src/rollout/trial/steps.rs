//! One hour of a trial, in order: close the looks, weigh, judge, move the clock, draw for coverage, raise
//! limits. What is published changes here and nowhere else.

use std::collections::BTreeMap;

use lockgate_shared::{bucket::Limit, group::Habit};

use super::{
    BEFORE, Guard, State, Trial,
    clock::{Pace, Phase, Rest, Shown},
    coverage::{Draw, Want, ticket},
    heard::Span,
    judge::Verdict,
    lots::Sample,
    room::{self, Around, Names, of_share, share_of},
    roster::{Device, FLEET, Group, Kind},
    scatter,
};

/// Hours of which a draw's always-on candidates must have been heard, and within which they must poll.
const LATELY: u32 = 2;
/// Devices that are asked whether most of their model and habit are there.
pub(super) const ASKED: usize = 20_000;
/// The share of them that must be there before one is missing.
const MOST: f64 = 0.75;
/// How long a group whose evidence is close to its threshold waits for more of it: this part of the whole
/// schedule, a day of the routine one.
const NEAR_MOST: f64 = 24.0 / 64.0;
/// With fewer the fleet's share is taken.
const FEW: u32 = 8;
/// The hardware's place among a device's groups, as [`lockgate_shared::group::GroupKind::ALL`] has it.
const HARDWARE: usize = 1;
/// The same for other habits.
const DAY: u32 = 25;

impl Trial {
    /// A new hour begins. Hours come one by one; until [`BEFORE`] they are only listened to.
    pub fn begin_hour(&mut self, hour: u32) {
        self.hour = hour;
        if hour < BEFORE {
            self.heard.begin(hour);
            self.lots.begin(hour, Sample::of(0.0, self.roster.len()));
            return;
        }
        self.regroup();
        self.close_looks();
        self.grow_older();
        self.look();
        self.heard.begin(hour);
        match self.verdict {
            Verdict::Halt => {
                self.lots.begin(hour, Sample::of(0.0, self.roster.len()));
                return;
            }
            Verdict::Open | Verdict::Wait => {}
        }
        if self.is_settled() {
            self.lots.begin(hour, Sample::of(0.0, self.roster.len()));
            return;
        }
        let pace = self.pace();
        let out = self.is_outage();
        // An outage takes nothing from hours in which nothing grows anyhow: what soaks must be heard.
        let resting =
            (self.terms.canary_full_h..self.terms.ramp_from_h - 1.0).contains(&self.clock.hours());
        if hour > BEFORE && (resting || !out) {
            let shown =
                Shown { lived: self.lived(), rest: self.rest(), devices: self.roster.len(), pace };
            self.clock.advance(&self.terms, &shown);
        }
        self.miss();
        let mut inflow = 0.0;
        if pace != Pace::Stand && !out {
            self.draw();
            inflow = self.raise();
        }
        self.lots.begin(hour, Sample::of(inflow, self.roster.len()));
    }

    /// Weighs and judges what was reported: as often as one likes, because the evidence may be looked at
    /// at any time.
    pub fn look(&mut self) {
        // What is judged again without news is judged alike, but for what is waited out.
        if self.weigh() || self.verdict == Verdict::Wait {
            self.judge();
        }
    }

    /// The phase.
    pub fn phase(&self) -> Phase {
        self.clock.phase(&self.terms)
    }

    /// Counts, for every group, the devices that are missing and those that have grown old enough.
    fn miss(&mut self) {
        for tally in &mut self.tallies {
            (tally.missing, tally.grown, tally.growing) = (0, 0, 0);
        }
        let hour = self.hour;
        let spans = [
            Span::of(hour.saturating_sub(3), hour - 1),
            Span::of(hour.saturating_sub(26), hour - 1),
        ];
        let present = self.present(&spans);
        let age = self.terms.soak_at(self.clock.hours());
        for place in 0..self.early.len() {
            let device = self.early[place];
            let case = self.cases[device as usize];
            let habit = usize::from(self.roster.kind(device).habit != Habit::AlwaysOn);
            let lived = hour.saturating_sub(case.begun);
            // Who began within the span has been heard by that.
            let silent = lived > [3, 26][habit] && !self.heard.any(device, spans[habit]);
            let hardware = self.roster.groups_of(device)[HARDWARE];
            let there = present.get(&hardware).map_or(1.0, |shares| shares[habit]);
            let missing = silent && there >= MOST && case.state != State::Nothing;
            let well = matches!(case.state, State::Healthy | State::Soaked);
            let aged = Span::of(case.begun + age, hour - 1);
            let grown = well && !silent && self.heard.any(device, aged);
            let growing =
                grown || well && !silent && lived + room::SOON >= age.min(self.terms.soak_day_h);
            if (!missing && !growing) || self.is_held(device) {
                continue;
            }
            for group in *self.roster.groups_of(device) {
                self.tallies[group as usize].missing += u32::from(missing);
                self.tallies[group as usize].grown += u32::from(grown);
                self.tallies[group as usize].growing += u32::from(growing);
            }
        }
    }

    /// For each hardware group, the shares of its devices that were heard: of those always on, and of the
    /// others. Where few are asked, the fleet's shares.
    fn present(&self, spans: &[Span; 2]) -> BTreeMap<Group, [f64; 2]> {
        let step = (self.roster.devices.len() / ASKED).max(1);
        let mut counts: BTreeMap<Group, [(u32, u32); 2]> = BTreeMap::new();
        for device in (0..self.roster.len()).step_by(step) {
            let kind = self.roster.kind(device);
            let habit = usize::from(kind.habit != Habit::AlwaysOn);
            let heard = u32::from(self.heard.any(device, spans[habit]));
            for group in [FLEET, kind.groups[HARDWARE]] {
                let (all, there) = &mut counts.entry(group).or_default()[habit];
                (*all, *there) = (*all + 1, *there + heard);
            }
        }
        let fleet = counts.get(&FLEET).copied().unwrap_or_default();
        let share = |(all, there): (u32, u32)| f64::from(there) / f64::from(all.max(1));
        let shares = |own: [(u32, u32); 2]| {
            [0, 1].map(|habit| share(if own[habit].0 < FEW { fleet[habit] } else { own[habit] }))
        };
        counts.into_iter().map(|(group, own)| (group, shares(own))).collect()
    }

    /// Raises every limit as far as is earned, and says how many devices that is about to let in.
    fn raise(&mut self) -> f64 {
        let devices = self.roster.len();
        let phase = self.clock.phase(&self.terms);
        let share = match phase {
            Phase::Sentinel => 0.0,
            Phase::Canary => {
                let room = self.clock.canary(&self.terms, devices) - f64::from(self.drawn);
                let first = self.clock.hours() < self.terms.canary_from_h + 2.0;
                // The first hours of the canary are for coverage.
                if first { 0.0 } else { room / f64::from(devices.max(1)) }
            }
            Phase::Ramp | Phase::HoldBack | Phase::Open => self.clock.ramp(&self.terms, devices),
        };
        let mut fleet = self.fleet_limit;
        if self.has_earned() {
            fleet = fleet.max(of_share(share).min(self.terms.ceiling));
        }
        let mut groups = self.group_limits();
        let inflow = self.inflow(fleet, &groups);
        let most = 20.0 + self.terms.ramp_growth * f64::from(self.fleet().begun);
        if phase == Phase::Ramp && inflow > most {
            // All rise in proportion, so that what many groups have earned does not come at once.
            let part = most / inflow;
            let between = |low: u32, high: u32| low + (f64::from(high - low) * part) as u32;
            fleet = between(self.fleet_limit, fleet);
            for (limit, tally) in groups.iter_mut().zip(&self.tallies) {
                *limit = between(tally.limit, *limit);
            }
        }
        self.fleet_limit = fleet;
        for (tally, limit) in self.tallies.iter_mut().zip(groups) {
            tally.limit = limit;
        }
        self.narrow()
    }

    /// The limits that the groups have earned by now.
    fn group_limits(&self) -> Vec<u32> {
        let open = self.open_members();
        let used = self.drawn + self.terms.spare >= self.terms.coverage;
        let names = if used { Names::Used } else { Names::Left };
        (0..self.roster.groups.len() as Group)
            .map(|group| {
                let tally = &self.tallies[group as usize];
                if self.guards[group as usize] != Guard::Own || self.is_near(group) {
                    return tally.limit;
                }
                let around =
                    Around { open: open[group as usize], clock: self.clock.hours(), names };
                room::limit(&self.roster, &self.terms, group, tally, &around)
            })
            .collect()
    }

    /// Whether a group's evidence is close to its threshold, so that it waits: but for so long only after
    /// its last device began. Nothing new would come of waiting longer, neither the hold nor the way on.
    fn is_near(&self, group: Group) -> bool {
        let waits = f64::from(self.hour - self.tallies[group as usize].last);
        self.is_close(group) && waits < NEAR_MOST * self.terms.open_h
    }

    /// How many devices these limits are about to let in.
    fn inflow(&self, fleet: u32, groups: &[u32]) -> f64 {
        let mut inflow = 0.0;
        for (number, kind) in self.roster.kinds.iter().enumerate() {
            let next = self.effective(kind, fleet, groups).max(self.limits[number]);
            let rise = share_of(next) - share_of(self.limits[number]);
            inflow += rise * f64::from(self.sizes[number]);
        }
        inflow
    }

    /// A kind's limit: the smallest of its groups'.
    fn effective(&self, kind: &Kind, fleet: u32, groups: &[u32]) -> u32 {
        kind.groups.iter().fold(fleet, |limit, group| match self.guards[*group as usize] {
            Guard::Own => limit.min(groups[*group as usize]),
            Guard::Fleet => limit,
            Guard::Held => Limit::NOBODY.0,
        })
    }

    /// For each group, its members that no other group keeps out altogether.
    fn open_members(&self) -> Vec<u32> {
        let mut open = vec![0; self.roster.groups.len()];
        for (kind, size) in self.roster.kinds.iter().zip(&self.sizes) {
            let closed = |group: &&Group| match self.guards[**group as usize] {
                Guard::Own => self.tallies[**group as usize].limit == 0,
                Guard::Fleet => false,
                Guard::Held => true,
            };
            let mut closing = kind.groups.iter().filter(closed);
            match (closing.next(), closing.next()) {
                (None, _) => kind.groups.iter().for_each(|group| open[*group as usize] += size),
                (Some(only), None) => open[*only as usize] += size,
                (Some(_), Some(_)) => {}
            }
        }
        open
    }

    /// Whether the fleet's healthy devices carry further growth.
    fn has_earned(&self) -> bool {
        let fleet = self.fleet();
        let open = fleet.begun.saturating_sub(fleet.resolved);
        let room = self.terms.growth * fleet.healthy + self.terms.sentinels(self.roster.len());
        open <= room
    }

    /// A kind's limit as things stand.
    pub(super) fn limit_of(&self, kind: usize) -> u32 {
        let groups: Vec<u32> = self.tallies.iter().map(|tally| tally.limit).collect();
        self.roster
            .kinds
            .get(kind)
            .map_or(0, |kind| self.effective(kind, self.fleet_limit, &groups))
    }

    /// Closes the groups that are held, at once.
    pub(super) fn narrow_held(&mut self) {
        self.narrow();
    }

    /// The effective limit of every kind: the smallest of its groups'.
    fn narrow(&mut self) -> f64 {
        let mut inflow = 0.0;
        let groups: Vec<u32> = self.tallies.iter().map(|tally| tally.limit).collect();
        for (number, kind) in self.roster.kinds.iter().enumerate() {
            let limit = self.effective(kind, self.fleet_limit, &groups);
            let before = self.limits[number];
            let next = if limit == Limit::NOBODY.0 { limit } else { limit.max(before) };
            self.limits[number] = next;
            inflow += (share_of(next) - share_of(before)).max(0.0) * f64::from(self.sizes[number]);
        }
        inflow
    }

    /// Draws devices by name: the sentinels, then one for each group without a live device.
    fn draw(&mut self) {
        let wants = self.wants();
        if wants.is_empty() {
            return;
        }
        let mut pools = self.pools(&wants);
        for (want, pool) in wants.iter().zip(&mut pools) {
            for _ in 0..want.devices {
                let spare = if self.clock.hours() < self.terms.canary_full_h {
                    self.terms.spare
                } else {
                    0
                };
                if self.drawn + spare >= self.terms.coverage || !self.quota() {
                    return;
                }
                self.draw_one(want.group, pool);
            }
        }
    }

    /// Whether the schedule allows one more.
    fn quota(&self) -> bool {
        let fleet = self.fleet();
        let let_in = f64::from(fleet.begun + fleet.pending);
        let devices = self.roster.len();
        let most = self.clock.canary(&self.terms, devices);
        let most = match self.clock.phase(&self.terms) {
            // A sentinel that failed, went missing or stays away stands guard no more.
            Phase::Sentinel => most + f64::from(fleet.failed + fleet.missing + self.away()),
            Phase::Canary if self.clock.hours() < self.terms.canary_full_h => most,
            Phase::Canary
                if self.clock.hours() < self.terms.cover_from_h || self.rest() == Rest::Wanting =>
            {
                // Who went missing is replaced.
                most + f64::from(fleet.missing)
            }
            Phase::Canary | Phase::Ramp | Phase::HoldBack | Phase::Open => return true,
        };
        let_in + 1.0 <= most
    }

    fn wants(&self) -> Vec<Want> {
        match self.clock.phase(&self.terms) {
            Phase::Sentinel => self.sentinels().into_iter().collect(),
            Phase::Canary | Phase::Ramp | Phase::HoldBack | Phase::Open => {
                let mut wants: Vec<Want> = (0..self.roster.groups.len() as Group)
                    .filter(|group| self.wanting(*group))
                    .map(|group| Want { group, devices: 1 })
                    .collect();
                wants.sort_by_key(|want| {
                    std::cmp::Reverse(self.roster.groups[want.group as usize].size)
                });
                if self.is_late_draw() && !wants.is_empty() {
                    // Whoever covers most of what is left, wherever it is.
                    return vec![Want { group: FLEET, devices: wants.len() as u32 }];
                }
                wants
            }
        }
    }

    /// The first draws are for what they say, the later ones for the groups still without one.
    const fn is_late_draw(&self) -> bool {
        self.drawn >= self.terms.coverage / 2
    }

    fn sentinels(&self) -> Option<Want> {
        let crew = self.terms.sentinels(self.roster.len()).min(self.terms.coverage);
        let first = self.terms.first.min(crew);
        let lived = self.hour >= BEFORE + self.terms.first_live_h && self.fleet().healthy >= 2;
        let wanted = if lived { crew } else { first };
        let fleet = self.fleet();
        // With nobody else neither the canary nor a halt would ever come. Who stays away may still come,
        // and is replaced by one at a time.
        let silent = self.hour >= fleet.last + self.terms.redraw_h;
        let known = (fleet.begun == fleet.resolved || silent)
            && (fleet.pending == 0
                || fleet.pending <= self.away() && self.hour >= fleet.last + self.terms.redraw_h);
        let one = known.then_some(Want { group: FLEET, devices: 1 });
        if fleet.failed > 0 && fleet.healthy < 4 {
            // One at a time, each when the last one's end is known: so few prove nothing either way.
            return one;
        }
        // Those that do not come are replaced once, a quarter of the clock later.
        let spare = if self.clock.hours() > 6.0 && fleet.healthy < 2 { 2 } else { 0 };
        match (wanted + spare).saturating_sub(self.drawn) {
            0 if fleet.healthy < 2 => one,
            0 => None,
            devices => Some(Want { group: FLEET, devices }),
        }
    }

    /// Devices drawn by name that nobody waits for any more: see [`Draw::stays_away`].
    fn away(&self) -> u32 {
        let away = self.draws.iter().filter(|draw| {
            self.cases[draw.chosen as usize].state == State::Drawn
                && draw.stays_away(self.hour, DAY)
        });
        away.count() as u32
    }

    /// Whether a group needs a device by name.
    fn wanting(&self, group: Group) -> bool {
        let tally = &self.tallies[group as usize];
        if self.guards[group as usize] != Guard::Own || tally.pending > 0 {
            return false;
        }
        let soaked = room::soaked(&self.roster, &self.terms, group, tally);
        let due = match (tally.begun + tally.drawn, tally.healthy) {
            (0, _) => true,
            (_, 0) => self.hour >= tally.last + self.terms.redraw_h,
            (_, _) if tally.missing >= tally.begun && !soaked => true,
            (_, _) => !soaked && self.hour >= tally.last + self.terms.soak_h + 2,
        };
        due && tally.limit == 0 && self.has_room(group)
    }

    fn has_room(&self, group: Group) -> bool {
        let tally = &self.tallies[group as usize];
        let taken = f64::from(tally.begun + tally.pending);
        match self.guards[group as usize] {
            Guard::Own => {
                !self.is_near(group)
                    && taken + 1.0
                        <= room::allowed(
                            &self.roster,
                            &self.terms,
                            group,
                            tally,
                            self.clock.hours(),
                        )
            }
            Guard::Fleet => true,
            Guard::Held => false,
        }
    }

    /// Candidates for each want, in one walk over the fleet: a sample that no bucket enters.
    fn pools(&self, wants: &[Want]) -> Vec<Vec<Device>> {
        let mut places = vec![usize::MAX; self.roster.groups.len()];
        let mut shares = vec![0u32; wants.len()];
        for (place, want) in wants.iter().enumerate() {
            places[want.group as usize] = place;
            let size = f64::from(self.roster.groups[want.group as usize].size.max(1));
            let many = if self.is_late_draw() { 100.0 } else { 16.0 };
            shares[place] = of_share(many * f64::from(self.terms.candidates) / size);
        }
        let mut pools = vec![Vec::new(); wants.len()];
        let day = Span::of(self.hour.saturating_sub(DAY - 1), self.hour - 1);
        for device in 0..self.roster.len() {
            if self.cases[device as usize].state != State::Waiting {
                continue;
            }
            let draw = scatter(device, self.hour);
            for group in self.roster.groups_of(device) {
                let place = places[*group as usize];
                if place != usize::MAX && draw <= shares[place] && self.heard.any(device, day) {
                    pools[place].push(device);
                }
            }
        }
        pools
    }

    fn draw_one(&mut self, group: Group, pool: &mut Vec<Device>) {
        pool.retain(|device| {
            self.cases[*device as usize].state == State::Waiting
                && self.roster.groups_of(*device).iter().all(|group| self.has_room(*group))
        });
        if group != FLEET && !self.wanting(group) {
            return;
        }
        let lately = Span::of(self.hour.saturating_sub(LATELY), self.hour - 1);
        let week = Span::of(self.hour.saturating_sub(BEFORE - 2), self.hour - 1);
        let mut always: Vec<Device> = pool
            .iter()
            .copied()
            .filter(|device| {
                self.roster.kind(*device).habit == Habit::AlwaysOn
                    && self.heard.any(*device, lately)
                    && self.heard.any(*device, week)
            })
            .collect();
        // Every fifth sentinel is of any habit: what hits only sleepers must be seen as well.
        let any = group == FLEET && self.drawn % 5 == 4 && self.drawn >= self.terms.first;
        let any = any && !self.is_late_draw();
        let (candidates, within) =
            if always.is_empty() || any { (&mut *pool, DAY) } else { (&mut always, LATELY) };
        let sentinel = self.clock.phase(&self.terms) == Phase::Sentinel;
        // Those that cover most groups come first; who is drawn among them is chance.
        let covers = |device: &Device| {
            let groups = self.roster.groups_of(*device).iter();
            groups.filter(|group| self.wanting(**group)).count()
        };
        candidates.sort_by_cached_key(|device| {
            let rank = if sentinel { 0 } else { covers(device) };
            (std::cmp::Reverse(rank), ticket(&self.salt, self.hour ^ 0x8000_0000, *device))
        });
        let most = match (sentinel, self.is_late_draw()) {
            (true, _) => 256,
            (false, false) => self.terms.candidates as usize,
            (false, true) => self.terms.candidates as usize / 4,
        };
        if !sentinel && candidates.first().is_none_or(|device| covers(device) == 0) {
            return;
        }
        let chosen = &candidates[..candidates.len().min(most)];
        let Some(draw) = Draw::among(chosen, &self.salt, self.hour, within) else { return };
        self.take(draw);
    }

    fn take(&mut self, draw: Draw) {
        let hour = self.hour;
        self.drawn += 1;
        self.count(draw.chosen, State::Drawn, |tally| {
            tally.drawn += 1;
            tally.pending += 1;
            tally.last = hour;
        });
        let number = self.draws.len() as u32;
        for device in draw.candidates() {
            self.candidates.entry(device).or_default().push(number);
            self.cases[device as usize].candidate = true;
        }
        self.draws.push(draw);
    }
}
