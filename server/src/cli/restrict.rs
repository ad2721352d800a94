//! `lockgate pin`, `window` and `freeze`: what restricts a device, or with `*` all of a tenant's.

use clap::{Args, Subcommand};
use lockgate_shared::{
    id::{ProductId, TenantId},
    time::{Moment, Seconds},
    window::{Freeze, Weekday, Window},
};

use super::{Session, client::Client, device_id, exit::CliError, table};
use crate::api::admin::restrictions::{PinSaid, PinShown, Shown};

/// For whom.
#[derive(Args, Debug)]
pub struct Whom {
    /// The device, its first digits, or `*` for all of a tenant's
    device: String,
    /// The tenant, where the token does not say it
    #[arg(long)]
    tenant: Option<TenantId>,
}

/// Pins.
#[derive(Debug, Subcommand)]
pub enum PinCommand {
    /// Set a pin
    Set {
        /// For whom
        #[command(flatten)]
        whom: Whom,
        /// The product
        product: ProductId,
        /// `latest`, `n-1`, `n-2` or a version
        pin: String,
    },
    /// Remove a pin
    Clear {
        /// For whom
        #[command(flatten)]
        whom: Whom,
        /// The product
        product: ProductId,
    },
    /// List pins
    List,
}

/// Maintenance windows.
#[derive(Debug, Subcommand)]
pub enum WindowCommand {
    /// Set a window in place of those that were set
    Set {
        /// For whom
        #[command(flatten)]
        whom: Whom,
        /// The IANA zone, such as `Europe/Berlin`
        #[arg(long)]
        zone: String,
        /// The days on which it opens, such as `mon,tue`
        #[arg(long, value_delimiter = ',', required = true, value_parser = weekday)]
        days: Vec<Weekday>,
        /// The local time at which it opens, such as `22:00`
        #[arg(long, value_parser = clock_time)]
        at: (u8, u8),
        /// How long it stays open, such as `2h` or `90m`
        #[arg(long, value_parser = span)]
        length: Seconds,
        /// Keep the windows that were set, and add this one
        #[arg(long)]
        add: bool,
    },
    /// Remove all windows
    Clear {
        /// For whom
        #[command(flatten)]
        whom: Whom,
    },
    /// List windows
    List,
}

/// Freezes.
#[derive(Debug, Subcommand)]
pub enum FreezeCommand {
    /// Set a freeze in place of those that were set
    Set {
        /// For whom
        #[command(flatten)]
        whom: Whom,
        /// When it begins, such as `2026-12-20T00:00:00Z`
        #[arg(long, value_parser = moment)]
        from: Moment,
        /// When it ends
        #[arg(long, value_parser = moment)]
        until: Moment,
        /// Why
        #[arg(long)]
        reason: String,
        /// Keep the freezes that were set, and add this one
        #[arg(long)]
        add: bool,
    },
    /// Remove all freezes
    Clear {
        /// For whom
        #[command(flatten)]
        whom: Whom,
    },
    /// List freezes
    List,
}

const SOON: &str = "devices hear of it at their next check-in";

/// Does what was asked about pins.
pub async fn pin(command: PinCommand, session: &Session) -> Result<(), CliError> {
    let client = session.client()?;
    match command {
        PinCommand::Set { whom, product, pin } => {
            let path = whom.path(&client, "pins", Some(&product)).await?;
            client.send("PUT", &path, &PinSaid { pin }).await?;
            session.done(&format!("set; {SOON}"))
        }
        PinCommand::Clear { whom, product } => {
            let path = whom.path(&client, "pins", Some(&product)).await?;
            client.delete(&path).await?;
            session.done(&format!("cleared; {SOON}"))
        }
        PinCommand::List => {
            let pins: Vec<PinShown> = client.get("/v1/pins").await?;
            session.print(&pins, |pins| {
                let rows = pins.iter().map(|pin| {
                    vec![
                        pin.tenant.to_string(),
                        table::short(&pin.device),
                        pin.product.to_string(),
                        pin.pin.clone(),
                    ]
                });
                table::of(&["tenant", "device", "product", "pin"], rows.collect(), "no pin is set")
            })
        }
    }
}

/// Does what was asked about windows.
pub async fn window(command: WindowCommand, session: &Session) -> Result<(), CliError> {
    let client = session.client()?;
    match command {
        WindowCommand::Set { whom, zone, days, at: (hour, minute), length, add } => {
            let path = whom.path(&client, "windows", None).await?;
            let days = days.into_iter().collect();
            let new = Window { zone, days, hour, minute, length_s: length };
            new.check().map_err(|error| CliError::Usage(error.to_string()))?;
            put(&client, &path, new, Place::of(add)).await?;
            session.done(&format!("set; {SOON}"))
        }
        WindowCommand::Clear { whom } => clear(session, &client, &whom, "windows").await,
        WindowCommand::List => {
            let all: Vec<Shown<Window>> = client.get("/v1/windows").await?;
            session.print(&all, |all| {
                let rows = all.iter().flat_map(|shown| {
                    shown.set.iter().map(|window| {
                        let days: Vec<String> = window.days.iter().map(table::word).collect();
                        vec![
                            shown.tenant.to_string(),
                            table::short(&shown.device),
                            days.join(","),
                            format!("{:02}:{:02}", window.hour, window.minute),
                            window.length_s.to_string(),
                            window.zone.clone(),
                        ]
                    })
                });
                let header = ["tenant", "device", "days", "at", "length", "zone"];
                table::of(&header, rows.collect(), "no window is set: installing is always allowed")
            })
        }
    }
}

/// Does what was asked about freezes.
pub async fn freeze(command: FreezeCommand, session: &Session) -> Result<(), CliError> {
    let client = session.client()?;
    match command {
        FreezeCommand::Set { whom, from, until, reason, add } => {
            let path = whom.path(&client, "freezes", None).await?;
            put(&client, &path, Freeze { from, until, reason }, Place::of(add)).await?;
            session.done(&format!("set; {SOON}"))
        }
        FreezeCommand::Clear { whom } => clear(session, &client, &whom, "freezes").await,
        FreezeCommand::List => {
            let all: Vec<Shown<Freeze>> = client.get("/v1/freezes").await?;
            session.print(&all, |all| {
                let rows = all.iter().flat_map(|shown| {
                    shown.set.iter().map(|freeze| {
                        vec![
                            shown.tenant.to_string(),
                            table::short(&shown.device),
                            freeze.from.to_string(),
                            freeze.until.to_string(),
                            freeze.reason.clone(),
                        ]
                    })
                });
                let header = ["tenant", "device", "from", "until", "reason"];
                table::of(&header, rows.collect(), "no freeze is set")
            })
        }
    }
}

async fn clear(
    session: &Session,
    client: &Client,
    whom: &Whom,
    what: &str,
) -> Result<(), CliError> {
    client.delete(&whom.path(client, what, None).await?).await?;
    session.done(&format!("cleared; {SOON}"))
}

/// Where something new goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In place of those that are set.
    Instead,
    /// Behind them.
    Behind,
}

impl Place {
    /// By the option `--add`.
    const fn of(add: bool) -> Self {
        if add { Self::Behind } else { Self::Instead }
    }
}

/// Puts one thing in place of, or behind, those that are set.
async fn put<T: serde::Serialize + serde::de::DeserializeOwned>(
    client: &Client,
    path: &str,
    new: T,
    place: Place,
) -> Result<(), CliError> {
    let mut all: Vec<T> = match place {
        Place::Instead => Vec::new(),
        Place::Behind => match client.get(path).await {
            Ok(set) => set,
            Err(CliError::Refused(problem)) if problem.status == 404 => Vec::new(),
            Err(error) => return Err(error),
        },
    };
    all.push(new);
    client.send("PUT", path, &all).await.map(drop)
}

impl Whom {
    async fn path(
        &self,
        client: &Client,
        what: &str,
        product: Option<&ProductId>,
    ) -> Result<String, CliError> {
        let device = device_id(client, &self.device).await?;
        let product = product.map(|product| format!("/{product}")).unwrap_or_default();
        let tenant = self.tenant.as_ref().map(|tenant| format!("?tenant={tenant}"));
        Ok(format!("/v1/{what}/{device}{product}{}", tenant.unwrap_or_default()))
    }
}

fn weekday(text: &str) -> Result<Weekday, String> {
    serde_json::from_value(serde_json::Value::String(text.trim().to_lowercase()))
        .map_err(|_| "use `mon`, `tue`, `wed`, `thu`, `fri`, `sat` or `sun`".into())
}

fn clock_time(text: &str) -> Result<(u8, u8), String> {
    let wrong = || "use a time such as `22:00`".to_owned();
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let hour: u8 = hour.parse().map_err(|_| wrong())?;
    let minute: u8 = minute.parse().map_err(|_| wrong())?;
    if hour < 24 && minute < 60 { Ok((hour, minute)) } else { Err(wrong()) }
}

/// A span such as `2h`, `90m`, `1h30m` or `1d`.
fn span(text: &str) -> Result<Seconds, String> {
    let wrong = || "use a span such as `2h`, `90m`, `1h30m` or `1d`".to_owned();
    let mut sum = 0u64;
    let mut digits = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let count: u64 = digits.parse().map_err(|_| wrong())?;
        sum = count.checked_mul(unit).and_then(|span| sum.checked_add(span)).ok_or_else(wrong)?;
        digits.clear();
    }
    if digits.is_empty() && sum > 0 { Ok(Seconds(sum)) } else { Err(wrong()) }
}

fn moment(text: &str) -> Result<Moment, String> {
    Moment::parse_rfc3339(text).ok_or_else(|| "use a moment such as `2026-12-20T00:00:00Z`".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_times_are_read_as_people_write_them() {
        assert_eq!(span("1h30m"), Ok(Seconds(5400)));
        assert_eq!(span("2d"), Ok(Seconds(172_800)));
        for bad in ["", "2", "h", "2x", "0s", "99999999999999999999d"] {
            assert!(span(bad).is_err(), "{bad}");
        }
        assert_eq!(clock_time("22:05"), Ok((22, 5)));
        for bad in ["24:00", "22:60", "22", "a:b"] {
            assert!(clock_time(bad).is_err(), "{bad}");
        }
        assert_eq!(weekday("Mon"), Ok(Weekday::Mon));
        assert!(weekday("monday").is_err());
    }
}
