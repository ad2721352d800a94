//! What the agent costs a device: its size, what must be installed beside it, memory and CPU at rest,
//! memory while it installs. Printed beside the peers' agents, as they were measured in November 2026
//! on Debian 12 (one 256 MiB signed image; PSS taken unshared).
//!
//! Memory and size are facts of the binary and are held against their marks. Time is never asserted:
//! the install is a ratio to unpacking the same archive with tar and zstd in the same run.

use std::{fs, io, path::Path, process::Command, thread, time::Duration};

use lockgate_agent::clock::Stopwatch;

use crate::world::{DevicePlan, Error, PROFILES, World};

/// The most that the stripped agent may have: everything in it, on anything that has a C library.
pub const SIZE_MARK: u64 = 3_500_000;
/// The most PSS at rest, in KiB.
pub const PSS_MARK: u64 = 4 * 1024;
/// The most of it dirty, in KiB.
pub const DIRTY_MARK: u64 = 1024;
/// The most RSS while it installs, in KiB.
pub const INSTALL_MARK: u64 = 16 * 1024;

/// How long the agent is watched at rest.
const REST: Duration = Duration::from_secs(20);
/// How long an install may take before the benchmark gives up.
const INSTALL: Duration = Duration::from_secs(120);
/// The payload: as large as the peers'.
const PAYLOAD: usize = 256 << 20;

/// One figure against its mark.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What.
    pub name: &'static str,
    /// How much.
    pub value: u64,
    /// At most.
    pub mark: u64,
    /// Of what.
    pub unit: &'static str,
}

/// The peers, as measured: agent, binary, closure, PSS at rest, wake-ups and CPU ms a minute, peak
/// RSS in MiB while installing.
const PEERS: [[&str; 6]; 5] = [
    [
        "rauc 1.8",
        "0.35 MB + 43 libraries",
        "34.8 MiB",
        "13.2 MiB, 1.7 dirty",
        "0; 0 (does not poll)",
        "198",
    ],
    [
        "swupdate 2022.12",
        "0.61 MB + 63 libraries",
        "52.4 MiB",
        "17.5 MiB, 2.6 dirty",
        "4.5; 0.7",
        "22",
    ],
    ["mender-client 3.4", "10.3 MB", "19.8 MiB", "31.5 MiB, 14 dirty", "2; 0.2", "35"],
    ["ostree 2022.7", "0.3 MB + 61 libraries", "74.4 MiB", "no daemon", "0", "24"],
    ["snapd 2.57", "19.8 MB", "113.6 MiB", "26.2 MiB", "285; 10", "-"],
];

/// Measures the agent in a world of its own and prints everything. Returns the figures that have a
/// mark.
pub fn agent(mut world: World, agent: &Path) -> Result<Vec<Figure>, Error> {
    let size = fs::metadata(agent)?.len();
    let libraries = libraries(agent)?;
    world.start()?;
    let token = world.enrolment_token("acme", "1")?;
    let plan =
        DevicePlan { name: "measured".into(), tenant: "acme".into(), profile: PROFILES[0].clone() };
    let mut device = world.device(plan, &["app"], &token)?;
    device.start()?;
    let Some(pid) = device.process().map(|process| process.id()) else {
        return Err(Error::Io(io::Error::other("the agent is not running")));
    };
    device.poke()?;
    thread::sleep(Duration::from_secs(5));
    let before = Rest::read(pid).map_err(|error| {
        Error::Io(io::Error::other(format!("the agent does not rest: {error}\n{}", device.said())))
    })?;
    thread::sleep(REST);
    let after = Rest::read(pid)?;
    println!("the agent at rest for {} s, polling every {} s:", REST.as_secs(), world.poll_s());
    println!(
        "  {:.2} ms CPU, {} wake-ups, {} polls",
        after.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e6,
        after.switches.saturating_sub(before.switches),
        REST.as_secs() / world.poll_s(),
    );
    let (seconds, peak) = install(&world, &mut device, pid)?;
    let naive = naive(&world)?;
    println!("installing {} MiB:", PAYLOAD >> 20);
    println!(
        "  {seconds:.2} s from the first byte to the sealed slot; `zstd -d | tar -x; sync` of the same archive {naive:.2} s; ratio {:.2}",
        seconds / naive
    );
    let figures = vec![
        Figure { name: "binary, stripped", value: size, mark: SIZE_MARK, unit: "bytes" },
        Figure { name: "PSS at rest", value: after.pss_kib, mark: PSS_MARK, unit: "KiB" },
        Figure { name: "dirty at rest", value: after.dirty_kib, mark: DIRTY_MARK, unit: "KiB" },
        Figure { name: "peak RSS installing", value: peak, mark: INSTALL_MARK, unit: "KiB" },
    ];
    print(&figures, &libraries);
    Ok(figures)
}

fn print(figures: &[Figure], libraries: &[String]) {
    println!("\n{:<22} {:>12} {:>12}", "", "measured", "mark");
    for figure in figures {
        println!(
            "{:<22} {:>12} {:>12} {}{}",
            figure.name,
            figure.value,
            figure.mark,
            figure.unit,
            if figure.value > figure.mark { "  ABOVE ITS MARK" } else { "" }
        );
    }
    println!("needs beside it: {}", libraries.join(", "));
    println!(
        "\n{:<18} {:<24} {:<11} {:<20} {:<22} peak RSS installing, MiB",
        "peer", "binary", "closure", "PSS at rest", "wake-ups; CPU ms/min"
    );
    for [agent, binary, closure, pss, cpu, peak] in PEERS {
        println!("{agent:<18} {binary:<24} {closure:<11} {pss:<20} {cpu:<22} {peak}");
    }
    println!("rauc does not poll; agents in C share their libraries with the rest of the system");
}

/// A process's costs, from /proc.
struct Rest {
    pss_kib: u64,
    dirty_kib: u64,
    cpu_ns: u64,
    switches: u64,
}

impl Rest {
    fn read(pid: u32) -> io::Result<Self> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let schedstat = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
        Ok(Self {
            pss_kib: field(&rollup, "Pss:")?,
            dirty_kib: field(&rollup, "Private_Dirty:")?,
            cpu_ns: field(&schedstat, "")?,
            switches: field(&status, "voluntary_ctxt_switches:")?,
        })
    }
}

fn field(text: &str, name: &str) -> io::Result<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| io::Error::other(format!("`{name}` is missing in /proc")))
}

/// The shared libraries beside the binary.
fn libraries(agent: &Path) -> Result<Vec<String>, Error> {
    let output = Command::new("ldd").arg(agent).output()?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(|name| name.rsplit('/').next().unwrap_or(name).to_owned())
        .filter(|name| !name.starts_with("linux-vdso"))
        .collect())
}

/// Installs a release of 256 MiB and returns how long fetching and unpacking took and the highest
/// RSS meanwhile, in KiB.
fn install(
    world: &World,
    device: &mut crate::world::Device,
    pid: u32,
) -> Result<(f64, u64), Error> {
    let release = world.large_release("1.0.0", PAYLOAD)?;
    fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    world.start_rollout(
        "app",
        "1.0.0",
        &release,
        &[("dogfood", 0), ("early", 0), ("general", 1)],
    )?;
    let begun = Stopwatch::start();
    let (mut fetching, mut peak) = (None, 0);
    while begun.elapsed() < INSTALL {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        peak = peak.max(field(&status, "VmHWM:")?);
        if fetching.is_none()
            && device.folder().join("app/a").read_dir().is_ok_and(|mut d| d.next().is_some())
        {
            fetching = Some(Stopwatch::start());
        }
        if device.folder().join("app/a.sealed").exists() {
            let since = fetching.unwrap_or(begun);
            return Ok((since.elapsed().as_secs_f64(), peak));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Err(Error::Io(io::Error::other(format!("the install did not end in time\n{}", world.said()))))
}

/// The same archive by the ordinary tools: the named other of the ratio.
fn naive(world: &World) -> Result<f64, Error> {
    let folder = world.path("naive");
    fs::create_dir_all(&folder)?;
    let artifact = fs::read_dir(world.path("releases/app-1.0.0/out/artifacts"))?
        .flatten()
        .next()
        .map(|entry| entry.path())
        .unwrap_or_default();
    let begun = Stopwatch::start();
    let status = Command::new("sh")
        .arg("-c")
        .arg("sha256sum \"$0\" >/dev/null && zstd -dcq \"$0\" | tar -x -C \"$1\" && sync")
        .arg(&artifact)
        .arg(&folder)
        .status()?;
    if !status.success() {
        return Err(Error::Io(io::Error::other(
            "zstd and tar are needed: apt-get install zstd tar",
        )));
    }
    Ok(begun.elapsed().as_secs_f64())
}
