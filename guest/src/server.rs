//! One connection: handshake, one call, its reply.

use crate::guest::Guest;
use crate::room::{self, Share};
use crate::{
    activate, clock, diff, egress, export, file, inspect, log, patch, power, process, push, secret,
    service, shell, tunnel,
};
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::handshake::MAGIC;
use pyro_protocol::inspect::{CopyTree, MeasureTree};
use pyro_protocol::kept::ListProcesses;
use pyro_protocol::power::{Ping, Pong, PoweringOff, SyncDisk};
use pyro_protocol::service::{CountServices, ListServices};
use pyro_protocol::shell::ListShells;
use pyro_protocol::{
    AgentError, AgentErrorKind, Call, FrameKind, FrameReader, FrameWriter, GENERATION, Generation,
    Hello, Lost, Welcome,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

/// How long a peer may take to say what it wants: a local peer sends both
/// frames at once, but 4 MiB through an emulated, busy machine take a moment.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// How long the peer may take to close after the last frame.
const FAREWELL: Duration = Duration::from_secs(1);

/// The oldest generation there is.
const FIRST: Generation = Generation(1);

/// The two directions of one connection.
pub(crate) struct Connection<R, W> {
    pub(crate) reader: FrameReader<R>,
    pub(crate) writer: FrameWriter<W>,
    /// What the call takes, until its reply.
    room: Option<Share>,
}

/// Does what a host waits for that has nothing to say meanwhile, unless it
/// closes or speaks.
pub(crate) async fn while_awaited<R: Fetch, F: Future>(
    reader: &mut FrameReader<R>,
    work: F,
) -> Result<F::Output, Lost> {
    tokio::select! {
        biased;
        done = work => Ok(done),
        frame = reader.next() => Err(Lost::OutOfPlace { got: frame?.kind, wanted: "nothing" }),
    }
}

/// Serves one connection until it ends. Works over anything that reads and
/// writes, for the machine's agent and for an in-process [`Guest`] alike;
/// nothing the peer does makes it panic or go on for ever unseen.
///
/// The peer's end of input counts as closing: it cancels a running process.
pub async fn serve_connection<S>(stream: S, guest: Arc<Guest>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    serve_halves(reader, writer, guest).await;
}

/// The same over the two directions of a connection.
pub async fn serve_halves<R: Fetch, W: Carry>(reader: R, writer: W, guest: Arc<Guest>) {
    let mut connection = Connection::new(FrameReader::new(reader), FrameWriter::new(writer));
    let ended = converse(&mut connection, &guest).await;
    match ended {
        Ok(Served::Answered) | Err(Lost::Closed) => connection.farewell().await,
        Ok(Served::PoweredOff) => {
            // The reply has arrived when the peer closes; only then go off.
            connection.farewell().await;
            guest.halt();
        }
        Err(lost) => {
            log::warn(format_args!("a connection ended: {}", log::Chain(&lost)));
            connection.complain(&lost).await;
        }
    }
}

/// What a connection came to.
enum Served {
    Answered,
    PoweredOff,
}

async fn converse<R: Fetch, W: Carry>(
    connection: &mut Connection<R, W>,
    guest: &Arc<Guest>,
) -> Result<Served, Lost> {
    let opening = timeout(CALL_DEADLINE, connection.opening(guest)).await;
    let Ok(call) = opening else {
        return Err(Lost::Io(std::io::ErrorKind::TimedOut.into()));
    };
    let call = call?;
    if let Err(error) = inspect::admit(guest, &call) {
        connection.reply::<Pong>(Err(error)).await?;
        return Ok(Served::Answered);
    }
    match call {
        Call::Ping(Ping) => connection.reply(Ok(Pong)).await?,
        Call::Activate(call) => connection.reply(activate::run(guest, call)).await?,
        Call::Inspect(call) => connection.reply(activate::inspect(guest, call)).await?,
        Call::MeasureTree(MeasureTree) => inspect::measure(guest, connection).await?,
        Call::CopyTree(CopyTree) => inspect::copy(guest, connection).await?,
        Call::StartProcess(call) => process::run(guest, call, connection).await?,
        Call::FileStat(call) => file::stat(guest, call, connection).await?,
        Call::FileList(call) => file::list(guest, call, connection).await?,
        Call::FileRead(call) => file::read(guest, call, connection).await?,
        Call::FileWrite(call) => file::write(guest, call, connection).await?,
        Call::FileEdit(call) => file::edit(guest, call, connection).await?,
        Call::FileDelete(call) => file::delete(guest, call, connection).await?,
        Call::FileMove(call) => file::move_(guest, call, connection).await?,
        Call::FileSearch(call) => file::search(guest, call, connection).await?,
        Call::Export(call) => export::run(guest, call, connection).await?,
        Call::Push(call) => push::run(guest, call, connection).await?,
        Call::KeepProcess(call) => process::kept::keep(guest, call, connection).await?,
        Call::ListProcesses(ListProcesses) => {
            connection.reply(process::kept::list(guest).await).await?;
        }
        Call::PollProcess(call) => process::kept::poll(guest, call, connection).await?,
        Call::FollowProcess(call) => process::kept::follow(guest, call, connection).await?,
        Call::WriteProcess(call) => process::kept::write(guest, call, connection).await?,
        Call::SignalProcess(call) => {
            connection.reply(process::kept::signal(guest, call).await).await?;
        }
        Call::ForgetProcess(call) => {
            connection.reply(process::kept::forget(guest, call).await).await?;
        }
        Call::Diff(call) => diff::run(guest, call, connection).await?,
        Call::ApplyPatch(call) => patch::run(guest, call, connection).await?,
        Call::OpenShell(call) => shell::open(guest, call, connection).await?,
        Call::ListShells(ListShells) => connection.reply(shell::list(guest)).await?,
        Call::ReadShell(call) => shell::read(guest, call, connection).await?,
        Call::WriteShell(call) => shell::write(guest, call, connection).await?,
        Call::SignalShell(call) => connection.reply(shell::signal(guest, call)).await?,
        Call::ResizeShell(call) => connection.reply(shell::resize(guest, call)).await?,
        Call::CloseShell(call) => connection.reply(shell::close(guest, call).await).await?,
        Call::AttachShell(call) => shell::attach(guest, call, connection).await?,
        Call::ShiftClock(call) => connection.reply(clock::shift_for(guest, call)).await?,
        Call::StartService(call) => service::start(guest, call, connection).await?,
        Call::ListServices(ListServices) => connection.reply(service::list(guest)).await?,
        Call::CountServices(CountServices) => connection.reply(service::count(guest)).await?,
        Call::ServiceStatus(call) => connection.reply(service::status(guest, call)).await?,
        Call::ServiceLogs(call) => service::logs(guest, call, connection).await?,
        Call::StopService(call) => service::stop(guest, call, connection).await?,
        Call::RestartService(call) => service::restart(guest, call, connection).await?,
        Call::RemoveService(call) => service::remove(guest, call, connection).await?,
        Call::ConnectPort(call) => tunnel::run(guest, call, connection).await?,
        Call::OpenGateway(call) => egress::run(guest, call, connection).await?,
        Call::SetSecrets(call) => connection.reply(secret::set(guest, call)).await?,
        Call::SyncDisk(SyncDisk) => power::sync(guest, connection).await?,
        Call::PowerOff(call) => match guest.begin_power_off() {
            Err(error) => connection.reply::<PoweringOff>(Err(error)).await?,
            Ok(disk) => {
                let off = power::run(guest, disk, call).await;
                // Whoever asked may have gone; the machine still goes off.
                drop(connection.reply(off).await);
                return Ok(Served::PoweredOff);
            }
        },
    }
    Ok(Served::Answered)
}

impl<R: Fetch, W: Carry> Connection<R, W> {
    pub(crate) fn new(reader: FrameReader<R>, writer: FrameWriter<W>) -> Self {
        Self { reader, writer, room: None }
    }

    /// Greets and takes the call.
    async fn opening(&mut self, guest: &Guest) -> Result<Call, Lost> {
        let hello: Hello = self.reader.expect(FrameKind::Hello).await?;
        if hello.magic != MAGIC || hello.generation < FIRST {
            return Err(Lost::OutOfPlace { got: FrameKind::Hello, wanted: "a Hello of pyro's" });
        }
        let welcome = Welcome {
            magic: MAGIC,
            generation: hello.generation.min(GENERATION),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            clock_ns: clock::wall_ns(),
            activated: guest.activated(),
        };
        self.writer.send(FrameKind::Welcome, &welcome).await?;
        let begun = self.reader.begin().await?;
        self.room = Some(room::CALLS.take(begun.length).await);
        self.reader.finish(begun).await?.decode(FrameKind::Call)
    }

    pub(crate) async fn reply<T: serde::Serialize>(
        &mut self,
        reply: Result<T, AgentError>,
    ) -> Result<(), Lost> {
        // By now the call has become what it asked for.
        self.room = None;
        match reply {
            Ok(reply) => self.writer.send(FrameKind::Reply, &reply).await,
            Err(error) => self.writer.send(FrameKind::Error, &error).await,
        }
    }

    /// Says what the peer did wrong, if it did and still listens.
    async fn complain(&mut self, lost: &Lost) {
        match lost {
            Lost::Header(_) | Lost::Payload(_) | Lost::OutOfPlace { .. } => {
                let text = log::Chain(lost).to_string();
                let error = AgentError::new(AgentErrorKind::Protocol, text);
                let complaint = self.writer.send(FrameKind::Error, &error);
                // A peer that breaks the protocol need not hear about it.
                drop(timeout(FAREWELL, complaint).await);
                self.farewell().await;
            }
            Lost::Closed | Lost::CutOff | Lost::Io(_) => {}
        }
    }

    /// Ends our direction and gives the peer a moment to end its own, so that
    /// no transport takes a frame back that is still underway.
    async fn farewell(&mut self) {
        let parting = async {
            self.writer.shutdown().await?;
            self.reader.discard().await
        };
        // Either way the connection is over.
        drop(timeout(FAREWELL, parting).await);
    }
}
