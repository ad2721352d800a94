//! Time: entries 36 to 38. The agent runs under a clock of the test's choice.

use lockgate_server::clock;
use lockgate_shared::time::Seconds;

use crate::{
    forge::Goods,
    stage::{Victim, fake_clock},
};

/// Starts the agent anew with its wall clock set by this much, in faketime's words.
fn restart_at(victim: &mut Victim, offset: &str) {
    victim.device.stop();
    if offset.is_empty() {
        victim.start();
        return;
    }
    let library = fake_clock();
    let environment = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME", offset),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    victim.start_with(&environment);
}

#[test]
fn e36_a_clock_set_back_revives_nothing_and_a_small_step_back_stops_nothing() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    // Thirty seconds back between two polls: nothing happens.
    restart_at(&mut victim, "-30s");
    victim.serve(&honest, |_| ());
    victim.believes();
    victim.unharmed(&kept, &believed);
    restart_at(&mut victim, "");
    victim.well();
    // A timestamp expires; then the clock is set back to when it was good.
    let dead = victim.serve(&honest, |own| {
        own.expires_in("timestamp", 4);
        own.publish("timestamp");
    });
    victim.believes();
    victim.refused(&["`timestamp` version", "expired"]);
    restart_at(&mut victim, "-60s");
    victim.says(&["timestamp version", "was seen expired before"]);
    victim.unharmed(&kept, &believed);
    // Years back, as with a dead battery: the certificate is not valid yet, and the owner reads it.
    restart_at(&mut victim, "-4000d");
    victim.says(&["has expired or is not valid yet", "clock"]);
    victim.unharmed(&kept, &believed);
    restart_at(&mut victim, "");
    victim.serve(&dead, |own| {
        own.expires_in("timestamp", 86_400);
        own.publish("timestamp");
    });
    victim.believes();
}

#[test]
fn e37_a_clock_set_forward_for_a_while_locks_nobody_out() {
    let mut victim = Victim::installed();
    let (kept, believed) = (victim.kept(), victim.believed());
    let honest = victim.forge().clone();
    // A month ahead: certificate and root are good, the timestamp is not.
    for offset in ["+30d", "+5110d"] {
        restart_at(&mut victim, offset);
        victim.expect("all seems expired", |status| {
            status.refresh.problem.as_deref().is_some_and(|text| text.contains("expired"))
        });
        victim.unharmed(&kept, &believed);
    }
    // Back again, and one newer timestamp later all is as before.
    restart_at(&mut victim, "");
    victim.serve(&honest, |own| own.roll_out(&Goods::new("1.1.0")));
    victim.rest_on("1.1.0");
    victim.well();
}

#[test]
fn e38_windows_hold_on_guarded_time_in_their_own_zone_and_doubt_waits() {
    let mut victim = Victim::installed();
    let honest = victim.forge().clone();
    let (kept, believed) = (victim.kept(), victim.believed());
    // A window that was open an hour ago for half an hour, every day.
    let opened = clock::now().minus(Seconds(3_600));
    let minute = opened.0.div_euclid(60).rem_euclid(24 * 60);
    let window = format!(
        "[[window]]\ndays = [\"mon\", \"tue\", \"wed\", \"thu\", \"fri\", \"sat\", \"sun\"]\nhour = {}\nminute = {}\nlength_s = 1800\nzone = \"UTC\"\n",
        minute / 60,
        minute % 60
    );
    victim.device.drop_in("80-window.toml", &window).expect("written");
    victim.device.stop();
    victim.start();
    victim.serve(&honest, |own| own.roll_out(&Goods::new("1.1.0")));
    victim.held("1.1.0", &["the maintenance window opens at"]);
    victim.unharmed(&kept, &believed);
    // The clock is shifted back into it: the floor, which signed files raised, holds the time up.
    victim.device.stop();
    restart_at(&mut victim, "-45m");
    victim.polled_again();
    victim.held("1.1.0", &["the maintenance window opens at"]);
    victim.unharmed(&kept, &believed);
    // The machine's own zone has no say.
    victim.device.stop();
    victim.start_with(&[("TZ", "Pacific/Kiritimati")]);
    victim.polled_again();
    victim.held("1.1.0", &["the maintenance window opens at"]);
    victim.operator_reads(&["the maintenance window opens at"]);
    victim.unharmed(&kept, &believed);
    // A zone that nobody knows: in doubt it waits, or is told at once.
    victim.device.stop();
    let unknown = window.replace("UTC", "Moon/Tranquility");
    victim.device.drop_in("80-window.toml", &unknown).expect("written");
    let started = victim.device.command(&["check-config"]);
    assert!(started.is_err(), "{started:?}");
    victim.device.drop_in_gone("80-window.toml").expect("removed");
    victim.start();
    victim.rest_on("1.1.0");
}
