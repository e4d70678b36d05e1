//! Trees in and out of a workspace: the real agent, and hostile ones.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "trees/archives.rs"]
mod archives;
#[path = "trees/asked_once.rs"]
mod asked_once;
#[path = "trees/exporting.rs"]
mod exporting;
#[path = "machinery/footprint.rs"]
mod footprint;
#[path = "trees/guest.rs"]
mod guest;
#[path = "trees/hostile.rs"]
mod hostile;
#[path = "trees/memory.rs"]
mod memory;
#[path = "trees/pushing.rs"]
mod pushing;
#[path = "trees/stalling.rs"]
mod stalling;
#[path = "trees/tree.rs"]
mod tree;
