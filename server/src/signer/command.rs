//! A key behind a program: the bytes on its standard input, the signature on its standard output. For
//! what has no PKCS#11 module: a cloud's key service, a signing ceremony's own tool, `ssh` to a host in
//! a vault.
//!
//! `command:PROGRAM ARGUMENT…` names it; words are split at blanks, and no shell is started. Called with
//! the last word `public` it prints the public key in hex; with `sign`, the 64 bytes of an Ed25519
//! signature, raw or in hex. It has a bounded time and says a bounded amount, or it is ended.

use std::{
    io::{self, Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use lockgate_shared::id::{PublicKey, Signature};

use super::{Signer, SignerError};

/// How long the program may take: a person may have to touch a token, or to confirm on a phone.
pub const COMMAND_TIME: Duration = Duration::from_secs(120);
/// The most that is read of its answer: a signature in hex, and what surrounds it.
const ANSWER_BYTES: u64 = 1_024;
/// How often it is looked at whether the program has ended.
const LOOK: Duration = Duration::from_millis(20);

/// A program that signs.
#[derive(Clone, Debug)]
pub struct CommandSigner {
    words: Vec<String>,
    public: PublicKey,
    time: Duration,
}

impl CommandSigner {
    /// Asks the program for its public key.
    pub fn open(line: &str) -> Result<Self, SignerError> {
        Self::open_within(line, COMMAND_TIME)
    }

    /// The same, with another time for each answer.
    pub fn open_within(line: &str, time: Duration) -> Result<Self, SignerError> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let answer = ask(&words, "public", &[], time)?;
        let text = String::from_utf8_lossy(&answer);
        let public = text.trim().parse().map_err(|_| SignerError::Answer {
            program: shown(&words),
            what: "its public key in 64 hexadecimal digits",
        })?;
        Ok(Self { words, public, time })
    }
}

impl Signer for CommandSigner {
    fn public(&self) -> PublicKey {
        self.public
    }

    fn sign(&self, bytes: &[u8]) -> Result<Signature, SignerError> {
        let answer = ask(&self.words, "sign", bytes, self.time)?;
        let raw = <[u8; 64]>::try_from(answer.as_slice()).ok();
        let hexed = || {
            let text = std::str::from_utf8(&answer).ok()?;
            let mut bytes = [0; 64];
            hex::decode_to_slice(text.trim(), &mut bytes).ok().map(|()| bytes)
        };
        raw.or_else(hexed).map(Signature).ok_or_else(|| SignerError::Answer {
            program: shown(&self.words),
            what: "an Ed25519 signature: 64 bytes, or 128 hexadecimal digits",
        })
    }
}

fn shown(words: &[String]) -> String {
    words.first().cloned().unwrap_or_default()
}

/// One call of the program.
fn ask(words: &[String], what: &str, bytes: &[u8], time: Duration) -> Result<Vec<u8>, SignerError> {
    let [program, arguments @ ..] = words else { return Err(SignerError::NoProgram) };
    let failed = |source| SignerError::Program { program: program.clone(), source };
    let mut child = Command::new(program)
        .args(arguments)
        .arg(what)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let answer = answer(&mut child, bytes, time, program);
    if answer.is_err() {
        // It may have ended by itself meanwhile; either way it is gone and waited for.
        let _ = child.kill();
        let _ = child.wait();
    }
    answer
}

fn answer(
    child: &mut Child,
    bytes: &[u8],
    time: Duration,
    program: &str,
) -> Result<Vec<u8>, SignerError> {
    let failed = |source| SignerError::Program { program: program.to_owned(), source };
    let late = || SignerError::Late { program: program.to_owned(), time };
    if let Some(stdin) = child.stdin.take() {
        feed(stdin, bytes.to_vec());
    }
    let (said, heard) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || {
            let mut answer = Vec::new();
            let read = stdout.take(ANSWER_BYTES + 1).read_to_end(&mut answer).map(|_| answer);
            // Nobody listens any more once the time is over.
            let _ = said.send(read);
        });
    }
    let begun = crate::clock::Stopwatch::start();
    let answer = heard.recv_timeout(time).map_err(|_| late())?.map_err(failed)?;
    if answer.len() as u64 > ANSWER_BYTES {
        return Err(SignerError::Answer {
            program: program.to_owned(),
            what: "no more than a key or a signature",
        });
    }
    loop {
        match child.try_wait().map_err(failed)? {
            Some(status) if status.success() => return Ok(answer),
            Some(status) => {
                return Err(failed(io::Error::other(format!("it ended with {status}"))));
            }
            None if begun.elapsed() >= time => return Err(late()),
            None => thread::sleep(LOOK),
        }
    }
}

/// Writes on a thread of its own: a program that answers before it has read all must not block this
/// one. What it does not want to read, it need not.
fn feed(mut stdin: ChildStdin, bytes: Vec<u8>) {
    thread::spawn(move || {
        let _ = stdin.write_all(&bytes);
    });
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    use super::*;
    use crate::{
        keys::{self, Protection},
        signer::{conformance, signed_by},
    };

    /// A signing program made of openssl.
    const OPENSSL: &str = r#"#!/bin/sh
set -e
cd "$(dirname "$0")"
case "$1" in
public) openssl pkey -in key.pem -pubout -outform DER | tail -c 32 | od -An -v -tx1 | tr -d ' \n' ;;
sign) cat >message.$$; openssl pkeyutl -sign -inkey key.pem -rawin -in message.$$; rm message.$$ ;;
esac
"#;

    #[test]
    fn a_program_signs_like_any_signer() {
        let temp = tempfile::tempdir().expect("a folder");
        let key = keys::generate();
        keys::write(&temp.path().join("key.pem"), &key, Protection::Plain).expect("written");
        let signer = CommandSigner::open(&program(temp.path(), OPENSSL)).expect("it answers");
        assert_eq!(signer.public(), key.public());
        conformance::check(&signer);
    }

    #[test]
    fn a_program_that_hangs_talks_without_end_fails_or_lies_gives_no_signature() {
        let temp = tempfile::tempdir().expect("a folder");
        let public = keys::generate().public();
        let signs = |name: &str, act: &str| {
            let folder = temp.path().join(name);
            fs::create_dir(&folder).expect("made");
            let text =
                format!("#!/bin/sh\n[ \"$1\" = public ] && {{ echo {public}; exit; }}\n{act}\n");
            let line = program(&folder, &text);
            let signer =
                CommandSigner::open_within(&line, Duration::from_secs(2)).expect("its key");
            signed_by(&signer, b"bytes")
        };
        assert!(matches!(signs("hangs", "exec sleep 600"), Err(SignerError::Late { .. })));
        assert!(matches!(signs("talks", "exec yes"), Err(SignerError::Answer { .. })));
        assert!(matches!(signs("fails", "exit 3"), Err(SignerError::Program { .. })));
        let lies = "head -c 64 /dev/zero";
        assert!(matches!(signs("lies", lies), Err(SignerError::DoesNotHold(_))));
        assert!(matches!(CommandSigner::open("  "), Err(SignerError::NoProgram)));
        let absent = CommandSigner::open("/nonexistent/program");
        assert!(matches!(absent, Err(SignerError::Program { .. })));
    }

    fn program(folder: &Path, text: &str) -> String {
        let path = folder.join("signs");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("changed");
        path.display().to_string()
    }
}
