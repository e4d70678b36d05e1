//! One emulated host: QEMU translating an AMD processor that has SVM with nested
//! paging, and a line to the teller inside.

use crate::kit::Kit;
use crate::story::{Ask, Told, Up};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Enough for some guests at once and the host's page cache; QEMU takes what is
/// touched.
const MEM_MIB: u32 = 4096;

/// Sparse.
const SCRATCH_BYTES: u64 = 32 << 30;

/// EPYC is what KVM can be nested in under translation. Without SMAP and SMEP the
/// translator leaves less often what it has translated, a tenth of all time; without
/// AVX2, for whose instructions it calls functions, images are hashed in half the
/// time. Without AVX, programs in guests crash.
const CPU: &str = "EPYC,+svm,+npt,-smap,-smep,-avx2";

/// Where QEMU can be asked about a host that says nothing any more.
const MONITOR: &str = "monitor";

/// How long its answer may take.
const MONITOR_LIMIT: Duration = Duration::from_secs(5);

/// How long a host may take to come up: 3 s, but for what else runs.
const UP_LIMIT: Duration = Duration::from_secs(90);

/// What an answer may take beyond the limit of its story: the teller waits for
/// what stays and clears away.
const ANSWER_GRACE: Duration = Duration::from_secs(60);

/// A running one. It ends when this is dropped, when this process ends, and when
/// the thread that started it does.
pub struct EmulatedHost {
    qemu: Child,
    line: BufReader<UnixStream>,
    scratch: PathBuf,
}

impl EmulatedHost {
    /// Starts one with its files in `place`, and waits until it is up.
    pub fn start(kit: &Kit, place: &Path) -> io::Result<(Self, Up)> {
        fs::create_dir_all(place)?;
        let scratch = place.join("scratch.ext4");
        format_scratch(&scratch)?;
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = qemu(kit, place, &scratch);
        command
            .stdin(OwnedFd::from(theirs.try_clone()?))
            .stdout(OwnedFd::from(theirs))
            .stderr(File::create(place.join("qemu.log"))?);
        let parent = rustix::process::getpid();
        // SAFETY: between fork and exec this makes two system calls and
        // allocates nothing.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // It may have died before it was to be heard of.
                if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
            });
        }
        let qemu = command.spawn()?;
        // The other end is QEMU's alone: what it held would keep the line open.
        drop(command);
        let mut host = Self { qemu, line: BufReader::new(ours), scratch };
        let up = host.hear(UP_LIMIT)?;
        Ok((host, up))
    }

    /// Has one story told.
    pub fn tell(&mut self, ask: &Ask) -> io::Result<Told> {
        let mut line = serde_json::to_vec(ask)?;
        line.push(b'\n');
        self.line.get_mut().write_all(&line)?;
        self.hear(Duration::from_secs(ask.limit_s) + ANSWER_GRACE)
    }

    /// Why it may say nothing: whether it runs, where its processor is, how large
    /// its disk has become.
    pub fn describe(&self) -> String {
        let said = self.ask_monitor("info status\ninfo registers\nquit\n");
        let said = said.unwrap_or_else(|error| format!("QEMU does not say: {error}"));
        let blocks = fs::metadata(&self.scratch).map_or(0, |scratch| scratch.blocks());
        format!("{said}\nits disk takes {} MiB", (blocks * 512) >> 20)
    }

    fn ask_monitor(&self, commands: &str) -> io::Result<String> {
        let mut monitor = UnixStream::connect(self.scratch.with_file_name(MONITOR))?;
        monitor.set_read_timeout(Some(MONITOR_LIMIT))?;
        monitor.write_all(commands.as_bytes())?;
        let mut said = Vec::new();
        // What came until then.
        drop(monitor.read_to_end(&mut said));
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    fn hear<T: DeserializeOwned>(&mut self, limit: Duration) -> io::Result<T> {
        let deadline = Instant::now() + limit;
        let mut line = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: left.subsec_nanos().into(),
            };
            if self.line.buffer().is_empty()
                && poll(&mut [PollFd::new(self.line.get_ref(), PollFlags::IN)], Some(&timeout))?
                    == 0
            {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let heard = self.line.fill_buf()?;
            if heard.is_empty() {
                return Err(io::Error::other("the emulated host has ended"));
            }
            let end = heard.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(heard.len(), |end| end + 1);
            line.extend_from_slice(&heard[..taken]);
            self.line.consume(taken);
            if end.is_some() {
                return Ok(serde_json::from_slice(&line)?);
            }
        }
    }
}

impl Drop for EmulatedHost {
    fn drop(&mut self) {
        // Nothing in it is kept, so it need not be told.
        drop(self.qemu.kill());
        drop(self.qemu.wait());
        drop(fs::remove_file(&self.scratch));
    }
}

fn format_scratch(path: &Path) -> io::Result<()> {
    File::create(path)?.set_len(SCRATCH_BYTES)?;
    let options = ["-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal"];
    let lazily = ["-E", "lazy_itable_init=1,nodiscard"];
    super::kit::run(Command::new("/sbin/mke2fs").args(options).args(lazily).arg(path))
}

fn qemu(kit: &Kit, place: &Path, scratch: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    let mem = MEM_MIB.to_string();
    // One processor is as quick as two, and leaves the other to another host.
    command.args(["-machine", "pc", "-accel", "tcg", "-cpu", CPU, "-smp", "1", "-m", &mem]);
    command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    command.arg("-serial").arg(file_option("file:", &place.join("console.log"), ""));
    command.arg("-kernel").arg(&kit.kernel).arg("-initrd").arg(&kit.initrd);
    command.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"]);
    for (path, access) in [
        (&*kit.root_image, "read-only=on"),
        // What stories remove is given back; a disk that is full is their
        // error, where QEMU would stop the host and say nothing.
        (scratch, "cache=unsafe,discard=unmap,werror=report"),
        (&*kit.programs, "read-only=on"),
        (&*kit.cache, "read-only=on"),
    ] {
        let options = format!(",format=raw,if=virtio,{access}");
        command.arg("-drive").arg(file_option("file=", path, &options));
    }
    let monitor = file_option("unix:", &place.join(MONITOR), ",server=on,wait=off");
    command.arg("-monitor").arg(monitor);
    command.args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
    command.args([
        "-chardev",
        "stdio,id=line,signal=off",
        "-device",
        "virtserialport,chardev=line",
    ]);
    command
}

/// An option with a path in it; QEMU takes two commas for one.
fn file_option(before: &str, path: &Path, after: &str) -> String {
    format!("{before}{}{after}", path.to_string_lossy().replace(',', ",,"))
}
