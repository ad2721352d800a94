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

const PLAN: &str = r#"
repository = "trial"
[release]
threshold = 1
expires_days = 90
[approvals]
start_routine = 1
start_security = 1
start_emergency = 1
stage = 1
lift = 1
grant = 1
waiver = 1
[people.ada]
roles = ["author"]
[people.ben]
roles = ["approver", "operator"]
tokens = ["ben-cli"]
[products.app]
channels = ["stable"]
cohorts = ["dogfood", "general"]
[tenants.acme]
[tenants.globex]
"#;

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
    site.good("ben", "stop --product app --reason crashes");
    let waited = Stopwatch::start();
    while !site.good("ben", "rollout status").contains("crashes") {
        assert!(waited.elapsed() < Duration::from_secs(60), "the stop was never numbered");
        thread::sleep(Duration::from_millis(100));
    }

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
        fs::write(path("plan.toml"), PLAN).expect("written");
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
