//! One tenant's token never reads or changes what is another's, on every route that there is: a route
//! that is not in the table fails the test.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use axum::{Router, body::Body, http::Request, routing::MethodRouter};
use lockgate_shared::{
    act::Act,
    id::Digest,
    loosening::{Loosened, Loosening, SignedLoosening},
    time::Seconds,
};
use serde_json::json;
use tower::ServiceExt;

use super::{
    routes,
    testing::{self, Bench, NOW, device, key, sign_with},
};
use crate::{
    api::open_routes,
    config::{self, Polls},
    letters::LetterBox,
    store::memory::MemoryStore,
};

/// What a route answers to `acme`'s administrator who asks about `globex`, and to whoever may ask.
struct Route {
    method: &'static str,
    path: &'static str,
    body: fn() -> Vec<u8>,
    stranger: u16,
    rightful: (&'static str, u16),
}

/// The route's parameters stand for what is `globex`'s.
const TABLE: &[Route] = &[
    route("GET", "/v1/health", nothing, 200, ("globex-admin", 200)),
    route("GET", "/metrics", nothing, 403, ("auditor", 200)),
    route("GET", "/v1/whoami", nothing, 200, ("globex-admin", 200)),
    route("GET", "/v1/tokens", nothing, 200, ("globex-admin", 200)),
    route("POST", "/v1/tokens", spy, 403, ("globex-admin", 201)),
    route("DELETE", "/v1/tokens/{name}", nothing, 404, ("globex-admin", 204)),
    route("PUT", "/v1/artifacts/{sha256}", bytes, 403, ("publisher", 201)),
    route("POST", "/v1/publications", publication, 403, ("publisher", 202)),
    route("GET", "/v1/releases", nothing, 200, ("globex-admin", 200)),
    route("GET", "/v1/releases/{product}/{version}", nothing, 200, ("globex-admin", 200)),
    route("POST", "/v1/acts", grant, 403, ("operator", 202)),
    route("POST", "/v1/acts/text", grant, 403, ("operator", 200)),
    route("GET", "/v1/entries/{offset}", nothing, 404, ("globex-admin", 200)),
    route("POST", "/v1/stops", stop, 403, ("globex-admin", 202)),
    route("GET", "/v1/status", nothing, 200, ("globex-admin", 200)),
    route("GET", "/v1/fleet", nothing, 403, ("auditor", 200)),
    route("GET", "/v1/rollouts", nothing, 200, ("globex-admin", 200)),
    route("GET", "/v1/rollouts/{id}", nothing, 200, ("globex-admin", 200)),
    route("GET", "/v1/verdicts", nothing, 403, ("auditor", 200)),
    route("GET", "/v1/policy", nothing, 403, ("auditor", 200)),
    route("GET", "/v1/devices", nothing, 200, ("globex-admin", 200)),
    route("GET", "/v1/devices/{device}", nothing, 404, ("globex-admin", 200)),
    route("GET", "/v1/devices/{device}/explain", nothing, 404, ("globex-admin", 200)),
    route("POST", "/v1/devices/{device}/revoke", reason, 404, ("globex-admin", 200)),
    route("GET", "/v1/pins", nothing, 200, ("globex-admin", 200)),
    route("GET", "/v1/pins/{device}/{product}", nothing, 404, ("globex-admin", 200)),
    route("PUT", "/v1/pins/{device}/{product}", pin, 404, ("globex-admin", 204)),
    route("DELETE", "/v1/pins/{device}/{product}", nothing, 404, ("globex-admin", 204)),
    route("GET", "/v1/windows", nothing, 200, ("globex-admin", 200)),
    route("GET", "/v1/windows/{device}", nothing, 404, ("globex-admin", 200)),
    route("PUT", "/v1/windows/{device}", windows, 404, ("globex-admin", 204)),
    route("DELETE", "/v1/windows/{device}", nothing, 404, ("globex-admin", 204)),
    route("GET", "/v1/freezes", nothing, 200, ("globex-admin", 200)),
    route("GET", "/v1/freezes/{device}", nothing, 404, ("globex-admin", 200)),
    route("PUT", "/v1/freezes/{device}", freezes, 404, ("globex-admin", 204)),
    route("DELETE", "/v1/freezes/{device}", nothing, 404, ("globex-admin", 204)),
    route("POST", "/v1/loosenings", loosening, 403, ("keyed-admin", 204)),
    route("GET", "/v1/grants", nothing, 200, ("globex-admin", 200)),
    route("DELETE", "/v1/grants/{device}/{product}", nothing, 404, ("globex-admin", 204)),
    route("GET", "/v1/audit", nothing, 403, ("auditor", 200)),
];

/// Those that take no token. Letters and enrolments name a tenant and are signed for it: that another's
/// are refused is tested where they are taken.
const OPEN: [(&str, &str); 5] = [
    ("POST", "/v1/enroll"),
    ("POST", "/v1/checkin"),
    ("GET", "/repo/metadata/{file}"),
    ("GET", "/repo/targets/{*path}"),
    ("GET", "/artifacts/{sha256}"),
];

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "PATCH"];
/// What `globex` writes into what it sets; nobody else reads it.
const SECRET: &str = "the plant in Springfield";
/// A token of `globex`.
const TOKEN: &str = "springfield";

#[tokio::test]
async fn every_route_keeps_a_tenants_things_from_another_tenants_people() {
    for route in TABLE {
        let Route { method, path, body, stranger, rightful } = route;
        let what = format!("{method} {path}");
        let own = concrete(path, &device(3).to_string());
        let bench = bench_with_two_tenants().await;
        let (status, _) = bench.ask(rightful.0, (method, &own), &body()).await;
        assert_eq!(status, rightful.1, "{what}, by {}", rightful.0);

        let bench = bench_with_two_tenants().await;
        let before = ["globex", "keyed"].map(|tenant| bench.belongings(tenant));
        let everything = concrete(path, "*");
        let asked = [own.clone(), format!("{own}?tenant=globex"), everything + "?tenant=globex"];
        for (number, path) in asked.iter().enumerate() {
            for token in ["acme-admin", "acme-auditor"] {
                let (status, text) = bench.ask(token, (method, path), &body()).await;
                let what = format!("{method} {path} by {token}: {status} {text}");
                if number == 0 && token == "acme-admin" {
                    assert_eq!(status, *stranger, "{what}");
                }
                // That it was asked for is no secret.
                for secret in ["globex", SECRET, TOKEN, &device(3).to_string()] {
                    assert!(path.contains(secret) || !text.contains(secret), "{what}");
                }
            }
        }
        let after = ["globex", "keyed"].map(|tenant| bench.belongings(tenant));
        assert_eq!(before, after, "{what} changed something");
    }
}

#[tokio::test]
async fn there_is_no_route_beside_those_of_the_table() {
    let table: BTreeSet<_> = TABLE.iter().map(|route| (route.method, route.path)).collect();
    assert_eq!(table.len(), TABLE.len(), "one line each");
    let bench = Bench::new();
    let mut served = BTreeSet::new();
    for (path, _) in routes() {
        for method in METHODS {
            let asked = concrete(path, &device(3).to_string());
            let (status, _) = bench.ask("auditor", (method, &asked), b"").await;
            served.extend((status != 405).then_some((method, path)));
        }
    }
    assert_eq!(served, table);

    let folder = tempfile::tempdir().expect("a folder");
    let letter_box = letter_box(folder.path());
    let mut served = BTreeSet::new();
    for (path, methods) in open_routes() {
        for method in METHODS {
            let yes = serves(path, methods.clone(), method, Arc::clone(&letter_box)).await;
            served.extend(yes.then_some((method, path)));
        }
    }
    assert_eq!(served, OPEN.into());
    letter_box.close();
}

const fn route(
    method: &'static str,
    path: &'static str,
    body: fn() -> Vec<u8>,
    stranger: u16,
    rightful: (&'static str, u16),
) -> Route {
    Route { method, path, body, stranger, rightful }
}

/// A path with `globex`'s things in its places.
fn concrete(path: &str, device: &str) -> String {
    let places = [
        ("{device}", device),
        ("{product}", "app"),
        ("{version}", "1.0.0"),
        ("{offset}", "1"),
        ("{id}", &"05".repeat(32)),
        ("{name}", TOKEN),
        ("{sha256}", &Digest::of(&bytes()).to_string()),
        ("{file}", "1.root.json"),
        ("{*path}", "app/1.0.0.json"),
    ];
    let path = places.iter().fold(path.to_owned(), |path, (place, it)| path.replace(place, it));
    assert!(!path.contains('{'), "nothing stands for a place of {path}");
    path
}

/// `globex` has one of everything: restrictions of a device and of all, a grant (entry 0), a stop
/// (entry 1), a token, alarms.
async fn bench_with_two_tenants() -> Bench {
    let bench = Bench::new();
    bench.release("app", "1.0.0").await;
    bench.status_that_counts(0).await;
    let good = async |token: &str, (method, path): (&str, &str), body: Vec<u8>| {
        let (status, text) = bench.ask(token, (method, path), &body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {text}");
    };
    good("operator", ("POST", "/v1/acts"), grant()).await;
    good("globex-admin", ("POST", "/v1/stops"), stop()).await;
    let token = json!({"name": TOKEN, "role": "auditor"}).to_string();
    good("globex-admin", ("POST", "/v1/tokens"), token.into_bytes()).await;
    for whose in [device(3).to_string(), "*".to_owned()] {
        good("globex-admin", ("PUT", &format!("/v1/pins/{whose}/app")), pin()).await;
        good("globex-admin", ("PUT", &format!("/v1/windows/{whose}")), windows()).await;
        good("globex-admin", ("PUT", &format!("/v1/freezes/{whose}")), freezes()).await;
    }
    good("keyed-admin", ("PUT", "/v1/windows/*"), windows()).await;
    bench
}

fn nothing() -> Vec<u8> {
    Vec::new()
}

fn bytes() -> Vec<u8> {
    b"bytes".to_vec()
}

fn spy() -> Vec<u8> {
    json!({"name": "spy", "role": "auditor", "tenant": "globex"}).to_string().into_bytes()
}

fn publication() -> Vec<u8> {
    json!({"role": "root", "metadata": "{}", "targets": []}).to_string().into_bytes()
}

fn grant() -> Vec<u8> {
    let Act::Grant(mut grant) = testing::grant("globex") else { panic!("a grant") };
    grant.device = device(3);
    grant.reason = SECRET.into();
    serde_json::to_vec(&sign_with(&Act::Grant(grant), &[key(1)])).expect("json")
}

fn stop() -> Vec<u8> {
    let stop = json!({"scope": {"tenant": "globex"}, "how": "pause", "reason": SECRET});
    stop.to_string().into_bytes()
}

fn reason() -> Vec<u8> {
    json!({ "reason": SECRET }).to_string().into_bytes()
}

fn pin() -> Vec<u8> {
    json!({"pin": "n-1"}).to_string().into_bytes()
}

fn windows() -> Vec<u8> {
    let window = json!({"zone": "UTC", "days": ["mon"], "hour": 1, "minute": 0, "length_s": 60});
    json!([window]).to_string().into_bytes()
}

fn freezes() -> Vec<u8> {
    let (from, until) = (NOW, NOW.plus(Seconds(86_400)));
    json!([{"from": from, "until": until, "reason": SECRET}]).to_string().into_bytes()
}

fn loosening() -> Vec<u8> {
    let loosening = Loosening {
        repository: "trial".parse().expect("a name"),
        tenant: "keyed".parse().expect("a name"),
        device: None,
        what: Loosened::Windows,
        before: NOW,
        reason: SECRET.into(),
    };
    let signed = SignedLoosening::make(&loosening, &key(7)).expect("signed");
    serde_json::to_vec(&signed).expect("json")
}

async fn serves(
    path: &str,
    methods: MethodRouter<Arc<LetterBox>>,
    method: &str,
    letter_box: Arc<LetterBox>,
) -> bool {
    let router: Router = Router::new().route(path, methods).with_state(letter_box);
    let uri = concrete(path, "");
    let request = Request::builder().method(method).uri(uri).body(Body::empty());
    let response = router.oneshot(request.expect("a request")).await.expect("never fails");
    response.status().as_u16() != 405
}

fn letter_box(folder: &Path) -> Arc<LetterBox> {
    let store = Box::new(MemoryStore::default());
    LetterBox::open_store(store, &config::tests::api(folder), Polls::default())
        .expect("a letter box")
}
