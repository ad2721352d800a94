//! Mounts that only one process and what it starts can see: for disks that are full or read-only. A
//! machine that allows none is told how to; nothing is tried without.

use std::process::Command;

/// What such a process is started and entered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnMounts {
    /// Arguments of `unshare`, before the program.
    pub unshare: &'static [&'static str],
    /// Arguments of `nsenter`, after `--target` and before the program.
    pub nsenter: &'static [&'static str],
}

/// Where users may have namespaces of their own.
const AS_ANYBODY: OwnMounts = OwnMounts {
    unshare: &["--user", "--map-root-user", "--mount"],
    nsenter: &["--user", "--mount", "--preserve-credentials"],
};
/// Where only root may.
const AS_ROOT: OwnMounts = OwnMounts { unshare: &["--mount"], nsenter: &["--mount"] };

impl OwnMounts {
    /// The way that this machine allows.
    pub fn find() -> Result<Self, String> {
        let mut said = String::new();
        for way in [AS_ANYBODY, AS_ROOT] {
            let tried = Command::new("unshare")
                .args(way.unshare)
                .args(["mount", "-t", "tmpfs", "none", "/mnt"])
                .output();
            match tried {
                Ok(output) if output.status.success() => return Ok(way),
                Ok(output) => said += &String::from_utf8_lossy(&output.stderr),
                Err(error) => said += &format!("cannot run `unshare`: {error}\n"),
            }
        }
        Err(format!(
            "this machine gives no process mounts of its own\n{said}hint: install `util-linux`, and `sysctl kernel.unprivileged_userns_clone=1` or run the tests as root"
        ))
    }
}
