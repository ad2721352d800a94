//! The operator's tool.

use std::process::ExitCode;

fn main() -> ExitCode {
    lockgate_server::cli::main()
}
