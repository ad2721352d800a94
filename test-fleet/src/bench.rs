//! What the agent costs a device: its size, what must be installed beside it, memory, CPU and wake-ups
//! at rest, memory while it installs. Printed beside the peers' agents, as they were measured in
//! November 2026 on Debian 12 (one 256 MiB signed image; PSS taken unshared).
//!
//! All of these are facts of the binary and are held against their marks. Time is never asserted: the
//! install is a ratio to unpacking the same archive with tar and zstd in the same run.

use std::{collections::BTreeSet, fs, io, path::Path, process::Command, thread, time::Duration};

use lockgate_agent::{
    clock::{self, Stopwatch},
    status::Status,
};

use crate::{
    process::until,
    world::{Device, DevicePlan, Error, PROFILES, World},
};

/// The most that the stripped agent may have: everything in it, on anything that has a C library.
pub const SIZE_MARK: u64 = 3_500_000;
/// The most libraries beside it: the C library.
pub const LIBRARIES_MARK: u64 = 1;
/// The most PSS at rest, in KiB, where no other program uses the C library: the peers' was measured so.
pub const PSS_MARK: u64 = 4 * 1024;
/// The most of it dirty, in KiB.
pub const DIRTY_MARK: u64 = 1024;
/// The most RSS while it installs, in KiB.
pub const INSTALL_MARK: u64 = 16 * 1024;

/// How often the agent polls, in seconds: long enough to see it rest in between.
const POLL_S: u32 = 60;
/// How long the agent is watched at rest, between two polls.
const REST: Duration = Duration::from_secs(35);
/// What is left of the pause when the watching begins: the whole rest, and some to spare.
const REST_LEFT_S: i64 = 40;
/// How long an install, or coming to rest after it, may take before the benchmark gives up.
const INSTALL: Duration = Duration::from_secs(120);
/// How often the agent is poked until it begins to install: what is new is heard of by polls only.
const POKE: Duration = Duration::from_secs(1);
/// Without a switch for this long the agent has nothing left to do after a poll.
const STILL: Duration = Duration::from_secs(3);
/// The payload: as large as the peers'.
const PAYLOAD: usize = 256 << 20;

/// The environment that the installed unit gives the agent (`installers/linux`).
const UNIT: [(&str, &str); 2] =
    [("MALLOC_TRIM_THRESHOLD_", "65536"), ("MALLOC_MMAP_THRESHOLD_", "65536")];

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

impl Figure {
    /// Whether it is within its mark.
    pub const fn held(&self) -> bool {
        self.value <= self.mark
    }
}

/// The peers, as measured: agent, binary, closure on a minimal system (on one that has systemd, D-Bus
/// and udev), PSS at rest, wake-ups and CPU ms a minute, peak RSS in MiB while installing.
const PEERS: [[&str; 6]; 7] = [
    [
        "rauc 1.8",
        "0.35 MB + 43 libraries",
        "34.8 (10.1)",
        "13.2 MiB, 1.7 dirty",
        "0; 0 (does not poll)",
        "198 (2 anonymous)",
    ],
    [
        "swupdate 2022.12",
        "0.61 MB + 63 libraries",
        "52.4 (45.9)",
        "17.5 MiB, 2.6 dirty",
        "4.5; 0.7",
        "22",
    ],
    ["mender-client 3.4", "10.3 MB", "19.8 (13.9)", "31.5 MiB, 14 dirty", "2; 0.2", "35"],
    [
        "fwupd 2.0",
        "0.1 MB + 75 libraries",
        "120.8 (87.3)",
        "27.7 MiB",
        "15; 1.4-3",
        "no image to install",
    ],
    ["ostree 2022.7", "0.3 MB + 61 libraries", "74.4 (68.0)", "no daemon", "0; no daemon", "24"],
    ["unattended-upgrades", "script + Python", "39.8 (33.1)", "21.2 MiB", "0; not measured", "86"],
    ["snapd 2.57", "19.8 MB", "113.6 (78.2)", "26.2 MiB", "285; 10", "not measured"],
];

/// Measures the agent in a world of its own and prints everything. Returns the figures that have a
/// mark.
pub fn agent(mut world: World, agent: &Path) -> Result<Vec<Figure>, Error> {
    let size = fs::metadata(agent)?.len();
    let libraries = libraries(agent)?;
    world.set_polls(POLL_S)?;
    world.start()?;
    let token = world.enrolment_token("acme", "1")?;
    let plan =
        DevicePlan { name: "measured".into(), tenant: "acme".into(), profile: PROFILES[0].clone() };
    let mut device = world.device(plan, &["app"], &token)?;
    device.start_with(&UNIT)?;
    let Some(pid) = device.process().map(|process| process.id()) else {
        return Err(failed("the agent is not running".to_owned()));
    };
    device.poke()?;
    let (seconds, peak) = install(&world, &device, pid)?;
    let naive = naive(&world)?;
    println!("installing {} MiB:", PAYLOAD >> 20);
    println!(
        "  {seconds:.2} s from the first byte to the sealed slot; `zstd -d | tar -x; sync` of the same archive {naive:.2} s; ratio {:.2}",
        seconds / naive
    );
    let (before, after) = rest(&device, pid)?;
    println!(
        "at rest after that install and a poll, polling every {POLL_S} s, watched for {} s:",
        REST.as_secs()
    );
    println!("  PSS unshared {} KiB: {}", after.rss_kib, after.by_kind());
    println!("  PSS {} KiB where this machine's other programs share the C library", after.pss_kib);
    let figures = vec![
        Figure { name: "binary, stripped", value: size, mark: SIZE_MARK, unit: "bytes" },
        Figure {
            name: "libraries beside it",
            value: libraries.len() as u64,
            mark: LIBRARIES_MARK,
            unit: "(a C library)",
        },
        Figure { name: "PSS at rest, unshared", value: after.rss_kib, mark: PSS_MARK, unit: "KiB" },
        Figure { name: "dirty at rest", value: after.dirty_kib, mark: DIRTY_MARK, unit: "KiB" },
        Figure { name: "peak RSS installing", value: peak, mark: INSTALL_MARK, unit: "KiB" },
        Figure {
            name: "CPU between polls",
            value: after.cpu_ns.saturating_sub(before.cpu_ns)
                + 10_000_000 * after.ticks.saturating_sub(before.ticks),
            mark: 0,
            unit: "ns",
        },
        Figure {
            name: "wake-ups between polls",
            value: after.switches.saturating_sub(before.switches),
            mark: 0,
            unit: "",
        },
    ];
    print(&figures, &libraries);
    Ok(figures)
}

fn print(figures: &[Figure], libraries: &BTreeSet<String>) {
    println!("\n{:<23} {:>10} {:>10}", "", "measured", "mark");
    for figure in figures {
        let verdict = if figure.held() { "held" } else { "MISSED" };
        let Figure { name, value, mark, unit, .. } = figure;
        println!("{name:<23} {value:>10} {mark:>10} {unit:<14} {verdict}");
    }
    let names: Vec<&str> = libraries.iter().map(String::as_str).collect();
    println!("needs beside it: {}", names.join(", "));
    println!(
        "\n{:<20} {:<23} {:<13} {:<20} {:<21} peak RSS installing, MiB",
        "peer", "binary", "closure, MiB", "PSS at rest", "wake-ups; CPU ms/min"
    );
    for [agent, binary, closure, pss, cpu, peak] in PEERS {
        println!("{agent:<20} {binary:<23} {closure:<13} {pss:<20} {cpu:<21} {peak}");
    }
    println!("rauc does not poll; agents in C share their libraries with the rest of the system");
}

fn failed(what: String) -> Error {
    Error::Io(io::Error::other(what))
}

/// What a process has cost so far, from /proc.
struct Cost {
    pss_kib: u64,
    rss_kib: u64,
    dirty_kib: u64,
    /// What of it is the binary's, libraries' and its own, in KiB.
    kinds: [(&'static str, u64); 3],
    cpu_ns: u64,
    ticks: u64,
    switches: u64,
}

impl Cost {
    fn read(pid: u32) -> io::Result<Self> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let schedstat = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks = after_name.split_whitespace().skip(11).take(2);
        Ok(Self {
            pss_kib: field(&rollup, "Pss:")?,
            rss_kib: field(&rollup, "Rss:")?,
            dirty_kib: field(&rollup, "Private_Dirty:")?,
            kinds: kinds(&fs::read_to_string(format!("/proc/{pid}/smaps"))?),
            cpu_ns: field(&schedstat, "")?,
            ticks: ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum(),
            switches: switches(pid)?,
        })
    }

    fn by_kind(&self) -> String {
        let kinds: Vec<String> =
            self.kinds.iter().map(|(kind, kib)| format!("{kind} {kib}")).collect();
        kinds.join(", ")
    }
}

/// How often any thread of a process was put to sleep or aside.
fn switches(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let status = fs::read_to_string(thread.path().join("status"))?;
        sum += field(&status, "voluntary_ctxt_switches:")?;
        sum += field(&status, "nonvoluntary_ctxt_switches:")?;
    }
    Ok(sum)
}

/// Memory by what is mapped.
fn kinds(smaps: &str) -> [(&'static str, u64); 3] {
    let mut kinds = [("the binary", 0), ("libraries", 0), ("anonymous", 0)];
    let mut kind = 2;
    for line in smaps.lines() {
        if let Some(kib) = line.strip_prefix("Rss:") {
            let kib = kib.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok());
            kinds[kind].1 += kib.unwrap_or_default();
        } else if line.split_whitespace().next().is_some_and(|range| range.contains('-')) {
            kind = match line.split_whitespace().nth(5) {
                Some(path) if path.contains(".so") => 1,
                Some(path) if path.starts_with('/') => 0,
                Some(_) | None => 2,
            };
        }
    }
    kinds
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> io::Result<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| io::Error::other(format!("`{name}` is missing in /proc")))
}

/// Has the agent poll once more, waits until it has nothing left to do, and watches it until shortly
/// before its next poll: what it had cost by then, and afterwards.
fn rest(device: &Device, pid: u32) -> Result<(Cost, Cost), Error> {
    let polled = |status: Status| status.contact.next_poll;
    let last = device.status().and_then(polled);
    device.poke()?;
    until("a poll after the install", INSTALL, || device.status().and_then(polled) > last)?;
    let (mut seen, mut still) = (switches(pid)?, Stopwatch::start());
    until("the agent's rest", INSTALL, || {
        let now = switches(pid).unwrap_or_default();
        if now != seen {
            (seen, still) = (now, Stopwatch::start());
        }
        still.elapsed() > STILL
    })?;
    let next = device.status().and_then(polled).unwrap_or_default();
    let left = next.0.saturating_sub(clock::now().0);
    if left < REST_LEFT_S {
        return Err(failed(format!("the next poll is due in {left} s already")));
    }
    let before = Cost::read(pid)?;
    thread::sleep(REST);
    let after = Cost::read(pid)?;
    if device.status().and_then(polled) != Some(next) {
        return Err(failed("the agent polled while it was watched at rest".to_owned()));
    }
    Ok((before, after))
}

/// The shared libraries beside the binary.
fn libraries(agent: &Path) -> Result<BTreeSet<String>, Error> {
    let output = Command::new("ldd").arg(agent).output()?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(|name| name.rsplit('/').next().unwrap_or(name).to_owned())
        // The kernel's own, and the loader, which belongs to the C library.
        .filter(|name| !name.starts_with("linux-vdso") && !name.starts_with("ld-linux"))
        .collect())
}

/// Installs a release of 256 MiB, whole: until it is confirmed and the server knows. Returns how long
/// fetching and unpacking took and the highest RSS of all of it, in KiB.
fn install(world: &World, device: &Device, pid: u32) -> Result<(f64, u64), Error> {
    let release = world.large_release("1.0.0", PAYLOAD)?;
    fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    let cohorts = [("dogfood", 0), ("early", 0), ("general", 1)];
    world.start_rollout("app", "1.0.0", &release, &cohorts)?;
    let (begun, mut poked) = (Stopwatch::start(), Stopwatch::start());
    let (mut fetching, mut took) = (None, None);
    while begun.elapsed() < INSTALL {
        let begins = || {
            device.folder().join("app/a").read_dir().is_ok_and(|mut files| files.next().is_some())
        };
        match &fetching {
            None if begins() => fetching = Some(Stopwatch::start()),
            None if poked.elapsed() > POKE => {
                device.poke()?;
                poked = Stopwatch::start();
            }
            Some(since) if took.is_none() && device.folder().join("app/a.sealed").exists() => {
                took = Some(since.elapsed().as_secs_f64());
            }
            None | Some(_) => {}
        }
        if let Some(took) = took
            && device.rests_on("app", "1.0.0")
        {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            return Ok((took, field(&status, "VmHWM:")?));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Err(failed(format!("the install did not end in time\n{}\n{}", device.said(), world.said())))
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
        return Err(failed("zstd and tar are needed: apt-get install zstd tar".to_owned()));
    }
    Ok(begun.elapsed().as_secs_f64())
}
