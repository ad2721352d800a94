//! Acts that people signed, carried to the gatekeeper, and what became of an entry.
//!
//! The signatures are counted here too, against the policy in force, so that whoever submits hears at
//! once what is missing. What counts is the gatekeeper's word, and at last the device's.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    response::Response,
};
use lockgate_shared::{
    act::{Act, Grant, SignedAct},
    id::Digest,
    manifest::Manifest,
    policy::Policy,
    rollout::{Stop, StopKind},
};
use serde::{Deserialize, Serialize};

use super::{Admin, Appended, Caller, Refusal, Said, accepted, auth};
use crate::{
    acts_text::{self, consequences::AtHand},
    registry::rows::{self, GrantRow, Reach, TokenRole},
    status::{Decision, Verdict},
    store::Table,
    stream::{Entry, EntryKind, Publication, StopHow, StopRequest},
};

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryState {
    /// Its offset.
    pub offset: u64,
    /// How it stands.
    pub state: Standing,
    /// The gatekeeper's reasons.
    pub reasons: Vec<String>,
    /// The number under which a pause that was accepted stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<u64>,
}

/// How an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// The gatekeeper has not spoken yet.
    Pending,
    /// It takes effect.
    Accepted,
    /// It does not count.
    Refused,
}

/// `POST /v1/acts`
pub async fn submit(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Said(signed): Said<SignedAct>,
) -> Result<Response, Refusal> {
    caller.need(&[TokenRole::Operator])?;
    let Some(current) = admin.desk.policy() else {
        return Err(Refusal::unavailable("the repository's policy has not been read yet"));
    };
    let verified = signed.verify(&current.policy).map_err(|error| Refusal::because("", &error))?;
    let act = verified.act();
    if let Act::Grant(grant) = act {
        check_grant(&admin, &current.policy, grant)?;
    }
    let bytes = serde_json::to_vec(&signed).map_err(|e| Refusal::malformed(e.to_string()))?;
    let offset = admin.desk.append(EntryKind::Act, bytes).await?;
    if let Act::Grant(grant) = act {
        keep_grant(&admin, offset, &signed, grant).await?;
    }
    let rollout = match act {
        Act::Start(start) => Some(start.rollout()),
        Act::Approve(approval) => Some(approval.rollout),
        Act::Waive(waiver) => Some(waiver.rollout),
        Act::Lift(_) | Act::Grant(_) => None,
    };
    let people: Vec<&str> = verified.people().iter().map(|person| person.as_str()).collect();
    admin.record(
        &caller,
        "act submitted",
        &format!(
            "entry {offset}, {}, sha256 {}, signed by {}",
            name(act),
            signed.digest(),
            people.join(", ")
        ),
    )?;
    Ok(accepted(Appended { offset, rollout }))
}

/// `POST /v1/acts/text`: what people read before they sign, as `lockgate act sign` shows it. It permits
/// nothing, and who asks need not have signed.
pub async fn text(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Said(signed): Said<SignedAct>,
) -> Result<String, Refusal> {
    caller.need_vendor(&[TokenRole::Operator, TokenRole::Auditor])?;
    let act = signed.unverified().map_err(|error| Refusal::because("", &error))?;
    let wanted = match &act {
        Act::Start(start) => Some(start.manifest),
        Act::Approve(approval) => Some(approval.manifest),
        Act::Lift(_) | Act::Waive(_) | Act::Grant(_) => None,
    };
    let manifest = match wanted {
        Some(digest) => published(&admin, &digest).await?.map(|manifest| (digest, manifest)),
        None => None,
    };
    let stops: Option<BTreeMap<u64, Stop>> = admin
        .status()
        .map(|status| status.stops.iter().map(|stop| (stop.number, stop.clone())).collect());
    let at_hand = AtHand {
        manifest: manifest.as_ref().map(|(digest, manifest)| (*digest, manifest)),
        stops: stops.as_ref(),
    };
    acts_text::canonical(&signed, &at_hand).map_err(|error| Refusal::because("", &error))
}

/// The manifest with this SHA-256, from the publication that brought it.
async fn published(admin: &Admin, digest: &Digest) -> Result<Option<Manifest>, Refusal> {
    let offset = {
        let view = admin.registry.view();
        view.releases.values().find(|row| row.manifest == *digest).map(|row| row.offset)
    };
    let Some(offset) = offset else { return Ok(None) };
    let Some(entry) = admin.desk.entry(offset).await? else { return Ok(None) };
    let Ok(publication) = serde_json::from_slice::<Publication>(&entry.bytes) else {
        return Ok(None);
    };
    let texts = publication.with.iter().chain([&publication]).flat_map(|part| &part.targets);
    let text = texts.map(|(_, text)| text).find(|text| Digest::of(text.as_bytes()) == *digest);
    Ok(text.and_then(|text| Manifest::from_json(text.as_bytes()).ok()))
}

const fn name(act: &Act) -> &'static str {
    match act {
        Act::Start(_) => "start",
        Act::Approve(_) => "approval",
        Act::Lift(_) => "lift",
        Act::Waive(_) => "waiver",
        Act::Grant(_) => "grant",
    }
}

fn check_grant(admin: &Admin, policy: &Policy, grant: &Grant) -> Result<(), Refusal> {
    let Some(product) = policy.products.get(&grant.product) else {
        return Err(Refusal::invalid(format!("the policy names no product `{}`", grant.product)));
    };
    if !product.cohorts.contains(&grant.cohort) || !product.channels.contains(&grant.channel) {
        return Err(Refusal::invalid(format!(
            "product `{}` has no cohort `{}` or no channel `{}`",
            grant.product, grant.cohort, grant.channel
        )));
    }
    if grant.expires <= admin.desk.now() {
        return Err(Refusal::invalid(format!("the grant ended at {}", grant.expires)));
    }
    let view = admin.registry.view();
    let reach = Reach { tenant: grant.tenant.clone(), device: Some(grant.device) };
    let revoked = view.revoked_grants.get(&reach).and_then(|known| known.get(&grant.product));
    if revoked.is_some_and(|until| grant.issued <= *until) {
        return Err(Refusal::invalid(
            "this grant, or a newer one, was revoked\nhint: have a new one signed",
        ));
    }
    let newest = view.grants.get(&reach).and_then(|known| known.get(&grant.product));
    if newest.is_some_and(|row| grant.issued < row.grant.issued) {
        return Err(Refusal::invalid("the device has a newer grant for this product"));
    }
    match admin.desk.device(&grant.device) {
        Some(known) if known.tenant == grant.tenant => Ok(()),
        Some(_) | None => Err(Refusal::invalid(format!(
            "no device `{}` of tenant `{}` has enrolled",
            grant.device, grant.tenant
        ))),
    }
}

/// Its device gets the grant at its next check-in, and verifies it itself.
async fn keep_grant(
    admin: &Admin,
    offset: u64,
    signed: &SignedAct,
    grant: &Grant,
) -> Result<(), Refusal> {
    let reach = Reach { tenant: grant.tenant.clone(), device: Some(grant.device) };
    let row =
        GrantRow { offset, received: admin.desk.now(), act: signed.clone(), grant: grant.clone() };
    admin
        .registry
        .change::<Refusal>(admin.tables(), |_| {
            let key = rows::product_key(&reach, &grant.product);
            Ok(vec![rows::write(Table::Grants, key, &row)?])
        })
        .await?;
    Ok(())
}

/// `GET /v1/entries/<offset>`: to those who see one tenant only, just the stops of that tenant.
pub async fn entry(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(offset): Path<String>,
) -> Result<Json<EntryState>, Refusal> {
    let offset: u64 = offset
        .parse()
        .map_err(|_| Refusal::malformed(format!("`{offset}` is not an entry's offset")))?;
    let none = || Refusal::missing(format!("there is no entry {offset}"));
    let entry = admin.desk.entry(offset).await?.ok_or_else(none)?;
    let seen = match (caller.role, &caller.tenant) {
        (TokenRole::Publisher, _) => entry.kind == EntryKind::Publish,
        (_, None) => caller.need(auth::READERS).is_ok(),
        (_, Some(own)) => {
            let stop: Option<StopRequest> = (entry.kind == EntryKind::Stop)
                .then(|| serde_json::from_slice(&entry.bytes).ok())
                .flatten();
            let view = admin.registry.view();
            let token = stop.and_then(|stop| view.tokens.get(&stop.token).cloned());
            token.is_some_and(|token| token.tenant.as_ref() == Some(own))
        }
    };
    if !seen {
        return Err(none());
    }
    let verdict = admin.verdict(offset);
    let stop = number_of(&admin, &entry);
    Ok(Json(EntryState { stop, ..state_of(offset, verdict.as_deref()) }))
}

/// The number of the pause that an entry asked for, where one stands: the gatekeeper reports it with its
/// verdict.
fn number_of(admin: &Admin, entry: &Entry) -> Option<u64> {
    if entry.kind != EntryKind::Stop {
        return None;
    }
    let asked: StopRequest = serde_json::from_slice(&entry.bytes).ok()?;
    let status = admin.status()?;
    let mut pauses = status.stops.iter().filter(|stop| stop.kind == StopKind::Pause);
    let found = pauses.find(|stop| stop.scope == asked.scope);
    found.filter(|_| asked.how == StopHow::Pause).map(|stop| stop.number)
}

fn state_of(offset: u64, verdict: Option<&Verdict>) -> EntryState {
    let state = match verdict.map(|verdict| verdict.decision) {
        None => Standing::Pending,
        Some(Decision::Refused) => Standing::Refused,
        Some(
            Decision::Accepted
            | Decision::Open
            | Decision::Wait
            | Decision::Hold
            | Decision::Halt
            | Decision::Complete
            | Decision::End,
        ) => Standing::Accepted,
    };
    EntryState {
        offset,
        state,
        reasons: verdict.map(|verdict| verdict.reasons.clone()).unwrap_or_default(),
        stop: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{Bench, key, sign_with};
    use super::*;

    #[tokio::test]
    async fn an_act_below_its_threshold_is_refused_with_the_count_and_leaves_no_entry() {
        let bench = Bench::new();
        let signed = sign_with(&bench.grant("acme"), &[]);
        let answer = bench.post("operator", "/v1/acts", &json!(signed)).await;
        assert_eq!((answer.status, answer.kind()), (422, "invalid"));
        assert!(answer.detail().contains("0 of 1"), "{}", answer.detail());
        assert!(answer.hint().contains("lockgate act sign"));
        assert_eq!(bench.entries().len(), 0);
    }

    #[tokio::test]
    async fn a_signed_grant_reaches_its_device_until_the_gatekeeper_refuses_it() {
        let bench = Bench::new();
        let signed = sign_with(&bench.grant("acme"), &[key(1)]);
        let answer = bench.post("operator", "/v1/acts", &json!(signed)).await;
        assert_eq!((answer.status, answer.body["offset"].as_u64()), (202, Some(0)));
        assert_eq!(bench.orders("acme", 1).grants, vec![signed]);
        assert!(bench.orders("acme", 2).grants.is_empty());
        bench.verdict(0, Decision::Refused, "the device left the tenant").await;
        assert!(bench.orders("acme", 1).grants.is_empty());
        let state = bench.get("operator", "/v1/entries/0").await;
        assert_eq!(state.body["state"], "refused");
        assert_eq!(state.body["reasons"][0], "the device left the tenant");
    }

    #[tokio::test]
    async fn a_grant_cannot_name_a_device_of_another_tenant() {
        let bench = Bench::new();
        let signed = sign_with(&bench.grant("globex"), &[key(1)]);
        assert_eq!(bench.post("operator", "/v1/acts", &json!(signed)).await.status, 422);
    }

    #[tokio::test]
    async fn only_operators_submit_acts() {
        let bench = Bench::new();
        let signed = sign_with(&bench.grant("acme"), &[key(1)]);
        for token in ["acme-admin", "auditor", "publisher"] {
            let answer = bench.post(token, "/v1/acts", &json!(signed)).await;
            assert_eq!((answer.status, answer.kind()), (403, "forbidden"), "{token}");
        }
    }

    #[tokio::test]
    async fn an_administrator_sees_the_entries_of_his_own_stops_and_no_others() {
        let bench = Bench::new();
        let stop = json!({"scope": {"tenant": "acme"}, "how": "pause", "reason": "odd"});
        assert_eq!(bench.post("acme-admin", "/v1/stops", &stop).await.status, 202);
        assert_eq!(bench.get("acme-admin", "/v1/entries/0").await.body["state"], "pending");
        assert_eq!(bench.get("globex-admin", "/v1/entries/0").await.status, 404);
        assert_eq!(bench.get("operator", "/v1/entries/1").await.status, 404);
    }

    #[tokio::test]
    async fn an_entry_of_a_pause_gives_the_number_by_which_it_is_lifted() {
        let bench = Bench::new();
        for scope in [json!({"tenant": "globex"}), json!("everything")] {
            let stop = json!({"scope": scope, "how": "pause", "reason": "odd"});
            assert_eq!(bench.post("operator", "/v1/stops", &stop).await.status, 202);
        }
        let number = async |entry: u64| {
            let state = bench.get("operator", &format!("/v1/entries/{entry}")).await.body;
            state["stop"].as_u64()
        };
        assert_eq!(number(0).await, None, "the gatekeeper has not spoken");
        bench.verdict(0, Decision::Accepted, "stop 8: odd").await;
        bench.verdict(1, Decision::Refused, "no room").await;
        bench.status_that_counts(2).await;
        assert_eq!(number(0).await, Some(8));
        assert_eq!(number(1).await, None, "the number is another stop's");
    }
}
