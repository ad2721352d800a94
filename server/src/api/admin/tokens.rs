//! API tokens: shown once when they are made, kept as a hash, revoked for good. A tenant's
//! administrator makes and revokes tokens of that tenant, whose names begin with the tenant's: so nobody
//! learns which names others have.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use lockgate_shared::{id::TenantId, policy::Role, time::Moment};
use serde::{Deserialize, Serialize};

use super::{Admin, Caller, Refusal, Said, auth};
use crate::{
    registry::{
        NewToken, own_prefix,
        rows::{self, TokenRole, TokenRow},
        token_text,
    },
    store::Table,
};

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenShown {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: TokenRole,
    /// Its tenant.
    pub tenant: Option<TenantId>,
    /// When it was made.
    pub created: Moment,
    /// When it was revoked.
    pub revoked: Option<Moment>,
}

/// What a new token is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenAsked {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: TokenRole,
    /// Its tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
}

/// A new token's text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenMade {
    /// The token: shown this once.
    pub token: String,
}

/// `GET /v1/whoami`
pub async fn whoami(caller: Caller) -> Json<Caller> {
    Json(caller)
}

/// `GET /v1/tokens`
pub async fn list(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
) -> Result<Json<Vec<TokenShown>>, Refusal> {
    caller.need(auth::READERS)?;
    let view = admin.registry.view();
    let seen = view.tokens.values().filter(|row| may_see(&caller, row));
    Ok(Json(
        seen.map(|row| TokenShown {
            name: row.name.clone(),
            role: row.role,
            tenant: row.tenant.clone(),
            created: row.created,
            revoked: row.revoked,
        })
        .collect(),
    ))
}

fn may_see(caller: &Caller, row: &TokenRow) -> bool {
    caller.tenant.is_none() || caller.tenant == row.tenant
}

/// `POST /v1/tokens`
pub async fn create(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Said(asked): Said<TokenAsked>,
) -> Result<Response, Refusal> {
    caller.need(auth::RESTRICTORS)?;
    let tenant = caller.narrowed(asked.tenant.as_ref().map(TenantId::as_str))?;
    let within = match asked.role {
        TokenRole::Administrator | TokenRole::Auditor => true,
        TokenRole::Operator | TokenRole::Publisher => caller.tenant.is_none(),
    };
    if !within {
        return Err(Refusal::forbidden(format!(
            "a tenant's administrator makes tokens with role `{}` or `{}`",
            TokenRole::Administrator,
            TokenRole::Auditor
        )));
    }
    if let (Some(tenant), Some(current)) = (&tenant, admin.desk.policy())
        && !current.policy.tenants.contains_key(tenant)
    {
        return Err(Refusal::no_tenant(&current.policy, tenant));
    }
    let name = match &caller.tenant {
        Some(own) => own_name(own, &asked.name),
        None => asked.name,
    };
    check_name(&admin, &caller, &name, tenant.as_ref())?;
    let text = token_text(&admin.desk.random());
    let detail = format!(
        "`{}`, role {}, tenant {}",
        name,
        asked.role,
        tenant.as_ref().map_or("-", |tenant| tenant.as_str())
    );
    let token = NewToken { name, role: asked.role, tenant };
    let now = admin.desk.now();
    admin
        .registry
        .change::<Refusal>(admin.tables(), |view| Ok(vec![token.row(view, &text, now)?]))
        .await?;
    admin.record(&caller, "token created", &detail)?;
    Ok((StatusCode::CREATED, Json(TokenMade { token: text })).into_response())
}

fn sees(admin: &Admin, caller: &Caller, name: &str) -> bool {
    admin.registry.view().tokens.get(name).is_some_and(|row| may_see(caller, row))
}

/// The whole name of a token that a tenant's administrator names.
fn own_name(tenant: &TenantId, name: &str) -> String {
    let prefix = own_prefix(tenant);
    if name.starts_with(&prefix) { name.to_owned() } else { prefix + name }
}

/// A name that the policy gives to a person speaks for that person to the gatekeeper, so only the vendor's
/// operators make a token of it, and never one of a tenant for somebody who operates everything.
fn check_name(
    admin: &Admin,
    caller: &Caller,
    name: &str,
    tenant: Option<&TenantId>,
) -> Result<(), Refusal> {
    let Some(current) = admin.desk.policy() else { return Ok(()) };
    let person = current.policy.people.iter().find(|(_, person)| person.tokens.contains(name));
    let Some((who, person)) = person else { return Ok(()) };
    let too_much = tenant.is_some() && person.roles.contains(&Role::Operator);
    if caller.tenant.is_some() || too_much {
        return Err(Refusal::forbidden(format!(
            "the policy gives the token name `{name}` to `{who}`\nhint: choose another name"
        )));
    }
    Ok(())
}

/// `DELETE /v1/tokens/<name>`
pub async fn revoke(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    caller.need(auth::RESTRICTORS)?;
    let now = admin.desk.now();
    let name = match &caller.tenant {
        // One that an operator made for the tenant has a name of the vendor's.
        Some(own) if !sees(&admin, &caller, &name) => own_name(own, &name),
        Some(_) | None => name,
    };
    admin
        .registry
        .change::<Refusal>(admin.tables(), |view| {
            let row = view.tokens.get(&name).filter(|row| may_see(&caller, row));
            let Some(row) = row else {
                return Err(Refusal::missing(format!("there is no token `{name}`")));
            };
            if row.revoked.is_some() {
                return Ok(Vec::new());
            }
            let row = TokenRow { revoked: Some(now), ..row.clone() };
            Ok(vec![rows::write(Table::Tokens, name.clone(), &row)?])
        })
        .await?;
    admin.record(&caller, "token revoked", &format!("`{name}`"))?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::Bench;

    #[tokio::test]
    async fn a_token_is_shown_once_works_and_is_revoked_for_good() {
        let bench = Bench::new();
        let body = json!({"name": "eva", "role": "administrator", "tenant": "acme"});
        let made = bench.post("operator", "/v1/tokens", &body).await;
        assert_eq!(made.status, 201);
        let text = made.body["token"].as_str().expect("a token").to_owned();
        let me = bench.get_with(&text, "/v1/whoami").await;
        assert_eq!(me.body, json!({"name": "eva", "role": "administrator", "tenant": "acme"}));
        let list = bench.get("operator", "/v1/tokens").await.body.to_string();
        assert!(!list.contains(&text[10..]), "the list shows no secret");
        assert_eq!(bench.delete("operator", "/v1/tokens/eva").await.status, 204);
        let after = bench.get_with(&text, "/v1/whoami").await;
        assert_eq!((after.status, after.kind()), (401, "unauthorised"));
        let again = bench.post("operator", "/v1/tokens", &body).await;
        assert_eq!((again.status, again.kind()), (409, "conflict"));
    }

    #[tokio::test]
    async fn an_administrator_makes_and_revokes_tokens_of_the_own_tenant_only() {
        let bench = Bench::new();
        for (body, status) in [
            (json!({"name": "a", "role": "auditor", "tenant": "globex"}), 403),
            (json!({"name": "b", "role": "operator"}), 403),
            (json!({"name": "c", "role": "publisher"}), 403),
        ] {
            let answer = bench.post("acme-admin", "/v1/tokens", &body).await;
            assert_eq!(answer.status, status, "{body}");
        }
        let own = json!({"name": "d", "role": "auditor"});
        assert_eq!(bench.post("acme-admin", "/v1/tokens", &own).await.status, 201);
        let list = bench.get("acme-admin", "/v1/tokens").await.body.to_string();
        assert!(
            list.contains("\"acme/d\"") && !list.contains("globex") && !list.contains("operator")
        );
        for foreign in ["globex-admin", "operator", "nobody"] {
            let path = format!("/v1/tokens/{foreign}");
            assert_eq!(bench.delete("acme-admin", &path).await.status, 404, "{foreign}");
        }
        for reader in ["auditor", "publisher", "acme-auditor"] {
            assert_eq!(bench.post(reader, "/v1/tokens", &own).await.status, 403, "{reader}");
            let path = "/v1/tokens/acme-admin";
            assert_eq!(bench.delete(reader, path).await.status, 403, "{reader}");
        }
    }

    #[tokio::test]
    async fn nobody_learns_by_trying_which_names_others_have() {
        let bench = Bench::new();
        let named = |name: &str| json!({"name": name, "role": "auditor"});
        for (caller, whole) in [("acme-admin", "acme/eva"), ("globex-admin", "globex/eva")] {
            for name in ["eva", "operator", "acme-admin", "globex-admin"] {
                let made = bench.post(caller, "/v1/tokens", &named(name)).await;
                assert_eq!(made.status, 201, "{caller} learns of `{name}`: {}", made.body);
                let again = bench.post(caller, "/v1/tokens", &named(name)).await;
                assert_eq!((again.status, again.kind()), (409, "conflict"), "its own it may know");
            }
            let list = bench.get(caller, "/v1/tokens").await.body.to_string();
            assert!(list.contains(&format!("\"{whole}\"")), "{list}");
        }
        // Nor is a name taken in another's place.
        for foreign in ["globex/tom", "a/b", "/", "acme/", "acme/a/b", "A"] {
            let made = bench.post("acme-admin", "/v1/tokens", &named(foreign)).await;
            assert_eq!((made.status, made.kind()), (422, "invalid"), "{foreign}");
        }
        for (name, tenant) in [("globex/tom", "acme"), ("acme/", "acme")] {
            let body = json!({"name": name, "role": "auditor", "tenant": tenant});
            assert_eq!(bench.post("operator", "/v1/tokens", &body).await.status, 422, "{name}");
        }
        for (caller, path, status) in [
            ("acme-admin", "/v1/tokens/globex%2Feva", 404),
            ("acme-admin", "/v1/tokens/eva", 204),
            ("globex-admin", "/v1/tokens/globex%2Feva", 204),
            ("operator", "/v1/tokens/eva", 404),
            ("operator", "/v1/tokens/acme%2Foperator", 204),
        ] {
            assert_eq!(bench.delete(caller, path).await.status, status, "{caller} {path}");
        }
    }

    #[tokio::test]
    async fn what_is_no_token_is_told_so() {
        let bench = Bench::new();
        for text in ["", "lgtok1_", "password", "lgtok1_00ff"] {
            let answer = bench.get_with(text, "/v1/whoami").await;
            assert_eq!((answer.status, answer.kind()), (401, "unauthorised"), "{text}");
        }
    }
}
