//! What the tests of the admin API share: a router over a letter box in memory, with two tenants,
//! three devices and a token of each kind.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Body, http::Request};
use ed25519_dalek::SigningKey;
use http_body_util::BodyExt;
use lockgate_shared::{
    act::{Act, Grant, RiskClass, SignedAct},
    bucket::{Bucket, Limit},
    facts::Facts,
    group::Habit,
    id::{DeviceId, Digest, ProductId, RolloutId, TenantId},
    pin::Pin,
    policy::{Approvals, Person, Policy, Product, Role, Tenant},
    rollout::{Scope, Stop, StopKind},
    sign,
    time::{Moment, Seconds},
    wire::{Orders, ProductState, ReasonRecord, RolloutView, SlotState},
};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{
    Admin,
    audit::{AuditFailure, AuditSink},
    desk::{Desk, KnownDevice},
    router,
};
use crate::{
    audit::Chain,
    letters::{CurrentPolicy, JournalError, LastLetter, OrdersBook, Reports, bars::Bar},
    registry::{
        Later, NewToken, Registry, TOKEN_BYTES, Tables,
        rows::{self, ReleaseRow, ReleaseSummary, TokenRole},
        token_text,
    },
    status::{
        About, Alarm, CohortStatus, Decision, FleetStatus, KindStatus, KindWords, RolloutState,
        RolloutStatus, StageStatus, Status, Verdict,
    },
    store::{Change, Table},
    stream::{BarRequest, Entry, EntryKind},
};

/// 2026-11-21T09:00:00Z.
pub(super) const NOW: Moment = Moment(1_795_251_600);

pub(super) struct Bench {
    router: Router,
    registry: Arc<Registry>,
    desk: Arc<Memory>,
    tokens: BTreeMap<&'static str, String>,
    folder: tempfile::TempDir,
}

/// A letter box that keeps everything in memory.
struct Memory {
    entries: Mutex<Vec<Entry>>,
    rows: Mutex<BTreeMap<(Table, String), Vec<u8>>>,
    devices: Vec<KnownDevice>,
    policy: Arc<CurrentPolicy>,
    chain: Mutex<Chain>,
    dice: Mutex<u8>,
    reports: Mutex<Reports>,
    told: Mutex<Arc<OrdersBook>>,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap_or_default()
    }

    pub(super) fn detail(&self) -> &str {
        self.body["detail"].as_str().unwrap_or_default()
    }

    pub(super) fn hint(&self) -> &str {
        self.body["hint"].as_str().unwrap_or_default()
    }
}

impl Bench {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let artifacts = folder.path().join("artifacts");
        std::fs::create_dir(&artifacts).expect("a folder");
        let policy = policy();
        let text = serde_json::to_string(&policy).expect("json");
        let chain = Chain::open(&folder.path().join("audit.log")).expect("a chain");
        let desk = Arc::new(Memory {
            entries: Mutex::default(),
            rows: Mutex::default(),
            devices: vec![known(1, "acme"), known(2, "acme"), known(3, "globex")],
            policy: Arc::new(CurrentPolicy {
                digest: Digest::of(text.as_bytes()),
                text: text.into_bytes(),
                policy,
                targets_version: 1,
            }),
            chain: Mutex::new(chain),
            dice: Mutex::new(0),
            reports: Mutex::default(),
            told: Mutex::new(Arc::new(OrdersBook::empty().expect("a book"))),
        });
        let registry = Arc::new(registry_with_tokens());
        let tokens = TOKENS.iter().map(|(name, ..)| (*name, token_of(name))).collect();
        let admin = Admin {
            registry: Arc::clone(&registry),
            desk: Arc::clone(&desk) as Arc<dyn Desk>,
            artifacts,
        };
        Self { router: router(Arc::new(admin)), registry, desk, tokens, folder }
    }

    pub(super) async fn get(&self, token: &str, path: &str) -> Answer {
        self.get_with(&self.tokens[token], path).await
    }

    pub(super) async fn get_with(&self, text: &str, path: &str) -> Answer {
        self.send(text, "GET", path, Vec::new()).await
    }

    pub(super) async fn post(&self, token: &str, path: &str, body: &Value) -> Answer {
        self.send(&self.tokens[token], "POST", path, body.to_string().into_bytes()).await
    }

    pub(super) async fn put(&self, token: &str, path: &str, body: &Value) -> Answer {
        self.send(&self.tokens[token], "PUT", path, body.to_string().into_bytes()).await
    }

    pub(super) async fn put_bytes(&self, token: &str, path: &str, body: &[u8]) -> Answer {
        self.send(&self.tokens[token], "PUT", path, body.to_vec()).await
    }

    pub(super) async fn delete(&self, token: &str, path: &str) -> Answer {
        self.send(&self.tokens[token], "DELETE", path, Vec::new()).await
    }

    async fn send(&self, token: &str, method: &str, path: &str, body: Vec<u8>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .body(Body::from(body))
            .expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("never fails");
        let status = response.status().as_u16();
        let kind = response.headers().get("content-type").cloned();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        if status >= 400 {
            assert_eq!(kind.expect("a type"), "application/problem+json", "{method} {path}");
        }
        Answer { status, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
    }

    /// The status and the text of an answer, whatever it is.
    pub(super) async fn ask(
        &self,
        token: &str,
        (method, path): (&str, &str),
        body: &[u8],
    ) -> (u16, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", self.tokens[token]))
            .body(Body::from(body.to_vec()))
            .expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("never fails");
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Everything that one tenant has here, and how much there is of everybody's.
    pub(super) fn belongings(&self, tenant: &str) -> String {
        let view = self.registry.view();
        let tenant: TenantId = tenant.parse().expect("a name");
        let of = |reach: &rows::Reach| reach.tenant == tenant;
        let tokens = view.tokens.values().filter(|row| row.tenant.as_ref() == Some(&tenant));
        format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {} {:?}",
            tokens.collect::<Vec<_>>(),
            view.pins.iter().filter(|(reach, _)| of(reach)).collect::<Vec<_>>(),
            view.windows.iter().filter(|(reach, _)| of(reach)).collect::<Vec<_>>(),
            view.freezes.iter().filter(|(reach, _)| of(reach)).collect::<Vec<_>>(),
            view.grants.iter().filter(|(reach, _)| of(reach)).collect::<Vec<_>>(),
            view.loosenings.iter().filter(|(reach, _)| of(reach)).collect::<Vec<_>>(),
            (self.orders(tenant.as_str(), 3), self.orders(tenant.as_str(), 99)),
            self.entries().len(),
            self.files(),
        )
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        self.desk.entries.lock().expect("lock").clone()
    }

    pub(super) fn files(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.folder.path().join("artifacts")).expect("a folder");
        files.map(|file| file.expect("a file").file_name().into_string().expect("utf-8")).collect()
    }

    pub(super) fn orders(&self, tenant: &str, number: u8) -> Orders {
        let tenant: TenantId = tenant.parse().expect("a name");
        let told = self.desk.told.lock().expect("lock");
        told.of(&tenant, &device(number)).orders().clone()
    }

    pub(super) fn grant(&self, tenant: &str) -> Act {
        grant(tenant)
    }

    /// A published release.
    pub(super) async fn release(&self, product: &str, version: &str) {
        let product: ProductId = product.parse().expect("a name");
        let version = version.parse().expect("a version");
        let summary: ReleaseSummary = serde_json::from_value(json!({
            "severity": "routine", "notes": "", "artifacts": [], "stages": [],
            "irreversible": false, "barrier": null, "end_of_support": null,
        }))
        .expect("a summary");
        let key = rows::release_key(&product, &version);
        let row = ReleaseRow {
            product,
            version,
            manifest: Digest([9; 32]),
            offset: 0,
            submitted: NOW,
            published: Some(NOW),
            summary,
            recall: None,
        };
        let change = rows::write(Table::Releases, key, &row).expect("a row");
        self.registry
            .change::<crate::registry::RegistryError>(&*self.desk, |_| Ok(vec![change]))
            .await
            .expect("a change");
    }

    /// The gatekeeper decides about an entry; its status does not count it yet.
    pub(super) async fn verdict(&self, offset: u64, decision: Decision, reason: &str) {
        let verdict = Verdict {
            number: offset + 1,
            at: NOW,
            about: About::Entry(offset),
            decision,
            reasons: vec![reason.to_owned()],
        };
        self.report(vec![verdict], offset).await;
    }

    /// The gatekeeper's status counts every entry below `offset`.
    pub(super) async fn status_that_counts(&self, offset: u64) {
        self.report(vec![], offset).await;
    }

    /// As most reports: nothing new of what devices there are.
    pub(super) async fn status_that_repeats_no_fleet(&self) {
        self.take(vec![], Status { fleet: None, ..status(0) }).await;
    }

    async fn report(&self, verdicts: Vec<Verdict>, offset: u64) {
        self.take(verdicts, status(offset)).await;
    }

    async fn take(&self, verdicts: Vec<Verdict>, status: Status) {
        let reports = {
            let mut reports = self.desk.reports.lock().expect("lock");
            reports.take(verdicts, status, vec![]);
            reports.clone()
        };
        let status = reports.status().expect("a status").clone();
        let verdict = |offset| reports.entry(offset).cloned();
        self.registry.settle(&*self.desk, &status, verdict).await.expect("a change");
    }
}

impl Tables for Memory {
    fn put(&self, changes: Vec<Change>) -> Later<'_, Result<(), JournalError>> {
        let mut rows = self.rows.lock().expect("lock");
        for Change { table, key, value } in changes {
            match value {
                Some(bytes) => drop(rows.insert((table, key), bytes)),
                None => drop(rows.remove(&(table, key))),
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn put_and_append(
        &self,
        changes: Vec<Change>,
        kind: EntryKind,
        bytes: Vec<u8>,
    ) -> Later<'_, Result<u64, JournalError>> {
        Box::pin(async move {
            self.put(changes).await?;
            self.append(kind, bytes).await
        })
    }

    fn tell(&self, book: Arc<OrdersBook>) {
        *self.told.lock().expect("lock") = book;
    }
}

impl AuditSink for Memory {
    fn append_line(
        &self,
        at: Moment,
        who: &str,
        act: &str,
        detail: &str,
    ) -> Result<(), AuditFailure> {
        self.chain.append_line(at, who, act, detail)
    }

    fn read_lines(&self, from: u64, max: usize) -> Result<Vec<String>, AuditFailure> {
        self.chain.read_lines(from, max)
    }
}

impl Desk for Memory {
    fn append(&self, kind: EntryKind, bytes: Vec<u8>) -> Later<'_, Result<u64, JournalError>> {
        let mut entries = self.entries.lock().expect("lock");
        let offset = entries.len() as u64;
        entries.push(Entry { offset, received: NOW, kind, bytes });
        Box::pin(std::future::ready(Ok(offset)))
    }

    fn entry(&self, offset: u64) -> Later<'_, Result<Option<Entry>, JournalError>> {
        let entries = self.entries.lock().expect("lock");
        let entry = entries.iter().find(|entry| entry.offset == offset).cloned();
        Box::pin(std::future::ready(Ok(entry)))
    }

    fn policy(&self) -> Option<Arc<CurrentPolicy>> {
        Some(Arc::clone(&self.policy))
    }

    fn reports(&self, read: &mut dyn FnMut(&Reports)) {
        read(&self.reports.lock().expect("lock"));
    }

    fn device(&self, device: &DeviceId) -> Option<KnownDevice> {
        self.devices.iter().find(|known| known.device == *device).cloned()
    }

    fn devices(
        &self,
        tenant: Option<&TenantId>,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Vec<KnownDevice> {
        let wanted = self.devices.iter().filter(|known| {
            tenant.is_none_or(|tenant| known.tenant == *tenant)
                && after.is_none_or(|after| known.device > *after)
        });
        wanted.take(limit).cloned().collect()
    }

    fn bar(&self, request: BarRequest) -> Later<'_, Result<(Bar, Option<u64>), JournalError>> {
        let bytes = serde_json::to_vec(&request).expect("json");
        let bar = Bar {
            number: 1,
            tenant: request.tenant,
            kind: request.kind,
            reason: request.reason,
            since: NOW,
            by: request.by,
        };
        Box::pin(async move {
            let offset = self.append(EntryKind::Bar, bytes).await?;
            Ok((bar, Some(offset)))
        })
    }

    fn polls(&self) -> Seconds {
        Seconds(300)
    }

    fn now(&self) -> Moment {
        NOW
    }

    fn random(&self) -> [u8; TOKEN_BYTES] {
        let mut dice = self.dice.lock().expect("lock");
        *dice += 1;
        [*dice; TOKEN_BYTES]
    }
}

const TOKENS: [(&str, TokenRole, Option<&str>); 7] = [
    ("operator", TokenRole::Operator, None),
    ("auditor", TokenRole::Auditor, None),
    ("publisher", TokenRole::Publisher, None),
    ("acme-admin", TokenRole::Administrator, Some("acme")),
    ("keyed-admin", TokenRole::Administrator, Some("keyed")),
    ("acme-auditor", TokenRole::Auditor, Some("acme")),
    ("globex-admin", TokenRole::Administrator, Some("globex")),
];

fn token_of(name: &str) -> String {
    token_text(&Digest::of(name.as_bytes()).0)
}

fn registry_with_tokens() -> Registry {
    let mut view = crate::registry::View::empty().expect("empty");
    for (name, role, tenant) in TOKENS {
        let tenant = tenant.map(|tenant| tenant.parse().expect("a name"));
        let token = NewToken { name: name.into(), role, tenant };
        let change = token.row(&view, &token_of(name), NOW).expect("a token");
        view = view.with(&[change]).expect("a view");
    }
    Registry::of(view)
}

/// Of the first device, which is `acme`'s.
pub(super) fn grant(tenant: &str) -> Act {
    Act::Grant(Grant {
        repository: "trial".parse().expect("a name"),
        device: device(1),
        tenant: tenant.parse().expect("a name"),
        product: "app".parse().expect("a name"),
        channel: "stable".parse().expect("a name"),
        cohort: "early".parse().expect("a name"),
        issued: NOW,
        expires: NOW.plus(Seconds(86_400)),
        reason: "asked for it".into(),
    })
}

pub(super) fn device(number: u8) -> DeviceId {
    DeviceId([number; 32])
}

pub(super) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(super) fn sign_with(act: &Act, keys: &[SigningKey]) -> SignedAct {
    let mut signed = SignedAct::unsigned(act).expect("an act");
    keys.iter().for_each(|key| signed.sign(key));
    signed
}

fn rollout() -> RolloutId {
    RolloutId([5; 32])
}

fn known(number: u8, tenant: &str) -> KnownDevice {
    KnownDevice {
        device: device(number),
        tenant: tenant.parse().expect("a name"),
        enrolled: NOW,
        seen: Some(NOW),
        replayed: 0,
        sequence: 4,
        barred: None,
        facts: Some(Facts::default()),
        letter: Some(LastLetter {
            sequence: 4,
            sent: NOW,
            uptime: Seconds(60),
            timestamp_version: 1,
            outcomes_count: 0,
            outcomes_digest: Digest([0; 32]),
            agent: "0.1.0".parse().expect("a version"),
            orders_digest: Orders::default().digest().expect("a digest"),
            highest_stop: 0,
            products: vec![ProductState {
                product: "app".parse().expect("a name"),
                channel: "stable".parse().expect("a name"),
                pin: Pin::Latest,
                state: SlotState::Waiting,
                running: Some("1.0.0".parse().expect("a version")),
                running_manifest: None,
                other: None,
            }],
            rollouts: vec![RolloutView {
                rollout: rollout(),
                cohort: "general".parse().expect("a name"),
                bucket: Bucket(77),
                habit: Habit::Unknown,
                groups: vec![],
                treated: false,
                reasons: vec![ReasonRecord { code: 110, text: "not open yet".into() }],
            }],
            notices: vec![],
        }),
    }
}

/// A rollout that runs, a hold of everything and a pause of globex, an alarm about a device of each
/// tenant.
fn status(letters_offset: u64) -> Status {
    let stop = |number: u64, kind: StopKind, scope: Scope| Stop {
        number,
        kind,
        scope,
        since: NOW,
        reason: "look".into(),
    };
    let alarm = |number: u8| Alarm { at: NOW, device: Some(device(number)), text: "odd".into() };
    let stage = StageStatus {
        cohort: "general".parse().expect("a name"),
        devices: 10,
        authorised: 0,
        treated: 0,
        confirmed: 0,
        rolled_back: 0,
        failed: 0,
        inconclusive: 0,
        silent: 0,
        limit: Some(Limit::of_share_ppm(10_000)),
        opened: Some(NOW),
        full: None,
        decision: Decision::Wait,
        reasons: vec!["3 of 10 baked".into()],
    };
    let kind = KindStatus {
        product: "app".parse().expect("a name"),
        channel: "stable".parse().expect("a name"),
        cohort: "general".parse().expect("a name"),
        devices: 3,
        words: KindWords { model: "Slate 3".into(), ..KindWords::default() },
        habit: Habit::Office,
        heard: [100; 24],
        installs: 0,
        failed: 0,
    };
    Status {
        repository: "trial".parse().expect("a name"),
        at: NOW,
        letters_offset,
        tick_s: Seconds(300),
        rollouts: vec![RolloutStatus {
            rollout: rollout(),
            product: "app".parse().expect("a name"),
            channel: "stable".parse().expect("a name"),
            version: "1.1.0".parse().expect("a version"),
            manifest: Digest([8; 32]),
            owner: "ada".parse().expect("a name"),
            risk: RiskClass::Routine,
            started: NOW,
            state: RolloutState::Running,
            stages: vec![stage],
            groups: vec![],
            coverage: vec![],
        }],
        stops: vec![
            stop(7, StopKind::Hold, Scope::Everything),
            stop(8, StopKind::Pause, Scope::Tenant("globex".parse().expect("a name"))),
        ],
        expiries: vec![],
        cohorts: vec![CohortStatus {
            product: "app".parse().expect("a name"),
            channel: "stable".parse().expect("a name"),
            cohort: "general".parse().expect("a name"),
            devices: 3,
        }],
        alarms: vec![alarm(1), alarm(3)],
        hearing: None,
        fleet: Some(FleetStatus { at: NOW, kinds: vec![kind], left_out: 0 }),
    }
}

pub(super) fn manifest_text(product: &str, version: &str, artifact: Digest) -> String {
    json!({
        "format": 1, "product": product, "version": version, "severity": "routine",
        "notes": "first edition",
        "artifacts": [{
            "kind": "app", "size": 5, "sha256": artifact,
            "files": [{"path": "run", "kind": "file", "size": 5, "sha256": artifact, "executable": true}],
        }],
        "trial": {
            "probes": [{"name": "alive", "kind": "contact", "interval_s": 5}],
            "soak_s": 10, "deadline_s": 60, "attempts": 2,
        },
        "ladder": {"stages": [{
            "cohort": "general", "floor_s": 0, "bake_s": 60,
            "gate": {
                "first_devices": 1, "growth": 2, "min_devices": 1, "small_stage": 10,
                "max_failure_ppm": 10000, "confidence_ppm": 950_000, "silence_after_s": 600,
            },
        }]},
    })
    .to_string()
}

/// `ben` approves; two tenants, one product with three cohorts.
fn policy() -> Policy {
    let person = Person {
        keys: [sign::public(&key(1))].into(),
        roles: [Role::Approver].into(),
        tokens: ["operator".to_owned()].into(),
    };
    let tenant = || Tenant { enrolment_keys: [].into(), tenant_key: None };
    let product = Product {
        channels: vec!["stable".parse().expect("a name")],
        cohorts: ["dogfood", "early", "general"].map(|name| name.parse().expect("a name")).to_vec(),
    };
    Policy {
        people: [("ben".parse().expect("a name"), person)].into(),
        tenants: [
            ("acme".parse().expect("a name"), tenant()),
            ("globex".parse().expect("a name"), tenant()),
            (
                "keyed".parse().expect("a name"),
                Tenant { tenant_key: Some(sign::public(&key(7))), ..tenant() },
            ),
        ]
        .into(),
        products: [("app".parse().expect("a name"), product)].into(),
        ..Policy::new("trial".parse().expect("a name"), Approvals::each(1))
    }
}
