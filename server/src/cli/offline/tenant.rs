//! `lockgate tenant loosen`: the end of what a tenant's devices were told, signed by the tenant's own
//! key, wherever that lies.

use std::{io, path::PathBuf};

use clap::{Args, Subcommand};
use lockgate_shared::{
    id::{DeviceId, ProductId, TenantId},
    loosening::{Loosened, Loosening, SignedLoosening},
    sign::Domain,
};
use serde_json::json;

use super::{Answer, CliError, PassphraseArgs, PolicyArgs};
use crate::{
    clock,
    signer::{self, KeyRef},
    whole_folder::{self, Readers},
};

/// What a tenant does away from the server.
#[derive(Clone, Debug, Subcommand)]
pub enum TenantCommand {
    /// Sign the end of a pin, of windows or of freezes
    Loosen(Box<LoosenArgs>),
}

/// Options of `tenant loosen`.
#[derive(Clone, Debug, Args)]
pub struct LoosenArgs {
    /// The tenant
    #[arg(long)]
    pub tenant: TenantId,
    /// One device only; else all of the tenant's
    #[arg(long)]
    pub device: Option<DeviceId>,
    /// What ends
    #[command(flatten)]
    pub what: What,
    /// Why
    #[arg(long)]
    pub reason: String,
    /// The tenant's own key: a file, `pkcs11:…` (RFC 7512), or `command:PROGRAM`
    #[arg(long, value_name = "KEY")]
    pub key: KeyRef,
    /// The key's passphrase
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
    /// The policy
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

/// What ends: one kind of restriction.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct What {
    /// Every pin of this product
    #[arg(long, value_name = "PRODUCT")]
    pub pin: Option<ProductId>,
    /// Maintenance windows
    #[arg(long)]
    pub windows: bool,
    /// Freezes
    #[arg(long)]
    pub freezes: bool,
}

/// Does what was asked.
pub fn run(command: &TenantCommand) -> Result<Answer, CliError> {
    match command {
        TenantCommand::Loosen(args) => loosen(args),
    }
}

fn loosen(args: &LoosenArgs) -> Result<Answer, CliError> {
    let policy = args.policy.require()?;
    let what = match (&args.what.pin, args.what.windows) {
        (Some(product), _) => Loosened::Pin(product.clone()),
        (None, true) => Loosened::Windows,
        (None, false) => Loosened::Freezes,
    };
    let loosening = Loosening {
        repository: policy.repository.clone(),
        tenant: args.tenant.clone(),
        device: args.device,
        what,
        before: clock::now(),
        reason: args.reason.clone(),
    };
    let whom = args.device.map_or("all devices".to_owned(), |device| format!("device {device}"));
    let words = match &loosening.what {
        Loosened::Pin(product) => format!("pins of `{product}`"),
        Loosened::Windows => "windows".to_owned(),
        Loosened::Freezes => "freezes".to_owned(),
    };
    let key = args.key.open(&args.passphrase.source())?;
    let text = SignedLoosening::text_of(&loosening)?;
    let signature = signer::signed_for(&*key, Domain::LooseningV1, text.as_bytes())?;
    let signed = SignedLoosening { text, signature };
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
    Ok(Answer { text, json: json!({ "file": args.out, "loosening": loosening }) })
}
