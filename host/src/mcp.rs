//! The MCP server: operations as tools, over standard input and output.
//!
//! Each call runs in a task of its own. Nothing but the protocol is written to
//! standard output. What concerns a tool is in its operation; here is only the
//! translation.

pub mod install;

mod advice;
mod outline;
mod profile;
mod server;
mod text;
mod tool;

pub use profile::{Answers, Offer, PROFILES, Profile};
pub use tool::Tools;

use crate::context::Roots;
use crate::{Error, ErrorKind, Pyro, Result};
use rmcp::service::{RunningService, ServerInitializeError};
use rmcp::{RoleServer, ServiceExt};
use server::Server;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long calls that were cancelled may take to remove their machines before
/// the server leaves that to the supervisors.
const CLEANUP_MAX: Duration = Duration::from_secs(10);

/// Serves until the client closes its end or `stop` happens; then cancels the
/// calls that still run and waits for them. Workspaces go on. Returns what `stop`
/// gave. Of the host's files, the client may name those within `roots`.
///
/// # Errors
/// When the client does not speak MCP.
pub async fn serve<S>(
    pyro: Pyro,
    tools: Tools,
    roots: Roots,
    stop: impl Future<Output = S>,
) -> Result<Option<S>> {
    let calls = TaskTracker::new();
    let server = Server::new(pyro, tools, roots, calls.clone());
    let leave = CancellationToken::new();
    let served = tokio::select! {
        served = converse(server, leave.clone()) => served.map(|()| None),
        stopped = stop => Ok(Some(stopped)),
    };
    leave.cancel();
    calls.close();
    // Whoever does not finish in time is cleaned up after by its supervisor.
    drop(tokio::time::timeout(CLEANUP_MAX, calls.wait()).await);
    served
}

async fn converse(server: Server, leave: CancellationToken) -> Result<()> {
    let transport = rmcp::transport::stdio_pipes();
    let broken = |what: &str| Error::new(ErrorKind::Protocol, what);
    match server.serve_with_ct(transport, leave).await {
        Ok(running) => RunningService::<RoleServer, Server>::waiting(running)
            .await
            .map(drop)
            .map_err(|error| broken("the MCP server broke off").because(error)),
        // A client that changed its mind before it said anything.
        Err(ServerInitializeError::ConnectionClosed(_) | ServerInitializeError::Cancelled) => {
            Ok(())
        }
        Err(error) => Err(broken("the client does not speak MCP").because(error)),
    }
}
