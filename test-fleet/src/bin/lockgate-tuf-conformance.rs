//! The agent's TUF client behind the command line that theupdateframework/tuf-conformance speaks.
//!
//! It is a shell and nothing more: the workflow is `lockgate_agent::core::tuf`, the store is the
//! agent's, and only the transport is its own, because the suite's server speaks plain HTTP, which
//! the agent refuses to.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use lockgate_agent::clock;
use lockgate_agent::core::tuf::{
    Fetch, FetchError, Floor, Store, StoreError, TufError, Updater, escape,
};
use lockgate_agent::tuf_store::FileStore;
use lockgate_shared::failure::Chain;
use lockgate_shared::time::Moment;

/// Longest line of a response's head, and most lines of it: what common servers allow.
const HEAD_LIMIT: u64 = 64 * 1024;
/// Silence after which a read is given up; the suite's server answers at once.
const DEADLINE: Duration = Duration::from_secs(10);
/// Sub-folder for what is not a trusted role; the suite takes each `.json` above it for one.
const STATE: &str = "state";

#[derive(Parser)]
struct Arguments {
    /// Folder of trusted metadata
    #[arg(long)]
    metadata_dir: PathBuf,
    /// Base address of the repository's metadata
    #[arg(long)]
    metadata_url: Option<String>,
    /// Target to download; may be repeated
    #[arg(long)]
    target_name: Vec<String>,
    /// Base address of the repository's targets
    #[arg(long)]
    target_base_url: Option<String>,
    /// Folder for downloaded targets
    #[arg(long)]
    target_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Keep the trusted root
    Init {
        /// The trusted root
        root: PathBuf,
    },
    /// Bring the top-level metadata up to date
    Refresh,
    /// Bring the metadata up to date and download targets
    Download,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", Chain(&*error));
            if let Some(error) = error.downcast_ref::<TufError>() {
                eprintln!("hint: {}", error.hint());
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let folder = &arguments.metadata_dir;
    let state = folder.join(STATE);
    let (anchor, floor) = (state.join("anchor.json"), state.join("floor.json"));
    if let Command::Init { root } = &arguments.command {
        fs::create_dir_all(&state)?;
        let bytes = fs::read(root)?;
        fs::write(&anchor, &bytes)?;
        fs::write(folder.join("root.json"), &bytes)?;
        return Ok(());
    }
    let mut client = Client {
        store: Roles { roles: FileStore::open(folder)?, roots: FileStore::open(&state)? },
        fetch: Http {
            metadata: arguments.metadata_url.clone().ok_or("`--metadata-url` is missing")?,
            targets: arguments.target_base_url.clone(),
        },
        now: clock::now(),
    };
    let anchor = fs::read(&anchor)?;
    let known: Floor =
        fs::read(&floor).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
    let mut updater = Updater::open(&anchor, &mut client.store, known)?;

    let refreshed = updater.refresh(&mut client.fetch, &mut client.store, client.now);
    fs::write(&floor, serde_json::to_vec(updater.floor())?)?;
    client.show_root(updater.root_version())?;
    eprintln!("{:?}", refreshed?);

    if let Command::Download = arguments.command {
        let folder = arguments.target_dir.as_ref().ok_or("`--target-dir` is missing")?;
        for path in &arguments.target_name {
            client.download(&mut updater, path, folder)?;
        }
    }
    Ok(())
}

struct Client {
    store: Roles,
    fetch: Http,
    now: Moment,
}

impl Client {
    /// Shows the newest root under the name that the suite looks for.
    fn show_root(&mut self, version: u64) -> Result<(), StoreError> {
        match self.store.load(&format!("{version}.root.json"))? {
            Some(bytes) => self.store.roles.save("root.json", &bytes),
            None => Ok(()),
        }
    }

    fn download(
        &mut self,
        updater: &mut Updater,
        path: &str,
        folder: &Path,
    ) -> Result<(), Box<dyn Error>> {
        let found = updater.find_target(&mut self.fetch, &mut self.store, path, self.now)?;
        let target = found.ok_or_else(|| format!("no role lists `{path}`"))?;
        let file = folder.join(escape(path));
        if fs::read(&file).is_ok_and(|bytes| target.verify(&bytes).is_ok()) {
            return Ok(());
        }
        fs::write(file, updater.target_bytes(&mut self.fetch, &target)?)?;
        Ok(())
    }
}

/// The agent's store, with the chain of roots in a folder of its own.
struct Roles {
    roles: FileStore,
    roots: FileStore,
}

impl Roles {
    fn place(&mut self, name: &str) -> &mut FileStore {
        if name.ends_with(".root.json") { &mut self.roots } else { &mut self.roles }
    }
}

impl Store for Roles {
    fn load(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        if name.ends_with(".root.json") { self.roots.load(name) } else { self.roles.load(name) }
    }

    fn save(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.place(name).save(name, bytes)
    }

    fn remove(&mut self, name: &str) -> Result<(), StoreError> {
        self.place(name).remove(name)
    }
}

/// Plain HTTP/1.0, one connection a file.
struct Http {
    metadata: String,
    targets: Option<String>,
}

impl Fetch for Http {
    fn metadata(&mut self, name: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        get(&self.metadata, name, max)
    }

    fn target(&mut self, path: &str, max: u64) -> Result<Vec<u8>, FetchError> {
        match &self.targets {
            Some(base) => get(base, path, max),
            None => Err(FetchError::Failed("`--target-base-url` is missing".to_owned())),
        }
    }
}

fn get(base: &str, name: &str, max: u64) -> Result<Vec<u8>, FetchError> {
    let failed = |why: &str| FetchError::Failed(format!("{base}: {why}"));
    let rest = base.strip_prefix("http://").ok_or_else(|| failed("not an http address"))?;
    let (host, folder) = rest.split_once('/').unwrap_or((rest, ""));
    let separator = if folder.is_empty() || folder.ends_with('/') { "" } else { "/" };
    let io = |e: std::io::Error| failed(&e.to_string());

    let mut stream = TcpStream::connect(host).map_err(io)?;
    stream.set_read_timeout(Some(DEADLINE)).map_err(io)?;
    let request = format!("GET /{folder}{separator}{name} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(io)?;

    let mut head = BufReader::new(stream.take(HEAD_LIMIT));
    let mut line = String::new();
    head.read_line(&mut line).map_err(io)?;
    match line.split(' ').nth(1) {
        Some("200") => {}
        Some("404") => return Err(FetchError::NotFound),
        Some(_) | None => return Err(failed(&format!("status line `{}`", line.trim_end()))),
    }
    let mut length = None;
    loop {
        line.clear();
        if head.read_line(&mut line).map_err(io)? == 0 {
            return Err(failed("the response ends within its head"));
        }
        if line.trim_end().is_empty() {
            break;
        }
        if let Some((field, value)) = line.split_once(':')
            && field.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse::<u64>().ok();
        }
    }
    if length.is_some_and(|length| length > max) {
        return Err(FetchError::TooLong { limit: max });
    }
    head.get_mut().set_limit(max.saturating_add(1));
    let mut body = Vec::new();
    head.take(max.saturating_add(1)).read_to_end(&mut body).map_err(io)?;
    match length {
        _ if body.len() as u64 > max => Err(FetchError::TooLong { limit: max }),
        Some(length) if length != body.len() as u64 => Err(failed("the response is cut short")),
        Some(_) | None => Ok(body),
    }
}
