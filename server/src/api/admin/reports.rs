//! What the gatekeeper said, and the policy in force, for people to read. Whoever belongs to one
//! tenant sees rollouts and stops, without the other tenants' part in them.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use lockgate_shared::{
    id::{ChannelId, ProductId, RolloutId, TenantId},
    rollout::Scope,
    time::Seconds,
};
use serde::{Deserialize, Serialize};

use super::{Admin, Ask, Caller, Refusal, auth};
use crate::{
    registry::rows::TokenRole,
    status::{About, FleetStatus, KindStatus, RolloutStatus, Status, Verdict},
};

/// Verdicts in one answer.
pub const VERDICTS_MAX: usize = 500;

/// `GET /v1/status`
pub async fn status(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
) -> Result<Json<Status>, Refusal> {
    caller.need(auth::READERS)?;
    seen_by(&admin, &caller).map(Json)
}

/// `?product=&channel=`
#[derive(Debug, Deserialize)]
pub struct FleetAsked {
    product: Option<ProductId>,
    channel: Option<ChannelId>,
}

/// What devices there are, or those that a product's channel has, for a plan to be tried on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetShown {
    /// How often they are asked to poll.
    pub polls: Seconds,
    /// Their kinds.
    #[serde(flatten)]
    pub fleet: FleetStatus,
}

/// `GET /v1/fleet`: kinds and counts, and no device. Whoever sees one tenant only is refused, because
/// a kind may be another tenant's.
pub async fn fleet(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Ask(asked): Ask<FleetAsked>,
) -> Result<Json<FleetShown>, Refusal> {
    caller.need_vendor(&[TokenRole::Operator, TokenRole::Auditor])?;
    let Some(fleet) = admin.reports(|reports| reports.fleet().cloned()).flatten() else {
        return Err(Refusal::unavailable(
            "the gatekeeper has not counted the devices yet\nhint: is it running? `lockgate-server gatekeeper` reports at its first tick",
        ));
    };
    let wanted = |kind: &&KindStatus| {
        asked.product.as_ref().is_none_or(|product| kind.product == *product)
            && asked.channel.as_ref().is_none_or(|channel| kind.channel == *channel)
    };
    let kinds = fleet.kinds.iter().filter(wanted).cloned().collect();
    let fleet = FleetStatus { at: fleet.at, kinds, left_out: fleet.left_out };
    Ok(Json(FleetShown { polls: admin.desk.polls(), fleet }))
}

/// `GET /v1/rollouts`
pub async fn rollouts(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
) -> Result<Json<Vec<RolloutStatus>>, Refusal> {
    caller.need(auth::READERS)?;
    Ok(Json(seen_by(&admin, &caller)?.rollouts))
}

/// `GET /v1/rollouts/<id>`
pub async fn rollout(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RolloutStatus>, Refusal> {
    caller.need(auth::READERS)?;
    let id: RolloutId = id
        .parse()
        .map_err(|error: lockgate_shared::id::IdError| Refusal::malformed(error.to_string()))?;
    let status = seen_by(&admin, &caller)?;
    status.rollouts.into_iter().find(|known| known.rollout == id).map(Json).ok_or_else(|| {
        Refusal::missing(format!(
            "there is no rollout `{id}`\nhint: `lockgate rollout list` shows them"
        ))
    })
}

/// The status, narrowed to what the caller may see.
pub(super) fn seen_by(admin: &Admin, caller: &Caller) -> Result<Status, Refusal> {
    let Some(status) = admin.status() else {
        return Err(Refusal::unavailable(
            "the gatekeeper has not reported yet\nhint: is it running? `lockgate-server gatekeeper` reports at its first tick",
        ));
    };
    let mut status = Status::clone(&status);
    if let Some(own) = &caller.tenant {
        narrow(admin, own, &mut status);
    }
    Ok(status)
}

fn narrow(admin: &Admin, own: &TenantId, status: &mut Status) {
    status.stops.retain(|stop| match &stop.scope {
        Scope::Tenant(tenant) => tenant == own,
        Scope::Rollout(_)
        | Scope::Groups(..)
        | Scope::Cohort(..)
        | Scope::Product(_)
        | Scope::Everything => true,
    });
    status.alarms.retain(|alarm| {
        alarm
            .device
            .and_then(|device| admin.desk.device(&device))
            .is_some_and(|known| known.tenant == *own)
    });
    // Their labels hold words of other tenants' devices, and the counts say how many those are.
    status.cohorts.clear();
    for rollout in &mut status.rollouts {
        rollout.groups.clear();
        rollout.coverage.clear();
    }
}

/// `?rollout=&from=&max=`
#[derive(Debug, Deserialize)]
pub struct Verdicts {
    rollout: Option<String>,
    #[serde(default)]
    from: u64,
    max: Option<usize>,
}

/// `GET /v1/verdicts`
pub async fn verdicts(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Ask(ask): Ask<Verdicts>,
) -> Result<Json<Vec<Verdict>>, Refusal> {
    caller.need_vendor(&[TokenRole::Operator, TokenRole::Auditor])?;
    let rollout: Option<RolloutId> = ask
        .rollout
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|error: lockgate_shared::id::IdError| Refusal::malformed(error.to_string()))?;
    let max = ask.max.unwrap_or(VERDICTS_MAX).min(VERDICTS_MAX);
    let about = |verdict: &Verdict| match (&rollout, &verdict.about) {
        (None, _) => true,
        (Some(asked), About::Stage(rollout, _) | About::Rollout(rollout)) => rollout == asked,
        (Some(_), About::Entry(_) | About::Repository) => false,
    };
    let found = admin.reports(|reports| {
        let all = reports.verdicts(ask.from).filter(|verdict| about(verdict));
        all.take(max).map(|verdict| Verdict::clone(verdict)).collect()
    });
    Ok(Json(found.unwrap_or_default()))
}

/// `GET /v1/policy`: its exact text, as it was signed.
pub async fn policy(State(admin): State<Arc<Admin>>, caller: Caller) -> Result<Response, Refusal> {
    caller.need_vendor(&[TokenRole::Operator, TokenRole::Auditor, TokenRole::Publisher])?;
    let Some(current) = admin.desk.policy() else {
        return Err(Refusal::unavailable("the repository's policy has not been read yet"));
    };
    let mut response = current.text.clone().into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Bench;

    #[tokio::test]
    async fn a_tenants_people_see_rollouts_without_the_other_tenants() {
        let bench = Bench::new();
        bench.status_that_counts(0).await;
        let all = bench.get("operator", "/v1/status").await.body;
        assert_eq!(all["alarms"].as_array().map(Vec::len), Some(2));
        assert_eq!(all["stops"].as_array().map(Vec::len), Some(2));
        let own = bench.get("acme-admin", "/v1/status").await.body;
        assert_eq!(own["alarms"].as_array().map(Vec::len), Some(1));
        assert_eq!(own["stops"].as_array().map(Vec::len), Some(1));
        assert!(!own.to_string().contains("globex"), "{own}");
        assert_eq!(own["rollouts"].as_array().map(Vec::len), Some(1));
    }

    #[tokio::test]
    async fn verdicts_audit_and_policy_are_the_vendors() {
        let bench = Bench::new();
        bench.status_that_counts(0).await;
        let fleet = "/v1/fleet?product=app&channel=stable";
        for path in ["/v1/verdicts", "/v1/audit", "/v1/policy", fleet] {
            assert_eq!(bench.get("acme-admin", path).await.status, 403, "{path}");
            assert_eq!(bench.get("acme-auditor", path).await.status, 403, "{path}");
            assert_eq!(bench.get("auditor", path).await.status, 200, "{path}");
        }
        assert_eq!(bench.get("publisher", "/v1/status").await.status, 403);
    }

    #[tokio::test]
    async fn the_fleet_is_counted_by_kind_and_outlives_the_reports_that_do_not_repeat_it() {
        let bench = Bench::new();
        let path = "/v1/fleet?product=app&channel=stable";
        assert_eq!(bench.get("operator", path).await.status, 503, "nobody counted yet");
        bench.status_that_counts(0).await;
        bench.status_that_repeats_no_fleet().await;
        let fleet = bench.get("operator", path).await.body;
        assert_eq!(fleet["polls"], 300);
        assert_eq!(fleet["kinds"][0]["devices"], 3);
        assert_eq!(fleet["kinds"][0]["words"]["model"], "Slate 3");
        let other = bench.get("operator", "/v1/fleet?product=tools&channel=stable").await.body;
        assert_eq!(other["kinds"].as_array().map(Vec::len), Some(0));
        let status = bench.get("operator", "/v1/status").await.body;
        assert!(!status.to_string().contains("Slate 3"), "{status}");
    }

    #[tokio::test]
    async fn before_the_first_report_the_answer_says_who_is_missing() {
        let answer = Bench::new().get("operator", "/v1/rollouts").await;
        assert_eq!((answer.status, answer.kind()), (503, "unavailable"));
        assert!(answer.hint().contains("gatekeeper"));
    }
}
