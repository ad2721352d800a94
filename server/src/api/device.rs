//! The two paths that devices write to: `POST /v1/enroll` and `POST /v1/checkin`. Here bytes become
//! an answer or a problem; whether a letter is taken is decided in [`crate::letters::checkin`].

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Bytes;
use lockgate_shared::{
    limits,
    wire::{BINARY, Format, JSON},
};

use super::{Peer, problem::Trouble};
use crate::{clock, letters::LetterBox};

/// How long a device has for its body: 64 KiB over the slowest mobile network.
const BODY_TIME: Duration = Duration::from_secs(20);

/// `POST /v1/enroll`
pub async fn enroll(
    State(letter_box): State<Arc<LetterBox>>,
    request: Request,
) -> Result<Response, Trouble> {
    not_too_often(&letter_box, &request)?;
    let format = format(request.headers())?;
    let bytes = whole(request.into_body()).await?;
    let answer = letter_box.enrol(&bytes, format, clock::now()).await?;
    Ok(answered(format, answer.to_bytes(format)?))
}

/// `POST /v1/checkin`
pub async fn checkin(
    State(letter_box): State<Arc<LetterBox>>,
    request: Request,
) -> Result<Response, Trouble> {
    not_too_often(&letter_box, &request)?;
    let format = format(request.headers())?;
    let bytes = whole(request.into_body()).await?;
    let directive = letter_box.check_in(&bytes, format, clock::now()).await?;
    Ok(answered(format, directive.to_bytes(format)?))
}

/// Counted by address before anything is read or verified.
fn not_too_often(letter_box: &LetterBox, request: &Request) -> Result<(), Trouble> {
    let Some(peer) = request.extensions().get::<Peer>() else { return Ok(()) };
    letter_box
        .addresses()
        .pass(peer, clock::now())
        .map_err(|wait| Trouble::too_often("too many requests come from this address", wait))
}

/// The form that `Content-Type` names; its parameters say nothing here.
fn format(headers: &HeaderMap) -> Result<Format, Trouble> {
    let named = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    match named.and_then(|named| named.split(';').next()).map(str::trim) {
        Some(BINARY) => Ok(Format::Binary),
        Some(JSON) => Ok(Format::Json),
        Some(_) | None => Err(Trouble::content_type()),
    }
}

async fn whole(body: Body) -> Result<Bytes, Trouble> {
    let body = Limited::new(body, limits::LETTER_BYTES).collect();
    match tokio::time::timeout(BODY_TIME, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Trouble::too_large(limits::LETTER_BYTES))
        }
        Ok(Err(_)) => Err(Trouble::broken_off("the body broke off")),
        Err(_) => Err(Trouble::broken_off(format!("the body took over {} s", BODY_TIME.as_secs()))),
    }
}

fn answered(format: Format, bytes: Vec<u8>) -> Response {
    let named = match format {
        Format::Binary => BINARY,
        Format::Json => JSON,
    };
    ([(header::CONTENT_TYPE, named), (header::CACHE_CONTROL, "no-store")], bytes).into_response()
}
