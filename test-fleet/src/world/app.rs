//! The product that real-process fleets update: a tiny service made of shell scripts, whose versions
//! can be made to misbehave.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

/// How a version of the service behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// It starts and stays.
    Well,
    /// It starts and stays, except on devices of one hardware model, where it dies after a moment.
    CrashesOn {
        /// The model.
        model: String,
    },
}

/// Writes the files of one version into `folder`: `bin/app` and `etc/version`.
pub fn write_version(folder: &Path, version: &str, behaviour: &Behaviour) -> io::Result<()> {
    fs::create_dir_all(folder.join("bin"))?;
    fs::create_dir_all(folder.join("etc"))?;
    fs::write(folder.join("etc/version"), format!("{version}\n"))?;
    let crash = match behaviour {
        Behaviour::Well => String::new(),
        Behaviour::CrashesOn { model } => {
            format!("if [ \"$(cat \"$1/model\")\" = '{model}' ]; then sleep 0.3; exit 1; fi\n")
        }
    };
    let app = folder.join("bin/app");
    fs::write(
        &app,
        format!(
            "#!/bin/sh\n# A service. $1 is the folder it works in.\necho $$ > \"$1/app.pid\"\n{crash}exec sleep 86400\n"
        ),
    )?;
    fs::set_permissions(&app, fs::Permissions::from_mode(0o755))
}

/// Writes the device's own restart script, which its configuration names: it ends the service that
/// runs and starts the one in the active slot.
pub fn write_restart(path: &Path) -> io::Result<()> {
    fs::write(
        path,
        "#!/bin/sh\n\
         # Ends the service that runs in $1 and starts the one in the active slot. One at a time: an\n\
         # agent that was killed leaves a script behind that may still run.\n\
         exec 9>\"$1/restart.lock\"; flock 9\n\
         if [ -f \"$1/app.pid\" ]; then kill \"$(cat \"$1/app.pid\")\" 2>/dev/null; rm -f \"$1/app.pid\"; fi\n\
         setsid \"$LOCKGATE_SLOT_DIR/bin/app\" \"$1\" </dev/null >/dev/null 2>&1 9>&- &\n\
         i=0; while [ ! -s \"$1/app.pid\" ] && [ $i -lt 50 ]; do sleep 0.1; i=$((i+1)); done\n",
    )?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Ends the service that runs in `folder`, if one does.
pub fn stop(folder: &Path) {
    let Ok(text) = fs::read_to_string(folder.join("app.pid")) else { return };
    if let Some(pid) = text.trim().parse().ok().and_then(rustix::process::Pid::from_raw) {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
