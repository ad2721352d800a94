//! Devices: the list, one of them, and why it does or does not install. An explanation is put
//! together from three mouths, and each line names its own: what the device signed in its last
//! letter, what this server would tell it, and what the gatekeeper decided.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use lockgate_shared::{
    id::{CohortId, DeviceId, IdError, ProductId, RolloutId},
    limits,
    recall::Recall,
    rollout::ScopeOf,
    time::Moment,
    wire::{Orders, ProductState, RolloutView, SlotState},
};
use serde::{Deserialize, Serialize};

use super::{Admin, Ask, Caller, Refusal, Said, auth, desk::KnownDevice, reports};
use crate::{
    letters::{LastLetter, Prepared, bars::BarKind},
    registry::View,
    status::{RolloutState, RolloutStatus, Status},
    stream::BarRequest,
};

/// Devices in one answer.
pub const DEVICES_MAX: usize = 500;
/// Devices in one answer when nothing is asked for.
const DEVICES_USUAL: usize = 100;

/// `?tenant=&limit=&after=`
#[derive(Debug, Deserialize)]
pub struct Page {
    tenant: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// A device in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceShown {
    /// What it said and when.
    #[serde(flatten)]
    pub known: KnownDevice,
    /// What it is told to keep to.
    pub orders: Orders,
    /// Whether its last letter names these very orders.
    pub orders_held: bool,
}

/// Why a device does or does not install.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The device.
    pub device: DeviceId,
    /// When its last letter came.
    pub seen: Option<Moment>,
    /// Line by line.
    pub lines: Vec<Statement>,
}

/// One statement of an explanation: who says what of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Who says it.
    pub says: Speaker,
    /// About which product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<ProductId>,
    /// About which rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutId>,
    /// The reason's code, where a device gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// What.
    pub text: String,
}

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Speaker {
    /// The device, signed.
    Device,
    /// This server: what it would tell the device.
    Server,
    /// The gatekeeper, in its last report.
    Gatekeeper,
}

/// `GET /v1/devices`
pub async fn list(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Ask(page): Ask<Page>,
) -> Result<Json<Vec<KnownDevice>>, Refusal> {
    caller.need(auth::READERS)?;
    let tenant = caller.narrowed(page.tenant.as_deref())?;
    let after: Option<DeviceId> = page
        .after
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|error: IdError| Refusal::malformed(error.to_string()))?;
    let limit = page.limit.unwrap_or(DEVICES_USUAL).min(DEVICES_MAX);
    let found = admin.desk.devices(tenant.as_ref(), after.as_ref(), limit);
    // A tenant that was taken out of the policy may have devices still.
    if let (true, Some(tenant), Some(current)) = (found.is_empty(), tenant, admin.desk.policy())
        && after.is_none()
        && !current.policy.tenants.contains_key(&tenant)
    {
        return Err(Refusal::no_tenant(&current.policy, &tenant));
    }
    Ok(Json(found))
}

/// `GET /v1/devices/<id>`
pub async fn show(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(device): Path<String>,
) -> Result<Json<DeviceShown>, Refusal> {
    caller.need(auth::READERS)?;
    let known = caller.device(&admin, &device)?;
    let view = admin.registry.view();
    let ordered = view.book().of(&known.tenant, &known.device);
    let orders_held = Hold::of(&known, ordered) == Hold::These;
    Ok(Json(DeviceShown { known, orders: ordered.orders().clone(), orders_held }))
}

/// `GET /v1/devices/<id>/explain`
pub async fn explain(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(device): Path<String>,
) -> Result<Json<Explanation>, Refusal> {
    caller.need(auth::READERS)?;
    let known = caller.device(&admin, &device)?;
    let view = admin.registry.view();
    let ordered = view.book().of(&known.tenant, &known.device);
    let held = Hold::of(&known, ordered);
    let mut lines = Vec::new();
    if let Some(bar) = &known.barred {
        lines.push(Statement::of(Speaker::Server, bar.to_string().replace("\nhint: ", "; ")));
    }
    match &known.letter {
        Some(letter) => device_says(letter, &mut lines),
        None => {
            lines.push(Statement::of(Speaker::Server, "the device has enrolled and sent no letter"))
        }
    }
    server_says(ordered.orders(), held, &mut lines);
    recalls_say(&known, &view, &mut lines);
    // Without a report the rest still stands; the missing report is a line of its own.
    match reports::seen_by(&admin, &caller) {
        Ok(status) => gatekeeper_says(&known, &status, &mut lines),
        Err(refusal) => lines.push(Statement::of(Speaker::Server, refusal.problem().detail)),
    }
    Ok(Json(Explanation { device: known.device, seen: known.seen, lines }))
}

/// Why a device is to be revoked.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeAsked {
    /// Why: the device's owner reads it.
    pub reason: String,
}

/// `POST /v1/devices/<id>/revoke`: takes no letter of the device any more. It restricts, so a token is
/// enough; it is never taken back, a device that may come back enrols under a new key.
pub async fn revoke(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(device): Path<String>,
    Said(asked): Said<RevokeAsked>,
) -> Result<Json<KnownDevice>, Refusal> {
    caller.need(auth::RESTRICTORS)?;
    let known = caller.device(&admin, &device)?;
    if asked.reason.trim().is_empty() || asked.reason.len() > limits::LETTER_TEXT {
        return Err(Refusal::invalid(format!(
            "a reason has 1 to {} characters\nhint: whoever finds the device reads it",
            limits::LETTER_TEXT
        )));
    }
    let request = BarRequest {
        device: known.device,
        tenant: known.tenant.clone(),
        kind: BarKind::Revoked,
        reason: asked.reason.clone(),
        by: caller.name.clone(),
    };
    let (bar, new) = admin.desk.bar(request).await?;
    if new.is_some() {
        admin.record(&caller, "revoke", &format!("device {}: {}", known.device, asked.reason))?;
    }
    Ok(Json(KnownDevice { barred: Some(bar), ..known }))
}

/// Which orders the device's last letter names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// Those that it is given now.
    These,
    /// Others, or none.
    Others,
}

impl Hold {
    fn of(known: &KnownDevice, ordered: &Prepared) -> Self {
        match &known.letter {
            Some(letter) if letter.orders_digest == ordered.digest() => Self::These,
            Some(_) | None => Self::Others,
        }
    }
}

fn device_says(letter: &LastLetter, lines: &mut Vec<Statement>) {
    for product in &letter.products {
        lines.push(Statement {
            product: Some(product.product.clone()),
            ..Statement::of(Speaker::Device, product_text(product))
        });
    }
    for view in &letter.rollouts {
        if view.reasons.is_empty() {
            let text = if view.treated {
                "it was let in and is installing, or has installed"
            } else {
                "nothing speaks against installing"
            };
            lines.push(Statement {
                rollout: Some(view.rollout),
                ..Statement::of(Speaker::Device, text)
            });
        }
        for reason in &view.reasons {
            lines.push(Statement {
                rollout: Some(view.rollout),
                code: Some(reason.code),
                ..Statement::of(Speaker::Device, reason.text.clone())
            });
        }
    }
    lines
        .extend(letter.notices.iter().map(|notice| Statement::of(Speaker::Device, notice.clone())));
}

fn product_text(product: &ProductState) -> String {
    let running = product.running.as_ref().map_or_else(
        || "nothing is installed".to_owned(),
        |version| format!("version {version} runs"),
    );
    format!(
        "{running}, channel `{}`, pin `{}`, {}",
        product.channel,
        product.pin,
        state_text(product.state)
    )
}

const fn state_text(state: SlotState) -> &'static str {
    match state {
        SlotState::Idle => "idle",
        SlotState::Waiting => "waiting",
        SlotState::Fetching => "fetching",
        SlotState::Staged => "staged",
        SlotState::Activating => "activating",
        SlotState::Trial => "in trial",
        SlotState::Confirmed => "confirmed",
        SlotState::RollingBack => "rolling back",
        SlotState::Failed => "gave up on a release",
    }
}

fn server_says(orders: &Orders, held: Hold, lines: &mut Vec<Statement>) {
    let mut say = |text: String| lines.push(Statement::of(Speaker::Server, text));
    for (product, pin) in &orders.pins {
        say(format!("`{product}` is pinned to `{pin}`"));
    }
    for window in &orders.windows {
        let days: Vec<String> =
            window.days.iter().map(|day| format!("{day:?}").to_lowercase()).collect();
        say(format!(
            "it may install from {:02}:{:02} ({}) on {} for {}",
            window.hour,
            window.minute,
            window.zone,
            days.join(", "),
            window.length_s
        ));
    }
    for freeze in &orders.freezes {
        say(format!("frozen from {} until {}: {}", freeze.from, freeze.until, freeze.reason));
    }
    for stop in &orders.stops {
        let scope = serde_json::to_string(&stop.scope).unwrap_or_default();
        say(format!("stopped since {}, not yet numbered, {scope}: {}", stop.since, stop.reason));
    }
    for act in &orders.grants {
        if let Ok(lockgate_shared::act::Act::Grant(grant)) = act.unverified() {
            say(format!(
                "granted cohort `{}` of `{}` on channel `{}` until {}",
                grant.cohort, grant.product, grant.channel, grant.expires
            ));
        }
    }
    if held == Hold::Others {
        say("the device does not hold these orders yet; it gets them at its next check-in".into());
    }
}

/// What runs on the device and leads back.
fn recalls_say(known: &KnownDevice, view: &View, lines: &mut Vec<Statement>) {
    for product in known.letter.iter().flat_map(|letter| &letter.products) {
        let Some(running) = &product.running else { continue };
        let row = view.releases.get(&(product.product.clone(), running.clone()));
        let recall = row.and_then(|row| row.recall.as_ref());
        let Some(recall) = recall.filter(|recall| recall.published.is_some()) else { continue };
        let Recall { version, to, until, reason, .. } = &recall.recall;
        let text = format!("{version}, which runs, is recalled to {to} until {until}: {reason}");
        lines.push(Statement {
            product: Some(product.product.clone()),
            ..Statement::of(Speaker::Server, text)
        });
    }
}

fn gatekeeper_says(known: &KnownDevice, status: &Status, lines: &mut Vec<Statement>) {
    let Some(letter) = &known.letter else { return };
    for product in &letter.products {
        let about = |rollout: &&RolloutStatus| {
            rollout.product == product.product && rollout.channel == product.channel
        };
        for rollout in status.rollouts.iter().filter(about) {
            let view = letter.rollouts.iter().find(|view| view.rollout == rollout.rollout);
            // A closed rollout that the device no longer asks about explains nothing.
            let over = matches!(rollout.state, RolloutState::Complete | RolloutState::Ended);
            if over && view.is_none() {
                continue;
            }
            rollout_says(rollout, view, lines);
            if let Some(view) = view {
                stops_say(known, rollout, view, status, lines);
            }
        }
    }
}

fn rollout_says(rollout: &RolloutStatus, view: Option<&RolloutView>, lines: &mut Vec<Statement>) {
    let state = match rollout.state {
        RolloutState::Running => "is running",
        RolloutState::Paused => "is paused by a person",
        RolloutState::Halted => "was halted by the gate",
        RolloutState::Complete => "is complete",
        RolloutState::Ended => "was ended for good",
    };
    let mut say = |text: String| {
        lines.push(Statement {
            product: Some(rollout.product.clone()),
            rollout: Some(rollout.rollout),
            ..Statement::of(Speaker::Gatekeeper, text)
        });
    };
    say(format!("the rollout of version {} {state}", rollout.version));
    let Some(cohort): Option<&CohortId> = view.map(|view| &view.cohort) else { return };
    match rollout.stages.iter().find(|stage| stage.cohort == *cohort) {
        None => say(format!("its cohort `{cohort}` has no stage in this rollout")),
        Some(stage) => {
            match &stage.limit {
                Some(limit) => say(format!("its stage `{cohort}` is open to {limit}")),
                None => say(format!("its stage `{cohort}` is closed")),
            }
            stage.reasons.iter().for_each(|reason| say(reason.clone()));
        }
    }
}

fn stops_say(
    known: &KnownDevice,
    rollout: &RolloutStatus,
    view: &RolloutView,
    status: &Status,
    lines: &mut Vec<Statement>,
) {
    // A letter leaves its groups out once they were acknowledged: a hold of groups is then the
    // device's own to name, and it does, by number.
    let about = ScopeOf {
        rollout: &rollout.rollout,
        product: &rollout.product,
        cohort: &view.cohort,
        tenant: &known.tenant,
        groups: &view.groups,
    };
    for stop in status.stops.iter().filter(|stop| stop.scope.covers(&about)) {
        lines.push(Statement {
            product: Some(rollout.product.clone()),
            rollout: Some(rollout.rollout),
            ..Statement::of(
                Speaker::Gatekeeper,
                format!("stop {} since {}: {}", stop.number, stop.since, stop.reason),
            )
        });
    }
}

impl Statement {
    fn of(says: Speaker, text: impl Into<String>) -> Self {
        Self { says, product: None, rollout: None, code: None, text: text.into() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{Bench, device};

    #[tokio::test]
    async fn another_tenants_device_looks_like_one_that_does_not_exist() {
        let bench = Bench::new();
        for tail in ["", "/explain"] {
            let foreign =
                bench.get("acme-admin", &format!("/v1/devices/{}{tail}", device(3))).await;
            let nobody = bench.get("acme-admin", &format!("/v1/devices/{}{tail}", device(9))).await;
            assert_eq!((foreign.status, nobody.status), (404, 404));
            let unnamed =
                |answer: &Value, n: u8| answer.to_string().replace(&device(n).to_string(), "ID");
            assert_eq!(unnamed(&foreign.body, 3), unnamed(&nobody.body, 9));
            let own = bench.get("acme-admin", &format!("/v1/devices/{}{tail}", device(1))).await;
            assert_eq!(own.status, 200);
            let path = format!("/v1/devices/{}{tail}", device(1));
            assert_eq!(bench.get("publisher", &path).await.status, 403);
        }
    }

    #[tokio::test]
    async fn the_list_is_narrowed_to_the_tokens_tenant_and_pages() {
        let bench = Bench::new();
        let own = bench.get("acme-admin", "/v1/devices").await.body;
        assert_eq!(own.as_array().map(Vec::len), Some(2));
        assert!(!own.to_string().contains("globex"));
        assert_eq!(bench.get("acme-admin", "/v1/devices?tenant=globex").await.status, 403);
        let first = bench.get("operator", "/v1/devices?limit=2").await.body;
        let last = first[1]["device"].as_str().expect("an id").to_owned();
        let rest = bench.get("operator", &format!("/v1/devices?limit=2&after={last}")).await.body;
        assert_eq!(rest.as_array().map(Vec::len), Some(1));
        assert_eq!(bench.get("operator", "/v1/devices?limit=many").await.status, 400);
    }

    #[tokio::test]
    async fn a_device_is_revoked_by_its_own_tenants_people_with_a_reason() {
        let bench = Bench::new();
        let path = |n| format!("/v1/devices/{}/revoke", device(n));
        let stolen = json!({"reason": "stolen"});
        assert_eq!(bench.post("acme-admin", &path(3), &stolen).await.status, 404, "globex's");
        assert_eq!(bench.post("auditor", &path(1), &stolen).await.status, 403);
        assert_eq!(bench.post("acme-admin", &path(1), &json!({"reason": " "})).await.status, 422);
        assert_eq!(bench.entries().len(), 0);
        let revoked = bench.post("acme-admin", &path(1), &stolen).await;
        assert_eq!((revoked.status, &revoked.body["barred"]["kind"]), (200, &json!("revoked")));
        assert_eq!(bench.entries().len(), 1);
    }

    #[tokio::test]
    async fn an_explanation_says_who_says_what() {
        let bench = Bench::new();
        bench.status_that_counts(0).await;
        let pin = bench.put("acme-admin", "/v1/pins/*/app", &json!({"pin": "n-1"})).await;
        assert_eq!(pin.status, 204);
        let path = format!("/v1/devices/{}/explain", device(1));
        let lines = bench.get("acme-admin", &path).await.body["lines"].clone();
        let said = |mouth: &str| -> Vec<String> {
            let all = lines.as_array().cloned().unwrap_or_default();
            let own = all.iter().filter(|line| line["says"] == mouth);
            own.map(|line| format!("{} {}", line["code"], line["text"])).collect()
        };
        assert!(said("device").iter().any(|l| l.starts_with("110 ")), "{lines}");
        assert!(said("device").iter().any(|l| l.contains("version 1.0.0 runs")), "{lines}");
        assert!(said("server").iter().any(|l| l.contains("pinned to `n-1`")), "{lines}");
        assert!(said("server").iter().any(|l| l.contains("does not hold")), "{lines}");
        let gate = said("gatekeeper");
        assert!(gate.iter().any(|l| l.contains("3 of 10 baked")), "{lines}");
        assert!(gate.iter().any(|l| l.contains("stop 7")), "{lines}");
    }
}
