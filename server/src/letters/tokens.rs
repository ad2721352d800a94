//! How often each enrolment token was used, by which devices. A use is taken in memory, then written
//! before the enrolment that needs it: there are never more devices than a token allows, whatever
//! fails in between, and a device that comes again with its token takes no second use.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use lockgate_shared::id::{DeviceId, TokenId};
use tokio::sync::watch;

use super::journal::{JournalError, Written};
use crate::store::{Change, Table};

/// The uses of every token.
#[derive(Debug, Default)]
pub(super) struct TokenUses(Mutex<HashMap<TokenId, HashMap<DeviceId, Option<Written>>>>);

/// A device that wants to use a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) token: TokenId,
    pub(super) device: DeviceId,
    pub(super) uses: u32,
    /// The token with which the device is enrolled now.
    pub(super) current: Option<TokenId>,
}

/// What became of a claim.
#[derive(Debug)]
pub(super) enum Claimed {
    /// The enrolment is queued, now or before: wait until it is on disk.
    Queued(Written),
    /// Every use is taken.
    UsedUp,
    /// The device used this token before, and another one since: an old enrolment moves nobody back.
    Older,
    /// The queue did not take it.
    Refused(JournalError),
}

impl TokenUses {
    /// Takes a use for a device and queues its enrolment with `queue`, which must not wait.
    pub(super) fn claim(
        &self,
        claim: Claim,
        queue: impl FnOnce(
            Change,
            watch::Sender<Option<Result<u64, JournalError>>>,
        ) -> Result<(), JournalError>,
    ) -> Claimed {
        let mut tokens = self.lock();
        let uses = tokens.entry(claim.token).or_default();
        match uses.get(&claim.device) {
            Some(Some(written)) if !written.decided() => return Claimed::Queued(written.clone()),
            Some(_) if claim.current.is_some_and(|current| current != claim.token) => {
                return Claimed::Older;
            }
            Some(_) => {}
            None if uses.len() >= claim.uses as usize => return Claimed::UsedUp,
            None => {}
        }
        let (sender, receiver) = watch::channel(None);
        if let Err(error) = queue(change(claim), sender) {
            return Claimed::Refused(error);
        }
        let written = Written::new(receiver);
        uses.insert(claim.device, Some(written.clone()));
        Claimed::Queued(written)
    }

    /// Takes in a use from disk; a key that is none is left alone.
    pub(super) fn load(&self, key: &str) {
        let Some((token, device)) = key.split_once('/') else { return };
        if let (Ok(token), Ok(device)) = (token.parse(), device.parse()) {
            self.lock().entry(token).or_default().insert(device, None);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TokenId, HashMap<DeviceId, Option<Written>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn change(claim: Claim) -> Change {
    Change {
        table: Table::TokenUses,
        key: format!("{}/{}", claim.token, claim.device),
        value: Some(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(device: u8) -> Claim {
        Claim { token: TokenId([7; 16]), device: DeviceId([device; 32]), uses: 2, current: None }
    }

    #[test]
    fn a_device_that_comes_again_takes_no_second_use_and_a_third_device_finds_none() {
        let uses = TokenUses::default();
        for device in [1, 2, 1, 2] {
            assert!(matches!(uses.claim(claim(device), |_, _| Ok(())), Claimed::Queued(_)));
        }
        assert!(matches!(uses.claim(claim(3), |_, _| Ok(())), Claimed::UsedUp));
    }

    #[test]
    fn an_old_enrolment_moves_nobody_back() {
        let uses = TokenUses::default();
        uses.load(&change(claim(1)).key);
        let moved = Claim { current: Some(TokenId([8; 16])), ..claim(1) };
        assert!(matches!(uses.claim(moved, |_, _| Ok(())), Claimed::Older));
    }

    #[test]
    fn uses_are_counted_again_after_a_restart() {
        let uses = TokenUses::default();
        for device in [1, 2] {
            uses.load(&change(claim(device)).key);
        }
        assert!(matches!(uses.claim(claim(3), |_, _| Ok(())), Claimed::UsedUp));
        assert!(matches!(uses.claim(claim(2), |_, _| Ok(())), Claimed::Queued(_)));
    }

    #[test]
    fn a_use_that_the_queue_refused_is_free_for_another_device() {
        let uses = TokenUses::default();
        for device in [1, 2] {
            let busy = uses.claim(claim(device), |_, _| Err(JournalError::Busy));
            assert!(matches!(busy, Claimed::Refused(JournalError::Busy)));
        }
        for device in [3, 4] {
            assert!(matches!(uses.claim(claim(device), |_, _| Ok(())), Claimed::Queued(_)));
        }
    }
}
