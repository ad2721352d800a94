//! Power cuts for tests within one process: after a chosen write or effect nothing is written any more
//! until the power is back.

use std::{cell::Cell, io, path::PathBuf};

use super::JournalError;

/// When the power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Never.
    Never,
    /// Right after so many further journal writes.
    AfterWrite(u32),
    /// Right after so many further effects.
    AfterEffect(u32),
    /// It is off.
    Off,
}

thread_local! {
    static CUT: Cell<Cut> = const { Cell::new(Cut::Never) };
}

pub(crate) fn set(cut: Cut) {
    CUT.set(cut);
}

pub(crate) fn is_off() -> bool {
    CUT.get() == Cut::Off
}

pub(crate) fn check() -> Result<(), JournalError> {
    if is_off() { Err(off()) } else { Ok(()) }
}

pub(crate) fn wrote() -> Result<(), JournalError> {
    match CUT.get() {
        Cut::AfterWrite(0) => {
            CUT.set(Cut::Off);
            Err(off())
        }
        Cut::AfterWrite(left) => {
            CUT.set(Cut::AfterWrite(left - 1));
            Ok(())
        }
        Cut::Never | Cut::AfterEffect(_) | Cut::Off => Ok(()),
    }
}

pub(crate) fn did() {
    match CUT.get() {
        Cut::AfterEffect(0) => CUT.set(Cut::Off),
        Cut::AfterEffect(left) => CUT.set(Cut::AfterEffect(left - 1)),
        Cut::Never | Cut::AfterWrite(_) | Cut::Off => {}
    }
}

fn off() -> JournalError {
    let source = io::Error::other("the power is off");
    JournalError::Io { act: "write", path: PathBuf::from("journal"), source }
}
