//! Every error answer of the device's side, as problem details (RFC 9457): a stable name, a status,
//! what happened and what to do next. It tells a stranger nothing that a stranger did not send.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use lockgate_shared::{
    time::Seconds,
    wire::{CodecError, PROBLEM, Problem, TokenError},
};

use crate::letters::{JournalError, Refusal, bars::BarKind};

/// After how many seconds to come again when the server is busy: long enough for a full queue to
/// drain, short enough for a stop to arrive.
const BUSY_S: u64 = 5;
/// After how many seconds to come again when a person has to help.
const HELP_S: u64 = 60;

/// After how many seconds a barred device may come again: it can do nothing but hear the same.
const BARRED_S: u64 = 3_600;

/// An error answer.
#[derive(Clone, Debug)]
pub struct Trouble {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: String,
    retry_after: Option<u64>,
}

impl Trouble {
    /// There is no such thing.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "there is no such thing", what)
    }

    /// The method does not fit the path.
    pub fn method() -> Self {
        let detail = "this path is asked in another way";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "not-found", "there is no such thing", detail)
    }

    /// The body's type is not one that devices send.
    pub fn content_type() -> Self {
        let detail = format!(
            "a message is `{}` or `{}`",
            lockgate_shared::wire::BINARY,
            lockgate_shared::wire::JSON
        );
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Self::new(status, "malformed", "the message cannot be read", detail)
    }

    /// The body is larger than `max` bytes.
    pub fn too_large(max: usize) -> Self {
        let detail = format!("at most {max} bytes are read here");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the message is too large", detail)
    }

    /// The body broke off or did not come in time.
    pub fn broken_off(detail: impl Into<String>) -> Self {
        let status = StatusCode::REQUEST_TIMEOUT;
        Self::new(status, "malformed", "the message did not come whole", detail)
    }

    /// Nothing of the file lies in the range.
    pub fn range(length: u64) -> Self {
        let detail = format!("the file has {length} bytes");
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "range", "the range lies outside", detail)
    }

    /// Somebody comes more often than anybody needs to.
    pub fn too_often(detail: impl Into<String>, wait: Seconds) -> Self {
        let status = StatusCode::TOO_MANY_REQUESTS;
        let trouble = Self::new(status, "too-often", "too many requests", detail);
        Self { retry_after: Some(wait.0), ..trouble }
    }

    /// The server cannot at the moment.
    pub fn unavailable(detail: impl Into<String>, retry_after: u64) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let title = "the server cannot do that now";
        let trouble = Self::new(status, "unavailable", title, detail);
        Self { retry_after: Some(retry_after), ..trouble }
    }

    fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self { status, kind, title, detail: detail.into(), retry_after: None }
    }

    /// What travels.
    pub fn problem(&self) -> Problem {
        let (detail, hint) = match self.detail.split_once("\nhint: ") {
            Some((detail, hint)) => (detail.to_owned(), Some(hint.to_owned())),
            None => (self.detail.clone(), None),
        };
        Problem {
            kind: self.kind.to_owned(),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail,
            hint,
        }
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.problem()).unwrap_or_default();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        // The next root is "not found" until it is there: nothing may remember that.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        const FORBIDDEN: StatusCode = StatusCode::FORBIDDEN;
        let detail = refusal.to_string();
        match refusal {
            Refusal::Codec(error) => error.into(),
            Refusal::UnknownDevice(_) => {
                let title = "the device is not enrolled";
                Self::new(StatusCode::NOT_FOUND, "unknown-device", title, detail)
            }
            Refusal::Repository { .. } => {
                Self::new(FORBIDDEN, "wrong-repository", "it is for another repository", detail)
            }
            Refusal::Tenant(_) => {
                Self::new(FORBIDDEN, "wrong-tenant", "it is for another tenant", detail)
            }
            Refusal::Replayed { .. } => {
                let title = "the letter's number was used before";
                Self::new(StatusCode::CONFLICT, "sequence-replayed", title, detail)
            }
            Refusal::Barred(bar) => {
                let (kind, title) = match bar.kind {
                    BarKind::Revoked => ("device-revoked", "the device is revoked"),
                    BarKind::Held => ("device-held", "two machines have the device's identity"),
                };
                let trouble = Self::new(FORBIDDEN, kind, title, detail);
                Self { retry_after: Some(BARRED_S), ..trouble }
            }
            Refusal::TooOften { wait, .. } => Self::too_often(detail, wait),
            Refusal::Token(error) => error.into(),
            Refusal::TokenUsedUp => {
                Self::new(FORBIDDEN, "token-used-up", "the enrolment token is used up", detail)
            }
            Refusal::OlderToken => {
                let title = "the device enrolled again since";
                Self::new(StatusCode::CONFLICT, "conflict", title, detail)
            }
            Refusal::NoPolicy | Refusal::Record(_) => Self::unavailable(detail, HELP_S),
            Refusal::Journal(error) => error.into(),
        }
    }
}

impl From<JournalError> for Trouble {
    fn from(error: JournalError) -> Self {
        let seconds = match error {
            JournalError::Busy => BUSY_S,
            JournalError::Full | JournalError::Failed | JournalError::Stopped => HELP_S,
        };
        Self::unavailable(error.to_string(), seconds)
    }
}

impl From<CodecError> for Trouble {
    fn from(error: CodecError) -> Self {
        let detail = error.to_string();
        let title = "the message cannot be read";
        match error {
            CodecError::TooLarge { max, .. } => Self::too_large(max),
            CodecError::Version { .. } => {
                Self::new(StatusCode::BAD_REQUEST, "unknown-version", title, detail)
            }
            CodecError::Signature => {
                let title = "the signature does not hold";
                Self::new(StatusCode::FORBIDDEN, "signature", title, detail)
            }
            CodecError::Malformed(_)
            | CodecError::Trailing(_)
            | CodecError::Empty
            | CodecError::Field(_) => {
                Self::new(StatusCode::BAD_REQUEST, "malformed", title, detail)
            }
        }
    }
}

impl From<TokenError> for Trouble {
    fn from(error: TokenError) -> Self {
        let detail = error.to_string();
        let kind = match error {
            TokenError::Malformed | TokenError::Tenant(_) | TokenError::Signature(_) => {
                "token-invalid"
            }
            TokenError::Repository(_) => "wrong-repository",
            TokenError::Expired { .. } => "token-expired",
        };
        Self::new(StatusCode::FORBIDDEN, kind, "the enrolment token brings nobody in", detail)
    }
}
