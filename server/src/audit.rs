//! The audit chain: one JSON line per act, each with the hash of the one before it, so that a line
//! changed, lost or put in between shows in one offline pass.
//!
//! ```text
//! {"n":1,"at":"2026-11-21T09:30:00Z","who":"ben","act":"lift","detail":"…","prev":"00…","hash":"5f…"}
//! {"head":1,"hash":"5f…","key":"ab…","signature":"cd…"}
//! ```
//!
//! The hash covers the fields and not their spelling. A chain says that nothing in it was changed; that
//! it was not written anew as a whole only a signed head can say, or a copy elsewhere, which is why each
//! role forwards or serves its lines. The gatekeeper signs its head at every tick that appended, with its
//! key of the role `rollouts`; whose key that is the repository says, never the line. Nothing here decides
//! what is worth a line.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use lockgate_shared::{
    id::{Digest, PublicKey, Signature},
    sign::{self, Domain},
    time::Moment,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::signer::{self, Signer, SignerError};

/// The longest line that is read: an act's detail is a few sentences, and this is far above.
pub const LINE_BYTES: usize = 64 * 1024;

/// The hash before the first line.
const BEGINNING: Digest = Digest([0; 32]);

/// A chain that is open for writing. One process writes to one file.
#[derive(Debug)]
pub struct Chain {
    path: PathBuf,
    file: File,
    count: u64,
    head: Digest,
    signed: u64,
}

/// One act in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditLine {
    /// Its number, from 1, without gaps.
    pub n: u64,
    /// When.
    pub at: Moment,
    /// Who did it: a person, a token, or a role of the server.
    pub who: String,
    /// What was done, in a word.
    pub act: String,
    /// The rest, in a sentence.
    pub detail: String,
    /// The hash of the line before; all zero in the first.
    pub prev: Digest,
    /// The hash of this line.
    pub hash: Digest,
}

/// A signature over the chain's head, as a line of its own between acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadLine {
    /// The number of the last act before it.
    pub head: u64,
    /// That act's hash.
    pub hash: Digest,
    /// Whose signature.
    pub key: PublicKey,
    /// Over number and hash, for [`Domain::AuditV1`].
    pub signature: Signature,
}

/// What a whole chain amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many acts it holds.
    pub entries: u64,
    /// The last one's hash: compare it with a copy kept elsewhere.
    pub head: Digest,
    /// The last signed head: up to which act, and by which key. From [`verify`] it is what the line
    /// claims of itself; from [`verify_by`] its key is one of those that were asked for.
    pub signed: Option<(u64, PublicKey)>,
}

/// Why a chain cannot be used.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The file could not be read or written.
    #[error("the audit log `{path}` failed at {what}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was attempted.
        what: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The head could not be signed.
    #[error("the head of the audit log cannot be signed")]
    Signer(#[from] SignerError),
    /// The reader failed.
    #[error("the audit log could not be read")]
    Read(#[source] std::io::Error),
    /// The first line that is false.
    #[error(
        "the audit log is false from line {line} (act {n}): {what}\nhint: keep the file as it is, and compare it with the lines that were forwarded"
    )]
    False {
        /// The line in the file, from 1.
        line: u64,
        /// The act that should stand there.
        n: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl Chain {
    /// Opens a chain, verifies all of it and goes on at its end. A last line that was cut off by a
    /// crash, and so never confirmed to anybody, is removed.
    pub fn open(path: &Path) -> Result<Self, AuditError> {
        let fail = |what| move |source| AuditError::File { path: path.to_path_buf(), what, source };
        let new = !path.exists();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(fail("opening it"))?;
        if new && let Some(folder) = path.parent() {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(fail("writing its folder"))?;
        }
        let whole = whole_lines(&mut file).map_err(fail("reading it"))?;
        file.set_len(whole).map_err(fail("removing a torn line"))?;
        file.seek(SeekFrom::Start(0)).map_err(fail("reading it"))?;
        let summary = verify(&file)?;
        file.seek(SeekFrom::End(0)).map_err(fail("reading it"))?;
        let signed = summary.signed.map_or(0, |(n, _)| n);
        let (count, head) = (summary.entries, summary.head);
        Ok(Self { path: path.to_path_buf(), file, count, head, signed })
    }

    /// Appends an act and returns its line, after it is on disk.
    pub fn append(
        &mut self,
        at: Moment,
        who: &str,
        act: &str,
        detail: &str,
    ) -> Result<String, AuditError> {
        let mut line = AuditLine {
            n: self.count + 1,
            at,
            who: who.to_owned(),
            act: act.to_owned(),
            detail: cut(detail),
            prev: self.head,
            hash: BEGINNING,
        };
        line.hash = line.digest();
        let text = self.write(&line)?;
        self.count = line.n;
        self.head = line.hash;
        Ok(text)
    }

    /// Appends a signature over everything so far; none where the head is signed already.
    pub fn sign_head(&mut self, key: &dyn Signer) -> Result<Option<String>, AuditError> {
        if self.signed == self.count {
            return Ok(None);
        }
        let head = head_bytes(self.count, &self.head);
        let signature = signer::signed_for(key, Domain::AuditV1, &head)?;
        let line = HeadLine { head: self.count, hash: self.head, key: key.public(), signature };
        let text = self.write(&line)?;
        self.signed = self.count;
        Ok(Some(text))
    }

    /// How many acts it holds.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The last act's hash.
    pub const fn head(&self) -> Digest {
        self.head
    }

    /// The lines of acts from number `from` on, at most `max` acts, and the signed heads among and
    /// directly behind them.
    pub fn lines(&self, from: u64, max: usize) -> Result<Vec<String>, AuditError> {
        let fail =
            |source| AuditError::File { path: self.path.clone(), what: "reading it", source };
        let file = File::open(&self.path).map_err(fail)?;
        let mut found = Vec::new();
        let mut n = 0;
        for line in BufReader::new(file).lines() {
            let line = line.map_err(fail)?;
            if serde_json::from_str::<AuditLine>(&line).is_ok() {
                n += 1;
                if n >= from.saturating_add(max as u64) {
                    break;
                }
            }
            if n >= from.max(1) {
                found.push(line);
            }
        }
        Ok(found)
    }

    fn write<T: Serialize>(&mut self, line: &T) -> Result<String, AuditError> {
        let fail = |what| {
            let path = self.path.clone();
            move |source| AuditError::File { path, what, source }
        };
        let mut text = serde_json::to_string(line)
            .map_err(|error| fail("writing a line")(std::io::Error::other(error)))?;
        let before = self.file.stream_position().map_err(fail("writing a line"))?;
        text.push('\n');
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // Half a line must not stand before the next whole one; if this fails too, opening the
            // chain again removes it.
            let _ = self.file.set_len(before);
            let _ = self.file.seek(SeekFrom::Start(before));
            return Err(fail("writing a line")(source));
        }
        text.pop();
        Ok(text)
    }
}

impl AuditLine {
    fn digest(&self) -> Digest {
        Digest::of_parts(
            "lockgate audit v1",
            &[
                &self.prev.0,
                &self.n.to_be_bytes(),
                &self.at.0.to_be_bytes(),
                self.who.as_bytes(),
                self.act.as_bytes(),
                self.detail.as_bytes(),
            ],
        )
    }
}

/// Whether a line is an act's, and not a signed head.
pub fn is_act(line: &str) -> bool {
    serde_json::from_str::<AuditLine>(line).is_ok()
}

/// Verifies a chain from its first line to its last, and names the first that is false. Whose keys its
/// heads are signed by is not asked.
pub fn verify(reader: impl Read) -> Result<Summary, AuditError> {
    each(reader, &|_| true)
}

/// The same, and every head must be signed by one of these keys, which come from elsewhere: who writes a
/// chain anew can sign it with a key of his own.
pub fn verify_by(reader: impl Read, keys: &BTreeSet<PublicKey>) -> Result<Summary, AuditError> {
    each(reader, &|key| keys.contains(key))
}

fn each(reader: impl Read, known: &dyn Fn(&PublicKey) -> bool) -> Result<Summary, AuditError> {
    let mut reader = BufReader::new(reader);
    let mut summary = Summary { entries: 0, head: BEGINNING, signed: None };
    let mut number = 0;
    loop {
        let mut bytes = Vec::new();
        let read = (&mut reader)
            .take(LINE_BYTES as u64 + 1)
            .read_until(b'\n', &mut bytes)
            .map_err(AuditError::Read)?;
        if read == 0 {
            return Ok(summary);
        }
        number += 1;
        let refuse = |what| AuditError::False { line: number, n: summary.entries + 1, what };
        if bytes.pop() != Some(b'\n') {
            return Err(refuse("it is cut off or too long"));
        }
        match check(&bytes, &summary, known) {
            Ok(next) => summary = next,
            Err(what) => return Err(refuse(what)),
        }
    }
}

/// The summary with one more line, or what is wrong with it.
fn check(
    bytes: &[u8],
    before: &Summary,
    known: &dyn Fn(&PublicKey) -> bool,
) -> Result<Summary, &'static str> {
    if let Ok(head) = serde_json::from_slice::<HeadLine>(bytes) {
        if !known(&head.key) {
            return Err("it is signed by a key that the repository does not give to `rollouts`");
        }
        if head.head != before.entries || head.hash != before.head {
            return Err("it is signed for another head");
        }
        let signed = head_bytes(head.head, &head.hash);
        if !sign::verify(&head.key, Domain::AuditV1, &signed, &head.signature) {
            return Err("its signature does not hold");
        }
        return Ok(Summary { signed: Some((head.head, head.key)), ..before.clone() });
    }
    let line: AuditLine =
        serde_json::from_slice(bytes).map_err(|_| "it is not a line of this log")?;
    if line.n != before.entries + 1 {
        return Err("its number does not follow");
    }
    if line.prev != before.head {
        return Err("it does not follow the line before");
    }
    if line.hash != line.digest() {
        return Err("its hash does not fit its fields");
    }
    Ok(Summary { entries: line.n, head: line.hash, signed: before.signed })
}

/// How many bytes of the file are whole lines.
fn whole_lines(file: &mut File) -> std::io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut chunk = [0; 4096];
    while end > 0 {
        let length = end.min(chunk.len() as u64);
        let part = &mut chunk[..length as usize];
        file.seek(SeekFrom::Start(end - length))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(end - length + at as u64 + 1);
        }
        end -= length;
    }
    Ok(0)
}

fn head_bytes(count: u64, head: &Digest) -> Vec<u8> {
    [&count.to_be_bytes()[..], &head.0].concat()
}

/// A detail cut so that its line stays within [`LINE_BYTES`], whatever escapes it needs.
fn cut(detail: &str) -> String {
    detail.chars().take(LINE_BYTES / 16).collect()
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    fn chain_of(count: usize) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("audit.log");
        let mut chain = Chain::open(&path).expect("a new chain");
        for number in 0..count {
            chain.append(Moment(100), "ben", "lift", &format!("stop {number}")).expect("a line");
        }
        (folder, path)
    }

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).expect("the log")
    }

    #[test]
    fn a_chain_goes_on_where_it_ended() {
        let (_folder, path) = chain_of(3);
        let mut chain = Chain::open(&path).expect("the chain again");
        assert_eq!(chain.count(), 3);
        chain.append(Moment(101), "eva", "pause", "").expect("a line");
        assert_eq!(verify(text(&path).as_bytes()).expect("a true chain").entries, 4);
        let lines = chain.lines(3, 10).expect("lines");
        assert_eq!(lines.len(), 2);
        assert!(lines[0].contains("stop 2"), "{lines:?}");
    }

    #[test]
    fn the_first_false_line_is_named() {
        let (_folder, path) = chain_of(5);
        let good = text(&path);
        let changed = good.replace("stop 2", "stop 9");
        let lost: String = good
            .lines()
            .filter(|line| !line.contains("stop 2"))
            .map(|l| format!("{l}\n"))
            .collect();
        for bad in [changed, lost] {
            let found = verify(bad.as_bytes());
            assert!(matches!(found, Err(AuditError::False { line: 3, n: 3, .. })), "{found:?}");
        }
        assert!(verify(&b"{}\n"[..]).is_err());
    }

    #[test]
    fn a_line_torn_by_a_crash_is_removed_and_a_changed_one_is_not() {
        let (_folder, path) = chain_of(2);
        let good = text(&path);
        std::fs::write(&path, format!("{good}{{\"n\":3,\"at\"")).expect("a torn line");
        assert_eq!(Chain::open(&path).expect("the chain").count(), 2);
        assert_eq!(text(&path), good);
        std::fs::write(&path, good.replace("ben", "max")).expect("a changed line");
        assert!(matches!(Chain::open(&path), Err(AuditError::False { line: 1, .. })));
    }

    #[test]
    fn a_signed_head_shows_that_lines_before_it_were_replaced() {
        let (_folder, path) = chain_of(2);
        let key = SigningKey::from_bytes(&[1; 32]);
        let mut chain = Chain::open(&path).expect("the chain");
        let head = chain.sign_head(&key).expect("a signed head").expect("a line");
        assert_eq!(chain.sign_head(&key).expect("no need"), None, "one signature is enough");
        assert_eq!(chain.lines(2, 1).expect("lines").len(), 2, "the head goes with its act");
        chain.append(Moment(102), "eva", "lift", "").expect("a line");
        let summary = verify(text(&path).as_bytes()).expect("a true chain");
        assert_eq!(summary.signed, Some((2, sign::public(&key))));
        let keys = [sign::public(&key)].into();
        assert_eq!(verify_by(text(&path).as_bytes(), &keys).expect("a known key"), summary);
        let others = [sign::public(&SigningKey::from_bytes(&[2; 32]))].into();
        let forged_by = verify_by(text(&path).as_bytes(), &others);
        assert!(matches!(forged_by, Err(AuditError::False { line: 3, .. })), "{forged_by:?}");
        let (_other, forged) = chain_of(1);
        let mut forged_chain = Chain::open(&forged).expect("a forged chain");
        forged_chain.append(Moment(100), "ben", "lift", "something else").expect("a line");
        let forged = format!("{}{head}\n", text(&forged));
        assert!(matches!(verify(forged.as_bytes()), Err(AuditError::False { line: 3, .. })));
    }

    #[test]
    fn the_longest_detail_still_makes_a_readable_line() {
        let (_folder, path) = chain_of(0);
        let mut chain = Chain::open(&path).expect("the chain");
        chain.append(Moment(1), "ben", "note", &"\u{1}".repeat(2 * LINE_BYTES)).expect("a line");
        assert_eq!(verify(text(&path).as_bytes()).expect("a true chain").entries, 1);
    }
}
