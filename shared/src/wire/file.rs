//! The rollout file as bytes. Frozen, version 1.

use super::codec::{self, CodecError};
use crate::{limits, rollout::RolloutFile};

const VERSION_1: u8 = 1;

/// The file's bytes, at most [`limits::ROLLOUT_FILE_BYTES`].
pub fn encode_rollout_file(file: &RolloutFile) -> Result<Vec<u8>, CodecError> {
    check(file)?;
    let mut bytes = vec![VERSION_1];
    bytes.extend(codec::encode(file, limits::ROLLOUT_FILE_BYTES - 1)?);
    Ok(bytes)
}

/// Reads and bounds a rollout file whose bytes the TUF client verified.
pub fn decode_rollout_file(bytes: &[u8]) -> Result<RolloutFile, CodecError> {
    if bytes.len() > limits::ROLLOUT_FILE_BYTES {
        return Err(CodecError::TooLarge { found: bytes.len(), max: limits::ROLLOUT_FILE_BYTES });
    }
    match bytes.split_first() {
        None => Err(CodecError::Empty),
        Some((&VERSION_1, body)) => {
            let file = codec::decode(body, limits::ROLLOUT_FILE_BYTES)?;
            check(&file)?;
            Ok(file)
        }
        Some((&found, _)) => Err(CodecError::Version { found, known: VERSION_1 }),
    }
}

fn check(file: &RolloutFile) -> Result<(), CodecError> {
    if file.rollouts.len() > limits::FILE_ROLLOUTS {
        return Err(CodecError::Field("too many rollouts"));
    }
    if file.stops.len() > limits::FILE_STOPS || file.lifts.len() > limits::FILE_STOPS {
        return Err(CodecError::Field("too many stops"));
    }
    for entry in &file.rollouts {
        let stages = entry.stages.iter().map(|stage| &stage.groups);
        for groups in stages.chain([&entry.groups]) {
            if groups.len() > limits::FILE_GROUPS {
                return Err(CodecError::Field("too many groups"));
            }
            if !groups.is_sorted_by(|a, b| a.group < b.group) {
                return Err(CodecError::Field("groups are sorted, each once"));
            }
        }
        if !entry.coverage.is_sorted() {
            return Err(CodecError::Field("coverage is sorted"));
        }
        if entry.coverage.len() > limits::COVERAGE || entry.stages.len() > limits::STAGES {
            return Err(CodecError::Field("too many stages or coverage buckets"));
        }
    }
    Ok(())
}
