//! What the stories need: a signed repository, a letter box that listens on the loopback with TLS,
//! devices with keys, and a small client.

use std::{net::SocketAddr, path::Path, sync::Arc};

use ed25519_dalek::{Signer, SigningKey};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use lockgate_server::{
    api::tls,
    clock,
    config::Config,
    letters::LetterBox,
    registry::{NewToken, create_token, rows::TokenRole},
    roles::api::Running,
    shutdown::Stopper,
    store::sqlite::SqliteStore,
};
use lockgate_shared::{
    facts::Facts,
    id::{DeviceId, Digest, TokenId},
    sign,
    time::{Moment, Seconds},
    wire::{
        BINARY, Enrolment, EnrolmentToken, Format, JSON, Letter, Orders, Outcomes, ProductState,
        Sealed, SignedToken, SlotState,
    },
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tough::schema::{Role, Root, Signature, Signed, Targets, key::Key};

pub(crate) struct Bench {
    pub(crate) folder: TempDir,
    pub(crate) config: Config,
    pub(crate) letter_box: Arc<LetterBox>,
    pub(crate) address: SocketAddr,
    /// An operator's token.
    pub(crate) operator: String,
    running: Option<(Running, Arc<Stopper>)>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Bench {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        repository(folder.path());
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        tls::init(folder.path(), &names, clock::now()).expect("a certificate");
        let text = "[api]\nlisten = '127.0.0.1:0'\nstate = 'state'\nrepository = 'repository'\nsocket = 'gate.sock'\nanchor = 'root.json'\n[tls]\ncertificate = 'server.pem'\nkey = 'server.key'\n";
        let config = Config::parse(text, folder.path()).expect("a configuration");
        let state = &config.api().expect("the section").state;
        std::fs::create_dir_all(state).expect("a folder");
        let mut store = SqliteStore::open(&state.join("store.db")).expect("a store");
        let token = NewToken { name: "ben-cli".into(), role: TokenRole::Operator, tenant: None };
        let operator = create_token(&mut store, token, &[5; 32], clock::now()).expect("a token");
        drop(store);
        Self { operator, ..Self::open(folder, config).await }
    }

    async fn open(folder: TempDir, config: Config) -> Self {
        let (stopper, shutdown) = Stopper::new();
        let running =
            lockgate_server::roles::api::start(&config, &shutdown).await.expect("a letter box");
        let (letter_box, address) = (Arc::clone(&running.letter_box), running.address);
        let operator = String::new();
        Self { folder, config, letter_box, address, operator, running: Some((running, stopper)) }
    }

    /// Stops in order and starts again.
    pub(crate) async fn restart(mut self) -> Self {
        let (running, stopper) = self.running.take().expect("it runs");
        stopper.stop();
        running.finish().await;
        let operator = self.operator;
        Self { operator, ..Self::open(self.folder, self.config).await }
    }

    pub(crate) async fn post(&self, path: &str, sealed: &Sealed) -> Answer {
        let named = match sealed.format {
            Format::Binary => BINARY,
            Format::Json => JSON,
        };
        self.post_bytes(path, named, sealed.to_bytes().expect("bytes")).await
    }

    pub(crate) async fn post_bytes(&self, path: &str, named: &str, bytes: Vec<u8>) -> Answer {
        let request = Request::post(path).header("content-type", named);
        self.send(request.body(Full::new(bytes.into())).expect("a request")).await
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = headers
            .iter()
            .fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
        self.send(request.body(Full::default()).expect("a request")).await
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.folder.path().join("ca.pem")).expect("a CA");
        roots.add(ca).expect("a root");
        let client = ClientConfig::builder_with_provider(Arc::new(tls::provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = TcpStream::connect(self.address).await.expect("a connection");
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let stream = connector.connect(name, tcp).await.expect("TLS");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        let driven = tokio::spawn(connection);
        let (mut parts, body) = request.into_parts();
        parts.headers.insert("host", "localhost".parse().expect("a header"));
        let response: Response<hyper::body::Incoming> =
            sender.send_request(Request::from_parts(parts, body)).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        drop(sender);
        drop(driven);
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }
}

impl Answer {
    /// The stable name of a problem.
    pub(crate) fn kind(&self) -> String {
        let problem: Value = serde_json::from_slice(&self.body).expect("a problem in JSON");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        problem["type"].as_str().expect("a kind").to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

/// A device of tenant `acme`.
pub(crate) struct Device {
    pub(crate) key: SigningKey,
}

impl Device {
    pub(crate) fn new(seed: u8) -> Self {
        Self { key: SigningKey::from_bytes(&[seed; 32]) }
    }

    pub(crate) fn id(&self) -> DeviceId {
        DeviceId::of_key(&sign::public(&self.key))
    }

    pub(crate) fn enrolment(&self, token: &SignedToken) -> Sealed {
        let enrolment = Enrolment {
            token: token.clone(),
            key: sign::public(&self.key),
            sent: Moment(1),
            facts: Facts { vendor: "Acme".into(), model: "X1".into(), ..Facts::default() },
        };
        enrolment.seal(Format::Binary, &self.key).expect("an enrolment")
    }

    pub(crate) fn letter(&self, sequence: u64) -> Letter {
        Letter {
            repository: "trial".parse().expect("a name"),
            tenant: "acme".parse().expect("a name"),
            device: self.id(),
            sequence,
            previous: Digest([0; 32]),
            sent: Moment(5),
            uptime: Seconds(9),
            agent: "1.0.0".parse().expect("a version"),
            facts_digest: Digest([0; 32]),
            facts: None,
            orders_digest: Orders::default().digest().expect("a digest"),
            timestamp_version: 1,
            highest_stop: 0,
            products: Vec::new(),
            rollouts: Vec::new(),
            beacons: Vec::new(),
            outcomes_count: 0,
            outcomes_digest: Outcomes::default().digest,
            outcomes: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// A letter that is journalled whole: one of a trial.
    pub(crate) fn trial(&self, sequence: u64) -> Letter {
        let product = ProductState {
            product: "app".parse().expect("a name"),
            channel: "stable".parse().expect("a name"),
            pin: lockgate_shared::pin::Pin::Latest,
            state: SlotState::Trial,
            running: None,
            running_manifest: None,
            other: None,
        };
        Letter { products: vec![product], ..self.letter(sequence) }
    }

    pub(crate) fn seal(&self, letter: &Letter) -> Sealed {
        letter.seal(Format::Binary, &self.key).expect("a letter")
    }
}

/// A token for some devices, by the enrolment key of tenant `acme`.
pub(crate) fn token(id: u8, uses: u32) -> SignedToken {
    let now = clock::now();
    token_by(&enrolment_key(), id, uses, now.plus(Seconds(3_600)))
}

pub(crate) fn token_by(key: &SigningKey, id: u8, uses: u32, expires: Moment) -> SignedToken {
    let token = EnrolmentToken {
        repository: "trial".parse().expect("a name"),
        tenant: "acme".parse().expect("a name"),
        id: TokenId([id; 16]),
        issued: Moment(1),
        expires,
        uses,
    };
    SignedToken::make(&token, key).expect("a token")
}

pub(crate) fn enrolment_key() -> SigningKey {
    SigningKey::from_bytes(&[200; 32])
}

/// Writes a repository with a root, targets and a policy, all signed by one key.
fn repository(folder: &Path) {
    let signing = SigningKey::from_bytes(&[100; 32]);
    let key: Key = serde_json::from_value(json!({
        "keytype": "ed25519", "scheme": "ed25519",
        "keyval": { "public": hex::encode(signing.verifying_key().to_bytes()) },
    }))
    .expect("a key");
    let id = hex::encode(&key.key_id().expect("an id")[..]);
    let role = json!({ "keyids": [id], "threshold": 1 });
    let root = json!({
        "_type": "root", "spec_version": "1.0.0", "consistent_snapshot": true, "version": 1,
        "expires": "2099-01-01T00:00:00Z", "keys": { &id: key },
        "roles": { "root": role, "targets": role, "snapshot": role, "timestamp": role },
    });
    let policy = policy().to_string();
    let hash = Digest::of(policy.as_bytes());
    let targets = json!({
        "_type": "targets", "spec_version": "1.0.0", "version": 1,
        "expires": "2099-01-01T00:00:00Z",
        "targets": { "policy.json": {
            "length": policy.len(), "hashes": { "sha256": hash.to_string() },
        } },
    });
    let metadata = folder.join("repository/metadata");
    let targets_folder = folder.join("repository/targets");
    for path in [&metadata, &targets_folder] {
        std::fs::create_dir_all(path).expect("a folder");
    }
    let write = |path: &Path, text: &[u8]| std::fs::write(path, text).expect("a file");
    let root = signed::<Root>(root, &id, &signing);
    write(&folder.join("root.json"), &root);
    write(&metadata.join("1.root.json"), &root);
    write(&metadata.join("1.targets.json"), &signed::<Targets>(targets, &id, &signing));
    write(&metadata.join("timestamp.json"), b"{}");
    write(&targets_folder.join(format!("{hash}.policy.json")), policy.as_bytes());
}

fn signed<T: Role + serde::de::DeserializeOwned>(
    role: Value,
    id: &str,
    key: &SigningKey,
) -> Vec<u8> {
    let role: T = serde_json::from_value(role).expect("a role");
    let bytes = role.canonical_form().expect("canonical JSON");
    let signature = Signature {
        keyid: hex::decode(id).expect("an id").into(),
        sig: key.sign(&bytes).to_bytes().to_vec().into(),
    };
    serde_json::to_vec(&Signed { signed: role, signatures: vec![signature] }).expect("JSON")
}

fn policy() -> Value {
    let key = |seed: u8| sign::public(&SigningKey::from_bytes(&[seed; 32])).to_string();
    json!({
        "format": 1, "repository": "trial",
        "people": {
            "ada": { "keys": [key(101)], "roles": ["author"] },
            "ben": { "keys": [key(102)], "roles": ["approver", "operator"], "tokens": ["ben-cli"] },
        },
        "approvals": {
            "start_routine": 1, "start_security": 1, "start_emergency": 1, "stage": 1, "lift": 1,
            "grant": 1, "waiver": 1,
        },
        "tenants": { "acme": { "enrolment_keys": [key(200)] }, "other": { "enrolment_keys": [] } },
        "products": { "app": { "channels": ["stable"], "cohorts": ["early", "all"] } },
    })
}
