//! The entry of the agent that cuts its own power (feature `faults`), for tests; never shipped.

use std::process::ExitCode;

use lockgate_agent::cli;

fn main() -> ExitCode {
    cli::main(std::env::args_os(), &cli::Turns)
}
