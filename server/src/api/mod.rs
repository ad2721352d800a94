//! The letter box's network side: TLS 1.3, HTTP/1.1, and the routes. There is no listener without
//! TLS, and whatever comes is bounded in time, size and number before it is looked at.
//!
//! | route | file |
//! |---|---|
//! | `POST /v1/enroll`, `POST /v1/checkin` | [`device`] |
//! | `GET /repo/…` | [`repository`] |
//! | `GET /artifacts/<sha256>` | [`artifacts`] |
//! | everything else under `/v1`, and `GET /metrics` | [`admin`] |

use std::{convert::Infallible, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, Response, header},
    response::IntoResponse,
    routing::{MethodRouter, get, post},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::{letters::LetterBox, shutdown::Shutdown};

pub mod admin;
pub mod artifacts;
pub mod device;
pub mod file;
pub mod paced;
pub mod problem;
pub mod repository;
pub mod tls;

use admin::Admin;
use paced::{PACE, Paced};
use problem::Trouble;

/// Connections at once: at some 40 KiB each below half a gibibyte. Whoever comes beyond waits in the
/// system's queue until one ends.
pub const CONNECTIONS: usize = 10_000;
/// How long a TLS handshake may take: three round trips over a bad mobile network.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long a request's head may take, and so how long a connection may idle.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Bytes of a request's head and of any one read: a device's head has 300.
const HEAD_BYTES: usize = 16 * 1024;
/// How long connections may go on when the server stops.
const LEAVE_TIME: Duration = Duration::from_secs(10);
/// How long to wait after the system could not accept a connection, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A year of TLS only, for browsers that read the API.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Every route.
pub fn router(letter_box: Arc<LetterBox>, admin: Arc<Admin>) -> Router {
    let add = |router: Router<Arc<LetterBox>>, (path, methods)| router.route(path, methods);
    let open = open_routes().into_iter().fold(Router::new(), add);
    open.with_state(letter_box)
        .merge(admin::router(admin))
        .fallback(|| async { Trouble::not_found("nothing is served at this path") })
        .method_not_allowed_fallback(|| async { Trouble::method() })
}

/// The routes that take no token: a device's signature stands for it in what it sends, and what is served
/// is the same for everybody.
fn open_routes() -> Vec<(&'static str, MethodRouter<Arc<LetterBox>>)> {
    vec![
        ("/v1/enroll", post(device::enroll)),
        ("/v1/checkin", post(device::checkin)),
        ("/repo/metadata/{file}", get(repository::metadata)),
        ("/repo/targets/{*path}", get(repository::target)),
        ("/artifacts/{sha256}", get(artifacts::artifact)),
    ]
}

/// Serves until the server is to stop, and then until the last answer is out or ten seconds over.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    mut shutdown: Shutdown,
) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let stopping = shutdown.clone();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = shutdown.wait() => break,
        };
        if let Some((stream, peer, place)) = accepted {
            let connection =
                connection((stream, peer), acceptor.clone(), router.clone(), stopping.clone());
            tokio::spawn(async move {
                connection.await;
                drop(place);
            });
        }
    }
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    if tokio::time::timeout(LEAVE_TIME, places.acquire_many(all)).await.is_err() {
        tracing::info!("connections were cut off at the end");
    }
}

/// The next connection, once there is a place for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, Peer, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, address)) => Some((stream, Peer::of(address.ip()), place)),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a connection failed");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Who is at the other end, as far as requests are counted: an IPv4 address, or the network of an IPv6
/// address, of which one machine has as many as it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(u64);

impl Peer {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => u64::from(u32::from(address)),
            // The first half names the network; no network is numbered below 2^32.
            IpAddr::V6(address) => (u128::from(address) >> 64) as u64,
        })
    }
}

async fn connection(
    (stream, peer): (TcpStream, Peer),
    acceptor: TlsAcceptor,
    router: Router,
    mut shutdown: Shutdown,
) {
    // Answers are small and final: nothing is gained by waiting for more.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) =
        tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(Paced::new(stream, PACE))).await
    else {
        tracing::debug!("a handshake failed");
        return;
    };
    let service = service_fn(move |request| respond(router.clone(), peer, request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = shutdown.wait() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection broke off");
    }
}

async fn respond(
    router: Router,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(peer);
    let mut response = match router.oneshot(request).await {
        Ok(response) => response,
        Err(never) => never.into_response(),
    };
    response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    Ok(response)
}
