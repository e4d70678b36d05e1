//! Machines without a VMM. A thread has the guest's end of the channel and of
//! the console, and what runs on it is the guest.

use futures::future::{BoxFuture, pending};
use pyro::vmm::{Link, Machine, Metrics, Place, Started, Vmm, VmmProcess};
use pyro::{Error, ErrorKind, Result};
use pyro_agent::{Guest, Phase, Wire, serve_connection};
use pyro_protocol::channel::{self, Acceptor, Opener, Side, Stream};
use pyro_protocol::handshake::{Announcement, MAGIC};
use pyro_protocol::{ANNOUNCE_PORT, CALL_PORT, FrameKind, FrameReader, FrameWriter, GENERATION};
use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

/// What a VMM says that ends well.
pub const WELL: &str = "exited with status 0";

/// What a machine is from within.
pub struct Inside {
    /// The way to the host.
    pub channel: UnixStream,
    /// Where the kernel and the VMM print.
    pub console: std::os::unix::net::UnixStream,
    /// Whether the kernel is to tell what it does.
    pub verbose: bool,
}

impl Inside {
    /// Prints on the console.
    pub fn print(&mut self, text: &str) {
        self.console.write_all(text.as_bytes()).unwrap();
    }
}

type Behaviour = Arc<dyn Fn(Inside) -> BoxFuture<'static, String> + Send + Sync>;

/// Starts machines that all behave alike. Cheap to clone.
#[derive(Clone)]
pub struct FakeVmm {
    behaviour: Behaviour,
    started: Arc<AtomicUsize>,
    stilled: Arc<AtomicUsize>,
    /// Whether it obeys nobody but who kills it.
    deaf: bool,
    /// Of the machine that was started last.
    fate: Arc<Mutex<Option<Fate>>>,
}

impl FakeVmm {
    /// What runs in the machines, and how the VMM ends when that returns.
    pub fn new<F>(behaviour: impl Fn(Inside) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = String> + Send + 'static,
    {
        let behaviour: Behaviour = Arc::new(move |inside| Box::pin(behaviour(inside)));
        let (started, stilled) = Default::default();
        Self { behaviour, started, stilled, deaf: false, fate: Arc::default() }
    }

    /// Machines with the real agent in them, whose /workspace is this directory.
    pub fn honest(workspace: impl Into<PathBuf>) -> Self {
        let workspace = workspace.into();
        Self::new(move |inside| serve_agent(inside.channel, workspace.clone()))
    }

    /// Such machines that can have a network.
    pub fn networked(workspace: impl Into<PathBuf>, wire: Wire) -> Self {
        let workspace = workspace.into();
        Self::new(move |inside| {
            let guest =
                Guest::in_process_with_wire(workspace.clone(), wire.clone(), Phase::Waiting);
            serve_guest(inside.channel, guest)
        })
    }

    /// The same that do not obey when they are asked to stand still.
    pub fn deaf(self) -> Self {
        Self { deaf: true, ..self }
    }

    /// Kills the machine that was started last, as the host's kernel does.
    pub fn crash(&self) {
        self.fate.lock().unwrap().as_ref().unwrap().meet();
    }

    /// How many machines were started so far.
    pub fn started(&self) -> usize {
        self.started.load(Ordering::Relaxed)
    }

    /// How many times a machine was made to stand still so far.
    pub fn stilled(&self) -> usize {
        self.stilled.load(Ordering::Relaxed)
    }
}

impl Vmm for FakeVmm {
    fn start<'a>(
        &'a self,
        machine: &'a Machine,
        place: Place<'a>,
    ) -> BoxFuture<'a, Result<Started>> {
        self.started.fetch_add(1, Ordering::Relaxed);
        let behaviour = Arc::clone(&self.behaviour);
        let (verbose, deaf, stilled) = (machine.verbose, self.deaf, Arc::clone(&self.stilled));
        Box::pin(async move {
            let started = place.lock.try_clone();
            let started = started.and_then(|lock| start(behaviour, verbose, deaf, stilled, lock));
            let (started, fate) =
                started.map_err(|error| Error::io("cannot start a fake machine", error))?;
            *self.fate.lock().unwrap() = Some(fate);
            Ok(started)
        })
    }
}

fn start(
    behaviour: Behaviour,
    verbose: bool,
    deaf: bool,
    stilled: Arc<AtomicUsize>,
    lock: File,
) -> std::io::Result<(Started, Fate)> {
    use std::os::unix::net::UnixStream as Pair;
    let (channel, channel_end) = Pair::pair()?;
    let (console, console_end) = Pair::pair()?;
    let (tell, ended) = watch::channel(None);
    let kill = CancellationToken::new();
    let killed = kill.clone();
    let (still, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (go_on, gone_on) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let how = runtime.block_on(async {
            channel_end.set_nonblocking(true).unwrap();
            let channel = UnixStream::from_std(channel_end).unwrap();
            tokio::select! {
                how = behaviour(Inside { channel, console: console_end, verbose }) => how,
                () = killed.cancelled() => "was killed by signal 9".into(),
                never = stand_still(&mut told, &gone_on) => match never {},
            }
        });
        // All that runs in the machine ends with it.
        drop((runtime, lock));
        tell.send_replace(Some(how));
    });
    channel.set_nonblocking(true)?;
    let fate = Fate { kill, go_on };
    let process = FakeProcess {
        fate: fate.clone(),
        ended,
        still,
        stilled,
        stands_still: false,
        deaf,
        thread: Some(thread),
    };
    let link = Link::Stream(UnixStream::from_std(channel)?);
    let console = vec![console.into()];
    Ok((Started { link, nic: None, console, process: Box::new(process) }, fate))
}

/// What ends a machine, whatever it does.
#[derive(Clone)]
struct Fate {
    kill: CancellationToken,
    go_on: std::sync::mpsc::Sender<()>,
}

impl Fate {
    fn meet(&self) {
        self.kill.cancel();
        // One that stands still would not notice.
        self.go_on.send(()).ok();
    }
}

/// Stands still whenever it is told to, and with it the thread and all on it.
async fn stand_still(
    stilled: &mut UnboundedReceiver<oneshot::Sender<()>>,
    gone_on: &std::sync::mpsc::Receiver<()>,
) -> Infallible {
    while let Some(said) = stilled.recv().await {
        said.send(()).ok();
        // Whoever has it killed lets it go on as well.
        gone_on.recv().ok();
    }
    pending().await
}

struct FakeProcess {
    fate: Fate,
    ended: watch::Receiver<Option<String>>,
    still: UnboundedSender<oneshot::Sender<()>>,
    stilled: Arc<AtomicUsize>,
    stands_still: bool,
    deaf: bool,
    thread: Option<JoinHandle<()>>,
}

impl VmmProcess for FakeProcess {
    fn pid(&self) -> Option<u32> {
        None
    }

    fn wait(&mut self) -> BoxFuture<'_, String> {
        Box::pin(async {
            let ended = self.ended.wait_for(Option::is_some).await;
            ended.map_or_else(|_| "panicked".into(), |how| how.clone().unwrap_or_default())
        })
    }

    fn kill(&mut self) {
        self.fate.meet();
    }

    fn pause(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            self.obey()?;
            if !self.stands_still {
                let (said, stands) = oneshot::channel();
                drop(self.still.send(said));
                self.stands_still = true;
                drop(stands.await);
                self.stilled.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
    }

    fn resume(&mut self) -> BoxFuture<'_, Result<()>> {
        self.wake();
        Box::pin(async { self.obey() })
    }

    fn metrics(&mut self) -> BoxFuture<'_, Result<Metrics>> {
        Box::pin(async {
            self.obey()?;
            Ok(Metrics { disk_write_bytes: 4096, disk_write_count: 1, ..Metrics::default() })
        })
    }
}

impl FakeProcess {
    fn obey(&self) -> Result<()> {
        match self.deaf {
            true => Err(Error::new(ErrorKind::TimedOut, "the machine is deaf")),
            false => Ok(()),
        }
    }

    fn wake(&mut self) {
        if std::mem::take(&mut self.stands_still) {
            self.fate.go_on.send(()).ok();
        }
    }
}

impl Drop for FakeProcess {
    fn drop(&mut self) {
        self.kill();
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// The real agent, as it would be in a guest, until it is powered off.
pub async fn serve_agent(channel: UnixStream, workspace: PathBuf) -> String {
    serve_guest(channel, Guest::in_process(workspace, Phase::Waiting)).await
}

/// The same of a guest that was made elsewhere.
pub async fn serve_guest<T: AsyncRead + AsyncWrite + Send + Unpin>(
    channel: T,
    guest: Arc<Guest>,
) -> String {
    let agent = Arc::clone(&guest);
    let serving =
        serve_channel(channel, move |stream, _| serve_connection(stream, Arc::clone(&agent)));
    tokio::select! {
        how = serving => how,
        () = guest.powered_off() => WELL.into(),
    }
}

/// Announces an agent, and hands it every connection to its port with the
/// number of those before. Returns when the host is gone.
pub async fn serve_channel<T, F>(channel: T, mut serve: impl FnMut(Stream, usize) -> F) -> String
where
    T: AsyncRead + AsyncWrite + Send + Unpin,
    F: Future<Output = ()> + Send + 'static,
{
    let Ok((opener, mut acceptor, driver)) = channel::connect(channel, Side::Guest).await else {
        return "exited with status 1".into();
    };
    let serving = async {
        announce(&opener).await;
        let mut count = 0;
        while let Some(stream) = next_call(&mut acceptor).await {
            tokio::spawn(serve(stream, count));
            count += 1;
        }
        pending().await
    };
    tokio::select! {
        // A machine does not mind that its host is gone.
        _ = driver => pending().await,
        never = serving => never,
    }
}

/// The next connection to the agent.
pub async fn next_call(acceptor: &mut Acceptor) -> Option<Stream> {
    loop {
        let inbound = acceptor.accept().await?;
        if inbound.port() == CALL_PORT {
            return Some(inbound.accept());
        }
    }
}

/// Tells the host that an agent listens.
pub async fn announce(opener: &Opener) {
    let Ok(stream) = opener.open(ANNOUNCE_PORT).await else { return };
    let announcement = Announcement { magic: MAGIC, generation: GENERATION, uptime_us: 1 };
    let mut writer = FrameWriter::new(stream);
    // A host that does not listen is the test's own affair.
    drop(writer.send(FrameKind::Announcement, &announcement).await);
    drop(writer.shutdown().await);
}

/// Both directions of a connection, as frames.
pub fn frames(
    stream: Stream,
) -> (FrameReader<tokio::io::ReadHalf<Stream>>, FrameWriter<tokio::io::WriteHalf<Stream>>) {
    let (read, write) = tokio::io::split(stream);
    (FrameReader::new(read), FrameWriter::new(write))
}
