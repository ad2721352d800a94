//! Messages between device and server: bincode behind a version byte that names a frozen struct, or
//! the same in JSON. `Content-Type` decides.
//!
//! | message | path | binary | JSON |
//! |---|---|---|---|
//! | enrolment | `POST /v1/enroll` | `application/vnd.lockgate.v1` | `application/json` |
//! | letter | `POST /v1/checkin` | likewise | likewise |
//!
//! The answer has the request's form. Errors are always `application/problem+json` (RFC 9457).
//!
//! A frozen struct never changes: not its fields, not their order, not their types. A new field is a
//! new version byte and a new struct, and every version ever shipped stays readable.

pub mod codec;
mod directive;
mod enrolment;
mod file;
mod letter;
mod problem;
mod sealed;

pub use codec::CodecError;
pub use directive::{Directive, Orders};
pub use enrolment::{Enrolment, EnrolmentAnswer, EnrolmentToken, SignedToken, TokenError};
pub use file::{decode_rollout_file, encode_rollout_file};
pub use letter::{
    Beacon, Letter, NO_CHANNEL, Outcome, OutcomeKind, OutcomeRecord, Outcomes, ProductState,
    ReasonRecord, RolloutView, SlotState,
};
pub use problem::Problem;
pub use sealed::{Format, Sealed, SealedJson};

/// `Content-Type` of binary messages.
pub const BINARY: &str = "application/vnd.lockgate.v1";
/// `Content-Type` of messages in JSON.
pub const JSON: &str = "application/json";
/// `Content-Type` of errors.
pub const PROBLEM: &str = "application/problem+json";
