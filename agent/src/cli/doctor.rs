//! `doctor`: everything that the agent needs to work, one question at a time, each with what to do. It
//! changes nothing, and goes on after the first fault: an owner mends all of them in one go.

use std::{fmt::Write as _, fs, io, os::unix::fs::MetadataExt as _, path::Path};

use jiff::tz::TimeZone;
use lockgate_shared::{count::count, failure::Chain, limits::CLOCK_SKEW_S, time::Moment};
use serde::Serialize;
use serde_json::json;

use super::{
    CliError, Report, anchor,
    enroll::how_kept,
    transport,
    turns::{binary_name, installed},
};
use crate::{
    clock,
    config::{self, ProductSettings, Sealing, Settings, SlotsKind, TpmSettings},
    core::{
        age::{self, Tally},
        tuf::{Floor, Store, StoreError, Updater},
    },
    identity::{self, Enrolled, Identity, Kept},
    journal, lock,
    slots::{self, AgentBinary, Directory, Slot, SlotError, Slots},
    status::{SourceStatus, Status},
    tpm::{Counter as _, Tpm},
};

/// Less free space than this where the slots are is worth a warning: a small app's other slot.
const FREE_LEAST: u64 = 256 * 1024 * 1024;
/// A clock that is further off than this is worth a warning: metadata expires within hours.
const CLOCK_OFF_S: u64 = 300;
/// The longest answer to a question about health.
const HEALTH_BYTES: u64 = 16 * 1024;

/// The next line of an answer, below its first.
const BELOW: &str = "\n                        ";

/// Where a refused letter carries no hint of its own.
const READ_STATUS: &str = "`lockgate-agent status` says since when";

/// How a question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Finding {
    Good,
    Warning,
    Fault,
}

/// One question and its answer.
#[derive(Clone, Debug, Serialize)]
struct Check {
    name: String,
    finding: Finding,
    detail: String,
    hint: Option<String>,
}

/// Asks every question.
pub(super) fn doctor(config: &Path) -> Report {
    let mut checks = Vec::new();
    match config::load(config) {
        Ok(settings) => {
            checks.push(good("configuration", format!("{} is right", config.display())));
            examine(&settings, &mut checks);
        }
        Err(error) => checks.push(fault("configuration", &error)),
    }
    checks.push(time_zones());
    let unwell = checks.iter().any(|check| check.finding == Finding::Fault);
    let mut text = String::new();
    for check in &checks {
        let mark = match check.finding {
            Finding::Good => "good",
            Finding::Warning => "warning",
            Finding::Fault => "FAULT",
        };
        // Writing to a string cannot fail.
        let detail = check.detail.replace('\n', BELOW);
        let _ = writeln!(text, "{mark:<8} {:<14} {detail}", check.name);
        if let Some(hint) = &check.hint {
            let _ = writeln!(text, "{:23} hint: {}", "", hint.replace('\n', BELOW));
        }
    }
    let mut report = Report::of(text, json!({ "ok": !unwell, "checks": checks }));
    report.fault = unwell.then_some(CliError::Unwell);
    report
}

fn examine(settings: &Settings, checks: &mut Vec<Check>) {
    checks.push(state_folder(&settings.state));
    checks.push(daemon(&settings.state));
    identity_of(settings, checks);
    checks.push(trusted_root(&settings.anchor));
    server(settings, checks);
    checks.extend(mirrors(settings));
    checks.extend(letters(&settings.state));
    for product in settings.products.values() {
        checks.push(space(product));
        checks.push(slots_of(product));
    }
}

fn state_folder(state: &Path) -> Check {
    const NAME: &str = "state";
    let meta = match fs::metadata(state) {
        Ok(meta) => meta,
        Err(error) => {
            let what = format!("cannot look at `{}`: {error}", state.display());
            return bad(NAME, what, "`lockgate-agent enroll` makes it".to_owned());
        }
    };
    if !meta.is_dir() {
        let what = format!("`{}` is not a folder", state.display());
        return bad(NAME, what, "name a folder in the `state` key".to_owned());
    }
    if meta.mode() & 0o022 != 0 {
        let what = format!("others may write to `{}`", state.display());
        return bad(NAME, what, format!("chmod 700 {}", state.display()));
    }
    if let Err(errno) = rustix::fs::access(state, rustix::fs::Access::WRITE_OK) {
        let what = format!("cannot write to `{}`: {errno}", state.display());
        return bad(NAME, what, "run this command as the user that the agent runs as".to_owned());
    }
    good(NAME, format!("{} can be written to", state.display()))
}

fn daemon(state: &Path) -> Check {
    match lock::holder(state) {
        Ok(Some(pid)) => good("agent", format!("is running as process {pid}")),
        Ok(None) => warning(
            "agent",
            "is not running".to_owned(),
            "systemctl enable --now lockgate-agent".to_owned(),
        ),
        Err(error) => fault("agent", &error),
    }
}

fn identity_of(settings: &Settings, checks: &mut Vec<Check>) {
    let state = &settings.state;
    let identity = match identity::key(state, &settings.tpm) {
        Ok(identity) => identity,
        Err(error) => return checks.push(fault("key", &error)),
    };
    checks.push(kept(&identity, &settings.tpm));
    checks.push(match Enrolled::read(state, &identity.key) {
        Ok(enrolled) => {
            good("enrolment", format!("tenant `{}` since {}", enrolled.tenant, enrolled.enrolled))
        }
        Err(error) => fault("enrolment", &error),
    });
    checks.extend(age_of(&identity, settings));
}

/// Whether the key is kept as well as it could be.
fn kept(identity: &Identity, tpm: &TpmSettings) -> Check {
    const NAME: &str = "key";
    let how = format!("is {}", how_kept(identity.kept, tpm, &[]));
    let anew = "stop the agent, remove `enrolment.json` and `device.key` from its state folder, and enrol anew; it then is another device";
    match (identity.kept, tpm.sealing) {
        (Kept::Sealed(Some(_)), _) | (Kept::Plain, Sealing::Off) => good(NAME, how),
        (Kept::Sealed(None), _) => {
            let what = format!("{how}, and nothing counts how old its state is");
            warning(NAME, what, format!("to have a counter, {anew}"))
        }
        (Kept::Plain, Sealing::Require) => {
            bad(NAME, format!("{how}, and `tpm = \"require\"` asks for more"), anew.to_owned())
        }
        (Kept::Plain, Sealing::Auto) if Tpm::open(&tpm.device).is_ok() => {
            let what = format!("{how}, though the TPM at `{}` could seal it", tpm.device.display());
            warning(NAME, what, anew.to_owned())
        }
        (Kept::Plain, Sealing::Auto) => good(NAME, how),
    }
}

/// Whether the TPM's counter knows the state for the newest.
fn age_of(identity: &Identity, settings: &Settings) -> Option<Check> {
    const NAME: &str = "state's age";
    let (mut counter, start) = identity.counter(&settings.state, &settings.tpm)?;
    let device = identity::device(&identity.key);
    let mut problem = None;
    // Twice, because a running agent may take a step between the two looks.
    for _ in 0..2 {
        let tally = journal::tally(&settings.state).filter(|tally| tally.device == device);
        let stands = match counter.value() {
            Ok(stands) => stands,
            Err(error) => return Some(fault(NAME, &error)),
        };
        let tally = tally.unwrap_or_else(|| Tally::begun(device, start.value));
        problem = age::judge(tally, stands).problem();
        if problem.is_none() {
            let steps = stands.saturating_sub(start.value);
            let text = format!("is the newest, after {}", count(steps, "step", "steps"));
            return Some(good(NAME, text));
        }
    }
    problem.map(|problem| fault_of(NAME, &problem))
}

fn trusted_root(path: &Path) -> Check {
    let bytes = match anchor(path) {
        Ok(bytes) => bytes,
        Err(error) => return fault("root", &error),
    };
    match Updater::open(&bytes, &mut Nothing, Floor::default()) {
        Ok(updater) => good("root", format!("version {} is sound", updater.root_version())),
        Err(error) => fault("root", &error),
    }
}

fn server(settings: &Settings, checks: &mut Vec<Check>) {
    let answer =
        transport(settings).and_then(|mut transport| transport.ask("/v1/health", HEALTH_BYTES));
    match answer {
        Ok(answer) => {
            checks.push(good("server", format!("{} answers over TLS 1.3", settings.server)));
            checks.push(clock_against(clock::now(), answer.date));
        }
        Err(error) => checks.push(fault("server", &error)),
    }
}

/// Whether each mirror did its work of late, where there are any.
fn mirrors(settings: &Settings) -> Vec<Check> {
    const NAME: &str = "mirrors";
    let behind = Status::read(&settings.state).map(|status| status.behind).unwrap_or_default();
    if settings.mirrors.is_empty() {
        return Vec::new();
    }
    if behind.is_empty() {
        return vec![good(NAME, "nothing is held against any".to_owned())];
    }
    let warn = |one: SourceStatus| {
        let what = format!("{} is asked last until {}: {}", one.source, one.until, one.why);
        warning(NAME, what, "tell whoever runs it, or take it out of `mirrors`".to_owned())
    };
    behind.into_iter().map(warn).collect()
}

/// Whether the server took the agent's last letter: one that answers may still refuse this device.
fn letters(state: &Path) -> Option<Check> {
    const NAME: &str = "letters";
    let contact = Status::read(state).ok()?.contact;
    Some(match (contact.problem, contact.last) {
        (Some(problem), _) => {
            let (what, hint) = problem.split_once("hint: ").unwrap_or((&problem, READ_STATUS));
            let what = what.trim_end_matches([' ', ';', '\n']);
            bad(NAME, format!("the last one was not taken: {what}"), hint.to_owned())
        }
        (None, Some(last)) => good(NAME, format!("the last one was taken at {last}")),
        (None, None) => good(NAME, "none was due yet".to_owned()),
    })
}

fn clock_against(own: Moment, server: Option<Moment>) -> Check {
    const NAME: &str = "clock";
    let hint = "timedatectl set-ntp true".to_owned();
    let Some(server) = server else {
        return warning(NAME, "the server names no time to compare with".to_owned(), hint);
    };
    let (off, side) =
        if own > server { (own.since(server), "ahead of") } else { (server.since(own), "behind") };
    let what = format!("{off} {side} the server's");
    if off.0 > CLOCK_SKEW_S {
        bad(NAME, what, hint)
    } else if off.0 > CLOCK_OFF_S {
        warning(NAME, what, hint)
    } else {
        good(NAME, what)
    }
}

fn space(product: &ProductSettings) -> Check {
    let name = format!("space {}", product.name);
    let Some(existing) = product.root.ancestors().find(|folder| folder.is_dir()) else {
        let what = format!("`{}` and all above it is missing", product.root.display());
        return bad(&name, what, format!("install -d {}", product.root.display()));
    };
    match slots::room(existing) {
        Ok(room) if room < FREE_LEAST => {
            let what = format!("{} MiB are free for `{}`", room >> 20, product.root.display());
            warning(&name, what, "df -h; an update needs room for the other slot".to_owned())
        }
        Ok(room) => good(&name, format!("{} MiB are free", room >> 20)),
        Err(error) => fault(&name, &error),
    }
}

fn slots_of(product: &ProductSettings) -> Check {
    let name = format!("slots {}", product.name);
    if !product.root.is_dir() {
        let what = format!("`{}` is not there yet", product.root.display());
        let hint = "the first install makes it; its parent must belong to the agent".to_owned();
        return warning(&name, what, hint);
    }
    match look(product) {
        Ok((None, _)) => good(&name, "nothing is installed yet".to_owned()),
        Ok((Some(slot), Some(version))) => good(&name, format!("{version} runs in slot {slot}")),
        Ok((Some(slot), None)) => bad(
            &name,
            format!("slot {slot} is active and holds no complete release"),
            format!("lockgate-agent rollback {}", product.name),
        ),
        Err(error) => fault(&name, &error),
    }
}

fn look(product: &ProductSettings) -> Result<(Option<Slot>, Option<String>), SlotError> {
    let slots: Box<dyn Slots> = match product.slots {
        SlotsKind::Directory => Box::new(Directory::open(&product.root)?),
        SlotsKind::Agent => {
            let installed = installed(product)?;
            Box::new(AgentBinary::open(&product.root, &installed, binary_name(&installed))?)
        }
    };
    let Some(active) = slots.active()? else { return Ok((None, None)) };
    let version = slots.contents(active)?.map(|contents| contents.version.to_string());
    Ok((Some(active), version))
}

fn time_zones() -> Check {
    match TimeZone::get("Europe/Berlin") {
        Ok(_) => good("time zones", "are known".to_owned()),
        Err(_) => warning(
            "time zones",
            "are not known: maintenance windows cannot be evaluated, and keep closed".to_owned(),
            "install the package `tzdata`".to_owned(),
        ),
    }
}

/// Keeps nothing: to look at a root alone.
struct Nothing;

impl Store for Nothing {
    fn load(&self, _: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(None)
    }

    fn save(&mut self, name: &str, _: &[u8]) -> Result<(), StoreError> {
        let source = io::Error::from(io::ErrorKind::Unsupported);
        Err(StoreError::Io { act: "write", name: name.to_owned(), source })
    }

    fn remove(&mut self, _: &str) -> Result<(), StoreError> {
        Ok(())
    }
}

fn good(name: &str, detail: String) -> Check {
    Check { name: name.to_owned(), finding: Finding::Good, detail, hint: None }
}

fn warning(name: &str, detail: String, hint: String) -> Check {
    Check { name: name.to_owned(), finding: Finding::Warning, detail, hint: Some(hint) }
}

fn bad(name: &str, detail: String, hint: String) -> Check {
    Check { name: name.to_owned(), finding: Finding::Fault, detail, hint: Some(hint) }
}

fn fault(name: &str, error: &dyn std::error::Error) -> Check {
    fault_of(name, &Chain(error).to_string())
}

fn fault_of(name: &str, text: &str) -> Check {
    let (what, hint) = match text.split_once("\nhint: ") {
        Some((what, hint)) => (what, Some(hint.to_owned())),
        None => (text, None),
    };
    Check { name: name.to_owned(), finding: Finding::Fault, detail: what.to_owned(), hint }
}
