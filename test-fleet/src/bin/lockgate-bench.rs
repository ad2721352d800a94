//! Benchmarks: see `scripts/bench`.

use std::{path::PathBuf, process::ExitCode};

use lockgate_shared::failure::Chain;
use lockgate_test_fleet::{
    bench,
    process::Programs,
    world::{Error, World},
};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", Chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, Error> {
    let mut programs = Programs::find()?;
    if let Some(agent) = std::env::args_os().nth(1) {
        programs.agent = PathBuf::from(agent);
    }
    let folder = tempfile::tempdir()?;
    let world = World::create(folder.path(), &programs)?;
    let figures = bench::agent(world, &programs.agent)?;
    let held = figures.iter().all(bench::Figure::held);
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
