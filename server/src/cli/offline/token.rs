//! `lockgate token enrol`: permission for devices to come into a tenant, signed by the tenant's
//! enrolment key, which the server does not hold.

use clap::{Args, Subcommand};
use lockgate_shared::{
    id::{TenantId, TokenId},
    sign::Domain,
    wire::{EnrolmentToken, SignedToken},
};
use serde_json::json;

use super::{Answer, CliError, PassphraseArgs, PolicyArgs};
use crate::{
    clock, dice, names,
    signer::{self, KeyRef},
    span::Span,
};

/// Tokens that need no server.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenCommand {
    /// Make an enrolment token and print its text
    Enrol(EnrolArgs),
}

/// Options of `token enrol`.
#[derive(Clone, Debug, Args)]
pub struct EnrolArgs {
    /// The tenant
    #[arg(long)]
    pub tenant: TenantId,
    /// For how many devices
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: u32,
    /// For how long
    #[arg(long, value_name = "SPAN")]
    pub expires: Span,
    /// The tenant's enrolment key: a file, `pkcs11:…` (RFC 7512), or `command:PROGRAM`
    #[arg(long, value_name = "KEY")]
    pub key: KeyRef,
    /// The key's passphrase
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
    /// The policy
    #[command(flatten)]
    pub policy: PolicyArgs,
}

/// Does what was asked: prints the token's text and nothing else, so that it can be piped.
pub fn run(command: &TokenCommand) -> Result<Answer, CliError> {
    match command {
        TokenCommand::Enrol(args) => {
            let policy = args.policy.require()?;
            let Some(tenant) = policy.tenants.get(&args.tenant) else {
                let known = policy.tenants.keys().map(TenantId::as_str);
                let known = names::instead_of(args.tenant.as_str(), known);
                return Err(CliError::NoTenant { tenant: args.tenant.clone(), known });
            };
            let key = args.key.open(&args.passphrase.source())?;
            if !tenant.enrolment_keys.contains(&key.public()) {
                let (path, tenant) = (args.key.clone(), args.tenant.to_string());
                return Err(CliError::NoEnrolmentKey { path, tenant });
            }
            let (now, Span(life)) = (clock::now(), args.expires);
            let token = EnrolmentToken {
                repository: policy.repository.clone(),
                tenant: args.tenant.clone(),
                id: TokenId(dice::bytes()),
                issued: now,
                expires: now.plus(life),
                uses: args.uses,
            };
            let bytes = SignedToken::text_of(&token)?;
            let signature = signer::signed_for(&*key, Domain::TokenV1, &bytes)?;
            let signed = SignedToken { bytes, key: key.public(), signature };
            signed.verify(&policy, now)?;
            let text = signed.to_text()?;
            Ok(Answer {
                json: json!({
                    "token": text, "tenant": token.tenant, "uses": token.uses, "expires": token.expires,
                }),
                text: text + "\n",
            })
        }
    }
}
