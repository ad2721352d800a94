//! Stops: the one thing that must be fast. A stop goes to the gatekeeper, who numbers and signs it,
//! and at the same moment into the orders of every device it covers, where it binds at the next
//! check-in.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use lockgate_shared::{
    id::{CohortId, ProductId},
    limits,
    policy::{Policy, Product},
    rollout::{PassedStop, Scope},
};
use serde::{Deserialize, Serialize};

use super::{Admin, Appended, Caller, Refusal, Said, accepted, auth};
use crate::{
    names,
    registry::rows::{self, StopRow, TokenRole},
    status::RolloutState,
    store::Table,
    stream::{EntryKind, StopHow, StopRequest},
};

/// What a person asks to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopAsked {
    /// What is stopped.
    pub scope: Scope,
    /// Whether it can be lifted.
    pub how: StopHow,
    /// Why.
    pub reason: String,
}

/// `POST /v1/stops`
pub async fn stop(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Said(asked): Said<StopAsked>,
) -> Result<Response, Refusal> {
    check_right(&caller, &asked.scope)?;
    check(&admin, &asked)?;
    let StopAsked { scope, how, reason } = asked;
    let request = StopRequest { scope, how, reason, token: caller.name.clone() };
    // Before the entry: what would not fit a directive must not be half done.
    let view = admin.registry.view();
    let since = admin.desk.now();
    let row = |offset| {
        let (scope, reason) = (request.scope.clone(), request.reason.clone());
        let stop = PassedStop { offset, scope, since, reason };
        let row = StopRow { offset, stop, how: request.how, token: request.token.clone() };
        rows::write(Table::Stops, rows::number_key(offset), &row)
    };
    view.with(&[row(u64::MAX)?])?;
    let bytes = serde_json::to_vec(&request).map_err(|e| Refusal::malformed(e.to_string()))?;
    let offset = admin.desk.append(EntryKind::Stop, bytes).await?;
    admin.registry.change::<Refusal>(admin.tables(), |_| Ok(vec![row(offset)?])).await?;
    let scope = serde_json::to_string(&request.scope).unwrap_or_default();
    admin.record(&caller, "stop", &format!("entry {offset}, {scope}: {}", request.reason))?;
    let rollout = match request.scope {
        Scope::Rollout(rollout) | Scope::Groups(rollout, _) => Some(rollout),
        Scope::Cohort(..) | Scope::Tenant(_) | Scope::Product(_) | Scope::Everything => None,
    };
    Ok(accepted(Appended { offset, rollout }))
}

fn check_right(caller: &Caller, scope: &Scope) -> Result<(), Refusal> {
    caller.need(auth::RESTRICTORS)?;
    match (caller.role, &caller.tenant, scope) {
        (TokenRole::Operator, None, _) => Ok(()),
        (_, Some(own), Scope::Tenant(asked)) if own == asked => Ok(()),
        (_, own, _) => Err(Refusal::forbidden(format!(
            "an administrator stops the devices of the own tenant{}, and nothing else",
            own.as_ref().map(|own| format!(" `{own}`")).unwrap_or_default()
        ))),
    }
}

fn check(admin: &Admin, asked: &StopAsked) -> Result<(), Refusal> {
    if asked.reason.trim().is_empty() || asked.reason.len() > limits::LETTER_TEXT {
        return Err(Refusal::invalid(format!(
            "a reason has 1 to {} characters\nhint: whoever lifts the stop reads it",
            limits::LETTER_TEXT
        )));
    }
    let rollout = match &asked.scope {
        Scope::Rollout(rollout) | Scope::Groups(rollout, _) => Some(rollout),
        Scope::Cohort(..) | Scope::Tenant(_) | Scope::Product(_) | Scope::Everything => None,
    };
    if asked.how == StopHow::End && !matches!(asked.scope, Scope::Rollout(_)) {
        return Err(Refusal::invalid("only a rollout can be ended for good; pause the rest"));
    }
    if let (Some(rollout), Some(status)) = (rollout, admin.status()) {
        let known = status.rollouts.iter().find(|known| known.rollout == *rollout);
        match known.map(|known| known.state) {
            None => {
                return Err(Refusal::missing(format!(
                    "there is no rollout `{rollout}`\nhint: `lockgate rollout list` shows them; `lockgate stop --everything` needs no name"
                )));
            }
            Some(RolloutState::Ended) if asked.how == StopHow::Pause => {
                return Err(Refusal::conflict(
                    "the rollout was ended for good: nothing of it goes out\nhint: `lockgate release recall` leads back the devices that have it",
                ));
            }
            Some(
                RolloutState::Ended
                | RolloutState::Running
                | RolloutState::Paused
                | RolloutState::Halted
                | RolloutState::Complete,
            ) => {}
        }
    }
    // Without a policy at hand a stop is passed on unchecked: it only restricts.
    let Some(current) = admin.desk.policy() else { return Ok(()) };
    let policy = &current.policy;
    match &asked.scope {
        Scope::Tenant(tenant) if !policy.tenants.contains_key(tenant) => {
            Err(Refusal::no_tenant(policy, tenant))
        }
        Scope::Product(product) => check_product(policy, product).map(drop),
        Scope::Cohort(product, cohort) => {
            let cohorts = &check_product(policy, product)?.cohorts;
            if cohorts.contains(cohort) {
                return Ok(());
            }
            let known = names::instead_of(cohort.as_str(), cohorts.iter().map(CohortId::as_str));
            let text = format!("product `{product}` has no cohort `{cohort}`\nhint: {known}");
            Err(Refusal::missing(text))
        }
        Scope::Rollout(_) | Scope::Groups(..) | Scope::Tenant(_) | Scope::Everything => Ok(()),
    }
}

fn check_product<'p>(policy: &'p Policy, product: &ProductId) -> Result<&'p Product, Refusal> {
    policy.products.get(product).ok_or_else(|| {
        let known = policy.products.keys().map(ProductId::as_str);
        let known = names::instead_of(product.as_str(), known);
        Refusal::missing(format!("the policy names no product `{product}`\nhint: {known}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::Bench;
    use super::*;
    use crate::status::Decision;

    #[tokio::test]
    async fn a_stop_binds_every_covered_device_at_once_and_leaves_when_signed_files_say_it() {
        let bench = Bench::new();
        let body = json!({"scope": {"product": "app"}, "how": "pause", "reason": "crashes"});
        let answer = bench.post("operator", "/v1/stops", &body).await;
        assert_eq!(answer.status, 202);
        for (tenant, device) in [("acme", 1), ("globex", 3), ("nobody-yet", 9)] {
            let stops = bench.orders(tenant, device).stops;
            assert_eq!(stops.len(), 1, "{tenant}");
            assert_eq!(stops[0].reason, "crashes");
        }
        let request: StopRequest = serde_json::from_slice(&bench.entries()[0].bytes).expect("json");
        assert_eq!(request.token, "operator");
        bench.verdict(0, Decision::Accepted, "numbered 1").await;
        assert_eq!(bench.orders("acme", 1).stops.len(), 1, "no status lists it yet");
        bench.status_that_counts(1).await;
        assert!(bench.orders("acme", 1).stops.is_empty());
    }

    #[tokio::test]
    async fn an_administrator_stops_his_own_tenant_only() {
        let bench = Bench::new();
        for scope in [
            json!({"tenant": "globex"}),
            json!({"product": "app"}),
            json!("everything"),
            json!({"cohort": ["app", "early"]}),
        ] {
            let body = json!({"scope": scope, "how": "pause", "reason": "x"});
            let answer = bench.post("acme-admin", "/v1/stops", &body).await;
            assert_eq!((answer.status, answer.kind()), (403, "forbidden"), "{scope}");
        }
        let own = json!({"scope": {"tenant": "acme"}, "how": "pause", "reason": "x"});
        assert_eq!(bench.post("acme-admin", "/v1/stops", &own).await.status, 202);
        assert_eq!(bench.orders("acme", 1).stops.len(), 1);
        assert!(bench.orders("globex", 3).stops.is_empty());
    }

    #[tokio::test]
    async fn readers_and_publishers_cannot_stop() {
        let bench = Bench::new();
        let body = json!({"scope": "everything", "how": "pause", "reason": "x"});
        for token in ["auditor", "publisher"] {
            assert_eq!(bench.post(token, "/v1/stops", &body).await.status, 403, "{token}");
        }
        assert_eq!(bench.entries().len(), 0);
    }

    #[tokio::test]
    async fn a_stop_without_reason_or_of_nothing_that_exists_is_refused() {
        let bench = Bench::new();
        for (scope, how, reason, status) in [
            (json!("everything"), "pause", " ", 422),
            (json!("everything"), "end", "x", 422),
            (json!({"product": "nothing"}), "pause", "x", 404),
            (json!({"cohort": ["app", "nobody"]}), "pause", "x", 404),
            (json!({"tenant": "nobody"}), "pause", "x", 404),
        ] {
            let body = json!({"scope": scope, "how": how, "reason": reason});
            let answer = bench.post("operator", "/v1/stops", &body).await;
            assert_eq!(answer.status, status, "{scope} {how}");
            if status == 404 {
                assert!(answer.hint().starts_with("there is `"), "{scope}: {}", answer.hint());
            }
        }
        assert_eq!(bench.entries().len(), 0);
    }
}
