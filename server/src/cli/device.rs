//! `lockgate device`: the list, one device, and why it does or does not install.

use clap::Subcommand;
use lockgate_shared::{count::count, id::TenantId};

use super::{Session, device_id, exit::CliError, table};
use crate::{
    api::admin::{
        desk::KnownDevice,
        devices::{DEVICES_MAX, DeviceShown, Explanation, RevokeAsked, Speaker, Statement},
    },
    clock,
    letters::{bars::BarKind, record::LastLetter},
};

/// What can be asked about devices.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List devices
    List {
        /// Of one tenant
        #[arg(long)]
        tenant: Option<TenantId>,
        /// How many at most
        #[arg(long, default_value_t = 1000)]
        limit: usize,
        /// Only those that are revoked or held, or wrote under used numbers
        #[arg(long)]
        problems: bool,
    },
    /// Take no letter of a device any more, for good; a token is enough, because it only restricts
    Revoke {
        /// The device, or its first digits
        device: String,
        /// Why: whoever finds the device reads it
        #[arg(long)]
        reason: String,
    },
    /// Show a device: what it is, what it said, what it is told
    Show {
        /// The device, or its first digits
        device: String,
    },
    /// Show why a device does or does not install, and who says so
    Explain {
        /// The device, or its first digits
        device: String,
    },
}

/// Does it.
pub async fn run(command: Command, session: &Session) -> Result<(), CliError> {
    match command {
        Command::List { tenant, limit, problems } => list(session, tenant, limit, problems).await,
        Command::Revoke { device, reason } => {
            let client = session.client()?;
            let device = one(device_id(&client, &device).await?)?;
            let path = format!("/v1/devices/{device}/revoke");
            let known: KnownDevice = client.post(&path, &RevokeAsked { reason }).await?;
            session.print(&known, |known| {
                let number = known.barred.as_ref().map_or(0, |bar| bar.number);
                format!("device {} is revoked, number {number}", table::short(known.device))
            })
        }
        Command::Show { device } => {
            let client = session.client()?;
            let device = one(device_id(&client, &device).await?)?;
            let shown: DeviceShown = client.get(&format!("/v1/devices/{device}")).await?;
            session.print(&shown, show_text)
        }
        Command::Explain { device } => {
            let client = session.client()?;
            let device = one(device_id(&client, &device).await?)?;
            let explanation: Explanation =
                client.get(&format!("/v1/devices/{device}/explain")).await?;
            session.print(&explanation, explain_text)
        }
    }
}

fn one(device: String) -> Result<String, CliError> {
    if device == "*" {
        return Err(CliError::Usage("name one device; `*` is for pins and windows".into()));
    }
    Ok(device)
}

async fn list(
    session: &Session,
    tenant: Option<TenantId>,
    limit: usize,
    problems: bool,
) -> Result<(), CliError> {
    let client = session.client()?;
    let tenant = tenant.map(|tenant| format!("&tenant={tenant}")).unwrap_or_default();
    let mut found: Vec<KnownDevice> = Vec::new();
    while found.len() < limit {
        let page = DEVICES_MAX.min(limit - found.len());
        let after = found.last().map(|known| format!("&after={}", known.device));
        let path = format!("/v1/devices?limit={page}{tenant}{}", after.unwrap_or_default());
        let next: Vec<KnownDevice> = client.get(&path).await?;
        let last = next.len() < page;
        found.extend(next);
        if last {
            break;
        }
    }
    if problems {
        found.retain(KnownDevice::is_odd);
    }
    let none = if problems { "no device has a problem" } else { "no device has enrolled yet" };
    session.print(&found, |found| {
        let header = ["device", "tenant", "model", "seen", "products"];
        table::of(&header, found.iter().map(row).collect(), none)
    })
}

fn row(known: &KnownDevice) -> Vec<String> {
    let model = known.facts.as_ref().and_then(|facts| words(&[&facts.vendor, &facts.model]));
    let products = known.letter.iter().flat_map(|letter| &letter.products).map(|product| {
        format!(
            "{} {} ({})",
            product.product,
            table::dash(product.running.as_ref()),
            table::word(&product.state)
        )
    });
    vec![
        table::short(known.device),
        known.tenant.to_string(),
        table::dash(model),
        table::ago(clock::now(), known.seen),
        products.collect::<Vec<_>>().join(", "),
    ]
}

fn show_text(shown: &DeviceShown) -> String {
    let mut rows = identity_rows(&shown.known);
    if let Some(letter) = &shown.known.letter {
        rows.extend(letter_rows(letter));
    }
    rows.push(("orders", orders_text(shown)));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let lines: Vec<String> =
        rows.iter().map(|(name, text)| format!("{name:width$}  {text}")).collect();
    lines.join("\n")
}

/// Who the device is, and what speaks against its letters.
fn identity_rows(known: &KnownDevice) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("device", known.device.to_string()),
        ("tenant", known.tenant.to_string()),
        ("enrolled", known.enrolled.to_string()),
        ("seen", table::ago(clock::now(), known.seen)),
        ("letters", known.sequence.to_string()),
    ];
    if let Some(bar) = &known.barred {
        let word = match bar.kind {
            BarKind::Revoked => "revoked",
            BarKind::Held => "held",
        };
        rows.push((word, format!("since {} (number {}): {}", bar.since, bar.number, bar.reason)));
    }
    if known.replayed > 0 {
        let letters = count(known.replayed, "letter", "letters");
        let text = format!("{letters} under used numbers: perhaps a clone");
        rows.push(("replayed", text));
    }
    if let Some(facts) = &known.facts {
        let told = |facts: &[&str]| words(facts).unwrap_or_else(|| NOT_TOLD.to_owned());
        rows.push(("hardware", told(&[&facts.vendor, &facts.model, &facts.arch])));
        rows.push(("system", told(&[&facts.os_id, &facts.os_version])));
        rows.push(("firmware", told(&[&facts.firmware_version])));
    }
    rows
}

/// What it said in its last letter.
fn letter_rows(letter: &LastLetter) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("agent", letter.agent.to_string()),
        ("highest stop", letter.highest_stop.to_string()),
    ];
    for product in &letter.products {
        let text = format!(
            "{} {}, other slot {}, channel {}, pin {}, {}",
            product.product,
            table::dash(product.running.as_ref()),
            table::dash(product.other.as_ref()),
            product.channel,
            product.pin,
            table::word(&product.state)
        );
        rows.push(("product", text));
    }
    rows.extend(letter.notices.iter().map(|notice| ("notice", notice.clone())));
    rows
}

/// How much it is told, and whether it has heard all of it.
fn orders_text(shown: &DeviceShown) -> String {
    let held =
        if shown.orders_held { "the device holds them" } else { "the device has others yet" };
    format!(
        "{}, {}, {}, {}, {}; {held}",
        count(shown.orders.pins.len(), "pin", "pins"),
        count(shown.orders.windows.len(), "window", "windows"),
        count(shown.orders.freezes.len(), "freeze", "freezes"),
        count(shown.orders.stops.len(), "stop", "stops"),
        count(shown.orders.grants.len(), "grant", "grants")
    )
}

/// In the place of what a device could not find out.
const NOT_TOLD: &str = "the device could not find out";

/// What a device could find out about itself: a machine without firmware tables names no vendor.
fn words(facts: &[&str]) -> Option<String> {
    let known: Vec<&str> = facts.iter().copied().filter(|word| !word.is_empty()).collect();
    (!known.is_empty()).then(|| known.join(" "))
}

fn explain_text(explanation: &Explanation) -> String {
    let mut text = format!(
        "device {}, last letter {}",
        explanation.device,
        table::ago(clock::now(), explanation.seen)
    );
    for mouth in [Speaker::Device, Speaker::Server, Speaker::Gatekeeper] {
        let own: Vec<&Statement> =
            explanation.lines.iter().filter(|line| line.says == mouth).collect();
        if own.is_empty() {
            continue;
        }
        text += match mouth {
            Speaker::Device => "\n\nthe device says, signed:",
            Speaker::Server => "\n\nthe server says:",
            Speaker::Gatekeeper => "\n\nthe gatekeeper says:",
        };
        for line in own {
            let about = match (&line.product, &line.rollout) {
                (Some(product), None) => format!("{product}: "),
                (_, Some(rollout)) => format!("rollout {}: ", table::short(rollout)),
                (None, None) => String::new(),
            };
            let code = line.code.map(|code| format!(" [{code}]")).unwrap_or_default();
            text += &format!("\n  {about}{}{code}", line.text);
        }
    }
    text
}
