//! `GET /metrics`: what an operator's Prometheus watches, in its text format, behind a token of an
//! auditor or operator. It says how long signed roles are good and since when the gatekeeper is still,
//! so that nobody has to remember; what it means is in [`crate::ceremony::doctor`]'s named times.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use lockgate_shared::{policy::Policy, time::Moment};

use super::{Admin, Caller, Refusal};
use crate::{ceremony::doctor, registry::rows::TokenRole, status::Status};

/// The format's name, with its version.
const FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// `GET /metrics`
pub async fn metrics(State(admin): State<Arc<Admin>>, caller: Caller) -> Result<Response, Refusal> {
    caller.need_vendor(&[TokenRole::Operator, TokenRole::Auditor])?;
    let (status, policy) = (admin.status(), admin.desk.policy());
    let policy = policy.as_ref().map(|current| &current.policy);
    let mut response = text(status.as_deref(), policy, admin.desk.now()).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, FORMAT);
    Ok(response)
}

/// The whole text.
fn text(status: Option<&Status>, policy: Option<&Policy>, now: Moment) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut out, status, policy, now);
    out
}

fn write(
    out: &mut String,
    status: Option<&Status>,
    policy: Option<&Policy>,
    now: Moment,
) -> fmt::Result {
    let until = |moment: Moment| moment.0.saturating_sub(now.0);
    head(out, "lockgate_gatekeeper_up", "whether the gatekeeper has reported")?;
    writeln!(out, "lockgate_gatekeeper_up {}", u8::from(status.is_some()))?;
    if let Some(status) = status {
        head(out, "lockgate_gatekeeper_silent_seconds", "since the gatekeeper's last report")?;
        writeln!(out, "lockgate_gatekeeper_silent_seconds {}", -until(status.at))?;
        head(out, "lockgate_role_expires_seconds", "until devices refuse the role's metadata")?;
        for role in &status.expiries {
            let (name, left) = (&role.role, until(role.expires));
            writeln!(out, "lockgate_role_expires_seconds{{role=\"{name}\"}} {left}")?;
        }
        head(out, "lockgate_role_warning_seconds", "before its end a role must be looked at")?;
        for role in &status.expiries {
            let (name, warning) = (&role.role, doctor::warning(&role.role).0);
            writeln!(out, "lockgate_role_warning_seconds{{role=\"{name}\"}} {warning}")?;
        }
        head(out, "lockgate_role_version", "of the role's metadata in force")?;
        for role in &status.expiries {
            writeln!(out, "lockgate_role_version{{role=\"{}\"}} {}", role.role, role.version)?;
        }
        head(out, "lockgate_stops", "numbered stops that no lift has ended")?;
        writeln!(out, "lockgate_stops {}", status.stops.len())?;
        head(out, "lockgate_alarms", "what an operator should look at")?;
        writeln!(out, "lockgate_alarms {}", status.alarms.len())?;
    }
    if let Some(policy) = policy {
        head(out, "lockgate_key_review_seconds", "until a third party's key is to be reviewed")?;
        for (key, date) in &policy.reviews {
            writeln!(out, "lockgate_key_review_seconds{{key=\"{key}\"}} {}", until(*date))?;
        }
    }
    Ok(())
}

/// What a measure is. All of them are gauges.
fn head(out: &mut String, name: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge")
}

#[cfg(test)]
mod tests {
    use lockgate_shared::time::Seconds;

    use super::{super::testing::Bench, *};
    use crate::status::Expiry;

    #[tokio::test]
    async fn the_vendors_readers_see_the_metrics_and_nobody_else() {
        let bench = Bench::new();
        for (token, status) in
            [("acme-admin", 403), ("acme-auditor", 403), ("publisher", 403), ("auditor", 200)]
        {
            assert_eq!(bench.get(token, "/metrics").await.status, status, "{token}");
        }
    }

    #[test]
    fn a_role_says_how_long_it_is_good_and_goes_below_zero_after_its_end() {
        let now = Moment(1_795_000_000);
        let expiry = |role: &str, expires| Expiry { role: role.into(), version: 3, expires };
        let status = Status {
            repository: "trial".parse().expect("a name"),
            at: now.minus(Seconds(7)),
            letters_offset: 0,
            tick_s: Seconds(300),
            rollouts: vec![],
            stops: vec![],
            expiries: vec![
                expiry("root", now.plus(Seconds(86_400))),
                expiry("timestamp", now.minus(Seconds(60))),
            ],
            cohorts: vec![],
            alarms: vec![],
            hearing: None,
            fleet: None,
        };
        let said = text(Some(&status), None, now);
        for line in [
            "lockgate_gatekeeper_up 1",
            "lockgate_gatekeeper_silent_seconds 7",
            "lockgate_role_expires_seconds{role=\"root\"} 86400",
            "lockgate_role_warning_seconds{role=\"root\"} 7776000",
            "lockgate_role_expires_seconds{role=\"timestamp\"} -60",
            "lockgate_role_version{role=\"timestamp\"} 3",
        ] {
            assert!(said.lines().any(|found| found == line), "{line:?} is not in\n{said}");
        }
        assert!(text(None, None, now).contains("lockgate_gatekeeper_up 0"));
    }
}
