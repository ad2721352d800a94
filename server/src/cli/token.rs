//! `lockgate token`: API tokens. A new one is printed once; nobody can show it again.

use clap::Subcommand;
use lockgate_shared::id::TenantId;

use super::{Session, exit::CliError, offline, table};
use crate::{
    api::admin::tokens::{TokenAsked, TokenMade, TokenShown},
    registry::rows::TokenRole,
};

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What needs no server
    #[command(flatten)]
    Offline(offline::token::TokenCommand),
    /// Make a token and print it, this once
    Create {
        /// Its name; the policy gives each name to one person. A tenant's administrator's tokens are
        /// called `TENANT/NAME`
        name: String,
        /// What it may do
        #[arg(long, value_enum)]
        role: TokenRole,
        /// The only tenant whose devices it sees
        #[arg(long)]
        tenant: Option<TenantId>,
    },
    /// Revoke a token for good
    Revoke {
        /// Its name
        name: String,
    },
    /// List tokens, without their secrets
    List,
}

/// Does it.
pub async fn run(command: Command, session: &Session) -> Result<(), CliError> {
    match command {
        Command::Offline(command) => session.offline(|_| offline::token::run(&command)),
        Command::Create { name, role, tenant } => {
            let asked = TokenAsked { name, role, tenant };
            let made: TokenMade = session.client()?.post("/v1/tokens", &asked).await?;
            session.print(&made, |made| made.token.clone())
        }
        Command::Revoke { name } => {
            session.client()?.delete(&format!("/v1/tokens/{}", path_part(&name)?)).await?;
            session.done(&format!("token `{name}` is revoked"))
        }
        Command::List => {
            let tokens: Vec<TokenShown> = session.client()?.get("/v1/tokens").await?;
            session.print(&tokens, |tokens| {
                let rows = tokens.iter().map(|token| {
                    vec![
                        token.name.clone(),
                        token.role.to_string(),
                        table::dash(token.tenant.as_ref()),
                        token.created.to_string(),
                        table::dash(token.revoked),
                    ]
                });
                let header = ["name", "role", "tenant", "created", "revoked"];
                table::of(&header, rows.collect(), "no token was made yet")
            })
        }
    }
}

/// A token's name in a path: one name, or two with a slash between them, and nothing else in either that
/// needs escaping.
fn path_part(name: &str) -> Result<String, CliError> {
    for part in name.splitn(2, '/') {
        part.parse::<TenantId>().map_err(|error| CliError::Usage(error.to_string()))?;
    }
    Ok(name.replace('/', "%2F"))
}
