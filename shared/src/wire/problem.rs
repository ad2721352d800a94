//! Errors over HTTP: problem details, RFC 9457.

use serde::{Deserialize, Serialize};

/// What every error answers with, as `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A short stable name of the kind of problem, such as `sequence-replayed`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is, in a sentence.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// What to do next.
    #[serde(default)]
    pub hint: Option<String>,
}
