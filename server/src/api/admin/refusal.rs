//! Why a request of the admin API was refused, as problem details (RFC 9457). A message that carries
//! a hint after a line break is taken apart here.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use lockgate_shared::{
    failure::Chain,
    id::TenantId,
    policy::Policy,
    wire::{PROBLEM, Problem},
};

use super::audit::AuditFailure;
use crate::{letters::JournalError, names, registry::RegistryError};

/// A refusal: a status, a stable name and what happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    hint: Option<String>,
}

impl Refusal {
    /// No token, or not one that holds.
    pub fn unauthorised(detail: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorised", "this needs a token", detail)
    }

    /// The token may not.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "this token may not do that", detail)
    }

    /// There is no such thing, or none that the token may see.
    pub fn missing(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "there is no such thing", detail)
    }

    /// The policy names no such tenant; only the vendor's own people learn which it names.
    pub fn no_tenant(policy: &Policy, tenant: &TenantId) -> Self {
        let known = names::instead_of(tenant.as_str(), policy.tenants.keys().map(TenantId::as_str));
        Self::missing(format!("the policy names no tenant `{tenant}`\nhint: {known}"))
    }

    /// The request cannot be read.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "the request cannot be read", detail)
    }

    /// The request is too large.
    pub fn too_large(max: usize) -> Self {
        let detail = format!("at most {max} bytes are read here");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the request is too large", detail)
    }

    /// The request can be read, and asks for what cannot be.
    pub fn invalid(detail: impl Into<String>) -> Self {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self::new(status, "invalid", "this cannot be done as asked", detail)
    }

    /// The same, with an error and all that led to it.
    pub fn because(place: &str, error: &dyn std::error::Error) -> Self {
        Self::invalid(format!("{place}{}", Chain(error)))
    }

    /// Something else is there already.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", "something else stands in its way", detail)
    }

    /// The server cannot at the moment.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "unavailable", "the server cannot do that now", detail)
    }

    fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let text: String = detail.into();
        let (detail, hint) = match text.split_once("\nhint: ") {
            Some((detail, hint)) => (detail.to_owned(), Some(hint.to_owned())),
            None => (text, None),
        };
        Self { status, kind, title, detail, hint }
    }

    /// What travels.
    pub fn problem(&self) -> Problem {
        Problem {
            kind: self.kind.to_owned(),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            hint: self.hint.clone(),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.problem()).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            // Long enough for a disk to be freed or a process to be restarted by hand.
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Self {
        Self::unavailable(error.to_string())
    }
}

impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Journal(error) => error.into(),
            RegistryError::TokenExists(_) => Self::conflict(error.to_string()),
            RegistryError::TooMuch { .. }
            | RegistryError::TokenName(_)
            | RegistryError::TokenTenant { .. } => Self::invalid(error.to_string()),
            RegistryError::Store(_)
            | RegistryError::Orders(_)
            | RegistryError::Row { .. }
            | RegistryError::Key { .. } => {
                tracing::error!(error = &error as &dyn std::error::Error, "the registry failed");
                Self::unavailable(error.to_string())
            }
        }
    }
}

impl From<AuditFailure> for Refusal {
    fn from(error: AuditFailure) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "the audit chain failed");
        Self::unavailable(error.to_string())
    }
}
