//! Agents that mean harm. Whatever a guest sends, the host answers with a typed
//! error, within its deadlines, in little memory, and nothing is left.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "machinery/fake_vmm.rs"]
#[allow(dead_code, reason = "shared with whole operations")]
mod fake_vmm;
#[path = "machinery/footprint.rs"]
mod footprint;
#[path = "machinery/home.rs"]
#[allow(dead_code, reason = "shared with whole operations")]
mod home;

#[path = "hostile/assault.rs"]
mod assault;
#[path = "hostile/calls.rs"]
mod calls;
#[path = "hostile/channel.rs"]
mod channel;
#[path = "hostile/programs.rs"]
mod programs;
