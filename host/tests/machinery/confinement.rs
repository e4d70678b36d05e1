//! Real programs under the confinement that a VMM gets. Each test runs as
//! whoever runs the tests, and if that is root, also as nobody.

use pyro::ErrorKind;
use pyro::confine::{Confined, Confinement, VMM_UID, inspect, spawn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A shell without anything: what it can, it can by itself.
const SHELL: &str = "/bin/dash";

const LIBRARIES: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];

/// Who the tests become when root runs them.
const NOBODY: u32 = 65534;

/// Set for a copy of this program that runs one test for another.
pub const PLAYING: &str = "PYRO_TEST_PLAYING";

/// A confined shell, and what it writes to its standard error.
pub struct Shell {
    pub program: Confined,
    pub said: std::io::PipeReader,
    pub input: std::io::PipeWriter,
}

pub fn skip<T>(why: impl std::fmt::Display) -> Option<T> {
    eprintln!("skipped: {why}");
    None
}

/// `None`, and why, where this host does not allow it.
pub fn shell(line: &str, prepare: impl FnOnce(&mut Confinement)) -> Option<Shell> {
    if !Path::new(SHELL).exists() {
        return skip(format_args!("there is no {SHELL}"));
    }
    let mut confinement = Confinement::new(Path::new(SHELL));
    confinement.see(LIBRARIES.iter().map(Path::new));
    let (said, stderr) = std::io::pipe().unwrap();
    let (stdin, input) = std::io::pipe().unwrap();
    confinement.stderr(stderr.into());
    assert_eq!(confinement.pass(stdin), 3);
    prepare(&mut confinement);
    match spawn(confinement, &["-c".into(), line.into()]) {
        Ok(program) => Some(Shell { program, said, input }),
        Err(error) if error.kind() == ErrorKind::Unsupported => skip(error.chain()),
        Err(error) => panic!("{}", error.chain()),
    }
}

impl Shell {
    pub async fn finish(mut self) -> (String, String) {
        drop(self.input);
        let how = self.program.wait().await;
        let mut said = String::new();
        self.said.read_to_string(&mut said).unwrap();
        (how, said)
    }
}

pub fn run<F: Future<Output = ()>>(test: F) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// Whoever adopts a process may take a moment to bury it.
pub fn is_alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

/// Waits for what no event tells.
pub fn wait_until(otherwise: &str, done: impl Fn() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < Duration::from_secs(5), "{otherwise}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs the same test in a copy of this program.
pub fn copy_of_this(test: &str, playing: &str) -> Command {
    let mut copy = Command::new(std::env::current_exe().unwrap());
    copy.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(PLAYING, playing);
    copy
}

/// Runs a test here, and once more as nobody if this is root.
pub fn as_anybody(name: &str, test: impl Future<Output = ()>) {
    run(test);
    let played = std::env::var_os(PLAYING).is_some();
    if played || !rustix::process::geteuid().is_root() {
        return;
    }
    let as_nobody = copy_of_this(name, "nobody").uid(NOBODY).gid(NOBODY).current_dir("/").output();
    match as_nobody {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "as nobody: {said}");
            eprint!("as nobody: {said}");
        }
        Err(error) => eprintln!("not run as nobody, who may not start this program: {error}"),
    }
}

#[test]
fn a_program_sees_what_it_was_shown() {
    as_anybody("confinement::a_program_sees_what_it_was_shown", async {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("secret");
        std::fs::write(&file, "shown\n").unwrap();
        let line = "cd /; echo * /dev/* /etc/* /proc/* /home/* /root/* /tmp/* >&2; \
                    read line </here/it/is; echo $line >&2; \
                    (echo x >/here/it/is) 2>/dev/null || echo cannot write it >&2; \
                    (echo x >/new) 2>/dev/null || echo cannot make any >&2; \
                    (echo x >/dev/null) && echo can use devices >&2; \
                    read line <&3; echo $line >&2";
        let Some(mut shell) = shell(line, |confinement| {
            confinement.see_as(&file, "/here/it/is");
            confinement.see([Path::new("/no/such/thing")]);
        }) else {
            return;
        };
        shell.input.write_all(b"handed down\n").unwrap();
        let (how, said) = shell.finish().await;
        assert_eq!(how, "exited with status 0", "{said}");
        let lines: Vec<_> = said.lines().collect();
        let (root, rest) = lines.split_first().unwrap();
        let mut seen: Vec<_> = root.split(' ').collect();
        seen.retain(|name| !["lib", "lib64", "usr"].contains(name));
        let nothing = ["/etc/*", "/proc/*", "/home/*", "/root/*", "/tmp/*"];
        let devices = ["/dev/null", "/dev/urandom", "/dev/zero"];
        assert_eq!(seen, [&["bin", "dev", "here"][..], &devices, &nothing].concat());
        let can = ["shown", "cannot write it", "cannot make any", "can use devices", "handed down"];
        assert_eq!(rest, can);
        assert_eq!(std::fs::read(&file).unwrap(), b"shown\n");
    });
}

#[test]
fn a_program_may_do_nothing_more() {
    as_anybody("confinement::a_program_may_do_nothing_more", async {
        let Some(mut shell) = shell("exec <&3 >&2; echo here; read line; exit 5", |_| {}) else {
            return;
        };
        let mut byte = [0; 5];
        shell.said.read_exact(&mut byte).unwrap();
        let pid = shell.program.pid();
        let seen = inspect(pid).unwrap();
        let own = rustix::process::geteuid();
        assert_eq!(seen.uid, if own.is_root() { VMM_UID } else { own.as_raw() });
        assert_eq!((seen.capabilities, seen.no_new_privs), (0, true), "{seen}");
        assert!(seen.shared_namespaces.is_empty(), "{:?}", seen.shared_namespaces);
        // The filter is the VMM's own affair.
        assert_eq!(seen.gaps(), ["under seccomp"]);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        if own.is_root() {
            assert!(status.contains("\nGroups:\t \n"), "{status}");
            assert!(
                status.contains(&format!("\nGid:\t{VMM_UID}\t{VMM_UID}\t{VMM_UID}\t{VMM_UID}\n"))
            );
        }
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        match std::fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(open) => assert_eq!(open.count(), 4, "only 0, 1, 2 and what was passed"),
            Err(error) => eprintln!("descriptors not counted: {error}"),
        }
        let (how, _) = shell.finish().await;
        assert_eq!(how, "exited with status 5");
    });
}

#[test]
fn a_program_dies_with_its_owner() {
    as_anybody("confinement::a_program_dies_with_its_owner", async {
        let Some(mut shell) = shell("echo up >&2; read line <&3", |_| {}) else { return };
        let mut up = [0; 3];
        shell.said.read_exact(&mut up).unwrap();
        shell.program.kill();
        assert_eq!(shell.program.wait().await, "was killed by signal 9");
        assert_eq!(shell.program.wait().await, "was killed by signal 9");
        let Some(dropped) = self::shell("read line <&3", |_| {}) else { return };
        let pid = dropped.program.pid();
        drop(dropped.program);
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it is still there");
    });
}

#[test]
fn a_program_dies_with_the_thread_that_started_it() {
    as_anybody("confinement::a_program_dies_with_the_thread_that_started_it", async {
        let started = std::thread::spawn(|| {
            let mut pid = None;
            run(async {
                pid = shell("read line <&3", |_| {}).map(|shell| {
                    let pid = shell.program.pid();
                    std::mem::forget(shell);
                    pid
                });
            });
            pid
        });
        let Some(pid) = started.join().unwrap() else { return };
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap());
        let pidfd = pidfd_open(pid.unwrap(), PidfdFlags::empty()).unwrap();
        let patience = Timespec { tv_sec: 5, tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience));
        assert_eq!(ended, Ok(1), "it lives on");
        let options = rustix::process::WaitOptions::empty();
        let (_, status) = rustix::process::waitpid(pid, options).unwrap().unwrap();
        assert_eq!(status.terminating_signal(), Some(9));
    });
}

#[test]
fn a_program_dies_with_the_process_that_started_it() {
    const NAME: &str = "confinement::a_program_dies_with_the_process_that_started_it";
    if std::env::var_os(PLAYING).is_some_and(|part| part == "owner") {
        return run(async {
            match shell("read line <&3", |_| {}) {
                Some(shell) => {
                    eprintln!("pid {}", shell.program.pid());
                    std::future::pending().await
                }
                None => eprintln!("pid none"),
            }
        });
    }
    let mut owner = copy_of_this(NAME, "owner").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(owner.stderr.take().unwrap()));
    let pid = lines.find_map(|line| line.unwrap().strip_prefix("pid ").map(str::to_owned)).unwrap();
    owner.kill().unwrap();
    owner.wait().unwrap();
    let Ok(pid) = pid.parse::<u32>() else {
        skip::<()>("no namespaces here");
        return;
    };
    wait_until("it lives on", || !is_alive(pid));
}

#[test]
fn what_cannot_be_started_says_at_which_step() {
    as_anybody("confinement::what_cannot_be_started_says_at_which_step", async {
        let missing = Confinement::new(Path::new("/no/such/program"));
        let error = spawn(missing, &[]).expect_err("there is none");
        if error.kind() == ErrorKind::Unsupported {
            skip::<()>(error.chain());
            return;
        }
        assert!(error.message().contains("exec failed"), "{}", error.chain());
        assert!(error.chain().contains("No such file"), "{}", error.chain());

        let mut blocked = Confinement::new(Path::new(SHELL));
        blocked.see_as(Path::new("/etc/passwd"), "/dev");
        let error = spawn(blocked, &[]).expect_err("a file is no directory");
        assert!(error.message().contains("making the private root failed"), "{}", error.chain());

        let mut relative = Confinement::new(Path::new(SHELL));
        relative.see_as(Path::new("/etc/passwd"), "passwd");
        let error = spawn(relative, &[]).expect_err("where should it be");
        assert!(error.message().contains("not an absolute path"), "{}", error.chain());
        let nul = spawn(Confinement::new(Path::new(SHELL)), &["\0".into()]).expect_err("no word");
        assert_eq!(nul.kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn many_descriptors_keep_their_numbers() {
    as_anybody("confinement::many_descriptors_keep_their_numbers", async {
        let mut readers = Vec::new();
        let mut line = String::new();
        let Some(shell) = shell("read line <&3; eval \"$line\"", |confinement| {
            for expected in 4..9 {
                let (reader, writer) = std::io::pipe().unwrap();
                assert_eq!(confinement.pass(writer), expected);
                line.push_str(&format!("echo this is {expected} >&{expected}; "));
                readers.push((expected, reader));
            }
        }) else {
            return;
        };
        let mut shell = shell;
        shell.input.write_all(format!("{line}\n").as_bytes()).unwrap();
        let (how, said) = shell.finish().await;
        assert_eq!((how.as_str(), said.as_str()), ("exited with status 0", ""));
        for (number, mut reader) in readers {
            let mut said = String::new();
            reader.read_to_string(&mut said).unwrap();
            assert_eq!(said, format!("this is {number}\n"));
        }
    });
}
