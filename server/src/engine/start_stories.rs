//! Stories of starts that come from the wrong people or at the wrong time, though all of it is signed.

use lockgate_shared::{
    act::{Act, CohortSize},
    id::Digest,
    policy::{Policy, Role},
    recall::{Recall, RecallStep},
    time::Seconds,
};

use super::fixture::{BEGIN, Yard, first_targets, manifest, published, sign_role, signed};
use crate::stream::{EntryKind, Publication};

#[test]
fn whoever_signed_a_release_does_not_start_it_though_he_became_an_approver_since() {
    let mut yard = released();
    publish_policy(&mut yard, |policy| {
        let abe = policy.people.get_mut(&"abe".parse().expect("a name")).expect("an author");
        abe.roles = [Role::Approver].into();
    });
    let start = Act::Start(yard.start("1.1.0", 3));
    let own = yard.json(EntryKind::Act, &signed(&start, &[21, 12]));
    yard.refused(own, "`abe` signed the release and may not approve its start");
    let others = yard.json(EntryKind::Act, &signed(&start, &[21, 22]));
    yard.accepted(others);
}

#[test]
fn a_start_whose_cohorts_are_only_the_ladders_or_only_the_policys_is_refused() {
    let mut yard = released();
    publish_policy(&mut yard, |policy| {
        let product = policy.products.values_mut().next().expect("a product");
        product.cohorts.insert(1, "vip".parse().expect("a name"));
    });
    let of_the_ladder = yard.start("1.1.0", 3);
    let mut of_the_policy = of_the_ladder.clone();
    let vip = CohortSize { cohort: "vip".parse().expect("a name"), devices: 0 };
    of_the_policy.cohorts.insert(1, vip);
    for start in [of_the_ladder, of_the_policy] {
        let offset = yard.json(EntryKind::Act, &signed(&Act::Start(start), &[21, 22]));
        yard.refused(offset, "its cohorts are not those of ladder and policy");
    }
}

#[test]
fn a_release_that_was_recalled_is_not_started() {
    let mut yard = Yard::new();
    yard.phones(3, "Slate 3");
    let recall = Recall {
        format: 1,
        product: "app".parse().expect("a name"),
        version: "1.1.0".parse().expect("a version"),
        to: "1.0.0".parse().expect("a version"),
        manifest: Digest::of(manifest("1.0.0").as_bytes()),
        issued: BEGIN,
        until: BEGIN.plus(Seconds(86_400)),
        harmed_after_s: Seconds(0),
        steps: vec![RecallStep { after_s: Seconds(0), share_ppm: 1_000_000 }],
        timestamp_max_age_s: Seconds(3600),
        reason: "it loses data".into(),
    };
    let text = |version: &str| (format!("releases/app/{version}.json"), manifest(version));
    let mut texts = vec![text("1.0.0"), text("1.1.0")];
    let json = serde_json::to_string_pretty(&recall).expect("json");
    texts.push((Recall::path(&recall.product, &recall.version), json));
    let offset = yard.json(EntryKind::Publish, &published(2, texts, &[11, 12]));
    yard.accepted(offset);
    let mut start = |version| {
        let start = signed(&Act::Start(yard.start(version, 3)), &[21, 22]);
        yard.json(EntryKind::Act, &start)
    };
    let (recalled, older) = (start("1.1.0"), start("1.0.0"));
    yard.refused(recalled, "`app` 1.1.0 is recalled");
    yard.accepted(older);
}

/// Three devices, and a release that goes nowhere yet.
fn released() -> Yard {
    let mut yard = Yard::new();
    yard.phones(3, "Slate 3");
    yard.release(2, &["1.1.0"], &[11, 12]);
    yard
}

/// People publish a changed policy.
fn publish_policy(yard: &mut Yard, change: impl FnOnce(&mut Policy)) {
    let mut policy = yard.policy.clone();
    change(&mut policy);
    let text = serde_json::to_string_pretty(&policy).expect("json");
    let metadata = sign_role(first_targets(2, &text), &[2]);
    let publication = Publication {
        role: "targets".into(),
        metadata: String::from_utf8(metadata).expect("text"),
        targets: vec![("policy.json".into(), text)],
        with: Vec::new(),
    };
    let offset = yard.json(EntryKind::Publish, &publication);
    yard.accepted(offset);
}
