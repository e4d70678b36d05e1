//! Disposable Linux computers in microVMs, for coding agents and people.
//!
//! ```no_run
//! # async fn example() -> pyro::Result<()> {
//! use pyro::{Config, Pyro, operation::Run};
//!
//! let pyro = Pyro::new(Config::from_environment()?);
//! let answer = pyro.call(Run::new("debian:12", ["git", "--version"])).await?;
//! assert_eq!(answer.exit_code, 0);
//! # Ok(())
//! # }
//! ```
//!
//! The command line, the MCP server and this library are three faces of one
//! table, [`operation::OPERATIONS`]. docs/architecture.md draws the layers.

pub mod agent;
pub mod blocking;
pub mod cli;
pub mod config;
pub mod confine;
pub mod context;
pub mod deadlines;
pub mod digest;
pub mod disk;
pub mod doctor;
pub mod egress;
pub mod environment;
pub mod error;
pub mod event;
pub mod event_log;
pub mod facts;
pub mod fetch;
pub mod guest_text;
pub mod id;
pub mod mcp;
pub mod oci;
pub mod operation;
pub mod published;
pub mod secret;
pub mod seed;
pub mod store;
pub mod supervisor;
pub mod template;
pub mod vmm;
pub mod vsock;
pub mod workspace;

mod pyro;

pub use config::Config;
pub use context::Context;
pub use deadlines::Deadlines;
pub use digest::Digest;
pub use environment::Environments;
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, Events};
pub use pyro::Pyro;
pub use pyro_protocol::GuestPath;
pub use supervisor::launch::Launcher;
