//! Workspaces: a guest with its own disk, and what happens in it.
//!
//! Those of one-shot runs end with their caller ([`one_shot`]). The others are
//! kept: each is a directory ([`place`]) with a record of what it is
//! ([`record`]), and whether it runs is told by a lock.
//!
//! ```text
//!          create                 stop, ttl
//! (none) ─────────▶ running ◀──────────────▶ stopped ──delete──▶ (none)
//!              │ ▲   │   ▲      start
//! pause, resume▼ │   ▼   │ start, or the next command
//!             paused crashed: its guest went away
//! ```

pub mod create;
pub mod directory;
pub mod exec;
pub mod expired;
pub mod export;
pub mod find;
pub mod fork;
pub mod history;
pub mod inspect;
pub mod label;
pub mod live;
pub mod network;
pub mod one_shot;
pub mod pause;
pub mod place;
pub mod port;
pub mod power;
pub mod process;
pub mod program;
pub mod push;
pub mod record;
pub mod reset;
pub mod screen;
pub mod secret;
pub mod seen;
pub mod service;
pub mod shape;
pub mod shell;
pub mod snapshot;
pub mod template;
pub mod update;

mod admission;
mod machine;
mod orders;

pub use live::Live;
pub use machine::choose;
pub use one_shot::{Ran, RunRequest, run, trial};
pub use place::{Place, State};
pub use program::Program;
pub use record::Record;
pub use shape::Shape;

/// Where a workspace's files are in its guest.
pub const GUEST_PATH: &str = "/workspace";
