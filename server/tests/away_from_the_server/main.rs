//! The whole way of a release on people's machines, by the commands that they type: ceremony, packing,
//! two signatures, acts, an enrolment token; and what each of them refuses.

mod changes;

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
};

use clap::{Parser, Subcommand};
use lockgate_server::{
    acts_text::{self, consequences::AtHand},
    cli::offline::{CliError, act, grant, key, release, repo, rollout, tenant, token},
    clock,
    keys::{self, Protection},
    release::{role::LocalRepository, sign::SignError},
    stream::Publication,
};
use lockgate_shared::{
    act::{Act, SignedAct},
    id::Digest,
    loosening::SignedLoosening,
    manifest::Manifest,
    policy::Policy,
    time::Seconds,
    wire::SignedToken,
};

/// Ada's key, as it is typed.
const ADA: &str = "@repo/people/ada.key --passphrase-file @passphrase";

const PLAN: &str = include_str!("../../testdata/repository.toml");
const RELEASE: &str = include_str!("../../testdata/release.toml");

/// A program that signs with `tenant.key` beside it.
const SIGNS: &str = r#"#!/bin/sh
set -e
cd "$(dirname "$0")"
case "$1" in
public) openssl pkey -in tenant.key -pubout -outform DER | tail -c 32 | od -An -v -tx1 | tr -d ' \n' ;;
sign) cat >message; openssl pkeyutl -sign -inkey tenant.key -rawin -in message ;;
esac
"#;

#[test]
fn a_release_is_published_only_when_two_authors_have_signed_it() {
    let desk = Desk::new();
    desk.create();
    assert!(matches!(
        desk.run("release check @1.1.0 --repository @repo/repository"),
        Err(CliError::Sign(SignError::Threshold { valid: 0, needed: 2, .. }))
    ));
    let text = desk.sign("ada").expect("signed");
    assert!(text.contains("release   app 1.1.0"), "{text}");
    assert!(text.contains("stage 2 `general`"), "{text}");
    assert!(text.contains("1 of 2 signatures hold"), "{text}");
    desk.sign("ada").expect("signed again");
    assert!(!desk.path("1.1.0/publication.json").exists(), "one author is not two");
    desk.sign("alan").expect("signed");
    let publication: Publication =
        serde_json::from_slice(&desk.read("1.1.0/publication.json")).expect("a publication");
    assert_eq!(publication.role, "releases-app");
    let [(path, manifest)] = &publication.targets[..] else { panic!("one target") };
    assert_eq!(path, "releases/app/1.1.0.json");
    assert_eq!(manifest.as_bytes(), desk.read("1.1.0/manifest.json"));
    desk.run("release check @1.1.0 --repository @repo/repository").expect("complete");

    // The server publishes it; the next release keeps the one before.
    let place = desk.path("repo/repository/metadata/2.releases-app.json");
    fs::write(place, &publication.metadata).expect("written");
    assert!(matches!(desk.sign("ada"), Err(CliError::Sign(SignError::Released(_)))));
    desk.create_version("1.2.0").expect("made");
    let text = desk
        .run(&format!("release sign @1.2.0 --repository @repo/repository --key {ADA} --yes"))
        .expect("signed");
    assert!(text.contains("version 3") && text.contains("keeps 1 earlier"), "{text}");
}

#[test]
fn what_was_changed_after_the_first_signature_gets_no_second_one() {
    let desk = Desk::new();
    desk.create();
    desk.sign("ada").expect("signed");
    let manifest = desk.path("1.1.0/manifest.json");
    let good = fs::read_to_string(&manifest).expect("readable");
    fs::write(&manifest, good.replace("Faster start.", "Slower start.")).expect("written");
    assert!(matches!(desk.sign("alan"), Err(CliError::Sign(SignError::OtherRole(_)))));
    fs::write(&manifest, good).expect("written");

    let digest = Manifest::from_json(&desk.read("1.1.0/manifest.json")).expect("a manifest");
    let artifact = desk.path(&format!("1.1.0/artifacts/{}", digest.artifacts[0].sha256));
    let mut bytes = fs::read(&artifact).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&artifact, bytes).expect("written");
    assert!(matches!(desk.sign("alan"), Err(CliError::Sign(SignError::Artifact { .. }))));
}

#[test]
fn who_is_no_author_signs_no_release_and_nothing_is_signed_unasked() {
    let desk = Desk::new();
    desk.create();
    assert!(matches!(desk.sign("ben"), Err(CliError::Sign(SignError::Stranger { .. }))));
    let unasked = format!("release sign @1.1.0 --repository @repo/repository --key {ADA}");
    assert!(matches!(desk.run(&unasked), Err(CliError::NotConfirmed)));
    assert!(!desk.path("1.1.0/role.json").exists());
}

#[test]
fn a_copy_of_the_repository_that_does_not_verify_is_not_signed_upon() {
    let desk = Desk::new();
    desk.create();
    let path = desk.path("repo/repository/metadata/1.releases-app.json");
    let text = fs::read_to_string(&path).expect("readable");
    let forged = text.replace(
        "\"targets\": {}",
        "\"targets\": {\"releases/app/9.json\": {\"length\": 1, \"hashes\": {\"sha256\": \"00\"}}}",
    );
    assert_ne!(text, forged);
    fs::write(&path, forged).expect("written");
    assert!(matches!(desk.sign("ada"), Err(CliError::Role(_))));
    fs::write(&path, text).expect("written");
    desk.run("repo init --plan @plan.toml --out @other --passphrase-file @passphrase")
        .expect("made");
    let elsewhere = format!(
        "release sign @1.1.0 --repository @repo/repository --anchor @other/root.json --key {ADA} --yes"
    );
    assert!(matches!(desk.run(&elsewhere), Err(CliError::Role(_))), "another root's repository");
}

#[test]
fn a_ladder_over_other_cohorts_than_the_policys_is_not_signed() {
    let desk = Desk::new();
    let mut stages = String::new();
    for cohort in ["dogfood", "general"] {
        stages.push_str(&format!(
            "[[ladder.stages]]\ncohort = \"{cohort}\"\nfloor_s = 0\nbake_s = 3600\n\
             gate = {{ first_devices = 5, growth = 3, min_devices = 3, small_stage = 10, \
             max_failure_ppm = 20000, confidence_ppm = 950000, silence_after_s = 60 }}\n"
        ));
    }
    let plan = RELEASE.replace("ladder = \"routine\"", "") + &stages;
    fs::write(desk.path("release.toml"), plan).expect("written");
    let error = desk.create_version("1.1.0").expect_err("refused").to_string();
    assert!(error.contains("`dogfood`, `general`"), "{error}");
    desk.run(
        "release create --product app --version 1.1.0 --files @files --release @release.toml \
         --out @1.1.0",
    )
    .expect("made, because nothing was there to compare with");
    assert!(matches!(desk.sign("ada"), Err(CliError::Sign(SignError::Cohorts(_)))));
}

#[test]
fn a_link_out_of_the_packed_folder_leaves_no_release() {
    let desk = Desk::new();
    symlink("../../../etc/passwd", desk.path("files/bin/passwd")).expect("made");
    let error = desk.create_version("1.1.0").expect_err("refused").to_string();
    assert!(error.contains("bin/passwd") && error.contains("hint:"), "{error}");
    assert!(!desk.path("1.1.0").exists());
}

#[test]
fn a_start_goes_from_hand_to_hand_until_enough_approvers_have_signed() {
    let desk = Desk::new();
    desk.create();
    desk.run(
        "rollout start --product app --version 1.1.0 --channel stable --manifest @1.1.0 \
         --cohort dogfood=3 --cohort early=4 --cohort general=20 --owner eva --risk routine \
         --plan @plan.toml --repository @repo/repository --out @start.json",
    )
    .expect("written");
    let policy = desk.policy();
    let signed = |desk: &Desk| -> SignedAct {
        serde_json::from_slice(&desk.read("start.json")).expect("an act")
    };
    let by = |person: &str| {
        format!(
            "act sign @start.json --repository @repo/repository --manifest @1.1.0 --key @repo/people/{person}.key --passphrase-file @passphrase --yes"
        )
    };
    desk.run(&by("ben")).expect("signed");
    let shown = desk.run("act show @start.json --repository @repo/repository").expect("shown");
    assert!(shown.contains("cohort      `early` of 4 devices"), "{shown}");
    assert!(shown.contains("ben, approver") && shown.contains("1 missing"), "{shown}");
    assert!(signed(&desk).verify(&policy).is_err());
    let refused = desk.run(&by("ada")).expect_err("she is an author").to_string();
    assert!(refused.contains("is no approver's: it belongs to `ada` (author)"), "{refused}");
    assert!(refused.contains("there is `ben`, `eva`"), "{refused}");
    desk.run(&by("eva")).expect("signed");
    let verified = signed(&desk).verify(&policy).expect("enough");
    let Act::Start(start) = verified.act() else { panic!("a start") };
    assert_eq!(start.manifest, Digest::of(&desk.read("1.1.0/manifest.json")));
    assert_eq!(verified.people().len(), 2);
}

#[test]
fn what_a_signer_reads_comes_from_the_signed_bytes_and_from_no_description_beside_them() {
    let desk = Desk::new();
    desk.create();
    desk.sign("ada").expect("signed");
    desk.sign("alan").expect("signed");
    let start = "rollout start --product app --version 1.1.0 --channel stable --manifest @1.1.0 \
         --cohort dogfood=10 --cohort early=90 --cohort general=900 --owner eva --risk emergency \
         --plan @plan.toml --repository @repo/repository --out @start.json";
    desk.run(start).expect("written");
    // Whoever hands the file on adds a harmless text of his own, beside the signed one.
    let mut file: serde_json::Value =
        serde_json::from_slice(&desk.read("start.json")).expect("json");
    file["description"] = "only renews a date on one test device".into();
    fs::write(desk.path("start.json"), file.to_string()).expect("written");
    let shown = desk.run("act show @start.json --repository @repo/repository").expect("shown");
    assert!(!shown.contains("renews a date"), "{shown}");
    assert!(shown.contains("risk        EMERGENCY"), "{shown}");
    assert!(shown.contains("NOT SHOWN: devices, times"), "not published yet: {shown}");
    let with = "act show @start.json --repository @repo/repository --manifest @1.1.0";
    let shown = desk.run(with).expect("shown");
    for words in
        ["of 900 devices", "reversible  a device", "in all      at most", "counts as failure"]
    {
        assert!(shown.contains(words), "{words:?} is not in {shown}");
    }
    // A manifest that is not the one whose hash is signed says nothing.
    desk.create_version("1.2.0").expect("made");
    let with = "act show @start.json --repository @repo/repository --manifest @1.2.0";
    let shown = desk.run(with).expect("shown");
    assert!(shown.contains("NOT SHOWN: devices, times"), "{shown}");
    // What is signed is the text that was shown, and the server says the same of it.
    let signed = "act sign @start.json --repository @repo/repository --manifest @1.1.0 \
         --key @repo/people/ben.key --passphrase-file @passphrase --yes";
    let shown = desk.run(signed).expect("signed");
    let act: SignedAct = serde_json::from_slice(&desk.read("start.json")).expect("an act");
    let text = desk.read("1.1.0/manifest.json");
    let manifest = Manifest::from_json(&text).expect("a manifest");
    let at_hand = AtHand { manifest: Some((Digest::of(&text), &manifest)), stops: None };
    let canonical = acts_text::canonical(&act, &at_hand).expect("words");
    assert!(shown.starts_with(&canonical), "{shown}");
    assert!(canonical.contains(&act.digest().to_string()));
    // Changed after that, it shows other words, and the signature does not hold for them.
    let mut doctored = act.clone();
    doctored.text = doctored.text.replace("emergency", "routine");
    assert_ne!(doctored.text, act.text);
    fs::write(desk.path("start.json"), serde_json::to_vec(&doctored).expect("json")).expect("ok");
    let shown = desk.run("act show @start.json --repository @repo/repository").expect("shown");
    assert!(shown.contains("risk        routine") && shown.contains("DOES NOT HOLD"), "{shown}");
}

#[test]
fn what_cannot_be_shown_is_signed_only_by_who_says_unseen() {
    let desk = Desk::new();
    desk.create();
    desk.run(
        "rollout start --product app --version 1.1.0 --channel stable --manifest @1.1.0          --cohort dogfood=3 --cohort early=4 --cohort general=20 --owner eva --risk routine          --plan @plan.toml --repository @repo/repository --out @start.json",
    )
    .expect("written");
    desk.run("rollout lift 3 --reason checked --repository @repo/repository --out @lift.json")
        .expect("written");
    let by_ben = "--key @repo/people/ben.key --passphrase-file @passphrase --yes";
    let policy = fs::read_dir(desk.path("repo/repository/targets")).expect("readable");
    let policy = policy.map(|file| file.expect("readable").path()).next().expect("the policy");
    let signers = |file: &str| -> usize {
        let act: SignedAct = serde_json::from_slice(&desk.read(file)).expect("an act");
        act.signatures.len()
    };
    desk.create_version("1.2.0").expect("made");
    for (file, at_hand, names) in [
        ("start.json", "--repository @repo/repository".to_owned(), "`--manifest`"),
        ("start.json", "--manifest @1.2.0".to_owned(), "`--repository DIR`"),
        ("lift.json", format!("--policy {}", policy.display()), "`--repository DIR`"),
    ] {
        let line = format!("act sign @{file} {at_hand} {by_ben}");
        let error = desk.run(&line).expect_err("refused").to_string();
        let (said, hint) = error.split_once("hint: ").expect("a hint");
        assert!(said.contains("nothing was signed"), "{error}");
        assert!(hint.contains(names) && hint.contains("`--unseen`"), "{error}");
        assert_eq!(signers(file), 0, "{file}");
    }
    for file in ["start.json", "lift.json"] {
        desk.run(&format!("act sign @{file} {by_ben} --unseen")).expect("signed unseen");
        assert_eq!(signers(file), 1, "{file}");
    }
}

#[test]
fn every_step_of_an_act_and_a_release_names_the_next_command() {
    let desk = Desk::new();
    desk.create();
    let at = desk.path("");
    let next = |said: &str| -> String {
        let line = said.lines().last().expect("a line");
        let command = line.strip_prefix("next: `").and_then(|line| line.strip_suffix('`'));
        let command = command.unwrap_or_else(|| panic!("{line:?} names no command"));
        command.replace(&at.display().to_string(), "@")
    };
    let sign = "release sign @1.1.0 --repository @repo/repository --key";
    let said = desk.sign("ada").expect("signed");
    assert_eq!(next(&said), format!("lockgate {sign} people/<author>.key"));
    // What it says is typed as it stands, with the key's file in its place.
    desk.run(&format!("{sign} @repo/people/alan.key --passphrase-file @passphrase --yes"))
        .map(|said| assert_eq!(next(&said), "lockgate release publish --dir @1.1.0 --wait"))
        .expect("signed");
    let start = "rollout start --product app --version 1.1.0 --channel stable --manifest @1.1.0          --cohort dogfood=3 --cohort early=4 --cohort general=20 --owner eva --risk routine          --plan @plan.toml --repository @repo/repository --out @start.json";
    let said = desk.run(start).expect("written");
    let sign = "act sign @start.json --repository @repo/repository --key";
    assert_eq!(next(&said), format!("lockgate {sign} people/<approver>.key"));
    let by = |person: &str| {
        format!("{sign} @repo/people/{person}.key --passphrase-file @passphrase --yes --unseen")
    };
    let said = desk.run(&by("ben")).expect("signed");
    assert_eq!(next(&said), format!("lockgate {sign} people/<approver>.key"));
    assert!(!said.contains("had signed before"), "{said}");
    let said = desk.run(&by("ben")).expect("signed");
    assert!(said.contains("this key had signed before: it counts once"), "{said}");
    let said = desk.run(&by("eva")).expect("signed");
    assert_eq!(next(&said), "lockgate act submit @start.json --wait");
    let said = desk.run("act show @start.json --repository @repo/repository").expect("shown");
    assert_eq!(next(&said), "lockgate act submit @start.json --wait");
}

#[test]
fn lifts_grants_and_waivers_are_acts_like_any_other() {
    let desk = Desk::new();
    let device = "07".repeat(32);
    let rollout = "09".repeat(32);
    let policy = desk.policy();
    for (command, file) in [
        (r"rollout lift 3 4 --reason checked".to_owned(), "lift.json"),
        (
            format!(
                "cohort grant {device} --tenant acme --product app --channel stable --cohort dogfood --expires 30d --reason tester"
            ),
            "grant.json",
        ),
        (
            format!("rollout waive {rollout} --rule minimum-devices=0 --expires 12h --reason few"),
            "waive.json",
        ),
    ] {
        desk.run(&format!("{command} --repository @repo/repository --out @{file}"))
            .expect("written");
        desk.run(&format!(
            "act sign @{file} --repository @repo/repository --key @repo/people/ben.key --passphrase-file @passphrase --yes"
        ))
        .expect("signed");
        let signed: SignedAct = serde_json::from_slice(&desk.read(file)).expect("an act");
        signed.verify(&policy).expect("one approver is enough");
    }
}

#[test]
fn an_enrolment_token_is_good_for_its_tenant_only() {
    let desk = Desk::new();
    let enrol = |tenant: &str, key: &str| {
        desk.run(&format!("token enrol --tenant {tenant} --uses 12 --expires 7d --key @repo/tenants/{key}.key --passphrase-file @passphrase --repository @repo/repository"))
    };
    let text = enrol("acme", "acme").expect("made");
    let signed: SignedToken = text.trim().parse().expect("a token");
    let now = clock::now();
    let token = signed.verify(&desk.policy(), now).expect("good");
    assert_eq!((token.tenant.as_str(), token.uses), ("acme", 12));
    assert!(signed.verify(&desk.policy(), now.plus(Seconds(8 * 86_400))).is_err());
    assert!(matches!(enrol("acme", "globex"), Err(CliError::NoEnrolmentKey { .. })));
    let refused = enrol("acmee", "acme").expect_err("a slip").to_string();
    assert_eq!(refused, "the policy names no tenant `acmee`\nhint: there is `acme`, `globex`");
}

#[test]
fn a_tenants_key_behind_a_program_loosens_and_another_key_does_not() {
    let desk = Desk::new();
    let key = keys::generate();
    keys::write(&desk.path("tenant.key"), &key, Protection::Plain).expect("written");
    let public = lockgate_shared::sign::public(&key);
    let plan =
        PLAN.replace("[tenants.acme]", &format!("[tenants.acme]\ntenant_key = \"{public}\""));
    fs::write(desk.path("keyed.toml"), plan).expect("written");
    desk.run("repo init --plan @keyed.toml --out @keyed --passphrase-file @passphrase")
        .expect("made");
    let signs = desk.path("signs");
    fs::write(&signs, SIGNS).expect("written");
    fs::set_permissions(&signs, fs::Permissions::from_mode(0o755)).expect("changed");
    let loosen = |key: &str, out: &str| {
        desk.run(&format!(
            "tenant loosen --tenant acme --windows --reason fair --key {key} \
             --passphrase-file @passphrase --repository @keyed/repository --out @{out}"
        ))
    };
    let program = format!("command:{}", signs.display());
    let said = loosen(&program, "loosened.json").expect("signed");
    assert!(said.contains("LOOSEN the windows of all devices of tenant `acme`"), "{said}");
    let signed: SignedLoosening =
        serde_json::from_slice(&desk.read("loosened.json")).expect("a loosening");
    let copy = LocalRepository::open(&desk.path("keyed/repository"), None).expect("a copy");
    let loosening = signed.verify(&copy.policy().expect("a policy")).expect("the tenant's");
    assert_eq!(loosening.reason, "fair");
    let other = loosen("@keyed/tenants/acme.key", "other.json");
    assert!(matches!(other, Err(CliError::Loosening(_))), "{other:?}");
    assert!(!desk.path("other.json").exists());
}

#[test]
fn a_key_changes_its_passphrase_and_stays_the_same_key() {
    let desk = Desk::new();
    let before =
        desk.run("key show @repo/people/ada.key --passphrase-file @passphrase").expect("shown");
    fs::write(desk.path("new"), "another long passphrase\n").expect("written");
    desk.run(
        "key passwd @repo/people/ada.key --passphrase-file @passphrase --new-passphrase-file @new",
    )
    .expect("changed");
    assert!(desk.run("key show @repo/people/ada.key --passphrase-file @passphrase").is_err());
    let after = desk.run("key show @repo/people/ada.key --passphrase-file @new").expect("shown");
    assert_eq!(before, after);
    desk.run("key new --out @fresh.key --passphrase-file @new").expect("made");
    assert!(desk.run("key new --out @fresh.key --passphrase-file @new").is_err());
}

/// The offline commands under the nouns where the tool has them.
#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Subcommand)]
enum Noun {
    #[command(subcommand)]
    Repo(repo::RepoCommand),
    #[command(subcommand)]
    Key(key::KeyCommand),
    #[command(subcommand)]
    Release(release::ReleaseCommand),
    #[command(subcommand)]
    Rollout(rollout::RolloutCommand),
    #[command(subcommand)]
    Cohort(grant::CohortCommand),
    #[command(subcommand)]
    Act(act::ActCommand),
    #[command(subcommand)]
    Token(token::TokenCommand),
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
}

/// A person's desk: a folder with a ceremony's result, files to pack and a plan.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        fs::create_dir_all(desk.path("files/bin")).expect("made");
        let app = desk.path("files/bin/app");
        fs::write(&app, "#!/bin/sh\nexit 0\n").expect("written");
        fs::set_permissions(&app, fs::Permissions::from_mode(0o755)).expect("changed");
        fs::write(desk.path("plan.toml"), PLAN).expect("written");
        fs::write(desk.path("release.toml"), RELEASE).expect("written");
        fs::write(desk.path("passphrase"), "correct horse battery\n").expect("written");
        desk.run("repo init --plan @plan.toml --out @repo --passphrase-file @passphrase")
            .expect("made");
        desk
    }

    fn create(&self) {
        let text = self.create_version("1.1.0").expect("made");
        assert!(!text.contains("warning:"), "{text}");
    }

    fn create_version(&self, version: &str) -> Result<String, CliError> {
        self.run(&format!(
            "release create --product app --version {version} --files @files \
             --release @release.toml --repository @repo/repository --out @{version}"
        ))
    }

    fn sign(&self, person: &str) -> Result<String, CliError> {
        self.run(&format!(
            "release sign @1.1.0 --repository @repo/repository --key @repo/people/{person}.key \
             --passphrase-file @passphrase --yes"
        ))
    }

    fn policy(&self) -> Policy {
        let folder = self.path("repo/repository/targets");
        let entry = fs::read_dir(folder).expect("readable").next().expect("one").expect("readable");
        Policy::from_json(&fs::read(entry.path()).expect("readable")).expect("a policy")
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.path(path)).expect(path)
    }

    /// Runs a command line; words with `@` in front are paths on the desk.
    fn run(&self, line: &str) -> Result<String, CliError> {
        let words = line.split_whitespace().map(|word| self.place(word));
        let line = Line::try_parse_from(std::iter::once("lockgate".to_owned()).chain(words))
            .expect("a command line of this test");
        let mut out = Vec::new();
        let answer = match &line.noun {
            Noun::Repo(command) => repo::run(command, &mut out)?,
            Noun::Key(command) => key::run(command)?,
            Noun::Release(command) => release::run(command, &mut out)?,
            Noun::Rollout(command) => rollout::run(command)?,
            Noun::Cohort(command) => grant::run(command)?,
            Noun::Act(command) => act::run(command, &mut out)?,
            Noun::Token(command) => token::run(command)?,
            Noun::Tenant(command) => tenant::run(command)?,
        };
        assert!(answer.json.is_object(), "{}", answer.json);
        Ok(String::from_utf8(out).expect("text") + &answer.text)
    }

    fn place(&self, word: &str) -> String {
        match word.strip_prefix('@') {
            Some(path) => self.path(path).display().to_string(),
            None => word.to_owned(),
        }
    }
}
