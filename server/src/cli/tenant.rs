//! `lockgate tenant`: what a tenant does with its own key. `loosen` needs no server; `submit` carries
//! what was signed there.

use std::{io, path::PathBuf};

use clap::{Args, Subcommand};
use lockgate_shared::{
    id::{DeviceId, ProductId, TenantId},
    loosening::{LOOSENING_BYTES, Loosened, Loosening, SignedLoosening},
};

use super::{
    Session,
    exit::CliError,
    offline::{self, Answer, CliError as Offline, PassphraseArgs, PolicyArgs},
};
use crate::{
    clock, keys,
    whole_folder::{self, Readers},
};

/// What a tenant does with its own key.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign the end of a pin, of windows or of freezes
    Loosen(Box<LoosenArgs>),
    /// Send what was signed to the server
    Submit {
        /// The file that `loosen` wrote
        file: PathBuf,
    },
}

/// Options of `tenant loosen`.
#[derive(Debug, Args)]
pub struct LoosenArgs {
    /// The tenant
    #[arg(long)]
    tenant: TenantId,
    /// One device only; else all of the tenant's
    #[arg(long)]
    device: Option<DeviceId>,
    #[command(flatten)]
    what: What,
    /// Why
    #[arg(long)]
    reason: String,
    /// The tenant's own key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Every pin of this product
    #[arg(long, value_name = "PRODUCT")]
    pin: Option<ProductId>,
    /// Maintenance windows
    #[arg(long)]
    windows: bool,
    /// Freezes
    #[arg(long)]
    freezes: bool,
}

/// Does it.
pub async fn run(command: Command, session: &Session) -> Result<(), CliError> {
    match command {
        Command::Loosen(args) => session.offline(|_| loosen(*args)),
        Command::Submit { file } => {
            // The text stands in JSON once more, and a signature beside it.
            let bytes = offline::read(&file, 3 * LOOSENING_BYTES)?;
            let signed: SignedLoosening = serde_json::from_slice(&bytes)
                .map_err(|error| CliError::Usage(format!("`{}`: {error}", file.display())))?;
            session.client()?.send("POST", "/v1/loosenings", &signed).await?;
            session.done("accepted; devices hear of it at their next check-in")
        }
    }
}

fn loosen(args: LoosenArgs) -> Result<Answer, Offline> {
    let policy = args.policy.require()?;
    let what = match (args.what.pin, args.what.windows) {
        (Some(product), _) => Loosened::Pin(product),
        (None, true) => Loosened::Windows,
        (None, false) => Loosened::Freezes,
    };
    let loosening = Loosening {
        repository: policy.repository.clone(),
        tenant: args.tenant,
        device: args.device,
        what,
        before: clock::now(),
        reason: args.reason,
    };
    let whom = args.device.map_or("all devices".to_owned(), |device| format!("device {device}"));
    let words = match &loosening.what {
        Loosened::Pin(product) => format!("pins of `{product}`"),
        Loosened::Windows => "windows".to_owned(),
        Loosened::Freezes => "freezes".to_owned(),
    };
    let key = keys::read(&args.key, &args.passphrase.source())?;
    let signed = SignedLoosening::make(&loosening, &key)?;
    signed.verify(&policy)?;
    let mut text = serde_json::to_vec_pretty(&signed).map_err(io::Error::from)?;
    text.push(b'\n');
    whole_folder::write_new(&args.out, &text, Readers::Everybody)?;
    let text = format!(
        "LOOSEN the {words} of {whom} of tenant `{}`\ntold before  {}\n\nwritten to `{at}`\nnext: \
         `lockgate tenant submit {at}`\n",
        loosening.tenant,
        loosening.before,
        at = args.out.display()
    );
    let json = serde_json::json!({ "file": args.out, "loosening": loosening });
    Ok(Answer { text, json })
}
