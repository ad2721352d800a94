//! The table at the end: what each device runs in which slot, and what each stage came to.

use super::Demo;

/// Prints the table per device and the table per stage.
pub(super) fn print(demo: &Demo, product: &str) {
    println!(
        "\n{:<10} {:<14} {:<8} {:<8} {:<5} {:<8} {:<10} reasons",
        "device", "hardware", "tenant", "cohort", "slot", "runs", "other slot"
    );
    for device in &demo.devices {
        let Some(status) = device.product(product) else { continue };
        let text = |value: Option<String>| value.unwrap_or_else(|| "-".into());
        let candidate = status.candidates.first();
        let cohort = candidate.and_then(|candidate| candidate.cohort.as_ref());
        let reasons: Vec<String> = candidate
            .map(|candidate| candidate.reasons.iter().map(|reason| reason.text.clone()).collect())
            .unwrap_or_default();
        println!(
            "{:<10} {:<14} {:<8} {:<8} {:<5} {:<8} {:<10} {}",
            device.plan.name,
            format!("{} {}", device.plan.profile.vendor, device.plan.profile.model),
            device.plan.tenant,
            text(cohort.map(ToString::to_string)),
            text(status.slot.clone()),
            text(status.running.as_ref().map(ToString::to_string)),
            text(status.other.as_ref().map(ToString::to_string)),
            reasons.first().cloned().unwrap_or_default(),
        );
    }
    let Ok(status) = demo.world.status() else { return };
    println!(
        "\n{:<8} {:<8} {:<9} {:<9} {:>7} {:>6} {:>9} {:>11} {:>6} {:>6}",
        "product",
        "version",
        "rollout",
        "stage",
        "devices",
        "let in",
        "confirmed",
        "rolled back",
        "failed",
        "silent"
    );
    for rollout in &status.rollouts {
        for stage in &rollout.stages {
            println!(
                "{:<8} {:<8} {:<9} {:<9} {:>7} {:>6} {:>9} {:>11} {:>6} {:>6}",
                rollout.product.to_string(),
                rollout.version.to_string(),
                format!("{:?}", rollout.state).to_lowercase(),
                stage.cohort.to_string(),
                stage.devices,
                stage.authorised,
                stage.confirmed,
                stage.rolled_back,
                stage.failed,
                stage.silent,
            );
        }
    }
}
