//! Archives through the agent's unpacker, with a signed list that promises little: as they come, and
//! as a tar stream that is wrapped into zstd here, so that the tar reader is reached too.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use lockgate_agent::unpack::unpack;
use lockgate_shared::id::Digest;
use lockgate_shared::manifest::{Artifact, ArtifactKind, FileEntry, FileKind};
use sha2::{Digest as _, Sha256};

/// What the list promises: one small file, a folder, and a link within.
const CONTENT: &[u8] = b"hello\n";

/// A compressed archive as it comes.
pub fn archive(bytes: &[u8]) {
    let outer = super::scratch();
    let slot = outer.path().join("slot");
    fs::create_dir(&slot).expect("a slot");
    let unpacked = unpack(bytes, &artifact(bytes), &slot);
    let beside = fs::read_dir(outer.path()).expect("a folder").count();
    assert_eq!(beside, 1, "something was written outside the slot");
    assert!(weight(&slot) <= CONTENT.len() as u64, "more was written than the list promises");
    if unpacked.is_ok() {
        assert_eq!(fs::read(slot.join("bin/hello")).expect("it is there"), CONTENT);
    }
}

/// A tar stream, compressed by us.
pub fn archive_tar(bytes: &[u8]) {
    archive(&frame(bytes));
}

/// The list that is signed for `archive`.
fn artifact(archive: &[u8]) -> Artifact {
    let hash = |bytes: &[u8]| Digest(Sha256::digest(bytes).into());
    let file =
        FileKind::File { size: CONTENT.len() as u64, sha256: hash(CONTENT), executable: true };
    let entry = |path: &str, kind| FileEntry { path: path.to_owned(), kind };
    Artifact {
        size: archive.len() as u64,
        sha256: hash(archive),
        files: vec![
            entry("bin", FileKind::Directory),
            entry("bin/hello", file),
            entry("link", FileKind::Symlink { target: "bin/hello".to_owned() }),
        ],
        arch: None,
        os_ids: BTreeSet::new(),
        models: BTreeSet::new(),
        kind: ArtifactKind::App,
    }
}

/// One zstd frame of uncompressed blocks (RFC 8878, 3.1.1): a window of 128 KiB, no sizes, no sum.
fn frame(content: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 128 * 1024;
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 7 << 3];
    let blocks = content.len().div_ceil(BLOCK).max(1);
    for at in 0..blocks {
        let block = content.chunks(BLOCK).nth(at).unwrap_or_default();
        let header = block.len() << 3 | usize::from(at + 1 == blocks);
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame
}

/// Bytes of files under `folder`; links are not followed.
fn weight(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let weigh = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => weight(&entry.path()),
        Ok(found) if found.is_file() => found.len(),
        Ok(_) | Err(_) => 0,
    };
    entries.map(weigh).sum()
}
