//! `pyro run --cold debian:12 -- true` next to the same machine started barely.
//!
//! The floor is what any program would have to do: start QEMU, connect the
//! channel, read the agent's announcement, power the guest off and wait for
//! QEMU's end. (pyro kills a one-shot guest, whose disk nobody will read; the
//! row up to the answer shows what that could save the floor.) QEMU's arguments are read from a VMM that pyro started, so
//! they cannot drift apart; only the paths by which a confined QEMU sees its
//! kernel are replaced. pyro does all this confined, and besides makes the
//! disk, mounts it in the guest, runs the program, and leaves nothing behind.

use crate::Result;
use crate::children;
use crate::guest::{self, Guest};
use crate::report::{Figure, Goal, Row};
use crate::sample::{Pairs, Series};
use pyro_protocol::channel::{self, Before, Side};
use pyro_protocol::handshake::{Announcement, MAGIC};
use pyro_protocol::power::{PowerOff, PoweringOff};
use pyro_protocol::{
    ANNOUNCE_PORT, CALL_PORT, Call, FrameKind, FrameReader, FrameWriter, Hello, Welcome,
};
use pyro_smoke::Home;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PAIRS: usize = 11;

/// Nothing boots longer than this.
const BOOT_DEADLINE: Duration = Duration::from_secs(120);

/// Where the bare QEMU finds its kernel and initial RAM disk among its
/// descriptors.
const KERNEL: RawFd = 40;
const INITRD: RawFd = 41;

/// Descriptors are moved up here before they get their numbers.
const PARKED: RawFd = 100;

pub fn measure(home: &Home) -> Result<Vec<Figure>> {
    let blueprint = Blueprint::of_a_guest(home, &[])?;
    blueprint.boot()?;
    let (mut pairs, mut answers) = (Pairs::default(), Series::default());
    for _ in 0..PAIRS {
        let started = Instant::now();
        let mut command = guest::run_with(home, &["--cold"], &["true"]);
        command.stdout(Stdio::null());
        children::start(command, libc::SIGTERM)?.succeed()?;
        pairs.ours.push(started.elapsed().as_secs_f64() * 1e3);
        let bare = blueprint.boot()?;
        pairs.floor.push(bare.whole.as_secs_f64() * 1e3);
        answers.push(bare.answered.as_secs_f64() * 1e3);
    }
    let goal = Goal::at_most(pairs.ratio_of_medians(), 1.25, "");
    let note = format!("median of the {PAIRS} pairwise ratios: {:.3}", pairs.median_of_ratios());
    Ok(vec![Figure {
        title: "A command in a machine that boots, against a bare QEMU",
        goal,
        rows: vec![
            Row::new("`pyro run --cold debian:12 -- true`, the whole process", "ms", pairs.ours),
            Row::new(
                "floor: bare QEMU, exec to the agent's first answer and power-off",
                "ms",
                pairs.floor,
            ),
            Row::new("of the floor, up to the answer", "ms", answers),
        ],
        notes: vec![note],
    }])
}

/// All that a bare QEMU needs to be the one that pyro starts.
pub struct Blueprint {
    program: PathBuf,
    arguments: Vec<String>,
    channel: RawFd,
    console: RawFd,
    monitor: RawFd,
    nic: Option<RawFd>,
    /// Files, and their numbers in QEMU.
    files: Vec<(File, RawFd)>,
    /// What it is restored from, read to its end each time.
    state: Option<(PathBuf, RawFd)>,
    /// Goes with the copy of the disk.
    _scratch: tempfile::TempDir,
}

/// A bare QEMU that runs.
pub struct Machine {
    pub channel: UnixStream,
    /// The cable of its NIC, if it has one.
    pub nic: Option<UnixStream>,
    pub qemu: children::Kept,
    /// What it is told on it.
    pub monitor: UnixStream,
    /// It says little, which stays in the socket.
    _console: UnixStream,
}

/// How long a bare QEMU took.
struct Bare {
    /// From exec to the agent's announcement.
    answered: Duration,
    /// From exec to QEMU's end.
    whole: Duration,
}

impl Blueprint {
    /// Looks at a VMM that pyro started to boot, with options of `pyro run`.
    pub fn of_a_guest(home: &Home, options: &[&str]) -> Result<Self> {
        let options = [&["--cold"], options].concat();
        Self::of(home, &Guest::start_with(home, &options, &["sh", "-c", "echo ready; cat"])?)
    }

    /// Looks at a VMM that pyro started.
    pub fn of(home: &Home, guest: &Guest) -> Result<Self> {
        let process = PathBuf::from(format!("/proc/{}", guest.vmm));
        let words = fs::read_to_string(process.join("cmdline"))?;
        let mut words = words.trim_end_matches('\0').split('\0').map(str::to_owned);
        let program = words.next().ok_or("the VMM has no arguments")?.into();
        let mut arguments: Vec<String> = words.collect();
        let mut files = Vec::new();
        for (option, number) in [("-kernel", KERNEL), ("-initrd", INITRD)] {
            if let Some(at) = arguments.iter().position(|word| word == option) {
                let seen = arguments[at + 1].trim_start_matches('/').to_owned();
                files.push((File::open(process.join("root").join(seen))?, number));
                arguments[at + 1] = format!("/proc/self/fd/{number}");
            }
        }
        let numbers = |prefix: &str| -> Vec<RawFd> {
            let rest = arguments.iter().filter_map(|word| word.strip_prefix(prefix));
            rest.filter_map(|rest| rest.split(',').next()?.parse().ok()).collect()
        };
        let socket = |id| numbers(&format!("socket,id={id},fd="));
        let [channel, console, monitor] = ["channel", "console", "monitor"].map(socket);
        let nic = socket("network").first().copied();
        let ([channel], [console], [monitor], [root, disk, seed]) =
            (&channel[..], &console[..], &monitor[..], &numbers("fd=")[..])
        else {
            return Err("the VMM's arguments are not what they were: see boot.rs".into());
        };
        let (channel, console, monitor) = (*channel, *console, *monitor);
        let (root, disk) = (*root, *disk);
        files.push((open_image(&process)?, root));
        files.push((File::open(home.path().join("cache/disks/no-seed"))?, *seed));
        let scratch = tempfile::tempdir()?;
        files.push((copy_disk(home, scratch.path())?, disk));
        Ok(Self {
            program,
            arguments,
            channel,
            console,
            monitor,
            nic,
            files,
            state: None,
            _scratch: scratch,
        })
    }

    /// Has it begin with a template, of which it has the state under a number.
    pub fn begin_with(&mut self, memory: &Path, state: PathBuf, number: RawFd) -> Result<()> {
        let path = memory.to_str().ok_or("not UTF-8")?;
        for word in &mut self.arguments {
            *word = word.replace("mem-path=/memory", &format!("mem-path={path}"));
        }
        self.state = Some((state, number));
        Ok(())
    }

    /// Boots it once.
    fn boot(&self) -> Result<Bare> {
        let started = Instant::now();
        let mut machine = self.start(&[])?;
        let answered = come_and_go(machine.channel)? - started;
        machine.qemu.child().wait()?;
        let whole = started.elapsed();
        machine.qemu.end();
        Ok(Bare { answered, whole })
    }

    /// Starts it, with more arguments.
    pub fn start(&self, more: &[&str]) -> Result<Machine> {
        let (channel, channel_end) = UnixStream::pair()?;
        let (console, console_end) = UnixStream::pair()?;
        let (monitor, monitor_end) = UnixStream::pair()?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(more).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let mut sockets = vec![
            (channel_end.as_raw_fd(), self.channel),
            (console_end.as_raw_fd(), self.console),
            (monitor_end.as_raw_fd(), self.monitor),
        ];
        let nic = self.nic.map(|number| Ok::<_, std::io::Error>((UnixStream::pair()?, number)));
        let nic = nic.transpose()?;
        sockets.extend(nic.as_ref().map(|((_, end), number)| (end.as_raw_fd(), *number)));
        let files = self.files.iter().map(|(file, number)| (file.as_raw_fd(), *number));
        let state = self.state.as_ref().map(|(path, number)| (File::open(path), *number));
        let state = state.map(|(file, number)| file.map(|file| (file, number))).transpose()?;
        let read = state.as_ref().map(|(file, number)| (file.as_raw_fd(), *number));
        pass(&mut command, sockets.into_iter().chain(files).chain(read).collect());
        let qemu = children::start(command, libc::SIGKILL)?;
        let nic = nic.map(|((nic, _), _)| nic);
        Ok(Machine { channel, nic, qemu, monitor, _console: console })
    }
}

/// The root image that the VMM has open.
fn open_image(process: &Path) -> Result<File> {
    for entry in fs::read_dir(process.join("fd"))?.flatten() {
        if fs::read_link(entry.path())?.extension().is_some_and(|extension| extension == "erofs") {
            return Ok(File::open(entry.path())?);
        }
    }
    Err("the VMM has no root image open".into())
}

/// A copy of the empty disk that pyro copies for every workspace.
fn copy_disk(home: &Home, into: &Path) -> Result<File> {
    let entries = fs::read_dir(home.path().join("cache/disks"))?.flatten();
    let mut formatted: Vec<_> =
        entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "ext4")).collect();
    formatted.sort_by_key(|entry| entry.metadata().and_then(|meta| meta.modified()).ok());
    let newest = formatted.pop().ok_or("pyro keeps no formatted disk")?.path();
    let copy = into.join("disk.ext4");
    let status = Command::new("cp").arg("--sparse=always").args([&newest, &copy]).status()?;
    match status.success() {
        true => Ok(File::options().read(true).write(true).open(copy)?),
        false => Err(format!("cp ended with {status}").into()),
    }
}

/// Gives the program descriptors under the numbers that its arguments name.
fn pass(command: &mut Command, descriptors: Vec<(RawFd, RawFd)>) {
    let mut parked = vec![-1; descriptors.len()];
    // SAFETY: fcntl and dup2 are async-signal-safe, and nothing allocates. The
    // standard library's own pipe may be overwritten; then a failing exec looks
    // like a QEMU that ends at once.
    unsafe {
        command.pre_exec(move || {
            for (parked, (source, _)) in parked.iter_mut().zip(&descriptors) {
                *parked = checked(libc::fcntl(*source, libc::F_DUPFD_CLOEXEC, PARKED))?;
            }
            for (parked, (_, number)) in parked.iter().zip(&descriptors) {
                checked(libc::dup2(*parked, *number))?;
            }
            Ok(())
        });
    }
}

fn checked(result: libc::c_int) -> std::io::Result<libc::c_int> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

/// Brings the channel up, waits for the agent to say that it is there, and
/// asks it to power off; the channel ends with the machine. Returns when the
/// agent had spoken.
fn come_and_go(channel: UnixStream) -> Result<Instant> {
    channel.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let life = async {
        let channel = tokio::net::UnixStream::from_std(channel)?;
        let side = Side::Host { nonce: 1, before: Before::Nothing };
        let (opener, mut acceptor, driver) = channel::connect(channel, side).await?;
        tokio::pin!(driver);
        let talk = async {
            let inbound = acceptor.accept().await.ok_or("the channel ended")?;
            if inbound.port() != ANNOUNCE_PORT {
                return Err("the guest wants another port than the announcement's".into());
            }
            let mut reader = FrameReader::new(inbound.accept());
            let announced: Announcement = reader.expect(FrameKind::Announcement).await?;
            if announced.magic != MAGIC {
                return Err("the guest is not pyro's".into());
            }
            let answered = Instant::now();
            let (read, write) = tokio::io::split(opener.open(CALL_PORT).await?);
            let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
            writer.send(FrameKind::Hello, &Hello::ours()).await?;
            let _: Welcome = reader.expect(FrameKind::Welcome).await?;
            writer.send(FrameKind::Call, &Call::from(PowerOff { grace_ms: 0 })).await?;
            let _: PoweringOff = reader.expect(FrameKind::Reply).await?;
            Result::Ok(answered)
        };
        let answered = tokio::select! {
            answered = talk => answered?,
            ended = &mut driver => return Err(format!("the channel ended: {ended:?}").into()),
        };
        // Ends when QEMU does, in whatever way the mux calls that.
        drop(driver.await);
        Ok(answered)
    };
    runtime.block_on(async { tokio::time::timeout(BOOT_DEADLINE, life).await? })
}
