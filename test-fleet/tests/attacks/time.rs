//! Time: entries 36 to 38. The agent runs under a clock that the test sets while it runs, as a false time
//! server would: nobody starts it anew.

use std::{fs, path::PathBuf};

use lockgate_server::clock;
use lockgate_shared::{
    time::Seconds,
    window::{Freeze, Weekday, Window},
    wire::Orders,
};

use crate::{
    forge::{Forge, Goods},
    stage::{Victim, fake_clock},
    stolen_server::answer_with,
};

/// What a device says of a timestamp that it saw expired, wherever its clock is set to since.
const SEEN: &[&str] = &["timestamp version", "was seen expired before"];
/// What it says when nothing signed is young enough to install by.
const STALE: &[&str] = &["nothing newer than", "was heard from the signers"];
const CLOSED: &[&str] = &["the maintenance window opens at"];

/// The wall clock of one device's agent.
struct Clock(PathBuf);

impl Clock {
    /// Starts the agent anew under a clock that is right.
    fn over(victim: &mut Victim, environment: &[(&str, &str)]) -> Self {
        let clock = Self(victim.device.folder().join("clock"));
        clock.set("+0s");
        clock.start(victim, environment);
        clock
    }

    /// Starts the agent anew under it, as it is set.
    fn start(&self, victim: &mut Victim, environment: &[(&str, &str)]) {
        let (library, file) = (fake_clock(), self.0.display().to_string());
        let mut all = vec![
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", file.as_str()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        all.extend(environment);
        victim.device.stop();
        victim.start_with(&all);
    }

    /// Sets it by so much, in faketime's words.
    fn set(&self, offset: &str) {
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{offset}\n")).expect("written");
        fs::rename(new, &self.0).expect("set");
    }
}

/// The online roles are good for so many days, and said again.
fn lasting(own: &mut Forge, days: i64) {
    for role in ["rollouts", "snapshot", "timestamp"] {
        own.expires_in(role, days * 86_400);
    }
    own.say();
}

#[test]
fn e36_a_clock_set_back_revives_nothing_and_a_small_step_back_stops_nothing() {
    let mut victim = Victim::installed();
    let clock = Clock::over(&mut victim, &[]);
    let honest = victim.forge().clone();
    victim.well();
    // Thirty seconds back between two polls: whatever was due goes on.
    clock.set("-30s");
    victim.serve(&honest, |own| own.roll_out(&Goods::new("1.1.0")));
    victim.rest_on("1.1.0");
    victim.well();
    clock.set("+0s");
    let (kept, believed) = (victim.kept(), victim.believed());
    // A timestamp expires; then the clock is set back to when it was good.
    let honest = victim.forge().clone();
    let dead = victim.serve(&honest, |own| {
        own.expires_in("timestamp", 4);
        own.publish("timestamp");
    });
    victim.believes();
    victim.refused(&["`timestamp` version", "expired"]);
    for offset in ["-60s", "-45m"] {
        clock.set(offset);
        victim.polled_again();
        victim.says(SEEN);
        victim.owner_reads("status", SEEN);
        victim.operator_reads(SEEN);
        victim.unharmed(&kept, &believed);
    }
    // Years back: the same. After a start, as with a dead battery, no certificate is good either, and the
    // owner reads why nobody is heard.
    clock.set("-4000d");
    victim.polled_again();
    victim.says(SEEN);
    victim.unharmed(&kept, &believed);
    clock.start(&mut victim, &[]);
    let words = ["has expired or is not valid yet", "clock"];
    victim.says(&words);
    victim.owner_reads("status", &words);
    victim.unharmed(&kept, &believed);
    // Right again, and one newer timestamp later it goes on by itself.
    clock.set("+0s");
    victim.serve(&dead, |own| {
        own.expires_in("timestamp", 86_400);
        own.roll_out(&Goods::new("1.2.0"));
    });
    victim.rest_on("1.2.0");
    victim.well();
}

#[test]
fn e37_a_clock_set_forward_for_a_while_locks_nobody_out() {
    let mut victim = Victim::installed();
    let clock = Clock::over(&mut victim, &[]);
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    // Two days ahead all is still good. The floor takes what was signed, and not that clock: what is good
    // for an hour is believed afterwards.
    clock.set("+2d");
    let long = victim.serve(&honest, |own| lasting(own, 5));
    victim.believes();
    clock.set("+0s");
    let short = victim.serve(&long, |own| {
        own.expires_in("timestamp", 3_600);
        own.publish("timestamp");
    });
    victim.believes();
    victim.unharmed(&kept, &believed);
    // A month ahead the timestamp is over; the server is heard, so its operator reads it too.
    clock.set("+30d");
    victim.refused(&["`timestamp` version", "expired"]);
    victim.unharmed(&kept, &believed);
    // In 2040 no certificate is good either.
    clock.set("+5110d");
    let words = ["has expired or is not valid yet", "clock"];
    victim.says(&words);
    victim.owner_reads("status", &words);
    victim.unharmed(&kept, &believed);
    // Back again: what was seen expired stays refused, which is said, and ends with the next one that is
    // signed. Nobody visits the device, nobody starts it anew.
    clock.set("+0s");
    victim.says(SEEN);
    victim.operator_reads(SEEN);
    victim.unharmed(&kept, &believed);
    victim.serve(&short, |own| {
        own.expires_in("timestamp", 3_600);
        own.roll_out(&Goods::new("1.1.0"));
    });
    victim.rest_on("1.1.0");
    victim.well();
}

#[test]
fn e38_windows_hold_on_guarded_time_in_their_own_zone_and_doubt_waits() {
    let mut victim = Victim::installed();
    let honest = victim.forge().clone();
    let (kept, believed) = (victim.kept(), victim.believed());
    let window = window_of_an_hour_ago("UTC");
    victim.device.drop_in("80-window.toml", &window).expect("written");
    let clock = Clock::over(&mut victim, &[]);
    victim.serve(&honest, |own| {
        own.roll_out(&Goods::new("1.1.0"));
        lasting(own, 5);
    });
    victim.held("1.1.0", CLOSED);
    victim.operator_reads(CLOSED);
    victim.unharmed(&kept, &believed);
    // The clock is shifted back into it: the floor, which signed files raised, holds the time up.
    clock.set("-45m");
    victim.polled_again();
    victim.held("1.1.0", CLOSED);
    victim.unharmed(&kept, &believed);
    // It is shifted ahead into tomorrow's: nothing that was signed is as young as the ladder asks.
    clock.set("+23h");
    victim.polled_again();
    victim.held("1.1.0", STALE);
    victim.operator_reads(STALE);
    victim.unharmed(&kept, &believed);
    // The machine's own zone has no say.
    let _clock = Clock::over(&mut victim, &[("TZ", "Pacific/Kiritimati")]);
    victim.polled_again();
    victim.held("1.1.0", CLOSED);
    victim.operator_reads(CLOSED);
    victim.unharmed(&kept, &believed);
    // A zone that nobody knows: its owner is told at once.
    victim.device.stop();
    let unknown = window_of_an_hour_ago("Moon/Tranquility");
    victim.device.drop_in("80-window.toml", &unknown).expect("written");
    let told = victim.device.command(&["check-config"]).expect_err("it was taken").to_string();
    assert!(told.contains("Moon/Tranquility"), "{told}");
    victim.device.drop_in_gone("80-window.toml").expect("removed");
    victim.start();
    victim.rest_on("1.1.0");
}

#[test]
fn e38_an_ordered_freeze_holds_on_guarded_time_and_an_ordered_zone_that_is_unknown_waits() {
    let mut victim = Victim::installed();
    let clock = Clock::over(&mut victim, &[]);
    let honest = victim.forge().clone();
    let (kept, believed) = (victim.kept(), victim.believed());
    let now = clock::now();
    let (from, until) = (now.minus(Seconds(60)), now.plus(Seconds(2 * 86_400)));
    let freeze = Freeze { from, until, reason: "the yearly fair".into() };
    answer_with(&victim, move |directive| {
        let freezes = vec![freeze.clone()];
        directive.orders = Some(Orders { freezes, ..Orders::default() });
    });
    victim.polled_again();
    victim.serve(&honest, |own| {
        own.roll_out(&Goods::new("1.1.0"));
        lasting(own, 5);
    });
    let frozen = ["frozen until", "the yearly fair"];
    victim.held("1.1.0", &frozen);
    victim.operator_reads(&frozen);
    // Before its beginning, by the clock: the floor holds the time up.
    clock.set("-45m");
    victim.polled_again();
    victim.held("1.1.0", &frozen);
    victim.unharmed(&kept, &believed);
    // Behind its end, by the clock: nothing that was signed is young enough.
    clock.set("+3d");
    victim.polled_again();
    victim.held("1.1.0", STALE);
    victim.unharmed(&kept, &believed);
    clock.set("+0s");
    // The server orders a window in a zone that the device does not know: in doubt it waits, and says so.
    answer_with(&victim, |directive| {
        let windows = vec![Window {
            zone: "Moon/Tranquility".into(),
            days: [Weekday::Mon].into(),
            hour: 1,
            minute: 0,
            length_s: Seconds(60),
        }];
        directive.orders = Some(Orders { windows, ..Orders::default() });
    });
    victim.polled_again();
    let unclear = ["the maintenance window is unclear", "Moon/Tranquility"];
    victim.held("1.1.0", &unclear);
    victim.operator_reads(&unclear);
    victim.unharmed(&kept, &believed);
    // The orders are over, and it goes on.
    answer_with(&victim, |directive| directive.orders = Some(Orders::default()));
    victim.rest_on("1.1.0");
}

/// An owner's window that was open an hour ago for half an hour, every day.
fn window_of_an_hour_ago(zone: &str) -> String {
    let opened = clock::now().minus(Seconds(3_600));
    let minute = opened.0.div_euclid(60).rem_euclid(24 * 60);
    let days = r#"["mon", "tue", "wed", "thu", "fri", "sat", "sun"]"#;
    let (hour, minute) = (minute / 60, minute % 60);
    format!(
        "[[window]]\ndays = {days}\nhour = {hour}\nminute = {minute}\nlength_s = 1800\nzone = \"{zone}\"\n"
    )
}
