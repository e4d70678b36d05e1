//! The machinery by itself: the endpoint, and the confinement of real programs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "machinery/confinement.rs"]
mod confinement;
#[path = "machinery/endpoint.rs"]
mod endpoint;
#[path = "machinery/firecracker.rs"]
mod firecracker;
#[path = "machinery/given.rs"]
mod given;
#[path = "machinery/jail.rs"]
mod jail;
#[path = "machinery/lend.rs"]
mod lend;
#[path = "machinery/limits.rs"]
mod limits;
#[path = "machinery/memory.rs"]
mod memory;
#[path = "machinery/restored.rs"]
mod restored;
