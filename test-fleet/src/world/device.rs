//! One device of a real-process fleet: a folder, a configuration, and the agent as a process.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use lockgate_agent::status::{ProductStatus, Status, Verdict};
use lockgate_shared::wire::SlotState;

use super::{Error, app};
use crate::process::{Process, Programs, until};

/// How long an agent may take to take its lock.
const START: Duration = Duration::from_secs(10);

/// What a device is.
#[derive(Clone, Debug)]
pub struct DevicePlan {
    /// Its name in this fleet.
    pub name: String,
    /// Its tenant.
    pub tenant: String,
    /// The hardware profile.
    pub profile: Profile,
}

/// A hardware profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Who made it.
    pub vendor: &'static str,
    /// Its model.
    pub model: &'static str,
    /// Its firmware.
    pub firmware: &'static str,
}

/// A device.
#[derive(Debug)]
pub struct Device {
    /// What it is.
    pub plan: DevicePlan,
    folder: PathBuf,
    programs: Programs,
    process: Option<Process>,
}

/// Where a device finds its server.
#[derive(Clone, Debug)]
pub struct Server {
    /// `https://` and so on.
    pub url: String,
    /// The authority that vouches for it.
    pub ca: PathBuf,
    /// The trust anchor.
    pub anchor: PathBuf,
}

impl Device {
    /// Lays out a device's folder.
    pub fn lay_out(
        folder: &Path,
        plan: DevicePlan,
        server: &Server,
        products: &[&str],
        programs: &Programs,
    ) -> Result<Self, Error> {
        fs::create_dir_all(folder.join("state"))?;
        // The first poll after a start comes within a fifth of the interval: two seconds. The TPM of the
        // machine that tests run on is nobody's here.
        let mut text = format!(
            "poll_s = 10\ntpm = \"off\"\nserver = \"{}\"\nstate = \"{}\"\nanchor = \"{}\"\nca = \"{}\"\n\n[facts]\nvendor = \"{}\"\nmodel = \"{}\"\nfirmware_version = \"{}\"\nos_id = \"debian\"\nos_version = \"12\"\ntime_zone = \"UTC\"\n",
            server.url,
            folder.join("state").display(),
            server.anchor.display(),
            server.ca.display(),
            plan.profile.vendor,
            plan.profile.model,
            plan.profile.firmware,
        );
        for product in products {
            let root = folder.join(product);
            fs::create_dir_all(&root)?;
            fs::write(root.join("model"), plan.profile.model)?;
            let restart = folder.join(format!("restart-{product}"));
            app::write_restart(&restart)?;
            text.push_str(&format!(
                "\n[[product]]\nname = \"{product}\"\nslots = \"directory\"\nroot = \"{root}\"\nrestart = [\"{restart}\", \"{root}\"]\nrestart_timeout_s = 20\n",
                root = root.display(),
                restart = restart.display(),
            ));
        }
        fs::write(folder.join("agent.toml"), text)?;
        Ok(Self { plan, folder: folder.to_owned(), programs: programs.clone(), process: None })
    }

    /// Runs one of the agent's commands to its end and returns what it said.
    pub fn command(&self, arguments: &[&str]) -> Result<String, Error> {
        let config = self.config();
        let mut all = vec!["--config", config.as_str()];
        all.extend(arguments);
        super::run(&self.programs.agent, &all, &[])
    }

    /// Enrols with a token.
    pub fn enroll(&self, token: &str) -> Result<(), Error> {
        let file = self.folder.join("token");
        fs::write(&file, token)?;
        self.command(&["enroll", "--token-file", &file.display().to_string()]).map(|_| ())
    }

    /// Starts the agent.
    pub fn start(&mut self) -> Result<(), Error> {
        self.start_with(&[])
    }

    /// Starts the agent with further environment.
    pub fn start_with(&mut self, environment: &[(&str, &str)]) -> Result<(), Error> {
        let agent = self.programs.agent.clone();
        self.start_program(&agent, &[], environment)
    }

    /// Starts another build of the agent, or a program that runs the one it is given: what stands in
    /// `before` comes before the agent's own arguments.
    pub fn start_program(
        &mut self,
        program: &Path,
        before: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<(), Error> {
        let config = self.config();
        let mut arguments = before.to_vec();
        arguments.extend(["--config", config.as_str(), "run"]);
        let process =
            Process::start(&self.plan.name, program, &arguments, environment, &self.log())?;
        self.process = Some(process);
        Ok(())
    }

    /// SIGTERM for the agent.
    pub fn stop(&mut self) {
        if let Some(process) = &mut self.process {
            process.stop();
        }
        self.process = None;
    }

    /// Writes a drop-in beside the configuration; the agent reads it when it starts.
    pub fn drop_in(&self, name: &str, text: &str) -> Result<(), Error> {
        let folder = self.folder.join("agent.d");
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join(name), text)?)
    }

    /// Takes a drop-in away.
    pub fn drop_in_gone(&self, name: &str) -> Result<(), Error> {
        Ok(fs::remove_file(self.folder.join("agent.d").join(name))?)
    }

    /// Has the running agent poll at once instead of at its own place within the jitter.
    pub fn poke(&self) -> Result<(), Error> {
        // Before the agent has its lock, `check` would take it and run a turn of its own.
        until("the agent's start", START, || self.said().contains("is running"))?;
        self.command(&["check"]).map(|_| ())
    }

    /// The running agent.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// SIGKILL for the agent.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// What the agent last wrote of itself.
    pub fn status(&self) -> Option<Status> {
        Status::read(&self.folder.join("state")).ok()
    }

    /// What the agent last wrote of one product.
    pub fn product(&self, product: &str) -> Option<ProductStatus> {
        self.status()?.products.into_iter().find(|status| status.product.as_str() == product)
    }

    /// The version that is really in the active slot, read from the disk.
    pub fn version_on_disk(&self, product: &str) -> Option<String> {
        let path = self.folder.join(product).join("current/etc/version");
        fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
    }

    /// Whether a product is at rest on a version: on the disk, in the agent's words, on trial no
    /// more, its service alive, and every outcome known to the server.
    pub fn rests_on(&self, product: &str, version: &str) -> bool {
        let Some(status) = self.status() else { return false };
        let told = status.contact.outcomes_waiting == 0 && status.contact.problem.is_none();
        let rests = status.products.iter().any(|one| {
            one.product.as_str() == product
                && one.trial.is_none()
                && one.running.as_ref().is_some_and(|running| running.to_string() == version)
                && matches!(
                    one.state,
                    SlotState::Idle | SlotState::Waiting | SlotState::Confirmed | SlotState::Failed
                )
        });
        let on_disk = self.version_on_disk(product).as_deref() == Some(version);
        told && rests && on_disk && self.service_alive(product)
    }

    /// Whether the service of a product is alive.
    pub fn service_alive(&self, product: &str) -> bool {
        fs::read_to_string(self.folder.join(product).join("app.pid"))
            .ok()
            .and_then(|pid| fs::read_to_string(format!("/proc/{}/stat", pid.trim())).ok())
            .is_some_and(|stat| !stat.contains(") Z"))
    }

    /// Every reason that the device names against a version, in words; empty without that candidate.
    pub fn reasons(&self, product: &str, version: &str) -> Vec<String> {
        self.candidate(product, version).unwrap_or_default()
    }

    /// Why the device refuses something of a product as contradicting what people signed.
    pub fn refusals(&self, product: &str) -> String {
        let Some(status) = self.product(product) else { return String::new() };
        let refused = status.candidates.into_iter().filter(|one| one.verdict == Verdict::Refused);
        let reasons = refused.flat_map(|one| one.reasons).map(|reason| reason.text);
        reasons.collect::<Vec<_>>().join("; ")
    }

    fn candidate(&self, product: &str, version: &str) -> Option<Vec<String>> {
        let status = self.product(product)?;
        let candidate = status.candidates.into_iter().find(|candidate| {
            candidate.version.as_ref().is_some_and(|v| v.to_string() == version)
        })?;
        Some(candidate.reasons.into_iter().map(|reason| reason.text).collect())
    }

    /// Where what the agent said is kept.
    pub fn log(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    /// What the agent said, in all its runs.
    pub fn said(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The device's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn config(&self) -> String {
        self.folder.join("agent.toml").display().to_string()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.process = None;
        if let Ok(entries) = fs::read_dir(&self.folder) {
            for entry in entries.flatten() {
                app::stop(&entry.path());
            }
        }
    }
}
