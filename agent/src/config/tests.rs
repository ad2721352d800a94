//! Good configurations, and every mistake in a bad one named at once.

use std::{fs, path::Path};

use lockgate_shared::{eligibility::MeteredUse, pin::Pin, time::Seconds, window::Weekday};

use super::*;

const GOOD: &str = r#"server = "https://updates.example.org:8443"
state = "/var/lib/lockgate-agent"
anchor = "/etc/lockgate-agent/root.json"
ca = "/etc/lockgate-agent/ca.pem"

[[product]]
name = "app"
slots = "directory"
root = "/opt/app"
"#;

#[test]
fn the_sample_is_right_and_shows_every_key() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../installers/linux/agent.toml");
    let text = fs::read_to_string(sample).expect("the sample");
    let settings = read_files(&[("agent.toml", &text)]).expect("the sample is right");
    assert_eq!(settings.products.len(), 1);
    // With every commented key taken in, it is right too: samples must not rot behind a `#`.
    let whole: String = text
        .lines()
        .map(|line| line.strip_prefix("#: ").unwrap_or(line).to_owned() + "\n")
        .collect();
    let settings = read_files(&[("agent.toml", &whole)]).expect("the whole sample is right");
    assert_eq!(settings.windows.len(), 1);
    assert_eq!(settings.products.len(), 2);
    assert!(!settings.mirrors.is_empty());
    assert!(settings.facts.configuration.is_some());
    let Sealing::Require = settings.tpm.sealing else { panic!("the sample asks for more") };
    assert!(settings.tpm.counter.is_some());
}

#[test]
fn drop_ins_win_key_by_key_and_products_are_merged_by_name() {
    let ten = "poll_s = 600\n[preferences]\nmetered = \"allow\"\n[[product]]\nname = \"app\"\npin = \"n-1\"\n[[window]]\nzone = \"UTC\"\ndays = [\"mon\"]\nhour = 1\nlength_s = 60\n";
    let twenty = "poll_s = 900\n[preferences]\nmin_battery_percent = 50\n[[window]]\nzone = \"UTC\"\ndays = [\"tue\"]\nhour = 2\nminute = 30\nlength_s = 60\n";
    let settings = read_files(&[
        ("agent.toml", GOOD),
        ("agent.d/20-b.toml", twenty),
        ("agent.d/10-a.toml", ten),
        ("agent.d/.10-a.toml.swp", "not toml"),
        ("agent.d/10-a.toml.dpkg-old", "not toml"),
    ])
    .expect("right");
    assert_eq!(settings.poll, Seconds(900));
    assert_eq!(settings.preferences.metered, MeteredUse::Allow);
    assert_eq!(settings.preferences.min_battery_percent, 50);
    let product = settings.products.values().next().expect("a product");
    assert_eq!((product.pin.clone(), product.root.to_str()), (Pin::NMinus1, Some("/opt/app")));
    let days: Vec<_> = settings.windows.iter().flat_map(|window| window.days.clone()).collect();
    assert_eq!(days, [Weekday::Mon, Weekday::Tue]);
}

#[test]
fn mistakes_are_named_with_place_and_mend() {
    for (name, files, expected) in golden() {
        let mut files = files;
        if files.iter().all(|(file, _)| *file != "agent.toml") {
            files.push(("agent.toml", GOOD.to_owned()));
        }
        let borrowed: Vec<(&str, &str)> =
            files.iter().map(|(file, text)| (*file, text.as_str())).collect();
        let found = match read_files(&borrowed) {
            Ok(_) => "nothing".to_owned(),
            Err(text) => text,
        };
        assert_eq!(found, expected, "{name}");
    }
}

type Golden = (&'static str, Vec<(&'static str, String)>, &'static str);

fn golden() -> Vec<Golden> {
    let with = |line: &str| vec![("agent.toml", format!("{line}\n{GOOD}"))];
    let after = |lines: &str| vec![("agent.toml", format!("{GOOD}\n{lines}"))];
    let instead = |old: &str, new: &str| vec![("agent.toml", GOOD.replace(old, new))];
    vec![
        (
            "wrong type",
            with("poll_s = \"300\""),
            "agent.toml:1:10: expected a number of seconds, found a string; hint: write `poll_s = 300`",
        ),
        (
            "out of bounds",
            with("poll_s = 5"),
            "agent.toml:1:10: `poll_s` must be 10 to 604800, it only counts until the server has named its own interval, which may be shorter; hint: write `poll_s = 300`",
        ),
        (
            "unknown key",
            with("pol_s = 300"),
            "agent.toml:1:1: unknown key `pol_s`; hint: did you mean `poll_s`?",
        ),
        (
            "unknown key in a table",
            after("[preferences]\nmetred = \"allow\""),
            "agent.toml:12:1: unknown key `preferences.metred`; hint: did you mean `preferences.metered`?",
        ),
        (
            "missing key",
            instead("ca = \"/etc/lockgate-agent/ca.pem\"\n", ""),
            "agent.toml:1:1: `ca` is missing; hint: write `ca = \"/etc/lockgate-agent/ca.pem\"`",
        ),
        (
            "bad zone",
            after("[[window]]\nzone = \"Mars/Olympus\"\ndays = [\"mon\"]\nhour = 1\nlength_s = 60"),
            "agent.toml:12:8: `Mars/Olympus` is not a time zone known here; hint: use an IANA name such as `Europe/Berlin`; Debian's package `tzdata` has them",
        ),
        (
            "bad day",
            after("[[window]]\nzone = \"UTC\"\ndays = [\"monday\"]\nhour = 1\nlength_s = 60"),
            "agent.toml:13:9: `monday` is not a day; hint: use `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`",
        ),
        (
            "relative path",
            instead("\"/opt/app\"", "\"opt/app\""),
            "agent.toml:9:8: `opt/app` is not an absolute path without `..`; hint: write `root = \"/opt/app\"`",
        ),
        (
            "duplicate product",
            after("[[product]]\nname = \"app\"\nslots = \"directory\"\nroot = \"/opt/b\""),
            "agent.toml:12:8: product `app` stands twice in this file; hint: line 7 has it first; keep one of the two",
        ),
        (
            "bad drop-in order",
            vec![("agent.d/9-late.toml", "poll_s = 600".to_owned())],
            "agent.d/9-late.toml:1:1: the drop-in `9-late.toml` has no place in the order; hint: begin its name with two digits, such as `50-9-late.toml`",
        ),
        (
            "an address that is none",
            instead("https://updates", "http://updates"),
            "agent.toml:1:10: `http://updates.example.org:8443` is not an address of a server: it does not begin with `https://`; hint: write it like `https://updates.example.org:8443`",
        ),
        (
            "a shell's line for a command",
            instead("root = ", "restart = \"systemctl restart app\"\nroot = "),
            "agent.toml:9:11: expected a list, found a string; hint: write `restart = [\"systemctl\", \"restart\", \"app\"]`",
        ),
        (
            "a word that is none",
            with("tpm = \"yes\""),
            "agent.toml:1:7: `tpm` is `auto` or `require` or `off`, not `yes`; hint: write `tpm = \"auto\"`",
        ),
        (
            "a counter that is not the owner's",
            with("tpm_counter = 1"),
            "agent.toml:1:15: `tpm_counter` must be 25165824 to 29360127, the numbers that TPMs leave to their owners; hint: write `tpm_counter = 0x01820000`",
        ),
        (
            "several at once, in order, across files",
            vec![
                ("agent.toml", format!("poll_s = true\n{GOOD}\n[facts]\ncpus = 0\n")),
                ("agent.d/50-x.toml", "mirors = []\n".to_owned()),
            ],
            "agent.d/50-x.toml:1:1: unknown key `mirors`; hint: did you mean `mirrors`?\n\
             agent.toml:1:10: expected a number of seconds, found true or false; hint: write `poll_s = 300`\n\
             agent.toml:13:8: `cpus` must be 1 to 65535; hint: write `cpus = 4`",
        ),
        (
            "no product",
            vec![("agent.toml", GOOD.split("\n\n").next().unwrap_or_default().to_owned())],
            "agent.toml:1:1: no product is named; hint: write `[[product]]` and below it `name = \"app\"`, `slots = \"directory\"`, `root = \"/opt/app\"`",
        ),
    ]
}

#[test]
fn what_is_not_toml_is_named_with_its_place() {
    let text = read_files(&[("agent.toml", "server = \"x\nstate = 1\n")]).expect_err("not TOML");
    assert!(text.starts_with("agent.toml:1:"), "{text}");
    assert!(text.contains("hint: "), "{text}");
}

#[test]
fn a_file_without_end_is_not_read() {
    let text = format!("# {}\n", "x".repeat(300 * 1024));
    let error = read_files(&[("agent.toml", &text)]).expect_err("too large");
    assert!(error.contains("more than 262144 bytes"), "{error}");
}

/// Reads files as if they lay in one folder; its name is taken out of the errors.
fn read_files(files: &[(&str, &str)]) -> Result<Settings, String> {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("agent.d")).expect("a folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("written");
    }
    let place = format!("{}/", folder.path().display());
    load(&folder.path().join("agent.toml")).map_err(|error| error.to_string().replace(&place, ""))
}
