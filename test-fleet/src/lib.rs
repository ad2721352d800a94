//! Fleets that try Lockgate out: the demo's real processes, chaos, benchmarks, the fuzz targets, and a
//! simulated fleet for the gate and for the preflight of a rollout.
//! Nothing that ships depends on this crate.

pub mod bench;
pub mod demo;
pub mod fuzz;
pub mod hostile;
pub mod https;
pub mod letter_writer;
pub mod olpc;
pub mod own_mounts;
pub mod plan;
pub mod process;
pub mod sim;
pub mod thief;
pub mod world;
