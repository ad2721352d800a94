//! Decides how the small-profile agent is linked: without unwind tables. Touches no other profile and no
//! linker but the one that the toolchain brings along.

use std::{env, path::Path};

fn main() {
    let script = "link/no-unwind-tables.ld";
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={script}");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    // `small` is the only profile with this level, and it aborts on panic: nothing ever unwinds in it.
    let small = is("OPT_LEVEL", "z");
    // Where rustc links with its own lld unless told otherwise; GNU ld reads the script otherwise.
    let lld = is("TARGET", "x86_64-unknown-linux-gnu") && env::var_os("RUSTC_LINKER").is_none();
    if !(small && lld) {
        return;
    }
    let here = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo::rustc-link-arg-bins={}", Path::new(&here).join(script).display());
}
