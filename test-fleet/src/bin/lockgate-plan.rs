//! The simulator of `lockgate plan`: reads a question in JSON from standard input and writes the answer in
//! JSON to standard output. Where standard error is a terminal, people see there how far it is. It opens
//! no connection and no file.

use std::{
    io::{self, IsTerminal as _, Read as _, Write as _},
    process::ExitCode,
};

use clap::Parser;
use lockgate_server::preflight::{Question, canonical};
use lockgate_shared::failure::Chain;
use lockgate_test_fleet::plan::{self, Progress};

/// The longest question: thousands of kinds with all their words.
const QUESTION_BYTES: u64 = 64 << 20;

/// Takes no options: what is tried stands in the question.
#[derive(Debug, Parser)]
#[command(
    name = "lockgate-plan",
    version,
    about = "tries a ladder on a fleet, for `lockgate plan`: a question on standard input, an answer on standard output"
)]
struct Arguments {}

fn main() -> ExitCode {
    let Arguments {} = Arguments::parse();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", Chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut text = Vec::new();
    io::stdin().take(QUESTION_BYTES).read_to_end(&mut text)?;
    let question: Question = serde_json::from_slice(&text)?;
    let watched = io::stderr().is_terminal();
    let told = |progress: Progress| {
        if watched {
            show(progress);
        }
    };
    let answer = plan::answer(&question, &told);
    if watched {
        wipe();
    }
    let answer = canonical(&answer?)?;
    io::stdout().write_all(&answer)?;
    Ok(())
}

/// One line that is written over. A terminal that is closed meanwhile loses nothing but this.
fn show(Progress { done, all }: Progress) {
    let _ = write!(io::stderr().lock(), "\r\x1b[K{done} of {all} simulations");
}

fn wipe() {
    let _ = write!(io::stderr().lock(), "\r\x1b[K");
}
