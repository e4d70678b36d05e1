//! A guest that only looks at a workspace's disk: what it serves, and the two
//! calls that nobody else does.

mod copy;
mod measure;

use crate::file;
use crate::file::fault::refused_io;
use crate::guest::{Guest, Machine};
use crate::server::Connection;
use crate::work;
use copy::{Mounted, Target};
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::inspect::CopyingTree;
use pyro_protocol::{AgentError, AgentErrorKind, Call, Lost};
use std::os::fd::AsFd;

/// Refuses what is not for a guest of this kind.
pub(crate) fn admit(guest: &Guest, call: &Call) -> Result<(), AgentError> {
    match (guest.inspected().is_some(), kind(call)) {
        (true, Kind::Works) => guest.require_activated(),
        (false, Kind::Inspects) => {
            let text = "the guest does not only look at a disk";
            Err(AgentError::new(AgentErrorKind::WrongState, text))
        }
        (true, Kind::Reads | Kind::Inspects) | (false, Kind::Reads | Kind::Works) => Ok(()),
    }
}

/// What a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing that changes anything; or it is refused by itself.
    Reads,
    /// What only a guest does that looks at a disk.
    Inspects,
    /// Programs, changes, and what belongs to either.
    Works,
}

const fn kind(call: &Call) -> Kind {
    match call {
        Call::Ping(_)
        | Call::Activate(_)
        | Call::Inspect(_)
        | Call::PowerOff(_)
        | Call::FileStat(_)
        | Call::FileList(_)
        | Call::FileRead(_)
        | Call::FileSearch(_)
        | Call::Export(_) => Kind::Reads,
        Call::MeasureTree(_) | Call::CopyTree(_) => Kind::Inspects,
        Call::StartProcess(_)
        | Call::KeepProcess(_)
        | Call::ListProcesses(_)
        | Call::PollProcess(_)
        | Call::FollowProcess(_)
        | Call::WriteProcess(_)
        | Call::SignalProcess(_)
        | Call::ForgetProcess(_)
        | Call::FileWrite(_)
        | Call::FileEdit(_)
        | Call::FileDelete(_)
        | Call::FileMove(_)
        | Call::Push(_)
        | Call::Diff(_)
        | Call::ApplyPatch(_)
        | Call::ShiftClock(_)
        | Call::StartService(_)
        | Call::ListServices(_)
        | Call::CountServices(_)
        | Call::ServiceStatus(_)
        | Call::ServiceLogs(_)
        | Call::StopService(_)
        | Call::RestartService(_)
        | Call::RemoveService(_)
        | Call::ConnectPort(_)
        | Call::OpenGateway(_)
        | Call::OpenShell(_)
        | Call::ListShells(_)
        | Call::ReadShell(_)
        | Call::WriteShell(_)
        | Call::SignalShell(_)
        | Call::ResizeShell(_)
        | Call::CloseShell(_)
        | Call::AttachShell(_)
        | Call::SetSecrets(_)
        | Call::SyncDisk(_) => Kind::Works,
    }
}

/// Answers `MeasureTree`.
pub(crate) async fn measure<R: Fetch, W: Carry>(
    guest: &Guest,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let root = file::root(guest);
    let disk = guest.disk();
    work::answer(connection, move |cancel| {
        let root = root?;
        let free_bytes = match &disk {
            Some(disk) => measure::free(disk.top().as_fd())?,
            None => measure::free(root.as_fd())?,
        };
        measure::tree(&root, free_bytes, cancel)
    })
    .await
}

/// Answers `CopyTree`: the reply, how far it is, the end.
pub(crate) async fn copy<R: Fetch, W: Carry>(
    guest: &Guest,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let root = file::root(guest);
    let has_disks = match &guest.machine {
        Machine::Virtual { .. } => true,
        Machine::InProcess { .. } => false,
    };
    let begun = work::run(connection, move |_| {
        let root = root?;
        if !has_disks {
            let text = "there is no disk to copy to";
            return Err(AgentError::new(AgentErrorKind::Unsupported, text).into());
        }
        let mounted = Mounted::new().map_err(|error| refused_io("the disk to copy to", &error))?;
        Ok((root, mounted))
    })
    .await?;
    match begun {
        Err(error) => connection.reply::<CopyingTree>(Err(error)).await,
        Ok((root, mounted)) => {
            connection.reply(Ok(CopyingTree)).await?;
            work::send(connection, move |outgoing, cancel| {
                let end = Target::new(mounted.top(), outgoing, cancel)?.take(root.as_fd())?;
                mounted.finish()?;
                Ok(end)
            })
            .await
        }
    }
}
