//! The agent: polls, verifies, installs into the other slot, proves itself, and falls back on its
//! own. One thread; it wakes for a poll, for an order to stop, and for nothing else.
//!
//! | to find out | open |
//! |---|---|
//! | what it decides, without touching anything | [`core`] |
//! | the loop: gather, ask, write down, do | [`run`] |
//! | what stands on the disk before anything is done | [`journal`] |
//! | how an effect is done | [`perform`] |
//! | what it says to its server, and what it is told | [`letters`] |
//! | which metadata it believes | [`core::tuf`], kept by [`tuf_store`], asked by [`repository`] |
//! | where a release lies and how it is switched to | [`slots`] |
//! | how a release comes apart on its way in | [`unpack`] |
//! | whether a release is well | [`health`] |
//! | how the agent itself is replaced, and by whom it is watched | [`guard`], decided by [`core::handover`] |
//! | what the device is, and its conditions now | [`facts`] |
//! | who this device is | [`identity`] |
//! | what a TPM does for it: the key sealed, a counter that nothing sets back | [`tpm`], judged by [`core::age`] |
//! | that one agent works in a state folder | [`lock`] |
//! | how bytes come and go: TLS 1.3, limits, resumed downloads, waiting | [`transport`] |
//! | what the owner may configure, and how mistakes are reported | [`config`] |
//! | what the commands do and how they end | [`cli`] |
//! | what memory it gives back for a pause | [`footprint`] |
//! | what the owner is told | [`status`], [`log`] |
//! | where the machine is asked for time and chance | [`clock`], [`dice`], through [`world`] |

pub mod cli;
pub mod clock;
pub mod config;
pub mod core;
pub mod dice;
pub mod facts;
#[cfg(feature = "faults")]
pub mod faults;
pub mod footprint;
pub mod guard;
pub mod health;
pub mod identity;
pub mod journal;
pub mod letters;
pub mod lock;
pub mod log;
mod near;
pub mod perform;
pub mod repository;
pub mod run;
pub mod slots;
pub mod status;
pub mod tpm;
pub mod transport;
pub mod tuf_store;
pub mod unpack;
pub mod world;
