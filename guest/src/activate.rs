//! The second phase of the boot: the machine gets a workspace.

mod aside;
mod identity;
mod root;

pub(crate) use root::{Disk, ROOT};

use crate::guest::{Guest, Machine, Purpose};
use crate::{clock, entropy, log};
use pyro_protocol::inspect::{Inspect, Inspecting};
use pyro_protocol::power::{Activate, Activated, ENTROPY_LEN};
use pyro_protocol::{AgentError, AgentErrorKind, ByteString};
use std::io;
use std::time::Instant;

/// An [`Activate`] whose every field is what it should be.
struct Identity {
    entropy: [u8; ENTROPY_LEN],
    clock_offset_ns: i64,
    hostname: String,
    machine_id: String,
    seeded: bool,
}

/// Answers `Activate`.
pub(crate) fn run(guest: &Guest, call: Activate) -> Result<Activated, AgentError> {
    let identity = Identity::try_from(call)?;
    let took_us = once(guest, Purpose::Work, || activate_machine(&identity))?;
    Ok(Activated { took_us })
}

/// Answers `Inspect`.
pub(crate) fn inspect(guest: &Guest, call: Inspect) -> Result<Inspecting, AgentError> {
    let Inspect { entropy, clock_offset_ns, seeded } = call;
    let entropy = checked_entropy(entropy)?;
    let took_us = once(guest, Purpose::Inspection, || {
        entropy::reseed(entropy)?;
        clock::shift(clock_offset_ns)?;
        root::inspect(seeded)
    })?;
    Ok(Inspecting { took_us })
}

/// Makes a guest what it is for; how long that took, in microseconds.
fn once(
    guest: &Guest,
    purpose: Purpose,
    mount: impl FnOnce() -> io::Result<Disk>,
) -> Result<u64, AgentError> {
    guest.begin_activation()?;
    let started = Instant::now();
    let mounted = match &guest.machine {
        Machine::Virtual { .. } => mount().map(Some),
        Machine::InProcess { .. } => Ok(None),
    };
    match mounted {
        Ok(disk) => {
            guest.activation_succeeded(purpose, disk);
            Ok(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX))
        }
        Err(error) => {
            guest.activation_failed();
            let text = format!("the workspace cannot be mounted: {}", log::Chain(&error));
            log::warn(format_args!("{text}"));
            let kind = if error.kind() == io::ErrorKind::Unsupported {
                AgentErrorKind::Unsupported
            } else {
                AgentErrorKind::System
            };
            Err(AgentError::new(kind, text))
        }
    }
}

/// Blocks the agent, which has nothing else to do before it is done: a thread of
/// its own for this costs a tenth of the whole under emulation. Whoever called
/// has the deadline.
fn activate_machine(identity: &Identity) -> io::Result<Disk> {
    // Random numbers before all else: whatever is drawn earlier is the same in
    // every clone of the template.
    entropy::reseed(identity.entropy)?;
    clock::shift(identity.clock_offset_ns)?;
    rustix::system::sethostname(identity.hostname.as_bytes())?;
    root::mount(identity)
}

fn checked_entropy(entropy: ByteString) -> Result<[u8; ENTROPY_LEN], AgentError> {
    let length = entropy.0.len();
    <[u8; ENTROPY_LEN]>::try_from(entropy.0).map_err(|_| {
        let text = format!("{length} bytes of entropy; wanted {ENTROPY_LEN}");
        AgentError::new(AgentErrorKind::InvalidArgument, text)
    })
}

impl TryFrom<Activate> for Identity {
    type Error = AgentError;

    fn try_from(call: Activate) -> Result<Self, AgentError> {
        let invalid = |text: String| AgentError::new(AgentErrorKind::InvalidArgument, text);
        let Activate { entropy, clock_offset_ns, hostname, machine_id, seeded } = call;
        let entropy = checked_entropy(entropy)?;
        if !identity::is_hostname(&hostname) {
            return Err(invalid(format!("{hostname:?} is not a host name")));
        }
        if !identity::is_machine_id(&machine_id) {
            return Err(invalid(format!("{machine_id:?} is not a machine id")));
        }
        Ok(Self { entropy, clock_offset_ns, hostname, machine_id, seeded })
    }
}
