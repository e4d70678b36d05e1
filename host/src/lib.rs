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

pub mod config;
pub mod digest;
pub mod environment;
pub mod error;
pub mod event;
pub mod id;
pub mod store;

pub use config::Config;
pub use digest::Digest;
pub use environment::Environments;
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, Events};
