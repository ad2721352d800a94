//! Watches Lockgate do its job on this machine: see `scripts/demo`.

use std::process::ExitCode;

use lockgate_shared::failure::Chain;
use lockgate_test_fleet::{
    demo::{Demo, tell},
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
    let folder = tempfile::tempdir()?;
    let world = World::create(folder.path(), &Programs::find()?)?;
    let mut demo = Demo::new(world);
    tell(&mut demo);
    if demo.broken().is_empty() {
        println!("\neverything came out as promised");
        return Ok(ExitCode::SUCCESS);
    }
    println!("\n{} promises were broken:", demo.broken().len());
    for promise in demo.broken() {
        println!("  {promise}");
    }
    // The folder stays, for whoever looks into it.
    println!("everything stands in {}", folder.keep().display());
    Ok(ExitCode::FAILURE)
}
