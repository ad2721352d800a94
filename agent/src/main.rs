//! The agent's entry: hands the command line and the loop over, and ends with the code that comes back.

use std::process::ExitCode;

use lockgate_agent::cli::{self, Loop, LoopError, Ready};

fn main() -> ExitCode {
    cli::main(std::env::args_os(), &NoLoop)
}

/// Stands where the loop is linked in: `run`, `check` and `rollback` open everything they need and
/// then say that nobody is there to use it.
struct NoLoop;

impl Loop for NoLoop {
    fn run(&self, _: Ready) -> Result<(), LoopError> {
        Err("this program was built without the loop".into())
    }

    fn turn(&self, ready: Ready) -> Result<(), LoopError> {
        self.run(ready)
    }
}
