//! Trees in and out of a workspace: the real agent, and hostile ones.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "trees/archives.rs"]
mod archives;
#[path = "trees/exporting.rs"]
mod exporting;
#[path = "trees/guest.rs"]
mod guest;
#[path = "trees/hostile.rs"]
mod hostile;
#[path = "trees/pushing.rs"]
mod pushing;
#[path = "trees/stalling.rs"]
mod stalling;
#[path = "trees/tree.rs"]
mod tree;
