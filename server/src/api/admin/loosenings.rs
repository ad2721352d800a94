//! Loosenings: what a tenant's own key ended of its restrictions. They are carried to the devices, which
//! verify them; here they take away what the tables hold, so that nothing is told that has ended.
//!
//! Of a tenant with a key of its own nothing is cleared without one: its devices would keep it anyway.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode};
use lockgate_shared::loosening::{Loosened, SignedLoosening};

use super::{Admin, Caller, Refusal, Said, auth};
use crate::{
    registry::rows::{self, Reach},
    store::Table,
};

/// `POST /v1/loosenings`
pub async fn submit(
    State(admin): State<Arc<Admin>>,
    caller: Caller,
    Said(signed): Said<SignedLoosening>,
) -> Result<StatusCode, Refusal> {
    caller.need(auth::RESTRICTORS)?;
    let Some(current) = admin.desk.policy() else {
        return Err(Refusal::unavailable("the repository's policy has not been read yet"));
    };
    let it = signed.verify(&current.policy).map_err(|error| Refusal::because("", &error))?;
    let device = it.device.map_or_else(|| "*".to_owned(), |device| device.to_string());
    let reach = caller.reach(&admin, &device, Some(it.tenant.as_str()))?;
    let (kind, gone) = match &it.what {
        Loosened::Pin(product) => (
            format!("pin:{product}"),
            rows::remove(Table::Pins, rows::product_key(&reach, product)),
        ),
        Loosened::Windows => {
            ("windows".to_owned(), rows::remove(Table::Windows, rows::reach_key(&reach)))
        }
        Loosened::Freezes => {
            ("freezes".to_owned(), rows::remove(Table::Freezes, rows::reach_key(&reach)))
        }
    };
    admin
        .registry
        .change::<Refusal>(admin.tables(), |view| {
            let known = view.loosenings.get(&reach).and_then(|all| all.get(&kind));
            if known.and_then(|old| old.unverified().ok()).is_some_and(|old| it.before < old.before)
            {
                return Err(Refusal::invalid("a newer loosening of the same is in force already"));
            }
            let key = rows::loosening_key(&reach, &kind);
            Ok(vec![gone, rows::write(Table::Loosenings, key, &signed)?])
        })
        .await?;
    admin.record(&caller, "loosened", &format!("{reach}, {kind}: {}", it.reason))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses to clear what only the tenant's own key may.
pub(super) fn check(admin: &Admin, reach: &Reach) -> Result<(), Refusal> {
    let keyed = admin.desk.policy().is_some_and(|current| {
        let tenant = current.policy.tenants.get(&reach.tenant);
        tenant.is_some_and(|tenant| tenant.tenant_key.is_some())
    });
    if keyed {
        return Err(Refusal::forbidden(format!(
            "tenant `{0}` has a key of its own, and only that loosens\nhint: `lockgate tenant loosen --tenant {0} --out FILE`, then `lockgate tenant submit FILE`",
            reach.tenant
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use lockgate_shared::{
        id::ProductId,
        loosening::Loosening,
        time::{Moment, Seconds},
    };
    use serde_json::json;

    use super::super::testing::{self, Bench};
    use super::*;

    #[tokio::test]
    async fn of_a_tenant_with_a_key_of_its_own_only_that_key_clears() {
        let bench = Bench::new();
        let app: ProductId = "app".parse().expect("a name");
        bench.release("app", "1.0.0").await;
        let path = "/v1/pins/*/app";
        for (token, tenant, status) in [("acme-admin", "acme", 204), ("keyed-admin", "keyed", 403)]
        {
            assert_eq!(bench.put(token, path, &json!({"pin": "1.0.0"})).await.status, 204);
            let cleared = bench.delete(token, path).await;
            assert_eq!(cleared.status, status, "{tenant}");
        }
        let windows =
            json!([{"zone": "UTC", "days": ["mon"], "hour": 1, "minute": 0, "length_s": 60}]);
        assert_eq!(bench.put("keyed-admin", "/v1/windows/*", &windows).await.status, 204);
        assert_eq!(bench.delete("keyed-admin", "/v1/windows/*").await.status, 403);
        let send = |key: u8, before: Moment| {
            let loosening = Loosening {
                repository: "trial".parse().expect("a name"),
                tenant: "keyed".parse().expect("a name"),
                device: None,
                what: Loosened::Pin(app.clone()),
                before,
                reason: "checked".into(),
            };
            let signed = SignedLoosening::make(&loosening, &testing::key(key)).expect("signed");
            serde_json::to_value(signed).expect("json")
        };
        let at = testing::NOW;
        let post = async |token, body| bench.post(token, "/v1/loosenings", &body).await.status;
        assert_eq!(post("keyed-admin", send(8, at)).await, 422, "another's key");
        assert_eq!(post("acme-admin", send(7, at)).await, 403, "another tenant's token");
        assert_eq!(bench.orders("keyed", 4).pins.len(), 1);
        assert_eq!(post("keyed-admin", send(7, at)).await, 204);
        let orders = bench.orders("keyed", 4);
        assert!(orders.pins.is_empty() && orders.loosened.len() == 1 && orders.windows.len() == 1);
        assert_eq!(post("keyed-admin", send(7, at.minus(Seconds(1)))).await, 422, "an older one");
    }
}
