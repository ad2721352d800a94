//! Decides how the small-profile agent is linked: without unwind tables, functions of the same code kept
//! once, what seldom runs apart from the rest, and with the compiler's own runtime inside, so that it
//! needs nothing but a C library.
//! Touches no other profile and no linker but the one that the toolchain brings along.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

fn main() -> io::Result<()> {
    let script = "link/small.ld";
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={script}");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    // `small` is the only profile with this level, and it aborts on panic: nothing ever unwinds in it.
    let small = is("OPT_LEVEL", "z");
    // Where rustc links with its own lld unless told otherwise; GNU ld reads the script otherwise.
    let lld = is("TARGET", "x86_64-unknown-linux-gnu") && env::var_os("RUSTC_LINKER").is_none();
    if !(small && lld) {
        return Ok(());
    }
    let here = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo::rustc-link-arg-bins={}", Path::new(&here).join(script).display());
    // Safe: code whose address is compared with another's is left alone.
    println!("cargo::rustc-link-arg-bins=-Wl,--icf=safe");
    if knows_packed_relocations() {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    if let Some(folder) = runtime_inside()? {
        println!("cargo::rustc-link-arg-bins=-L{}", folder.display());
    }
    Ok(())
}

/// Whether the C library that this is built against reads relocations in their packed form, a tenth of
/// the size: glibc does from 2.36 on. Built there, the agent asks for 2.35 by its functions already, so
/// the form costs one release; built on an older system it keeps to what that one has.
fn knows_packed_relocations() -> bool {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
    let version = said.unwrap_or_default();
    let version = version.trim().strip_prefix("glibc ").and_then(|version| version.split_once('.'));
    let Some((major, minor)) = version else { return false };
    (major.parse::<u32>().ok(), minor.parse::<u32>().ok()) >= (Some(2), Some(36))
}

/// A folder in which the linker finds GCC's runtime as an archive where it looks for the shared library
/// `libgcc_s`. None where the compiler has no such archive: the agent then needs the library beside it.
fn runtime_inside() -> io::Result<Option<PathBuf>> {
    let said = Command::new("cc").arg("-print-file-name=libgcc_eh.a").output();
    let archive = said.map(|said| PathBuf::from(String::from_utf8_lossy(&said.stdout).trim()));
    if !archive.is_ok_and(|archive| archive.is_absolute() && archive.exists()) {
        return Ok(None);
    }
    let folder = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(folder.join("libgcc_s.so"), "GROUP ( libgcc_eh.a libgcc.a )\n")?;
    Ok(Some(folder))
}
