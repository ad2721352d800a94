//! The operator's tool against a running server, by real processes: what works, and with which exit
//! code it ends when it does not.

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Output},
    thread,
    time::Duration,
};

use lockgate_server::clock::Stopwatch;
use lockgate_shared::failure::Failure;

const RELEASE: &str = include_str!("../testdata/release.toml");

#[test]
fn an_operator_restricts_reads_and_is_told_what_does_not_work() {
    let site = Site::new();
    let whoami = site.good("ben", "whoami --json");
    assert!(whoami.contains(r#""role": "operator""#), "{whoami}");

    let admin = site.good("ben", "token create mia --role administrator --tenant acme");
    fs::write(site.folder.path().join("mia.token"), admin).expect("written");
    site.good("mia", "window set * --zone Europe/Berlin --days mon,tue --at 22:00 --length 2h");
    let windows = site.good("mia", "window list");
    assert!(windows.contains("mon,tue") && windows.contains("22:00"), "{windows}");
    site.good("mia", "pin set * app n-1");
    assert!(site.good("mia", "pin list").contains("n-1"));
    let pin = site.bad("mia", "pin set * app 9.9.9", 3);
    assert!(pin.contains("never published") && pin.contains("hint: "), "{pin}");

    let foreign = site.bad("mia", "pin set * app n-1 --tenant globex", 3);
    assert!(foreign.contains("belongs to tenant `acme`"), "{foreign}");
    site.bad("mia", "stop --everything --reason x", 3);
    site.bad("mia", "audit tail", 3);

    // The gatekeeper takes up the stop, numbers it, and shows it.
    let stopped = site.good("ben", "stop --product app --reason crashes");
    assert!(
        stopped.contains("stop 1: crashes") && stopped.contains("rollout lift 1 "),
        "{stopped}"
    );
    let again = site.good("ben", "stop --product app --reason crashes");
    assert!(again.contains("nothing changed: stop 1 stands for this since"), "{again}");
    assert!(site.good("ben", "rollout status").contains("crashes"));
    let doctor = site.run("ben", "doctor");
    assert_eq!(doctor.status.code(), Some(5), "{}", text(&doctor));
    assert!(text(&doctor).contains("STOP pause 1: product `app` since"), "{}", text(&doctor));
    let alone = site.bad("ben", "stop --everything --reason x --server https://127.0.0.1:1", 4);
    assert!(alone.contains("systemctl stop lockgate-gatekeeper"), "{alone}");
    let slip = site.bad("ben", "pin set * app n-1 --tenant acmee", 3);
    assert!(slip.contains("hint: there is `acme`"), "{slip}");
    site.bad("ben", "device list --tenant acmee", 3);
    // Before a server runs, the same slip is noticed by the policy that its configuration leads to.
    let config = site.folder.path().join("server.toml").display().to_string();
    let slip = Command::new(env!("CARGO_BIN_EXE_lockgate-server"))
        .args(["token", "create", "--config", &config, "--name", "max"])
        .args(["--role", "administrator", "--tenant", "acmee"])
        .output()
        .expect("it starts");
    assert_eq!(slip.status.code(), Some(2), "{}", text(&slip));
    let said = text(&slip);
    assert!(said.contains("names no tenant `acmee`\nhint: there is `acme`"), "{said}");

    assert!(site.good("ben", "audit tail --chain gatekeeper").contains("crashes"));
    let chain = site.good("ben", "audit tail --raw --lines 1000");
    assert!(chain.contains("token created") && chain.contains("crashes"), "{chain}");
    let file = site.folder.path().join("chain");
    fs::write(&file, &chain).expect("written");
    assert!(site.good("ben", "audit verify @chain").starts_with("true: "));
    fs::write(&file, chain.replace("crashes", "nothing")).expect("written");
    assert!(site.bad("ben", "audit verify @chain", 6).contains("false"));

    site.good("ben", "token revoke mia");
    assert!(site.bad("mia", "whoami", 3).contains("revoked"));
    assert!(site.bad("ben", "device explain zz", 2).contains("hint: "));
    site.bad("ben", "stop --everything", 2);
    let gone = site.bad("ben", "whoami --server https://127.0.0.1:1", 4);
    assert!(gone.contains("cannot be reached"), "{gone}");
    let stranger = site.bad("ben", "whoami --ca @other/ca.pem", 4);
    assert!(stranger.contains("cannot be reached"), "{stranger}");
}

/// A fleet of one kind, as `GET /v1/fleet` answers.
const FLEET: &str = r#"{ "polls": 300, "at": "2026-11-21T09:00:00Z", "left_out": 0, "kinds": [
  { "product": "app", "channel": "stable", "cohort": "general", "devices": 3, "words": { "model": "Slate 3" },
    "habit": "office", "heard": [0,0,0,0,0,0,0,0,90,90,90,90,90,90,90,90,90,0,0,0,0,0,0,0],
    "installs": 0, "failed": 0 } ] }"#;

/// What is typed, and the exit code with which it ends. Every command that `--help` lists occurs.
const EVERY_COMMAND: &[(&str, i32)] = &[
    ("repo init --plan @plan.toml --out @second --passphrase-file @passphrase", 0),
    ("key new --out @new.key --plain", 0),
    ("key show @new.key", 0),
    ("key passwd @repo/people/ada.key --passphrase-file @passphrase --new-passphrase-file @new", 0),
    (
        "release create --product app --version 1.0.0 --files @app --release @release.toml --repository @repo/repository --out @r1",
        0,
    ),
    ("release check @r1 --repository @repo/repository", 5),
    ("release check @release.toml --repository @repo/repository --product app", 0),
    ("release check @release.toml --repository @repo/repository --polls 2h --strict", 6),
    ("release check @release.toml", 2),
    ("release check @release.toml --repository @repo/repository --cohort dogfoot=5", 2),
    ("plan @r1 --channel stable", 2),
    ("plan @r1 --channel stable --fleet @fleet.json --program @nowhere", 2),
    ("plan @r1 --channel stable --fleet @nowhere.json", 2),
    ("coverage", 0),
    ("coverage 00", 2),
    (
        "release sign @r1 --repository @repo/repository --key @repo/people/ada.key --passphrase-file @new --yes",
        0,
    ),
    ("release publish --dir @r1 --wait", 3),
    ("release recall --version 1.0.1 --to @r1 --reason x --out @recall", 0),
    ("repo change --repository @repo/repository --new-online @keys --out @change", 0),
    ("repo show @change --repository @repo/repository", 0),
    (
        "repo sign @change --repository @repo/repository --key @repo/offline/root-1.key --passphrase-file @passphrase --yes",
        0,
    ),
    ("repo publish @change --repository @repo/repository", 5),
    ("repo resign targets --repository @repo/repository --out @later", 0),
    ("repo fetch --out @copy", 0),
    ("doctor", 0),
    ("release list", 0),
    ("release show app 1.0.0", 3),
    (
        "rollout start --product app --version 1.0.0 --channel stable --manifest @r1 --risk routine --owner ben --cohort dogfood=1 --cohort early=1 --cohort general=1 --repository @repo/repository --plan @plan.toml --out @start.json",
        0,
    ),
    (
        "rollout approve --manifest @r1 --channel stable --cohort general --out @approve.json --repository @repo/repository",
        2,
    ),
    ("rollout lift 1 --reason x --out @lift.json --repository @repo/repository", 0),
    (
        "rollout waive 0000000000000000000000000000000000000000000000000000000000000000 --rule minimum-devices=1 --expires 1d --reason x --out @waive.json --repository @repo/repository",
        0,
    ),
    ("act show @start.json", 0),
    ("act sign @start.json --key @repo/people/ben.key --passphrase-file @passphrase --yes", 2),
    (
        "act sign @start.json --key @repo/people/ben.key --passphrase-file @passphrase --manifest @r1 --yes",
        0,
    ),
    ("act submit @start.json", 0),
    ("rollout list", 0),
    ("rollout status", 0),
    ("rollout explain 00", 2),
    ("rollout pause 00 --reason x", 2),
    ("rollout stop 00 --reason x --yes", 2),
    ("rollout stop 00000000 --reason x", 2),
    (
        "rollout stop 0000000000000000000000000000000000000000000000000000000000000000 --reason x --yes",
        3,
    ),
    ("cohort list", 0),
    (
        "cohort grant 0000000000000000000000000000000000000000000000000000000000000000 --tenant acme --product app --channel stable --cohort dogfood --expires 1d --reason x --out @grant.json --repository @repo/repository",
        0,
    ),
    ("cohort pause app general --reason x", 0),
    ("cohort revoke 00 app", 2),
    ("device list", 0),
    ("device list --problems", 0),
    ("device revoke 00 --reason x", 2),
    ("device show 00", 2),
    ("device explain 0000000000000000000000000000000000000000000000000000000000000000", 3),
    ("pin set * app n-1 --tenant acme", 0),
    ("pin list", 0),
    ("pin clear * app --tenant acme", 0),
    ("window set * --zone UTC --days mon --at 22:00 --length 2h --tenant acme", 0),
    ("window list", 0),
    ("window clear * --tenant acme", 0),
    (
        "freeze set * --from 2026-12-20T00:00:00Z --until 2026-12-21T00:00:00Z --reason x --tenant acme",
        0,
    ),
    ("freeze list", 0),
    ("freeze clear * --tenant acme", 0),
    (
        "token enrol --tenant acme --uses 1 --expires 1h --key @repo/tenants/acme.key --passphrase-file @passphrase --repository @repo/repository",
        0,
    ),
    (
        "tenant loosen --tenant acme --windows --reason x --key @repo/tenants/acme.key --passphrase-file @passphrase --repository @repo/repository --out @loosened.json",
        6,
    ),
    ("tenant submit @loosened.json", 2),
    ("token create eve --role auditor", 0),
    ("token list", 0),
    ("token revoke eve", 0),
    ("audit tail", 0),
    ("audit verify @api/audit.log", 0),
    ("audit verify @nowhere", 2),
    ("stop --everything --reason x", 0),
    ("status", 0),
    ("whoami", 0),
    ("whoami --server https://127.0.0.1:1", 4),
    ("whoami --token-file @nowhere", 2),
    ("completions bash", 0),
    ("completions --shel", 2),
    ("", 2),
];

#[test]
fn every_command_answers_programs_in_json_and_failures_have_one_shape() {
    let site = Site::new();
    let path = |name: &str| site.folder.path().join(name);
    fs::write(path("new"), "another passphrase altogether\n").expect("written");
    fs::write(path("release.toml"), RELEASE).expect("written");
    fs::write(path("fleet.json"), FLEET).expect("written");
    fs::create_dir(path("app")).expect("a folder");
    fs::write(path("app/version"), "1.0.0\n").expect("written");
    let mut wrong = Vec::new();
    for (line, code) in EVERY_COMMAND {
        let words = if line.is_empty() { "--json".to_owned() } else { format!("{line} --json") };
        wrong.extend(amiss(&site.run("ben", &words), *code, line));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for command in leaves(env!("CARGO_BIN_EXE_lockgate"), &[]) {
        let typed =
            |(line, _): &(&str, i32)| format!("{line} ").starts_with(&format!("{command} "));
        assert!(EVERY_COMMAND.iter().any(typed), "`{command}` is not tried");
    }
}

#[test]
fn every_command_of_the_server_answers_programs_in_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let config = "[api]\nlisten = \"127.0.0.1:0\"\nstate = \"api\"\nrepository = \"r\"\nsocket = \"s\"\nanchor = \"root.json\"\n";
    fs::write(at("server.toml"), config).expect("written");
    fs::write(at("root.json"), "{}").expect("written");
    fs::write(at("wrong.toml"), "[api]\n").expect("written");
    let lines = [
        ("tls-init --dir @ --name localhost", 0),
        ("token create --config @server.toml --name ci --role publisher", 0),
        ("token create --config @server.toml --name ci --role publisher", 1),
        ("token create --config @server.toml --name max --role administrator --tenant acme", 0),
        ("check-config --config @server.toml", 0),
        ("check-config --config @wrong.toml", 3),
        ("api --config @nowhere.toml", 3),
        ("api --config @server.toml", 3),
        ("gatekeeper --config @server.toml", 3),
        ("run --config @server.toml", 3),
        ("run", 2),
    ];
    let program = env!("CARGO_BIN_EXE_lockgate-server");
    let mut wrong = Vec::new();
    for (line, code) in lines {
        let words = line.replace('@', &at(""));
        let output = Command::new(program)
            .args(words.split(' '))
            .arg("--json")
            .env("LOCKGATE_LOG", "off")
            .output()
            .expect("it starts");
        wrong.extend(amiss(&output, code, line));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for command in leaves(program, &[]) {
        assert!(
            lines.iter().any(|(line, _)| line.starts_with(&command)),
            "`{command}` is not tried"
        );
    }
}

/// The repository of the tests, where one signature is enough and Ben operates it.
fn plan() -> String {
    include_str!("../testdata/repository.toml")
        .replace("threshold = 2", "threshold = 1")
        .replace("start_routine = 2", "start_routine = 1")
        .replace("[\"approver\"]", "[\"approver\", \"operator\"]\ntokens = [\"ben-cli\"]")
}

/// What is wrong with an answer: standard output is to hold JSON and nothing else, and a failure has
/// the one shape and leaves standard error alone.
fn amiss(output: &Output, code: i32, line: &str) -> Option<String> {
    let wrong = |what: &str| Some(format!("{line}: {what}: {}", text(output)));
    if output.status.code() != Some(code) {
        return wrong(&format!("not exit code {code}"));
    }
    let values = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    let Ok(values) = values.collect::<Result<Vec<serde_json::Value>, _>>() else {
        return wrong("not JSON");
    };
    if values.is_empty() {
        return wrong("nothing was said");
    }
    if code == 0 {
        return None;
    }
    let read = values.first().map(|value| serde_json::from_value::<Failure>(value.clone()));
    match (read, values.len()) {
        (Some(Ok(failure)), 1)
            if !failure.ok
                && i32::from(failure.exit) == code
                && !failure.error.is_empty()
                && !failure.error.contains("hint: ")
                && output.stderr.is_empty() =>
        {
            None
        }
        _ => wrong("not one failure of the known shape"),
    }
}

/// The commands without subcommands, as `--help` lists them.
fn leaves(program: &str, above: &[String]) -> Vec<String> {
    let output = Command::new(program).args(above).arg("--help").output().expect("it starts");
    let help = String::from_utf8(output.stdout).expect("text");
    let Some((_, below)) = help.split_once("\nCommands:\n") else { return vec![above.join(" ")] };
    let names = below.lines().take_while(|line| !line.is_empty());
    let names = names.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let commands = names.filter(|name| !name.is_empty() && *name != "help");
    commands.flat_map(|name| leaves(program, &[above, &[name.to_owned()]].concat())).collect()
}

/// A server that runs, and the tokens of those who ask it.
struct Site {
    folder: tempfile::TempDir,
    server: Child,
    address: String,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("plan.toml"), plan()).expect("written");
        fs::write(path("passphrase"), "correct horse battery\n").expect("written");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port")
            .port();
        let config = format!(
            "[api]\nlisten = \"127.0.0.1:{port}\"\nstate = \"api\"\nrepository = \"repo/repository\"\nsocket = \"gate.sock\"\nanchor = \"repo/root.json\"\n[tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n[gatekeeper]\nstate = \"gate\"\nrepository = \"repo/repository\"\nsocket = \"gate.sock\"\nkeys = \"repo/online\"\nanchor = \"repo/root.json\"\ntick_s = 1\n"
        );
        fs::write(path("server.toml"), config).expect("written");
        let at = |text: &str| text.replace('@', &format!("{}/", folder.path().display()));
        let run = |program: &str, line: &str| {
            let line = at(line);
            let output = Command::new(program).args(line.split(' ')).output().expect("it starts");
            assert!(output.status.success(), "{line}: {}", text(&output));
            String::from_utf8(output.stdout).expect("text")
        };
        let tool = env!("CARGO_BIN_EXE_lockgate");
        let serve = env!("CARGO_BIN_EXE_lockgate-server");
        run(tool, "repo init --plan @plan.toml --out @repo --passphrase-file @passphrase");
        run(serve, "tls-init --dir @. --name localhost --name 127.0.0.1");
        fs::create_dir(path("other")).expect("a folder");
        run(serve, "tls-init --dir @other --name localhost");
        let token = run(serve, "token create --config @server.toml --name ben-cli --role operator");
        fs::write(path("ben.token"), token).expect("written");
        let server = Command::new(serve)
            .args(["run", "--config", &path("server.toml").display().to_string()])
            .stderr(fs::File::create(path("log")).expect("a log"))
            .spawn()
            .expect("it starts");
        let site = Self { folder, server, address: format!("https://127.0.0.1:{port}") };
        site.wait();
        site
    }

    /// Waits until the server answers and the gatekeeper has reported.
    fn wait(&self) {
        let waited = Stopwatch::start();
        while !self.run("ben", "rollout list").status.success() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(waited.elapsed() < Duration::from_secs(60), "no server: {log}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn run(&self, who: &str, line: &str) -> Output {
        let path = |name: &str| -> PathBuf { self.folder.path().join(name) };
        let line = line.replace('@', &format!("{}/", self.folder.path().display()));
        Command::new(env!("CARGO_BIN_EXE_lockgate"))
            .env("LOCKGATE_SERVER", &self.address)
            .env("LOCKGATE_CA", path("ca.pem"))
            .env("LOCKGATE_TOKEN_FILE", path(&format!("{who}.token")))
            .env("HOME", self.folder.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("LOCKGATE_TOKEN")
            .args(line.split(' '))
            .output()
            .expect("it starts")
    }

    fn good(&self, who: &str, line: &str) -> String {
        let output = self.run(who, line);
        assert!(output.status.success(), "{line}: {}", text(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    fn bad(&self, who: &str, line: &str, code: i32) -> String {
        let output = self.run(who, line);
        assert_eq!(output.status.code(), Some(code), "{line}: {}", text(&output));
        String::from_utf8(output.stderr).expect("text")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // The test is over either way; a server that ended by itself is shown by its log.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}
