//! Every message, byte for byte as the first version wrote it. A change that breaks one of these
//! files breaks devices in the field: add a new version instead.
//!
//! `LOCKGATE_WRITE_GOLDEN=1` writes the files that do not exist yet, and never touches one that does.

use std::{collections::BTreeMap, fmt::Debug, fs, path::PathBuf};

use ed25519_dalek::SigningKey;
use lockgate_shared::{
    act::{Act, CohortSize, Grant, RiskClass, SignedAct, Start},
    bucket::{Bucket, Limit},
    facts::Facts,
    group::{Habit, KnownGroups, groups_of},
    id::{DeviceId, Digest, GroupId, RolloutId, TokenId},
    loosening::{Loosened, Loosening, SignedLoosening},
    pin::Pin,
    rollout::{
        GroupLimit, OpenStage, PassedStop, RolloutEntry, RolloutFile, Scope, Stop, StopKind,
    },
    sign,
    time::{Moment, Seconds},
    window::{Freeze, Weekday, Window},
    wire::{
        Beacon, Directive, Enrolment, EnrolmentAnswer, EnrolmentToken, Format, Letter, Orders,
        Outcome, OutcomeKind, OutcomeRecord, Outcomes, ProductState, ReasonRecord, RolloutView,
        Sealed, SignedToken, SlotState, decode_rollout_file, encode_rollout_file,
    },
};

const NOW: Moment = Moment(1_790_000_000);

#[test]
fn letters_keep_their_bytes() {
    for (format, file) in [(Format::Binary, "letter-v1.bin"), (Format::Json, "letter-v1.json")] {
        let sealed = letter().seal(format, &device_key()).expect("a letter");
        let bytes = golden(file, &sealed.to_bytes().expect("bytes"));
        let read = Sealed::read(&bytes, format).expect("a sealed message");
        let key = sign::public(&device_key());
        same(&Letter::open(&read, &key).expect("a letter"), &letter());
    }
}

#[test]
fn enrolments_keep_their_bytes() {
    for (format, file) in
        [(Format::Binary, "enrolment-v1.bin"), (Format::Json, "enrolment-v1.json")]
    {
        let sealed = enrolment().seal(format, &device_key()).expect("an enrolment");
        let bytes = golden(file, &sealed.to_bytes().expect("bytes"));
        let read = Sealed::read(&bytes, format).expect("a sealed message");
        same(&Enrolment::open(&read).expect("an enrolment"), &enrolment());
    }
}

#[test]
fn answers_keep_their_bytes() {
    let answer = EnrolmentAnswer {
        repository: name("trial"),
        tenant: name("acme"),
        device: device(),
        offset: 7,
        next_poll: Seconds(60),
    };
    for (format, kind) in [(Format::Binary, "bin"), (Format::Json, "json")] {
        let bytes = directive().to_bytes(format).expect("bytes");
        let bytes = golden(&format!("directive-v1.{kind}"), &bytes);
        same(&Directive::read(&bytes, format).expect("a directive"), &directive());
        let bytes = answer.to_bytes(format).expect("bytes");
        let bytes = golden(&format!("enrolment-answer-v1.{kind}"), &bytes);
        same(&EnrolmentAnswer::read(&bytes, format).expect("an answer"), &answer);
    }
}

#[test]
fn rollout_files_keep_their_bytes() {
    let bytes = golden("rollout-v1.bin", &encode_rollout_file(&file()).expect("bytes"));
    same(&decode_rollout_file(&bytes).expect("a rollout file"), &file());
}

#[test]
fn tokens_keep_their_text() {
    let text = token().to_text().expect("text");
    let read = String::from_utf8(golden("token-v1.txt", text.as_bytes())).expect("text");
    same(&read.parse::<SignedToken>().expect("a token"), &token());
}

#[test]
fn buckets_groups_and_ids_keep_their_values() {
    let bucket = Bucket::of(&Digest::of(b"manifest"), &name("stable"), &device());
    let mut lines = vec![
        format!("device {}", device()),
        format!("rollout {}", RolloutId::of(&Digest::of(b"manifest"), &name("stable"))),
        format!("bucket {}", bucket.0),
        format!("model {}", facts().model_id()),
    ];
    for group in groups_of(&facts(), Habit::Office) {
        lines.push(format!("group {} {} {}", group.kind.name(), group.id, group.label));
    }
    golden("values-v1.txt", (lines.join("\n") + "\n").as_bytes());
}

#[test]
fn every_cut_and_every_added_byte_is_refused() {
    let sealed = letter().seal(Format::Binary, &device_key()).expect("a letter");
    let bytes = sealed.to_bytes().expect("bytes");
    let key = sign::public(&device_key());
    let opens = |bytes: &[u8]| {
        Sealed::read(bytes, Format::Binary).and_then(|sealed| Letter::open(&sealed, &key)).is_ok()
    };
    assert!(opens(&bytes));
    for end in 0..bytes.len() {
        assert!(!opens(&bytes[..end]), "cut at {end}");
    }
    for (index, _) in bytes.iter().enumerate() {
        let mut changed = bytes.clone();
        changed[index] ^= 1;
        assert!(!opens(&changed), "changed at {index}");
    }
    assert!(!opens(&[&bytes[..], b"\0"].concat()));
    let file = encode_rollout_file(&file()).expect("bytes");
    assert!(decode_rollout_file(&[&file[..], b"\0"].concat()).is_err());
}

fn letter() -> Letter {
    let outcome = Outcome {
        rollout: rollout(),
        product: name("app"),
        version: version("1.1.0"),
        kind: OutcomeKind::RolledBack,
        at: NOW,
        took: Seconds(31),
        detail: "probe `answers` failed: status 1".into(),
    };
    let chain = Outcomes::default().with(&outcome).expect("a chain");
    Letter {
        repository: name("trial"),
        tenant: name("acme"),
        device: device(),
        sequence: 42,
        previous: Digest::of(b"letter 41"),
        sent: NOW,
        uptime: Seconds(86_400),
        agent: version("0.1.0"),
        facts_digest: Digest::of(b"facts"),
        facts: Some(facts()),
        orders_digest: Digest::of(b"orders"),
        timestamp_version: 1_000,
        highest_stop: 3,
        products: vec![ProductState {
            product: name("app"),
            channel: name("stable"),
            pin: Pin::NMinus1,
            state: SlotState::RollingBack,
            running: Some(version("1.0.0")),
            running_manifest: Some(Digest::of(b"1.0.0")),
            other: Some(version("1.1.0")),
        }],
        rollouts: vec![RolloutView {
            rollout: rollout(),
            cohort: name("dogfood"),
            bucket: Bucket(77),
            habit: Habit::Office,
            groups: groups_of(&facts(), Habit::Office).iter().map(|group| group.id).collect(),
            treated: true,
            reasons: vec![ReasonRecord { code: 103, text: "1.1.0 failed here before".into() }],
        }],
        beacons: vec![Beacon {
            product: name("app"),
            probe: "answers".into(),
            held: 5,
            failed: 1,
            latency_ms: 120,
        }],
        outcomes_count: chain.count,
        outcomes_digest: chain.digest,
        outcomes: vec![OutcomeRecord { number: 1, outcome }],
        notices: vec!["the clock was 3 min behind the signers".into()],
    }
}

fn enrolment() -> Enrolment {
    Enrolment { token: token(), key: sign::public(&device_key()), sent: NOW, facts: facts() }
}

fn token() -> SignedToken {
    let token = EnrolmentToken {
        repository: name("trial"),
        tenant: name("acme"),
        id: TokenId([7; 16]),
        issued: NOW,
        expires: NOW.plus(Seconds(3600)),
        uses: 3,
    };
    SignedToken::make(&token, &SigningKey::from_bytes(&[8; 32])).expect("a token")
}

fn directive() -> Directive {
    let grant = Act::Grant(Grant {
        repository: name("trial"),
        device: device(),
        tenant: name("acme"),
        product: name("app"),
        channel: name("stable"),
        cohort: name("dogfood"),
        issued: NOW,
        expires: NOW.plus(Seconds(86_400)),
        reason: "on the test bench".into(),
    });
    Directive {
        acknowledged: 42,
        offset: 1_234,
        next_poll: Seconds(300),
        jitter: Seconds(60),
        backoff_max: Seconds(3600),
        want_facts: true,
        server_time: NOW,
        orders: Some(Orders {
            pins: BTreeMap::from([(name("app"), Pin::Exact(version("1.0.0")))]),
            windows: vec![Window {
                zone: "Europe/Berlin".into(),
                days: [Weekday::Mon, Weekday::Sat].into(),
                hour: 22,
                minute: 30,
                length_s: Seconds(7_200),
            }],
            freezes: vec![Freeze {
                from: NOW,
                until: NOW.plus(Seconds(60)),
                reason: "fair".into(),
            }],
            stops: vec![PassedStop {
                offset: 1_200,
                scope: Scope::Everything,
                since: NOW,
                reason: "drill".into(),
            }],
            grants: vec![signed(&grant)],
            loosened: vec![loosening()],
        }),
    }
}

fn loosening() -> SignedLoosening {
    let loosening = Loosening {
        repository: name("trial"),
        tenant: name("acme"),
        device: Some(device()),
        what: Loosened::Pin(name("app")),
        before: NOW,
        reason: "the fair is over".into(),
    };
    SignedLoosening::make(&loosening, &SigningKey::from_bytes(&[9; 32])).expect("signed")
}

fn file() -> RolloutFile {
    let start = Start {
        repository: name("trial"),
        product: name("app"),
        channel: name("stable"),
        version: version("1.1.0"),
        manifest: Digest::of(b"manifest"),
        moment: NOW,
        cohorts: vec![CohortSize { cohort: name("dogfood"), devices: 3 }],
        owner: name("eva"),
        risk: RiskClass::Routine,
        plan: Digest::of(b"plan"),
    };
    RolloutFile {
        repository: name("trial"),
        product: name("app"),
        model: facts().model_id(),
        issued: NOW,
        letters_offset: 99,
        rollouts: vec![RolloutEntry {
            rollout: rollout(),
            start: signed(&Act::Start(start)),
            approvals: Vec::new(),
            stages: vec![OpenStage {
                cohort: name("dogfood"),
                opened: NOW,
                limit: Limit::just_above(Bucket(1_000_000)),
                full: None,
                groups: vec![GroupLimit { group: GroupId([7; 8]), limit: Limit(5) }],
            }],
            groups: groups_of(&facts(), Habit::Office)
                .iter()
                .map(|group| group.id)
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .map(|group| GroupLimit { group, limit: Limit::NOBODY })
                .collect(),
            known: KnownGroups::of(
                groups_of(&facts(), Habit::Office).iter().map(|group| &group.id),
            ),
            coverage: vec![Bucket(5), Bucket(9)],
            complete: None,
            ended: Some(NOW.plus(Seconds(9))),
        }],
        stops: vec![Stop {
            number: 3,
            kind: StopKind::Halt,
            scope: Scope::Groups(rollout(), vec![]),
            since: NOW,
            reason: "1 of 3 rolled back".into(),
        }],
        lifts: Vec::new(),
    }
}

fn facts() -> Facts {
    Facts {
        vendor: "Acme".into(),
        model: "Slate 3".into(),
        arch: "aarch64".into(),
        os_id: "debian".into(),
        os_version: "12".into(),
        kernel: "6.1.0".into(),
        firmware_version: "1.2".into(),
        configuration: "kiosk".into(),
        ram_mib: 4_096,
        disk_mib: 65_536,
        cpus: 4,
        time_zone: "Europe/Berlin".into(),
        secure_boot: Some(true),
        tpm: None,
    }
}

fn signed(act: &Act) -> SignedAct {
    let mut signed = SignedAct::unsigned(act).expect("an act");
    signed.sign(&SigningKey::from_bytes(&[3; 32]));
    signed
}

fn rollout() -> RolloutId {
    RolloutId::of(&Digest::of(b"manifest"), &name("stable"))
}

fn device_key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn device() -> DeviceId {
    DeviceId::of_key(&sign::public(&device_key()))
}

fn name<T: std::str::FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().expect("a name of this test")
}

fn version(text: &str) -> lockgate_shared::version::Version {
    text.parse().expect("a version of this test")
}

fn same<T: PartialEq + Debug>(read: &T, written: &T) {
    assert_eq!(read, written);
}

/// The file's bytes, which must be those that the code writes now.
fn golden(file: &str, written: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(file);
    if std::env::var_os("LOCKGATE_WRITE_GOLDEN").is_some() && !path.exists() {
        fs::write(&path, written).expect("the golden file can be written");
    }
    let golden = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(golden == written, "{file}: the bytes changed; add a new version instead");
    golden
}
