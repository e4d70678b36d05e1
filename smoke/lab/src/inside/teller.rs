//! Tells one story after the other, each in a process group of its own.

use super::{HOME, KIT, SCRATCH};
use crate::story::{Ask, Ending, Story, Told, Up};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The end of a story's output that is worth sending out.
const OUTPUT_MAX: u64 = 256 << 10;

/// How long the processes of a story that ended well may take to end too.
const GRACE: Duration = Duration::from_secs(10);

/// Where Debian's programs are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names of virtio-serial ports; there is one.
const PORTS: &str = "/sys/class/virtio-ports";

/// Answers each line with one, until nobody asks any more.
pub fn tell_what_is_asked() -> io::Result<()> {
    let port = fs::read_dir(PORTS)?.next().ok_or(io::ErrorKind::NotFound)??.file_name();
    let port = File::options().read(true).write(true).open(Path::new("/dev").join(port))?;
    let uptime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let uptime_ms = uptime.tv_sec.unsigned_abs() * 1000 + uptime.tv_nsec.unsigned_abs() / 1_000_000;
    say(&port, &Up { uptime_ms })?;
    for line in BufReader::new(&port).lines() {
        let ask: Ask = serde_json::from_str(&line?)?;
        say(&port, &tell(&ask)?)?;
    }
    Ok(())
}

fn say(mut port: &File, what: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    port.write_all(&line)
}

fn tell(ask: &Ask) -> io::Result<Told> {
    let started = Instant::now();
    let path = format!("{SCRATCH}/output");
    let output = File::create(&path)?;
    let mut child = start(&ask.story, output)?;
    let ended = wait(&mut child, Duration::from_secs(ask.limit_s))?;
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let last_state = if ended == Some(true) { String::new() } else { describe_processes() };
    let left = if ended == Some(true) { what_stays(GRACE) } else { Vec::new() };
    // Whatever happened, the next story finds an empty host.
    sweep();
    drop(child.wait());
    let output = format!("{}{last_state}", end_of(&path)?);
    let ending = match ended {
        None => Ending::TooLong,
        Some(false) => Ending::Badly,
        Some(true) if !left.is_empty() => Ending::LeftBehind(left),
        Some(true) => output
            .lines()
            .find_map(|line| line.strip_prefix("skipped: "))
            .map_or(Ending::Well, |why| Ending::Skipped(why.to_owned())),
    };
    Ok(Told { ending, took_ms, output })
}

fn start(story: &Story, output: File) -> io::Result<Child> {
    Command::new(format!("{KIT}/stories/{}", story.program))
        .args(["--exact", &story.test, "--nocapture", "--test-threads=1"])
        .env_clear()
        .env("HOME", HOME)
        .env("PATH", format!("{PATH}:{KIT}/tools"))
        .env("RUST_BACKTRACE", "0")
        .env("PYRO_BIN", format!("{KIT}/bin/pyro"))
        .env("PYRO_FIRECRACKER", format!("{KIT}/bin/firecracker"))
        .env(pyro_smoke::SCALE, "25")
        .env(pyro_smoke::SLOWNESS, "10")
        .current_dir(HOME)
        .stdin(Stdio::null())
        .stderr(output.try_clone()?)
        .stdout(output)
        .process_group(0)
        .spawn()
}

/// Whether it succeeded; `None` when it did not end in time.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<bool>> {
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let timeout = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: 0 };
    match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout))? {
        0 => Ok(None),
        _ => Ok(Some(child.wait()?.success())),
    }
}

/// What runs beside the first process, this one and the kernel's threads.
fn others() -> Vec<(Pid, String)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| *pid > 1 && pid.cast_unsigned() != std::process::id())
        .filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            // Neither a thread of the kernel's nor one that has ended.
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            Some((Pid::from_raw(pid)?, line)).filter(|(_, line)| !line.is_empty())
        })
        .collect()
}

fn raw(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().cast_unsigned()
}

/// The processes that are still there after a while.
fn what_stays(grace: Duration) -> Vec<String> {
    let deadline = Instant::now() + grace;
    loop {
        let left = others();
        if left.is_empty() || Instant::now() > deadline {
            return left.into_iter().map(|(_, line)| line).collect();
        }
        let (pid, _) = left[0];
        let _ =
            pyro_smoke::ends_within(raw(pid), deadline.saturating_duration_since(Instant::now()));
    }
}

/// Ends every process and removes what is left of homes.
fn sweep() {
    // Who is killed may just have started another.
    for _ in 0..10 {
        let left = others();
        if left.is_empty() {
            break;
        }
        for (pid, _) in &left {
            // It may have ended by itself.
            let _ = kill_process(*pid, Signal::KILL);
        }
        for (pid, _) in left {
            // One whose kernel holds it is looked at again.
            let _ = pyro_smoke::ends_within(raw(pid), Duration::from_secs(1));
        }
    }
    let Ok(homes) = fs::read_dir("/tmp") else { return };
    for home in homes.flatten() {
        // What cannot be removed is in nobody's way: homes have random names.
        let _ = fs::remove_dir_all(home.path());
    }
}

/// What a story that ended badly had running, and what its logs said.
fn describe_processes() -> String {
    let mut said = String::from("\n--- processes at the end\n");
    for (pid, line) in others() {
        let wchan = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        said += &format!("{pid} {wchan} {line}\n");
    }
    let homes = fs::read_dir("/tmp").into_iter().flatten().flatten();
    for home in homes {
        tell_logs(&home.path().join("state"), &mut said);
    }
    said
}

fn tell_logs(directory: &Path, said: &mut String) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            tell_logs(&path, said);
        } else if path.extension().is_some_and(|extension| extension == "log")
            && let Ok(log) = end_of(&path)
        {
            *said += &format!("--- {}\n{log}\n", path.display());
        }
    }
}

fn end_of(path: impl AsRef<Path>) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(OUTPUT_MAX)))?;
    let mut bytes = Vec::new();
    file.take(OUTPUT_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
