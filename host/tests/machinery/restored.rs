//! A guest that is restored, whose VMM serves the endpoint: it does not announce
//! itself, and the connections that it has when it goes on are lost.

use crate::confinement::run;
use futures::future::{BoxFuture, FutureExt, pending};
use pyro::agent::AgentClient;
use pyro::id::WorkspaceId;
use pyro::supervisor::launch::{Launcher, Lease};
use pyro::supervisor::{Assignment, Lifetime, Purpose};
use pyro::vmm::firecracker::Firecracker;
use pyro::vmm::{
    Access, Beginning, Durability, Installed, KernelFlavor, Link, Machine, Place, RateLimit, Saved,
    Started, Vmm, VmmProcess,
};
use pyro::{Config, Deadlines, Error, ErrorKind, egress};
use pyro_agent::{Guest, Phase, serve_connection};
use pyro_protocol::handshake::MAGIC;
use pyro_protocol::{
    ANNOUNCE_PORT, CALL_PORT, Call, FrameKind, FrameReader, FrameWriter, GENERATION, Hello, Welcome,
};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A guest's end of a connection, with its number.
type Behaviour = Arc<dyn Fn(usize, UnixStream, Arc<Guest>) -> BoxFuture<'static, ()> + Send + Sync>;

/// A VMM that serves the endpoint of a guest with the real agent in it.
struct Restoring {
    behaviour: Behaviour,
    connections: Arc<AtomicUsize>,
}

impl Vmm for Restoring {
    fn start<'a>(
        &'a self,
        machine: &'a Machine,
        place: Place<'a>,
    ) -> BoxFuture<'a, pyro::Result<Started>> {
        if !matches!(machine.beginning, Beginning::Restore(_)) {
            let error = Error::new(ErrorKind::Unsupported, "there is no kernel");
            return async { Err(error) }.boxed();
        }
        let sockets = place.directory.join("vmm");
        drop(fs::remove_dir_all(&sockets));
        fs::create_dir(&sockets).unwrap();
        let bind = |name: String| UnixListener::bind(sockets.join(name)).unwrap();
        let endpoint = bind("vsock.sock".into());
        let announcements = bind(format!("vsock.sock_{}", ANNOUNCE_PORT.0));
        let guest = Guest::in_process(place.directory, Phase::Waiting);
        let serving = serve(endpoint, guest, self.behaviour.clone(), self.connections.clone());
        let (console, kept) = std::os::unix::net::UnixStream::pair().unwrap();
        let process = Process {
            serving: tokio::spawn(serving),
            killed: CancellationToken::new(),
            _console: kept.into(),
        };
        let started = Started {
            link: Link::Endpoint(announcements),
            nic: None,
            console: vec![console.into()],
            process: Box::new(process),
        };
        async { Ok(started) }.boxed()
    }
}

async fn serve(
    endpoint: UnixListener,
    guest: Arc<Guest>,
    behave: Behaviour,
    connections: Arc<AtomicUsize>,
) {
    loop {
        let (mut stream, _) = endpoint.accept().await.unwrap();
        let (number, guest) = (connections.fetch_add(1, Ordering::Relaxed), Arc::clone(&guest));
        let behave = Arc::clone(&behave);
        tokio::spawn(async move {
            let mut line = String::new();
            BufReader::new(&mut stream).read_line(&mut line).await.unwrap();
            assert_eq!(line, format!("CONNECT {}\n", CALL_PORT.0));
            behave(number, stream, guest).await;
        });
    }
}

struct Process {
    serving: tokio::task::JoinHandle<()>,
    killed: CancellationToken,
    _console: OwnedFd,
}

impl VmmProcess for Process {
    fn pid(&self) -> Option<u32> {
        None
    }

    fn wait(&mut self) -> BoxFuture<'_, String> {
        async {
            self.killed.cancelled().await;
            "was killed by signal 9".into()
        }
        .boxed()
    }

    fn kill(&mut self) {
        self.serving.abort();
        self.killed.cancel();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// As a guest does that is there.
async fn honest(mut stream: UnixStream, guest: Arc<Guest>) {
    stream.write_all(b"OK 1073741824\n").await.unwrap();
    serve_connection(stream, guest).await;
}

/// Says that it is connected, and nothing more; how much it was sent meanwhile.
async fn silent(mut stream: UnixStream) -> usize {
    stream.write_all(b"OK 1073741824\n").await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.map_or(0, |_| heard.len())
}

/// Greets, hears what is wanted, and is gone.
async fn fickle(mut stream: UnixStream) -> Call {
    stream.write_all(b"OK 1073741824\n").await.unwrap();
    let (read, write) = tokio::io::split(stream);
    let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
    let _: Hello = reader.expect(FrameKind::Hello).await.unwrap();
    let welcome = Welcome {
        magic: MAGIC,
        generation: GENERATION,
        agent_version: "0".into(),
        clock_ns: 0,
        activated: false,
    };
    writer.send(FrameKind::Welcome, &welcome).await.unwrap();
    reader.expect(FrameKind::Call).await.unwrap()
}

fn assignment(directory: &Path) -> Assignment {
    let deadlines = Deadlines::default();
    let nowhere = Firecracker { program: "/nowhere".into(), jailer: None };
    let saved = Saved { state: "/nowhere".into(), memory: "/nowhere".into() };
    Assignment {
        workspace: WorkspaceId::random(),
        directory: directory.to_owned(),
        secret_key: directory.join("secret.key"),
        lifetime: Lifetime::Kept,
        seeded: false,
        purpose: Purpose::Work,
        machine: Machine {
            vcpu_count: 1,
            mem_mib: 128,
            kernel: "/nowhere".into(),
            kernel_flavor: KernelFlavor::Tuned,
            initrd: None,
            root_image: "/nowhere".into(),
            disk: "/nowhere".into(),
            disk_access: Access::Write,
            durability: Durability::Kept,
            disk_limit: RateLimit::NONE,
            seed: "/nowhere".into(),
            copy: None,
            networked: false,
            verbose: false,
            beginning: Beginning::Restore(saved),
        },
        vmm: Installed::Firecracker(nowhere),
        network: egress::Network::default(),
        resolvers: Vec::new(),
        boot_deadline: deadlines.kvm_boot,
        deadlines,
    }
}

/// What comes of a guest that behaves so, and how many connections it had.
async fn restore(
    place: &Path,
    behaviour: impl Fn(usize, UnixStream, Arc<Guest>) -> BoxFuture<'static, ()> + Send + Sync + 'static,
) -> (pyro::Result<Lease>, usize) {
    let connections = Arc::new(AtomicUsize::new(0));
    let vmm = Restoring { behaviour: Arc::new(behaviour), connections: Arc::clone(&connections) };
    let lock = File::create(place.join("lock")).unwrap();
    let launcher = Launcher::InProcess(Arc::new(vmm));
    let config = Config::from_environment().unwrap();
    let mut lease = launcher.launch(&config, &assignment(place), &lock).await.unwrap();
    let ready = lease.ready().await;
    let connections = connections.load(Ordering::Relaxed);
    match ready {
        Ok(_) => (Ok(lease), connections),
        Err(error) => {
            lease.release().await.unwrap();
            (Err(error), connections)
        }
    }
}

#[test]
fn a_restored_guest_need_not_announce_itself() {
    run(async {
        let place = tempfile::tempdir().unwrap();
        let behave = |_, stream, guest| honest(stream, guest).boxed();
        let (lease, connections) = restore(place.path(), behave).await;
        let lease = lease.unwrap();
        assert!(connections >= 2, "it was given its workspace before it had answered");
        let agent = AgentClient::new(place.path(), Deadlines::default()).unwrap();
        agent.connect().await.unwrap();
        lease.release().await.unwrap();
    });
}

#[test]
fn no_call_is_lost_with_the_connections_of_a_restore() {
    run(async {
        let place = tempfile::tempdir().unwrap();
        let lost = Arc::new(Mutex::new(Vec::new()));
        let losing = Arc::clone(&lost);
        let behave = move |number, stream: UnixStream, guest| {
            let lost = Arc::clone(&losing);
            match number {
                0 => drop_after(silent(stream)).boxed(),
                1 => async move {
                    let call = fickle(stream).await;
                    lost.lock().unwrap().push(call);
                }
                .boxed(),
                2 => async { drop(stream) }.boxed(),
                _ => honest(stream, guest).boxed(),
            }
        };
        let (lease, connections) = restore(place.path(), behave).await;
        lease.unwrap().release().await.unwrap();
        assert!(connections >= 5, "{connections}");
        let lost = std::mem::take(&mut *lost.lock().unwrap());
        assert!(matches!(lost[..], [Call::Ping(_)]), "{lost:?}");
    });
}

async fn drop_after<T>(future: impl Future<Output = T>) {
    drop(future.await);
}

/// On a crowded host even the quickest answer takes longer than one was waited for.
#[test]
fn a_guest_that_is_only_slow_is_heard_when_it_answers() {
    run(async {
        let place = tempfile::tempdir().unwrap();
        let (come, _) = watch::channel(0);
        let behave = move |number, stream, guest| {
            come.send_modify(|come| *come += 1);
            let mut others = come.subscribe();
            match number {
                0 => async move {
                    others.wait_for(|come| *come > 2).await.unwrap();
                    honest(stream, guest).await;
                }
                .boxed(),
                // Those that joined it have been given up, or this is the call.
                1 | 2 => pending().boxed(),
                _ => honest(stream, guest).boxed(),
            }
        };
        let (lease, _) = restore(place.path(), behave).await;
        lease.unwrap().release().await.unwrap();
    });
}

#[test]
fn a_guest_that_refuses_everybody_is_soon_given_up() {
    run(async {
        let place = tempfile::tempdir().unwrap();
        let behave = |_, stream: UnixStream, _| async { drop(stream) }.boxed();
        let (lease, connections) = restore(place.path(), behave).await;
        lease.map(drop).expect_err("nobody answered");
        // Whoever fails without a word is started once more.
        assert!((2..=2 * 128).contains(&connections), "{connections}");
    });
}
