//! The audit chains, to be read and kept elsewhere: the letter box's own and the gatekeeper's.
//! Whoever verifies them does so from the lines, with `lockgate audit verify`, and need not trust
//! this API.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{Json, extract::State};
use lockgate_shared::time::Moment;
use serde::Deserialize;
use thiserror::Error;

use super::{Admin, Ask, Caller, Refusal};
use crate::{
    audit::{AuditError, Chain},
    registry::rows::TokenRole,
};

/// Lines in one answer: at 300 bytes each some 300 KB.
pub const LINES_MAX: usize = 1_000;

/// Where audit lines go and come from.
pub trait AuditSink: Send + Sync {
    /// Appends a line; it is on disk when it returns.
    fn append_line(
        &self,
        at: Moment,
        who: &str,
        act: &str,
        detail: &str,
    ) -> Result<(), AuditFailure>;

    /// Lines from a number on.
    fn read_lines(&self, from: u64, max: usize) -> Result<Vec<String>, AuditFailure>;
}

/// The chain could not be written or read.
#[derive(Debug, Error)]
#[error("the audit chain cannot be used")]
pub struct AuditFailure(#[source] pub AuditError);

impl AuditSink for Mutex<Chain> {
    fn append_line(
        &self,
        at: Moment,
        who: &str,
        act: &str,
        detail: &str,
    ) -> Result<(), AuditFailure> {
        let mut chain = self.lock().unwrap_or_else(PoisonError::into_inner);
        chain.append(at, who, act, detail).map(drop).map_err(AuditFailure)
    }

    fn read_lines(&self, from: u64, max: usize) -> Result<Vec<String>, AuditFailure> {
        let chain = self.lock().unwrap_or_else(PoisonError::into_inner);
        chain.lines(from, max).map_err(AuditFailure)
    }
}

/// Which chain.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// What people did through this API.
    #[default]
    LetterBox,
    /// What the gatekeeper decided.
    Gatekeeper,
}

/// `?chain=&from=&max=`
#[derive(Debug, Deserialize)]
pub struct Lines {
    #[serde(default)]
    chain: Which,
    #[serde(default)]
    from: u64,
    max: Option<usize>,
}

/// `GET /v1/audit`: both chains speak of every tenant, so only the vendor's people read them.
pub async fn lines(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Ask(ask): Ask<Lines>,
) -> Result<Json<Vec<String>>, Refusal> {
    caller.need_vendor(&[TokenRole::Operator, TokenRole::Auditor])?;
    let max = ask.max.unwrap_or(LINES_MAX).min(LINES_MAX);
    Ok(Json(match ask.chain {
        Which::LetterBox => admin.desk.read_lines(ask.from, max)?,
        Which::Gatekeeper => admin
            .reports(|reports| reports.audit(ask.from).take(max).map(str::to_owned).collect())
            .unwrap_or_default(),
    }))
}
