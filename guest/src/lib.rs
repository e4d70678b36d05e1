//! The guest's side of pyro: the small init that is PID 1, and the agent that
//! answers the host's calls.
//!
//! The agent needs no virtual machine to be tested, by this crate's tests or by
//! the host's. [`Guest::in_process`] stands for a machine: processes run as
//! ordinary children in their own process groups, `/workspace` is a directory
//! of the caller's, and power-off is an event. [`serve_connection`] answers one
//! connection of it, over anything that reads and writes:
//!
//! ```
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! use pyro_agent::{Guest, Phase, serve_connection};
//!
//! let guest = Guest::in_process("/tmp", Phase::Activated);
//! let (host_end, guest_end) = tokio::io::duplex(64 * 1024);
//! tokio::spawn(serve_connection(guest_end, guest.clone()));
//! // ... speak pyro_protocol on host_end; after a PowerOff call:
//! // guest.powered_off().await;
//! # drop(host_end);
//! # });
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! The release profile aborts on panic, so one connection's panic would end
//! every call. Therefore nothing on the way of a byte from host or guest may
//! panic: no indexing by it, no unwrap, no unchecked arithmetic.

mod activate;
mod beneath;
mod boot;
mod cgroup;
mod clock;
mod commit;
mod device;
mod diff;
mod egress;
mod entropy;
mod export;
mod file;
mod git;
mod guest;
pub mod init;
mod inspect;
mod listen;
pub mod log;
mod netlink;
mod patch;
mod power;
mod process;
mod push;
mod readiness;
mod rehearsal;
mod room;
mod scratch;
mod secret;
mod server;
mod service;
mod shell;
mod tunnel;
mod work;
mod xattr;

pub use guest::{Guest, LayerPaths, Phase, Wire};
pub use listen::{Doors, serve_machine};
#[doc(hidden)]
pub use patch::fuzz as fuzz_patch;
pub use process::environment;
pub use process::user;
pub use server::serve_connection;
pub use work::THREADS;
