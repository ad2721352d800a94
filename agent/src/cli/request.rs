//! What an owner asks of the running agent: one small file for each wish below the state folder, found
//! at the next turn and taken away once it is carried out. Only who may write to the state folder can
//! ask. Asking twice is asking once.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use lockgate_shared::{id::ProductId, limits};
use thiserror::Error;

use crate::core::machine::Consent;

/// The folder of waiting requests, in the state folder.
pub const REQUESTS: &str = "requests";

const ROLLBACK: &str = "rollback-";
/// What the file of a request holds whose owner agrees to the loss of data.
const LOSE_DATA: &[u8] = b"lose-data\n";

/// A wish.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// Go back to the other slot of a product.
    Rollback(ProductId, Consent),
}

/// Why a request was not left, found or taken away.
#[derive(Debug, Error)]
#[error(
    "cannot {act} the request `{path}`\nhint: run this command as root, or as the agent's user",
    path = path.display()
)]
pub struct RequestError {
    /// What was tried.
    pub act: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
}

impl Request {
    /// Leaves the request for the next turn.
    pub fn leave(&self, state: &Path) -> Result<(), RequestError> {
        let path = self.path(state);
        let make = || -> io::Result<()> {
            fs::create_dir_all(state.join(REQUESTS))?;
            let Self::Rollback(_, consent) = self;
            match consent {
                Consent::GoBack => fs::write(&path, b""),
                Consent::LoseData => fs::write(&path, LOSE_DATA),
            }
        };
        make().map_err(|source| RequestError { act: "leave", path: path.clone(), source })
    }

    /// The requests that wait, in order; what is not one is passed over.
    pub fn waiting(state: &Path) -> Result<Vec<Self>, RequestError> {
        let path = state.join(REQUESTS);
        let failed = |source| RequestError { act: "find", path: path.clone(), source };
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut requests = Vec::new();
        // Twice as many as there can be products leaves room for what does not belong here.
        for entry in entries.take(2 * limits::DEVICE_PRODUCTS) {
            let name = entry.map_err(failed)?.file_name();
            let product = name.to_str().and_then(|name| name.strip_prefix(ROLLBACK));
            if let Some(Ok(product)) = product.map(str::parse) {
                let mut said = Vec::new();
                let file = fs::File::open(path.join(format!("{ROLLBACK}{product}")));
                file.and_then(|file| file.take(LOSE_DATA.len() as u64 + 1).read_to_end(&mut said))
                    .map_err(failed)?;
                let consent = if said == LOSE_DATA { Consent::LoseData } else { Consent::GoBack };
                requests.push(Self::Rollback(product, consent));
            }
        }
        requests.sort_unstable();
        Ok(requests)
    }

    /// Takes the request away, once it is carried out or cannot be.
    pub fn withdraw(&self, state: &Path) -> Result<(), RequestError> {
        let path = self.path(state);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(RequestError { act: "take away", path, source: error })
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn path(&self, state: &Path) -> PathBuf {
        match self {
            Self::Rollback(product, _) => state.join(REQUESTS).join(format!("{ROLLBACK}{product}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_waits_until_it_is_withdrawn_and_counts_once() {
        let state = tempfile::tempdir().expect("a folder");
        assert_eq!(Request::waiting(state.path()).expect("found"), []);
        let app = || "app".parse().expect("a name");
        let lossy = Request::Rollback(app(), Consent::LoseData);
        lossy.leave(state.path()).expect("left");
        assert_eq!(Request::waiting(state.path()).expect("found"), [lossy]);
        let request = Request::Rollback(app(), Consent::GoBack);
        request.leave(state.path()).expect("left");
        request.leave(state.path()).expect("left again");
        fs::write(state.path().join(REQUESTS).join("rollback-.x"), b"").expect("written");
        fs::write(state.path().join(REQUESTS).join("other"), b"").expect("written");
        let found = Request::waiting(state.path()).expect("found");
        assert_eq!(found, std::slice::from_ref(&request));
        request.withdraw(state.path()).expect("withdrawn");
        request.withdraw(state.path()).expect("withdrawn twice");
        assert_eq!(Request::waiting(state.path()).expect("found"), []);
    }
}
