//! A whole Lockgate on this machine, made the way a user makes one: by the shipped programs and their
//! documented commands. Key ceremony, certificates, the two server roles as two processes, devices as
//! processes of their own.

pub mod app;
mod device;
pub mod plan;
mod thief;

use std::{
    fmt::Display,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ed25519_dalek::SigningKey;
use lockgate_server::{
    keys::{self, PassphraseSource},
    status::{RolloutStatus, Status},
};
use thiserror::Error;

pub use device::{Device, DevicePlan, Profile, Server};
pub use thief::Loot;

use crate::process::{Process, ProcessError, Programs, until};
use app::Behaviour;
use plan::{ALIVE, Gate, Plan, Stage, Trial};

/// The passphrase of every key of a try-out.
const PASSPHRASE: &str = "correct horse battery staple";

/// How long a server may take to answer for the first time.
const START: Duration = Duration::from_secs(20);

/// The hardware profiles of a try-out fleet.
pub const PROFILES: [Profile; 3] = [
    Profile { vendor: "Acme", model: "Slate 3", firmware: "1.2" },
    Profile { vendor: "Acme", model: "Slate 4", firmware: "2.0" },
    Profile { vendor: "Borg", model: "Tower", firmware: "7.1" },
];

/// A whole Lockgate.
#[derive(Debug)]
pub struct World {
    folder: PathBuf,
    programs: Programs,
    port: u16,
    api: Option<Process>,
    gatekeeper: Option<Process>,
}

/// Why a world could not do something.
#[derive(Debug, Error)]
pub enum Error {
    /// A process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The disk.
    #[error("the disk")]
    Io(#[from] std::io::Error),
    /// A command failed.
    #[error("`{command}` ended with {status}:\n{said}")]
    Command {
        /// The command line.
        command: String,
        /// Its status.
        status: String,
        /// What it said.
        said: String,
    },
    /// A reply could not be read.
    #[error("the reply of `{command}` cannot be read")]
    Reply {
        /// The command line.
        command: String,
        /// The cause.
        source: serde_json::Error,
    },
}

impl World {
    /// Holds a key ceremony, makes certificates, writes the configuration. Nothing runs yet.
    pub fn create(folder: &Path, programs: &Programs) -> Result<Self, Error> {
        let port = free_port()?;
        let world = Self {
            folder: folder.to_owned(),
            programs: programs.clone(),
            port,
            api: None,
            gatekeeper: None,
        };
        fs::create_dir_all(folder)?;
        fs::write(world.path("passphrase"), PASSPHRASE)?;
        fs::write(world.path("repository.toml"), REPOSITORY)?;
        world.offline(&["repo", "init", "--plan", "repository.toml", "--out", "ceremony"])?;
        world.server_command(&[
            "tls-init",
            "--dir",
            "tls",
            "--name",
            "localhost",
            "--name",
            "127.0.0.1",
        ])?;
        let repository = world.path("repository");
        copy_tree(&world.path("ceremony/repository"), &repository)?;
        fs::write(world.path("server.toml"), server_toml(port))?;
        Ok(world)
    }

    /// Has devices poll at another pace than once a second; before the start.
    pub fn set_polls(&self, seconds: u32) -> Result<(), Error> {
        self.configure("\ninterval_s = 1\n", &format!("\ninterval_s = {seconds}\n"))
    }

    /// Makes another authority's certificates in a folder. Gives the file that vouches for them.
    pub fn authority(&self, folder: &str) -> Result<PathBuf, Error> {
        self.server_command(&["tls-init", "--dir", folder, "--name", "127.0.0.1"])?;
        Ok(self.path(folder).join("ca.pem"))
    }

    /// Starts the letter box and the gatekeeper, and gives the operator a token.
    pub fn start(&mut self) -> Result<(), Error> {
        self.make_tokens()?;
        self.start_gatekeeper()?;
        self.start_api()?;
        until("the gatekeeper's first report", START, || self.status().is_ok())?;
        Ok(())
    }

    /// Starts the letter box.
    pub fn start_api(&mut self) -> Result<(), Error> {
        self.launch_api()?;
        until("the server's first answer", START, || {
            self.lockgate("olga-laptop", &["whoami"]).is_ok()
        })?;
        Ok(())
    }

    /// Starts the letter box and does not wait for its first answer.
    pub fn launch_api(&mut self) -> Result<(), Error> {
        let log = self.path("api.log");
        self.api = Some(self.server_process("api", &log)?);
        Ok(())
    }

    /// A server in one of its roles, with this world's configuration; it belongs to the caller.
    pub fn server_process(&self, role: &str, log: &Path) -> Result<Process, Error> {
        let config = self.path("server.toml").display().to_string();
        let arguments = [role, "--config", config.as_str()];
        Ok(Process::start(role, &self.programs.server, &arguments, &[], log)?)
    }

    /// Writes another text for a part of the server's configuration, which must be there.
    pub fn configure(&self, old: &str, new: &str) -> Result<(), Error> {
        let path = self.path("server.toml");
        let text = fs::read_to_string(&path)?;
        if !text.contains(old) {
            let missing = format!("`server.toml` does not hold `{old}`");
            return Err(std::io::Error::other(missing).into());
        }
        Ok(fs::write(path, text.replace(old, new))?)
    }

    /// A key of the ceremony, such as `tenants/acme.key`.
    pub fn key(&self, name: &str) -> Result<SigningKey, Error> {
        let source = PassphraseSource::File(self.path("passphrase"));
        keys::read(&self.path("ceremony").join(name), &source)
            .map_err(|error| std::io::Error::other(error).into())
    }

    /// The text of an API token, by its name.
    pub fn token(&self, name: &str) -> Result<String, Error> {
        Ok(fs::read_to_string(self.path("tokens").join(name))?)
    }

    /// Starts the gatekeeper.
    pub fn start_gatekeeper(&mut self) -> Result<(), Error> {
        let log = self.path("gatekeeper.log");
        self.gatekeeper = Some(self.server_process("gatekeeper", &log)?);
        Ok(())
    }

    /// The numbers of the processes that run.
    pub fn ids(&self) -> Vec<u32> {
        self.api.iter().chain(&self.gatekeeper).map(Process::id).collect()
    }

    /// SIGKILL for the letter box.
    pub fn kill_api(&mut self) {
        self.api = None;
    }

    /// SIGKILL for the gatekeeper.
    pub fn kill_gatekeeper(&mut self) {
        self.gatekeeper = None;
    }

    /// Lays out a device and enrols it with a token.
    pub fn device(
        &self,
        plan: DevicePlan,
        products: &[&str],
        token: &str,
    ) -> Result<Device, Error> {
        let server = Server {
            url: self.url(),
            ca: self.path("tls/ca.pem"),
            anchor: self.path("ceremony/root.json"),
        };
        let folder = self.path("devices").join(&plan.name);
        let device = Device::lay_out(&folder, plan, &server, products, &self.programs)?;
        device.enroll(token)?;
        Ok(device)
    }

    /// A fresh enrolment token of a tenant for some devices, signed by its enrolment key.
    pub fn enrolment_token(&self, tenant: &str, uses: &str) -> Result<String, Error> {
        let key = format!("ceremony/tenants/{tenant}.key");
        let said = self.offline(&[
            "token",
            "enrol",
            "--tenant",
            tenant,
            "--uses",
            uses,
            "--expires",
            "1h",
            "--key",
            &key,
            "--policy",
            &self.policy()?,
        ])?;
        Ok(said.trim().to_owned())
    }

    /// Makes, signs and publishes a release of a product.
    pub fn release(
        &self,
        product: &str,
        version: &str,
        behaviour: &Behaviour,
        plan: impl Display,
    ) -> Result<PathBuf, Error> {
        let out = self.sign_release(product, version, behaviour, plan)?;
        self.lockgate("ci", &["release", "publish", "--dir", &out.display().to_string()])?;
        Ok(out)
    }

    /// Makes a release and has both authors sign it; nobody publishes it yet.
    pub fn sign_release(
        &self,
        product: &str,
        version: &str,
        behaviour: &Behaviour,
        plan: impl Display,
    ) -> Result<PathBuf, Error> {
        let folder = self.path("releases").join(format!("{product}-{version}"));
        app::write_version(&folder.join("files"), version, behaviour)?;
        fs::write(folder.join("release.toml"), plan.to_string())?;
        let text = |path: &str| folder.join(path).display().to_string();
        let out = text("out");
        self.offline(&[
            "release",
            "create",
            "--product",
            product,
            "--version",
            version,
            "--files",
            &text("files"),
            "--release",
            &text("release.toml"),
            "--out",
            &out,
        ])?;
        for author in ["ada", "alan"] {
            let key = format!("ceremony/people/{author}.key");
            self.offline(&[
                "release",
                "sign",
                &out,
                "--repository",
                "repository",
                "--key",
                &key,
                "--yes",
            ])?;
        }
        Ok(folder.join("out"))
    }

    /// Makes, signs and publishes a release of `app` that is one large file beside the service.
    pub fn large_release(&self, version: &str, bytes: usize) -> Result<PathBuf, Error> {
        let files = self.path("releases").join(format!("app-{version}/files"));
        fs::create_dir_all(&files)?;
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut content = Vec::with_capacity(bytes);
        while content.len() < bytes {
            // Half noise, half zeros, by the page: compresses about as an image does. Mixed more finely
            // it takes the packer minutes.
            for _ in 0..4096 / 8 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                content.extend_from_slice(&state.to_le_bytes());
            }
            content.resize(content.len() + 4096, 0);
        }
        fs::write(files.join("image"), content)?;
        self.release("app", version, &Behaviour::Well, BENCH_PLAN)
    }

    /// Starts a rollout, signed by two approvers.
    pub fn start_rollout(
        &self,
        product: &str,
        version: &str,
        release: &Path,
        cohorts: &[(&str, u32)],
    ) -> Result<(), Error> {
        let act = self.write_start(product, version, release, cohorts)?;
        // The gatekeeper may have published it a moment ago and not have written it out.
        let manifest = release.join("manifest.json").display().to_string();
        self.sign_what(&act, &["ben", "eva"], &["--manifest", &manifest])?;
        self.submit(&act)
    }

    /// Writes the start of a rollout, signed by nobody yet.
    pub fn write_start(
        &self,
        product: &str,
        version: &str,
        release: &Path,
        cohorts: &[(&str, u32)],
    ) -> Result<String, Error> {
        let manifest = release.join("manifest.json").display().to_string();
        let sizes: Vec<String> =
            cohorts.iter().map(|(cohort, devices)| format!("{cohort}={devices}")).collect();
        let act = format!("start-{product}-{version}.json");
        let policy = self.policy()?;
        let mut arguments = vec![
            "rollout",
            "start",
            "--product",
            product,
            "--version",
            version,
            "--channel",
            "stable",
            "--manifest",
            &manifest,
            "--owner",
            "eva",
            "--risk",
            "routine",
            "--policy",
            &policy,
            "--plan",
            "repository.toml",
            "--out",
            &act,
        ];
        for size in &sizes {
            arguments.extend(["--cohort", size]);
        }
        self.offline(&arguments)?;
        Ok(act)
    }

    /// Has people sign an act.
    pub fn sign(&self, act: &str, people: &[&str]) -> Result<(), Error> {
        self.sign_what(act, people, &[])
    }

    /// The same, with what they look at besides the repository.
    fn sign_what(&self, act: &str, people: &[&str], what: &[&str]) -> Result<(), Error> {
        for person in people {
            let key = format!("ceremony/people/{person}.key");
            let line = ["act", "sign", act, "--key", &key, "--repository", "repository", "--yes"];
            self.offline(&[&line[..], what].concat())?;
        }
        Ok(())
    }

    /// Has people sign an act and submits it, waiting for the gatekeeper's verdict.
    pub fn sign_and_submit(&self, act: &str, people: &[&str]) -> Result<(), Error> {
        self.sign(act, people)?;
        self.submit(act)
    }

    fn submit(&self, act: &str) -> Result<(), Error> {
        self.lockgate("olga-laptop", &["act", "submit", act, "--wait"]).map(|_| ())
    }

    /// Grants a device an earlier cohort.
    pub fn grant(&self, device: &Device, product: &str, cohort: &str) -> Result<(), Error> {
        let id = self.device_id(device)?;
        let act = format!("grant-{}-{product}.json", device.plan.name);
        self.offline(&[
            "cohort",
            "grant",
            &id,
            "--product",
            product,
            "--channel",
            "stable",
            "--cohort",
            cohort,
            "--tenant",
            &device.plan.tenant,
            "--expires",
            "30d",
            "--reason",
            "test bench",
            "--policy",
            &self.policy()?,
            "--out",
            &act,
        ])?;
        self.sign_and_submit(&act, &["ben"])
    }

    /// A device's id, from its enrolment.
    pub fn device_id(&self, device: &Device) -> Result<String, Error> {
        let text = fs::read_to_string(device.folder().join("state/enrolment.json"))?;
        let value: serde_json::Value = serde_json::from_str(&text)
            .map_err(|source| Error::Reply { command: "enroll".into(), source })?;
        Ok(value["device"].as_str().unwrap_or_default().to_owned())
    }

    /// Runs the operator's tool with a token.
    pub fn lockgate(&self, token: &str, arguments: &[&str]) -> Result<String, Error> {
        let url = self.url();
        let ca = self.path("tls/ca.pem").display().to_string();
        let token = self.path(&format!("tokens/{token}")).display().to_string();
        let mut all = vec!["--server", &url, "--ca", &ca, "--token-file", &token];
        all.extend(arguments);
        self.tool(&all)
    }

    /// Runs a command of the operator's tool that needs no server.
    pub fn offline(&self, arguments: &[&str]) -> Result<String, Error> {
        self.tool(arguments)
    }

    fn tool(&self, arguments: &[&str]) -> Result<String, Error> {
        let passphrase = [("LOCKGATE_PASSPHRASE", PASSPHRASE)];
        run_in(&self.folder, &self.programs.lockgate, arguments, &passphrase)
    }

    fn server_command(&self, arguments: &[&str]) -> Result<String, Error> {
        run_in(&self.folder, &self.programs.server, arguments, &[])
    }

    /// Makes the API tokens of an operator, a publisher and an administrator; no server may run.
    pub fn make_tokens(&self) -> Result<(), Error> {
        for (name, role) in [("olga-laptop", "operator"), ("ci", "publisher")] {
            self.make_token(name, role, None)?;
        }
        self.make_token("acme-admin", "administrator", Some("acme"))
    }

    fn make_token(&self, name: &str, role: &str, tenant: Option<&str>) -> Result<(), Error> {
        let mut arguments =
            vec!["token", "create", "--config", "server.toml", "--name", name, "--role", role];
        if let Some(tenant) = tenant {
            arguments.extend(["--tenant", tenant]);
        }
        let said = self.server_command(&arguments)?;
        let token =
            said.split_whitespace().find(|word| word.starts_with("lgtok1_")).unwrap_or_default();
        fs::create_dir_all(self.path("tokens"))?;
        Ok(fs::write(self.path("tokens").join(name), token)?)
    }

    /// What the gatekeeper last reported.
    pub fn status(&self) -> Result<Status, Error> {
        let text = self.lockgate("olga-laptop", &["status", "--json"])?;
        serde_json::from_str(&text)
            .map_err(|source| Error::Reply { command: "status --json".into(), source })
    }

    /// One rollout's state.
    pub fn rollout(&self, product: &str, version: &str) -> Option<RolloutStatus> {
        self.status().ok()?.rollouts.into_iter().find(|rollout| {
            rollout.product.as_str() == product && rollout.version.to_string() == version
        })
    }

    /// The policy's file in the repository.
    pub fn policy(&self) -> Result<String, Error> {
        let folder = self.path("ceremony/repository/targets");
        let entry = fs::read_dir(&folder)?
            .flatten()
            .find(|entry| entry.file_name().to_string_lossy().ends_with(".policy.json"));
        Ok(entry.map(|entry| entry.path().display().to_string()).unwrap_or_default())
    }

    /// The server's port on this machine.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The server's address.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// A path in the world's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What the server's processes have said.
    pub fn said(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.path(name)).unwrap_or_default();
        format!("== api\n{}\n== gatekeeper\n{}", read("api.log"), read("gatekeeper.log"))
    }
}

/// Runs a program to its end and returns its standard output.
pub(crate) fn run(
    program: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Result<String, Error> {
    run_in(Path::new("."), program, arguments, environment)
}

fn run_in(
    folder: &Path,
    program: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Result<String, Error> {
    let output = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(folder)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    let name = program.file_name().map(|name| name.to_string_lossy().into_owned());
    Err(Error::Command {
        command: format!("{} {}", name.unwrap_or_default(), arguments.join(" ")),
        status: output.status.to_string(),
        said: format!("{said}{}", String::from_utf8_lossy(&output.stderr)),
    })
}

fn free_port() -> Result<u16, Error> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Every stage without a floor or a bake.
pub const BENCH_PLAN: Plan<'static> = Plan {
    kind: "app",
    trial: Trial { soak_s: 2, deadline_s: 20, attempts: 3, probes: &[ALIVE] },
    stages: &[
        Stage::at_once("dogfood", Gate::CAREFUL),
        Stage::at_once("early", Gate::CAREFUL),
        Stage::at_once("general", Gate::CAREFUL),
    ],
};

const REPOSITORY: &str = r#"repository = "trial"

[root]
keys = 3
threshold = 2
expires_days = 365

[targets]
keys = 2
threshold = 2
expires_days = 365

[release]
threshold = 2
expires_days = 90

[approvals]
start_routine = 2
start_security = 1
start_emergency = 1
stage = 1
lift = 1
grant = 1
waiver = 1

[people.ada]
roles = ["author"]
tokens = ["ci"]
[people.alan]
roles = ["author"]
[people.ben]
roles = ["approver"]
[people.eva]
roles = ["approver"]
[people.olga]
roles = ["operator"]
tokens = ["olga-laptop"]
[people.max]
roles = ["administrator"]
tokens = ["acme-admin"]

[products.app]
channels = ["stable"]
cohorts = ["dogfood", "early", "general"]
[products.tools]
channels = ["stable"]
cohorts = ["everyone"]
[products.agent]
channels = ["stable"]
cohorts = ["everyone"]

[tenants.acme]
[tenants.globex]
"#;

fn server_toml(port: u16) -> String {
    format!(
        r#"[api]
listen = "127.0.0.1:{port}"
state = "api"
repository = "repository"
socket = "gatekeeper.sock"
anchor = "ceremony/root.json"
sweep_s = 5
device_letters_per_minute = 100000
address_requests_per_minute = 1000000

[tls]
certificate = "tls/server.pem"
key = "tls/server.key"

[polls]
interval_s = 1
jitter_s = 0
backoff_max_s = 3

[gatekeeper]
state = "gatekeeper"
repository = "repository"
socket = "gatekeeper.sock"
keys = "ceremony/online"
anchor = "ceremony/root.json"
tick_s = 1
timestamp_interval_s = 5
"#
    )
}
