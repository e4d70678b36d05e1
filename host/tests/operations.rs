//! Whole operations, from `Pyro::call` to the real agent and back, on machines
//! that are threads of this process. Everything but the VMM is what ships.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/alone.rs"]
mod alone;
#[path = "machinery/fake_vmm.rs"]
#[allow(dead_code, reason = "shared with the hostile agents")]
mod fake_vmm;
#[path = "machinery/footprint.rs"]
mod footprint;
#[path = "machinery/home.rs"]
mod home;
#[path = "support/tty.rs"]
mod tty;
#[path = "support/watch.rs"]
mod watch;

#[path = "operations/access.rs"]
mod access;
#[path = "operations/admission.rs"]
mod admission;
#[path = "operations/attaching.rs"]
mod attaching;
#[path = "operations/boot.rs"]
mod boot;
#[path = "operations/cancel.rs"]
mod cancel;
#[path = "operations/copying.rs"]
mod copying;
#[path = "operations/costs.rs"]
mod costs;
#[path = "operations/differing.rs"]
mod differing;
#[path = "operations/disks.rs"]
mod disks;
#[path = "operations/dying.rs"]
mod dying;
#[path = "operations/exec.rs"]
mod exec;
#[path = "operations/expiring.rs"]
mod expiring;
#[path = "operations/files.rs"]
mod files;
#[path = "operations/forcing.rs"]
mod forcing;
#[path = "operations/idleness.rs"]
mod idleness;
#[path = "operations/leftovers.rs"]
mod leftovers;
#[path = "operations/making.rs"]
mod making;
#[path = "operations/networking.rs"]
mod networking;
#[path = "operations/pausing.rs"]
mod pausing;
#[path = "operations/ports.rs"]
mod ports;
#[path = "operations/reboot.rs"]
mod reboot;
#[path = "operations/run.rs"]
mod run;
#[path = "operations/secrets.rs"]
mod secrets;
#[path = "operations/services.rs"]
mod services;
#[path = "operations/serving.rs"]
mod serving;
#[path = "operations/shells.rs"]
mod shells;
#[path = "operations/snapshots.rs"]
mod snapshots;
#[path = "operations/streams.rs"]
mod streams;
#[path = "operations/templates.rs"]
mod templates;
#[path = "operations/told.rs"]
mod told;
#[path = "operations/workspaces.rs"]
mod workspaces;
