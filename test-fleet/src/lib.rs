//! Fleets that try Lockgate out: the demo's real processes, chaos, benchmarks, and the fuzz targets.
//! Nothing that ships depends on this crate.

pub mod fuzz;
pub mod process;
