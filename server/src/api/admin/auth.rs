//! Who asks: a bearer token, looked up by its SHA-256. The tenant of an administrator is the token's,
//! and never the request's; a device of another tenant looks exactly like one that does not exist.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};
use lockgate_shared::id::{DeviceId, Digest, TenantId};
use serde::{Deserialize, Serialize};

use super::{Admin, desk::KnownDevice, refusal::Refusal};
use crate::registry::{
    TOKEN_PREFIX,
    rows::{Reach, TokenRole},
};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The token's name.
    pub name: String,
    /// What it may do.
    pub role: TokenRole,
    /// The only tenant it sees; none for the vendor's own people.
    pub tenant: Option<TenantId>,
}

/// Who reads everything that is not a secret.
pub const READERS: &[TokenRole] =
    &[TokenRole::Operator, TokenRole::Administrator, TokenRole::Auditor];
/// Who restricts devices.
pub const RESTRICTORS: &[TokenRole] = &[TokenRole::Operator, TokenRole::Administrator];

impl FromRequestParts<Arc<Admin>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        admin: &Arc<Admin>,
    ) -> Result<Self, Self::Rejection> {
        let hint = "\nhint: send `Authorization: Bearer lgtok1_…`; `lockgate` takes it from `--token-file`";
        let Some(header) = parts.headers.get(header::AUTHORIZATION) else {
            return Err(Refusal::unauthorised(&format!("no token was sent{hint}")));
        };
        let token = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
        let Some(token) = token.map(str::trim).filter(|text| text.starts_with(TOKEN_PREFIX)) else {
            return Err(Refusal::unauthorised(&format!("what was sent is not a token{hint}")));
        };
        let view = admin.registry.view();
        match view.token(&Digest::of(token.as_bytes())) {
            Some(row) => {
                Ok(Self { name: row.name.clone(), role: row.role, tenant: row.tenant.clone() })
            }
            None => Err(Refusal::unauthorised(
                "the token is not known or was revoked\nhint: have a new one made with `lockgate token create`",
            )),
        }
    }
}

impl Caller {
    /// Refuses callers without one of these roles.
    pub fn need(&self, roles: &[TokenRole]) -> Result<(), Refusal> {
        if roles.contains(&self.role) {
            return Ok(());
        }
        let names: Vec<String> = roles.iter().map(|role| format!("`{role}`")).collect();
        Err(Refusal::forbidden(format!(
            "token `{}` has role `{}`, this needs {}",
            self.name,
            self.role,
            names.join(" or ")
        )))
    }

    /// Refuses callers who see one tenant only.
    pub fn need_vendor(&self, roles: &[TokenRole]) -> Result<(), Refusal> {
        self.need(roles)?;
        match &self.tenant {
            None => Ok(()),
            Some(tenant) => Err(Refusal::forbidden(format!(
                "token `{}` belongs to tenant `{tenant}`, and this shows or changes more than that",
                self.name
            ))),
        }
    }

    /// The tenant to which a request is narrowed: the token's, else the one asked for.
    pub fn narrowed(&self, asked: Option<&str>) -> Result<Option<TenantId>, Refusal> {
        let asked: Option<TenantId> = asked
            .map(str::parse)
            .transpose()
            .map_err(|error: lockgate_shared::id::IdError| Refusal::malformed(error.to_string()))?;
        match (&self.tenant, asked) {
            (None, asked) => Ok(asked),
            (Some(own), None) => Ok(Some(own.clone())),
            (Some(own), Some(asked)) if *own == asked => Ok(asked.into()),
            (Some(own), Some(_)) => Err(Refusal::forbidden(format!(
                "token `{}` belongs to tenant `{own}`\nhint: leave `tenant` out; it comes from the token",
                self.name
            ))),
        }
    }

    /// A device that the caller may see.
    pub fn device(&self, admin: &Admin, id: &str) -> Result<KnownDevice, Refusal> {
        let device: DeviceId = id.parse().map_err(|error: lockgate_shared::id::IdError| {
            Refusal::malformed(format!("{error}\nhint: `lockgate device list` shows the ids"))
        })?;
        admin
            .desk
            .device(&device)
            .filter(|known| self.tenant.as_ref().is_none_or(|own| *own == known.tenant))
            .ok_or_else(|| {
                Refusal::missing(format!(
                    "no device `{device}` has enrolled\nhint: `lockgate device list` shows the ids"
                ))
            })
    }

    /// For whom a restriction is to hold: a device, or `*` for all of a tenant's.
    pub fn reach(
        &self,
        admin: &Admin,
        device: &str,
        asked: Option<&str>,
    ) -> Result<Reach, Refusal> {
        let narrowed = self.narrowed(asked)?;
        if device != "*" {
            let known = self.device(admin, device)?;
            if narrowed.as_ref().is_some_and(|tenant| *tenant != known.tenant) {
                return Err(Refusal::missing(format!(
                    "device `{}` does not belong to that tenant",
                    known.device
                )));
            }
            return Ok(Reach { tenant: known.tenant, device: Some(known.device) });
        }
        let Some(tenant) = narrowed else {
            return Err(Refusal::malformed(
                "`*` means all devices of one tenant, and none is named\nhint: name it with `--tenant NAME`, in a request with `?tenant=NAME`",
            ));
        };
        match admin.desk.policy() {
            Some(current) if !current.policy.tenants.contains_key(&tenant) => {
                Err(Refusal::no_tenant(&current.policy, &tenant))
            }
            Some(_) | None => Ok(Reach::all(tenant)),
        }
    }
}
