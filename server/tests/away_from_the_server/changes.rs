//! Changes of keys, people and ends: written, read in words, signed by old and new holders, and taken
//! by the gatekeeper's own code.

use std::{collections::BTreeMap, fs, path::Path};

use lockgate_server::{
    ceremony::change::ChangeError,
    cli::offline::{CliError, release::CopyArgs, repo},
    clock,
    stream::Publication,
    tuf::{TufError, trusted::Trusted},
};
use lockgate_shared::id::PublicKey;

use super::Desk;

const COPY: &str = "--repository @repo/repository --anchor @repo/root.json";

#[test]
fn every_role_changes_its_keys_in_one_go_signed_by_those_before_and_those_after() {
    let desk = Desk::new();
    let mut replaced = Vec::new();
    for place in [
        "offline/root-1",
        "offline/root-2",
        "offline/targets-1",
        "people/ada",
        "people/ben",
        "tenants/acme",
    ] {
        let (old, name) = (desk.public(&format!("repo/{place}.key")), place.replace('/', "-"));
        desk.run(&format!("key new --out @new-{name}.key --passphrase-file @passphrase"))
            .expect("made");
        let new = desk.public(&format!("new-{name}.key"));
        replaced.push((old, new));
    }
    let options: Vec<String> =
        replaced.iter().map(|(old, new)| format!("--replace {old}={new}")).collect();
    let text = desk
        .run(&format!(
            "repo change {COPY} {} --new-online @online-2 --out @change",
            options.join(" ")
        ))
        .expect("written");
    for words in [
        "root, version 1 -> 2",
        "targets, version 1 -> 2",
        "releases-app, version 1 -> 2",
        "devices refuse the old gatekeeper's keys",
        "~ person ben",
        "~ tenant acme",
        "the same 0 releases",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    for (old, new) in &replaced {
        assert!(
            text.contains(&format!("- key {old}"))
                || text.contains(&format!("- enrolment key {old}"))
        );
        assert!(
            text.contains(&format!("+ key {new}"))
                || text.contains(&format!("+ enrolment key {new}"))
        );
    }
    // By the new root keys alone, and by the old ones alone: neither is enough.
    desk.change_signed("new-offline-root-1.key").expect("signed");
    desk.change_signed("new-offline-root-2.key").expect("signed");
    desk.change_signed("new-offline-targets-1.key").expect("signed");
    desk.change_signed("repo/offline/targets-2.key").expect("signed");
    desk.change_signed("new-people-ada.key").expect("signed");
    desk.change_signed("repo/people/alan.key").expect("signed");
    let refused = desk.publication().expect_err("too early");
    assert!(refused.to_string().contains("root by its keys so far has 0 of 2"), "{refused}");
    let gone = desk.change_signed("repo/people/ada.key");
    assert!(matches!(gone, Err(CliError::Change(ChangeError::Stranger(_)))), "{gone:?}");
    desk.change_signed("repo/offline/root-1.key").expect("signed");
    let text = desk.change_signed("repo/offline/root-2.key").expect("signed");
    assert!(!text.contains("missing"), "{text}");

    let publication = desk.publication().expect("enough");
    assert_eq!(publication.role, "root");
    desk.publish(&publication).expect("taken");
    // The next change stands on this one.
    desk.run(&format!("repo resign root {COPY} --out @later")).expect("written");
    assert!(desk.path("later/root.json").exists() && !desk.path("later/targets.json").exists());
    // And the gatekeeper's new keys fit.
    for role in ["rollouts", "snapshot", "timestamp"] {
        assert!(desk.path(&format!("online-2/{role}-2.key")).exists());
    }
}

#[test]
fn people_come_and_go_by_the_plan() {
    let desk = Desk::new();
    let plan = String::from_utf8(desk.read("plan.toml")).expect("text");
    let zoe = "[people.zoe]\nroles = [\"approver\"]\n[people.eva]";
    fs::write(desk.path("plan-2.toml"), plan.replace("[people.eva]", zoe)).expect("written");
    let change = format!("repo change {COPY} --plan @plan-2.toml --out @change");
    let refused = desk.run(&change);
    assert!(
        matches!(&refused, Err(CliError::Change(ChangeError::NoKey { name, .. })) if name == "zoe"),
        "{refused:?}"
    );
    desk.run("key new --out @zoe.key --passphrase-file @passphrase").expect("made");
    let key = desk.public("zoe.key");
    let own = format!("[people.zoe]\nroles = [\"approver\"]\npublic_key = \"{key}\"\n");
    let without_ben = plan.replace("[people.ben]\nroles = [\"approver\"]\n", &own);
    let stricter = without_ben.replace("lift = 1", "lift = 2");
    fs::write(desk.path("plan-2.toml"), stricter).expect("written");
    let text = desk.run(&change).expect("written");
    for words in [
        "- person ben".to_owned(),
        "+ person zoe".to_owned(),
        format!("+ key {key}"),
        "roles: none -> approver".to_owned(),
        "approvers to lift a stop: 1 -> 2".to_owned(),
    ] {
        assert!(text.contains(&words), "{words:?} is not in {text}");
    }
    assert!(!desk.path("change/root.json").exists(), "people are the targets keys' matter");
    desk.change_signed("repo/offline/targets-1.key").expect("signed");
    desk.change_signed("repo/offline/targets-3.key").expect("signed");
    let trusted = desk.publish(&desk.publication().expect("enough")).expect("taken");
    assert!(trusted.policy().people.contains_key(&"zoe".parse().expect("a name")));
    assert!(!trusted.policy().people.contains_key(&"ben".parse().expect("a name")));
}

#[test]
fn a_role_that_runs_out_is_signed_again_with_nothing_else_changed() {
    let desk = Desk::new();
    let text =
        desk.run(&format!("repo resign {COPY} --expires 400d --out @change")).expect("written");
    for words in ["root, version 1 -> 2", "the same people", "the same 0 releases"] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    assert!(!text.contains("+ ") && !text.contains("- "), "{text}");
    for key in ["offline/root-1", "offline/root-3", "offline/targets-1", "offline/targets-2"] {
        desk.change_signed(&format!("repo/{key}.key")).expect("signed");
    }
    let below = desk.publication().expect_err("authors are missing");
    assert!(below.to_string().contains("releases-app has 0 of 2"), "{below}");
    desk.change_signed("repo/people/ada.key").expect("signed");
    desk.change_signed("repo/people/alan.key").expect("signed");
    let before = desk.trusted().expiries();
    let after = desk.publish(&desk.publication().expect("enough")).expect("taken").expiries();
    let ends: BTreeMap<_, _> =
        before.into_iter().map(|(role, version, end)| (role, (version, end))).collect();
    for (role, version, end) in after {
        let (old_version, old_end) = ends[&role];
        assert_eq!(version, old_version + 1, "{role}");
        assert!(end > old_end, "{role} ends no later than before");
    }
}

#[test]
fn what_the_words_do_not_say_is_not_signed() {
    let desk = Desk::new();
    desk.run(&format!("repo change {COPY} --new-online @online-2 --out @change")).expect("written");
    let doctored = |file: &str, edit: &dyn Fn(&mut serde_json::Value)| {
        let good = desk.read(&format!("change/{file}"));
        let mut value: serde_json::Value = serde_json::from_slice(&good).expect("json");
        edit(&mut value["signed"]);
        fs::write(desk.path(&format!("change/{file}")), value.to_string()).expect("written");
        let refused = desk.change_signed("repo/offline/root-1.key").expect_err("doctored");
        fs::write(desk.path(&format!("change/{file}")), good).expect("written");
        refused.to_string()
    };
    let mallory: PublicKey = PublicKey([7; 32]);
    let key = serde_json::json!({
        "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": mallory.to_string() }
    });
    // A description that says something harmless; a key in the table that no role names yet; a role
    // that targets delegate to beside those shown; a target beside the policy; a later version; an
    // end in a hundred years.
    let said =
        doctored("root.json", &|root| root["description"] = "renew nothing but dates".into());
    assert!(said.contains("cannot be shown in words"), "{said}");
    let said = doctored("root.json", &|root| root["consistent_snapshot"] = false.into());
    assert!(said.contains("cannot be shown in words"), "{said}");
    let id = "11".repeat(32);
    let said = doctored("root.json", &|root| root["keys"][&id] = key.clone());
    assert!(!said.is_empty());
    let said = doctored("targets.json", &|targets| {
        let mut extra = targets["delegations"]["roles"][0].clone();
        extra["name"] = "extra".into();
        extra["paths"] = serde_json::json!(["releases/*/*"]);
        targets["delegations"]["roles"].as_array_mut().expect("roles").push(extra);
    });
    assert!(said.contains("cannot be shown in words"), "{said}");
    let said = doctored("targets.json", &|targets| {
        let policy = targets["targets"]["policy.json"].clone();
        targets["targets"]["rollouts/app/x.bin"] = policy;
    });
    assert!(said.contains("cannot be shown in words"), "{said}");
    let said = doctored("targets.json", &|targets| targets["version"] = 9.into());
    assert!(said.contains("version 2 is next"), "{said}");
    let said = doctored("root.json", &|root| root["expires"] = "2126-01-01T00:00:00Z".into());
    assert!(said.contains("ends at"), "{said}");
    // Another policy than the one that the targets name; and one that has something hidden in it.
    let good = desk.read("change/policy.json");
    let hidden = String::from_utf8(good.clone()).expect("text").replacen('{', "{\"x\": 1,", 1);
    fs::write(desk.path("change/policy.json"), hidden).expect("written");
    let said = desk.change_signed("repo/offline/root-1.key").expect_err("doctored").to_string();
    assert!(said.contains("more in it than is read"), "{said}");
    let other =
        String::from_utf8(good.clone()).expect("text").replace("\"lift\": 1", "\"lift\": 2");
    fs::write(desk.path("change/policy.json"), other).expect("written");
    let said = desk.change_signed("repo/offline/root-1.key").expect_err("doctored").to_string();
    assert!(said.contains("cannot be shown in words"), "{said}");
    fs::write(desk.path("change/policy.json"), good).expect("written");
    fs::write(desk.path("change/description.txt"), "harmless").expect("written");
    let said = desk.change_signed("repo/offline/root-1.key").expect_err("doctored").to_string();
    assert!(said.contains("is no part of a change"), "{said}");
    fs::remove_file(desk.path("change/description.txt")).expect("removed");
    let unasked = desk.run(&format!(
        "repo sign @change {COPY} --key @repo/offline/root-1.key --passphrase-file @passphrase"
    ));
    assert!(matches!(unasked, Err(CliError::NotConfirmed)));
    desk.change_signed("repo/offline/root-1.key").expect("as it was written it is signed");
}

#[test]
fn a_change_that_others_overtook_is_not_published() {
    let desk = Desk::new();
    desk.run(&format!("repo resign targets {COPY} --out @change")).expect("written");
    for key in ["targets-1", "targets-2"] {
        desk.change_signed(&format!("repo/offline/{key}.key")).expect("signed");
    }
    let publication = desk.publication().expect("enough");
    desk.publish(&publication).expect("taken");
    let again = desk.publication().expect_err("overtaken");
    assert!(again.to_string().contains("version 3 is next"), "{again}");
    let refused = desk.publish(&publication).expect_err("the gatekeeper says the same");
    assert!(matches!(refused, TufError::Version { due: 3, .. }), "{refused}");
}

impl Desk {
    fn public(&self, key: &str) -> String {
        let text =
            self.run(&format!("key show @{key} --passphrase-file @passphrase")).expect("shown");
        let line = text.lines().find(|line| line.starts_with("public key")).expect("a line");
        line.split_whitespace().last().expect("a key").to_owned()
    }

    fn change_signed(&self, key: &str) -> Result<String, CliError> {
        self.run(&format!(
            "repo sign @change {COPY} --key @{key} --passphrase-file @passphrase --yes"
        ))
    }

    fn publication(&self) -> Result<Publication, CliError> {
        repo::publication(&repo::ShowArgs {
            folder: self.path("change"),
            copy: CopyArgs {
                repository: self.path("repo/repository"),
                anchor: Some(self.path("repo/root.json")),
            },
        })
    }

    /// The repository as the gatekeeper reads it.
    fn trusted(&self) -> Trusted {
        let mut files = BTreeMap::new();
        let root = self.path("repo/repository");
        gather(&root, &root, &mut files);
        Trusted::read(&self.read("repo/root.json"), &files).expect("a repository")
    }

    /// What the gatekeeper does with a publication.
    fn publish(&self, publication: &Publication) -> Result<Trusted, TufError> {
        let root = self.path("repo/repository");
        let published = |path: &str| fs::read(root.join(path)).ok();
        let accepted = self.trusted().examine(publication, &published, clock::now())?;
        for (path, bytes) in &accepted.files {
            fs::write(root.join(path), bytes).expect("written");
        }
        Ok(accepted.next)
    }
}

fn gather(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            gather(root, &path, files);
        } else {
            let name = path.strip_prefix(root).expect("below").display().to_string();
            files.insert(name, fs::read(&path).expect("readable"));
        }
    }
}
