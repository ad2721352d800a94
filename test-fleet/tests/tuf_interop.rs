//! Repositories cross makers' borders: what python-tuf wrote is read by the agent's client, and what
//! `lockgate repo init`, a gatekeeper and `release publish` wrote is read by python-tuf's client, by
//! sigstore-tuf's and by the agent's, to the same bytes.
//!
//! python-tuf lives in `target/python-tuf`, which `scripts/test` makes. Without it these tests fail
//! and say how to make it.

#[path = "tuf_differential/clients.rs"]
#[expect(dead_code, reason = "the differential test asks the clients for more")]
mod clients;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lockgate_agent::clock;
use lockgate_test_fleet::process::{Programs, until};
use lockgate_test_fleet::world::World;

use clients::{Mirror, Ours, Theirs};

/// The targets that `interop.py write` lists, and what they hold in its first state.
const WRITTEN: [(&str, &[u8]); 4] = [
    ("top", b"at the top"),
    ("app/1", b"the first app"),
    ("app/deep/2", b"below a hash"),
    ("app/binned", b"in a bin"),
];

#[test]
fn what_python_tuf_writes_the_agents_client_reads() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    python(["write".as_ref(), folder.path().as_os_str()]);
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let anchor = fs::read(first.join("metadata/1.root.json")).expect("the root");
    let now = clock::now().0;

    let mut device = Ours::new(&anchor);
    let mirror = serve(&first);
    device.refresh(&mirror, now).expect("the first state");
    for (path, bytes) in WRITTEN {
        assert_eq!(device.target(&mirror, path, now).expect(path), bytes);
    }
    // The same device later, and one that was never there before.
    device.restart();
    for mut device in [device, Ours::new(&anchor)] {
        let mirror = serve(&second);
        device.refresh(&mirror, now).expect("the second state, over a root with other keys");
        assert_eq!(device.target(&mirror, "app/1", now).expect("app/1"), b"the second app");
        assert_eq!(device.target(&mirror, "app/binned", now).expect("binned"), b"in a bin");
        device.refresh(&serve(&first), now).expect_err("the first state is the past");
    }
}

#[test]
fn what_lockgate_writes_every_client_reads() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let programs = Programs::find().expect("built programs");
    let mut world = World::create(folder.path(), &programs).expect("a world");
    world.start().expect("a server");
    world.large_release("1.0.0", 4096).expect("a release");
    let repository = world.path("repository");
    let anchor = world.path("ceremony/root.json");
    let trust = fs::read(&anchor).expect("the anchor");
    until("the release in the repository, up to its timestamp", Duration::from_secs(20), || {
        let (mirror, now) = (serve(&repository), clock::now().0);
        let mut device = Ours::new(&trust);
        device.refresh(&mirror, now).is_ok()
            && device.target(&mirror, "releases/app/1.0.0.json", now).is_ok()
    })
    .expect("published");
    // What is read must stand still meanwhile.
    world.kill_gatekeeper();
    world.kill_api();

    let paths = ["policy.json", "releases/app/1.0.0.json"];
    let out = folder.path().join("out");
    let mut arguments: Vec<&OsStr> =
        vec!["read".as_ref(), repository.as_ref(), anchor.as_ref(), out.as_ref()];
    arguments.extend(paths.iter().map(OsStr::new));
    python(arguments);

    let (mirror, now) = (serve(&repository), clock::now().0);
    let anchor = fs::read(anchor).expect("the anchor");
    let (mut ours, mut theirs) = (Ours::new(&anchor), Theirs::new(&anchor));
    ours.refresh(&mirror, now).expect("ours refreshes");
    theirs.refresh(&mirror, now).expect("sigstore-tuf refreshes");
    for (number, path) in paths.into_iter().enumerate() {
        let bytes = fs::read(out.join(number.to_string())).expect("what python-tuf read");
        assert!(!bytes.is_empty());
        assert_eq!(ours.target(&mirror, path, now).expect(path), bytes);
        assert_eq!(theirs.target(path, now).expect(path), bytes);
    }
}

/// Runs the script with the reference implementation.
fn python<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = folder.join("../target/python-tuf/bin/python");
    assert!(
        python.is_file(),
        "python-tuf is not in `{}`; hint: `scripts/test` puts it there, or `python3 -m venv \
         target/python-tuf && target/python-tuf/bin/pip install -r test-fleet/python/requirements.txt`",
        python.display()
    );
    let script = folder.join("python/interop.py");
    let ended = Command::new(python).arg("-B").arg(script).args(arguments).output();
    let ended = ended.expect("python starts");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

/// A repository on disk as a mirror serves it.
fn serve(repository: &Path) -> Mirror {
    let mut mirror = Mirror::default();
    // A file that is being replaced while it is listed is simply not there.
    for path in listed_under(repository, "metadata") {
        let bytes = fs::read(repository.join("metadata").join(&path));
        mirror.files.extend(bytes.ok().map(|bytes| (path, bytes)));
    }
    for path in listed_under(repository, "targets") {
        let bytes = fs::read(repository.join("targets").join(&path));
        mirror.payloads.extend(bytes.ok().map(|bytes| (path, bytes)));
    }
    mirror
}

fn listed_under(repository: &Path, folder: &str) -> Vec<String> {
    let base = repository.join(folder);
    let (mut files, mut folders) = (Vec::new(), vec![base.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path: PathBuf = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let inner = path.strip_prefix(&base).expect("below it");
                files.push(inner.to_string_lossy().into_owned());
            }
        }
    }
    files
}
