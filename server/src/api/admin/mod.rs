//! The admin API under `/v1`: what people and their programs ask of the letter box. It restricts,
//! reads, and carries what others signed; it can open nothing.
//!
//! | route | file |
//! |---|---|
//! | acts, entries | [`acts`] |
//! | stops | [`stops`] |
//! | artifacts, publications, releases | [`releases`] |
//! | devices, explain | [`devices`] |
//! | pins, windows, freezes, grants | [`restrictions`] |
//! | status, fleet, rollouts, verdicts, policy | [`reports`] |
//! | tokens, whoami | [`tokens`] |
//! | audit | [`audit`] |
//! | metrics | [`metrics`] |

pub mod acts;
pub mod audit;
pub mod auth;
pub mod desk;
pub mod devices;
pub mod letter_box;
pub mod loosenings;
pub mod metrics;
pub mod refusal;
pub mod releases;
pub mod reports;
pub mod restrictions;
pub mod stops;
#[cfg(test)]
mod tenancy;
#[cfg(test)]
mod testing;
pub mod tokens;

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{FromRequest, FromRequestParts, Query, Request, State},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, post, put},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::{auth::Caller, desk::Desk, refusal::Refusal};
use crate::{
    letters::Reports,
    registry::{Registry, Tables},
    status::{Status, Verdict},
};

/// The largest JSON body that is not a publication: an act with all its signatures.
pub const BODY_BYTES: usize = 64 * 1024;

/// What every route has at hand.
pub struct Admin {
    /// Tokens, restrictions, reports.
    pub registry: Arc<Registry>,
    /// The letter box.
    pub desk: Arc<dyn Desk>,
    /// The folder of artifacts, named by their SHA-256.
    pub artifacts: PathBuf,
}

/// How long a caller has for a body in JSON: the largest, a publication, over a slow line.
const BODY_TIME: Duration = Duration::from_secs(60);

/// An entry was appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// Its offset: `GET /v1/entries/<offset>` says what became of it.
    pub offset: u64,
    /// The rollout it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<lockgate_shared::id::RolloutId>,
}

/// Whoever serves it adds TLS and `Strict-Transport-Security`.
pub fn router(admin: Arc<Admin>) -> Router {
    let add = |router: Router<Arc<Admin>>, (path, methods)| router.route(path, methods);
    routes().into_iter().fold(Router::new(), add).with_state(admin)
}

/// The routes, in a list that tests can hold against theirs.
fn routes() -> Vec<(&'static str, MethodRouter<Arc<Admin>>)> {
    vec![
        ("/v1/health", get(health)),
        ("/metrics", get(metrics::metrics)),
        ("/v1/whoami", get(tokens::whoami)),
        ("/v1/tokens", get(tokens::list).post(tokens::create)),
        ("/v1/tokens/{name}", delete(tokens::revoke)),
        ("/v1/artifacts/{sha256}", put(releases::upload)),
        ("/v1/publications", post(releases::publish)),
        ("/v1/releases", get(releases::list)),
        ("/v1/releases/{product}/{version}", get(releases::show)),
        ("/v1/acts", post(acts::submit)),
        ("/v1/acts/text", post(acts::text)),
        ("/v1/entries/{offset}", get(acts::entry)),
        ("/v1/stops", post(stops::stop)),
        ("/v1/status", get(reports::status)),
        ("/v1/fleet", get(reports::fleet)),
        ("/v1/rollouts", get(reports::rollouts)),
        ("/v1/rollouts/{id}", get(reports::rollout)),
        ("/v1/verdicts", get(reports::verdicts)),
        ("/v1/policy", get(reports::policy)),
        ("/v1/devices", get(devices::list)),
        ("/v1/devices/{device}", get(devices::show)),
        ("/v1/devices/{device}/explain", get(devices::explain)),
        ("/v1/devices/{device}/revoke", post(devices::revoke)),
        ("/v1/pins", get(restrictions::pins)),
        (
            "/v1/pins/{device}/{product}",
            get(restrictions::pin).put(restrictions::set_pin).delete(restrictions::clear_pin),
        ),
        ("/v1/windows", get(restrictions::all_windows)),
        (
            "/v1/windows/{device}",
            get(restrictions::windows)
                .put(restrictions::set_windows)
                .delete(restrictions::clear_windows),
        ),
        ("/v1/freezes", get(restrictions::all_freezes)),
        (
            "/v1/freezes/{device}",
            get(restrictions::freezes)
                .put(restrictions::set_freezes)
                .delete(restrictions::clear_freezes),
        ),
        ("/v1/loosenings", post(loosenings::submit)),
        ("/v1/grants", get(restrictions::grants)),
        ("/v1/grants/{device}/{product}", delete(restrictions::revoke_grant)),
        ("/v1/audit", get(audit::lines)),
    ]
}

#[derive(Serialize)]
struct Health {
    store: &'static str,
    gatekeeper_heard: Option<lockgate_shared::time::Moment>,
}

/// 200 when the store and the stream can be read. Needs no token and tells nothing else.
async fn health(State(admin): State<Arc<Admin>>) -> Result<Response, Refusal> {
    admin.desk.entry(0).await?;
    let heard = admin.status().map(|status| status.at);
    Ok(Json(Health { store: "ok", gatekeeper_heard: heard }).into_response())
}

/// The query, with refusals as problem details.
pub struct Ask<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Admin>> for Ask<T> {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        admin: &Arc<Admin>,
    ) -> Result<Self, Self::Rejection> {
        match Query::<T>::from_request_parts(parts, admin).await {
            Ok(Query(ask)) => Ok(Self(ask)),
            Err(error) => Err(Refusal::malformed(error.body_text())),
        }
    }
}

/// A JSON body of at most [`BODY_BYTES`].
pub struct Said<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Admin>> for Said<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &Arc<Admin>) -> Result<Self, Self::Rejection> {
        read_json(request.into_body(), BODY_BYTES).await.map(Self)
    }
}

/// Reads a JSON body of at most `max` bytes.
async fn read_json<T: DeserializeOwned>(body: Body, max: usize) -> Result<T, Refusal> {
    use http_body_util::{BodyExt, Limited};
    let Ok(read) = tokio::time::timeout(BODY_TIME, Limited::new(body, max).collect()).await else {
        return Err(Refusal::malformed(format!("the body took over {} s", BODY_TIME.as_secs())));
    };
    let body = match read {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Err(Refusal::too_large(max));
        }
        Err(error) => return Err(Refusal::malformed(format!("the body broke off: {error}"))),
    };
    serde_json::from_slice(&body).map_err(|error| Refusal::malformed(error.to_string()))
}

/// 202, and where to ask what became of it.
fn accepted(appended: Appended) -> Response {
    (StatusCode::ACCEPTED, Json(appended)).into_response()
}

impl Admin {
    /// Where changes of the small tables go.
    fn tables(&self) -> &dyn Tables {
        &*self.desk
    }

    /// Reads what the gatekeeper reported.
    fn reports<T>(&self, read: impl FnOnce(&Reports) -> T) -> Option<T> {
        let (mut read, mut found) = (Some(read), None);
        self.desk.reports(&mut |reports| found = read.take().map(|read| read(reports)));
        found
    }

    /// The verdict about an entry of the stream.
    fn verdict(&self, offset: u64) -> Option<Arc<Verdict>> {
        self.reports(|reports| reports.entry(offset).cloned()).flatten()
    }

    /// The gatekeeper's newest status.
    fn status(&self) -> Option<Arc<Status>> {
        self.reports(|reports| reports.status().cloned()).flatten()
    }

    /// Appends to the audit chain what a caller did. A change that holds without its line is an
    /// error the caller must hear of.
    fn record(&self, caller: &Caller, act: &str, detail: &str) -> Result<(), Refusal> {
        self.desk.append_line(self.desk.now(), &caller.name, act, detail).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, act, "no audit line");
            Refusal::unavailable(
                "the change holds, but the audit chain could not be written\nhint: look at the server's log before going on",
            )
        })
    }
}
