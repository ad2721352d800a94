//! The agent's entry: hands the command line and the loop over, and ends with the code that comes back.

use std::process::ExitCode;

use lockgate_agent::cli;

fn main() -> ExitCode {
    cli::main(std::env::args_os(), &cli::Turns)
}
