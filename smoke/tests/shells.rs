//! Shells in a real guest: an editor at an attached one, driven as a person
//! drives it, and what all of them leave behind.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails")]

#[path = "../../host/tests/support/tty.rs"]
mod tty;

use pyro::operation::{Operation, ShellClose, ShellOpen, ShellWrite};
use pyro::{Config, Pyro};
use pyro_smoke::{Home, patient, pyro_executable, scaled, stdout};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tty::Tty;

fn succeed(home: &Home, words: &[&str]) -> String {
    stdout(&home.pyro(words).output().expect("pyro starts"))
}

fn create(home: &Home) {
    succeed(home, &["workspace", "create", "debian:12", "--name", "w"]);
}

fn delete(home: &Home) {
    succeed(home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}

fn in_guest(home: &Home, line: &str) -> String {
    succeed(home, &["workspace", "exec", "w", "--shell", line])
}

/// `pyro` with these words; in tmux, where there is one: then two terminals lie
/// between the one who types and the guest.
fn seated(home: &Home, words: &[&str]) -> Tty {
    let version = Command::new("tmux").arg("-V").stdout(Stdio::null()).status();
    let mut command = if version.is_ok_and(|status| status.success()) {
        let socket = home.path().join("tmux.sock");
        let mut command = Command::new("tmux");
        command.arg("-f").arg("/dev/null").arg("-S").arg(socket).arg("new-session");
        command.arg(pyro_executable()).args(words);
        command
    } else {
        let mut command = Command::new(pyro_executable());
        command.args(words);
        command
    };
    command.env("PYRO_HOME", home.path()).env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8");
    Tty::start(command, 100, 30)
}

/// An editor of a few lines, on Python's curses: it takes the whole screen, knows
/// keys and sizes, and saves with Ctrl-G.
const EDITOR: &str = r#"
import curses, curses.textpad, sys
def main(screen):
    curses.raw()
    screen.addstr(0, 0, "editing " + sys.argv[1])
    screen.refresh()
    rows, cols = screen.getmaxyx()
    window = curses.newwin(rows - 2, cols - 1, 1, 0)
    text = curses.textpad.Textbox(window, insert_mode=True).edit()
    open(sys.argv[1], "w").write(text)
curses.wrapper(main)
"#;

#[test]
fn r17_r22_an_editor_is_used_in_an_attached_shell() {
    let home = Home::new();
    create(&home);
    let write = ["workspace", "file", "write", "w", "editor.py", "--text", EDITOR];
    succeed(&home, &write);
    let mut tty = seated(&home, &["workspace", "attach", "w"]);
    tty.sees("pyro$");
    tty.types(b"python3 editor.py note; echo le''ft\r");
    tty.sees("editing note");
    // Text, a mistake that is rubbed out, a line above.
    tty.types(b"second lime\x08\x08ne");
    tty.sees("second line");
    tty.types(b"\x01\x0ffirst line");
    tty.sees("first line");
    // The same screen, for who reads it from outside.
    let list = succeed(&home, &["workspace", "shell", "list", "w", "--json"]);
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let id = list["shells"][0]["shell_id"].as_str().expect("an id").to_owned();
    let read = ["workspace", "shell", "read", "w", &id, "--plain"];
    let plain = succeed(&home, &read);
    assert!(plain.starts_with("editing note\n") && plain.contains("\nfirst line"), "{plain}");
    tty.types(b"\x07");
    tty.sees("left");
    assert!(!tty.screen().contains("editing note"), "{}", tty.screen());
    let note = in_guest(&home, "cat note");
    assert!(note.contains("first line") && note.contains("second line"), "{note}");
    // A job that is stopped by a key, and what a window's size comes to.
    // One program from its first word on: between two a key may find neither.
    tty.types(b"sh -c 'echo be\"\"gun; exec sleep 1000'\r");
    tty.sees("begun");
    tty.types(b"\x03");
    tty.sees("^C\npyro$");
    tty.resize(80, 25);
    tty.types(b"sleep 1; echo cols $(stty size | cut -d' ' -f2).\r");
    tty.sees("cols 80.");
    tty.types(b"exit\r");
    tty.ends();
    assert_eq!(succeed(&home, &["workspace", "shell", "list", "w"]), "No shells.\n");
    delete(&home);
}

/// As with `docker run -it`: the program has the terminal, and the machine goes
/// with it.
#[test]
fn a_machine_for_one_program_at_a_terminal() {
    let home = Home::new();
    let mut tty = seated(&home, &["run", "-it", "debian:12"]);
    tty.sees("pyro$");
    tty.types(b"python3 -c 'import os; print(\"\", *os.get_terminal_size(), \"is the size\")'\r");
    // tmux takes a line for itself.
    tty.sees("100 ");
    tty.sees("is the size\n");
    tty.types(b"sh -c 'echo be\"\"gun; exec sleep 1000'\r");
    tty.sees("begun");
    tty.types(b"\x03");
    tty.sees("^C\npyro$");
    tty.resize(80, 25);
    tty.types(b"sleep 1; echo cols $(stty size | cut -d' ' -f2).\r");
    tty.sees("cols 80.");
    tty.types(b"exit\r");
    tty.ends();
    home.expect_clean_within(Duration::from_secs(5));
    // Without tmux between, the exit code is the program's, and the terminal as it
    // was; also when the caller is told to leave.
    let run = |words: &[&str]| {
        let mut command = Command::new(pyro_executable());
        command.args(["run", "-it", "debian:12"]).args(words).env("PYRO_HOME", home.path());
        Tty::start(command, 90, 20)
    };
    let mut tty = run(&["--", "sh", "-c", "stty size; read line; exit $line"]);
    tty.sees("20 90");
    assert!(tty.is_raw());
    tty.types(b"42\r");
    assert_eq!(tty.ends().code(), Some(42));
    assert!(!tty.is_raw());
    let mut tty = run(&["--", "sh", "-c", "echo up; exec sleep 1000"]);
    tty.sees("up");
    kill_process(Pid::from_child(&tty.child), Signal::TERM).unwrap();
    assert_eq!(tty.ends().code(), Some(143));
    assert!(!tty.is_raw());
    home.expect_clean_within(Duration::from_secs(5));
    let mut tty = run(&["--", "sh", "-c", "echo up; exec sleep 1000"]);
    tty.sees("up");
    tty.child.kill().unwrap();
    tty.ends();
    home.expect_clean_within(Duration::from_secs(10));
}

#[test]
fn r17_a_caller_that_is_killed_leaves_its_shell() {
    let home = Home::new();
    create(&home);
    let mut command = Command::new(pyro_executable());
    command.args(["workspace", "attach", "w"]).env("PYRO_HOME", home.path());
    let mut tty = Tty::start(command, 100, 30);
    tty.sees("pyro$");
    tty.types(b"NAME=kept; echo rea''dy\r");
    tty.sees("ready");
    assert!(tty.is_raw());
    tty.child.kill().unwrap();
    tty.ends();
    let list = succeed(&home, &["workspace", "shell", "list", "w", "--json"]);
    let list: Value = serde_json::from_str(&list).expect("JSON");
    let id = list["shells"][0]["shell_id"].as_str().expect("an id").to_owned();
    let mut command = Command::new(pyro_executable());
    command.args(["workspace", "shell", "attach", "w", &id]).env("PYRO_HOME", home.path());
    let mut tty = Tty::start(command, 100, 30);
    tty.sees("ready");
    tty.types(b"echo $NAME-still; exit 3\r");
    tty.sees("kept-still");
    assert_eq!(tty.ends().code(), Some(3));
    succeed(&home, &["workspace", "shell", "close", "w", &id]);
    delete(&home);
}

/// As a program would, but in the story's home.
fn library(home: &Home) -> Pyro {
    let mut config = Config::from_environment().expect("a home directory");
    config.cache_dir = home.path().join("cache");
    config.state_dir = home.path().join("state");
    config.executable = pyro_executable();
    config.agent = config.executable.with_file_name("pyro-agent").into();
    Pyro::new(config)
}

fn asked<O: Operation>(arguments: Value) -> O {
    serde_json::from_value(arguments).expect("arguments")
}

/// What shells may leave in a guest: processes, cgroups, terminals, descriptors
/// of the agent's.
const COUNT: &str = "ls /sys/fs/cgroup/process | grep -c '^[0-9a-f]*$'; ls /dev/pts | wc -l; \
     ps -e -o comm= | grep -cE '^(bash|sleep|cat)$'; \
     ls /proc/$(pgrep -o pyro-agent)/fd | wc -l";

/// KiB that the agent has in memory.
const AGENT_MEMORY: &str = "sed -n 's/VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' \
     /proc/$(pgrep -o pyro-agent)/status";

/// More than an allocator may leave unused; less than a tenth of what a thousand
/// shells were, were they kept.
const MEMORY_SLACK_KIB: u64 = 4096;

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

fn memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[tokio::test]
async fn r17_a_thousand_shells_leave_nothing_behind() {
    const AT_ONCE: u32 = 4;
    let home = Home::new();
    create(&home);
    let pyro = library(&home);
    let open_and_close = async || {
        let open = json!({ "workspace_id": "w" });
        let id = pyro.call(asked::<ShellOpen>(open)).await.expect("it opens").shell_id;
        let input = "sleep 1000 & nohup sleep 1000 >/dev/null & cat";
        let write = json!({ "workspace_id": "w", "shell_id": id, "input": input });
        pyro.call(asked::<ShellWrite>(write)).await.expect("it types");
        let close = json!({ "workspace_id": "w", "shell_id": id });
        pyro.call(asked::<ShellClose>(close)).await.expect("it closes");
    };
    let round = async || {
        let (a, b, c, d) = (open_and_close(), open_and_close(), open_and_close(), open_and_close());
        tokio::join!(a, b, c, d);
    };
    let memory = |home: &Home| {
        in_guest(home, AGENT_MEMORY).lines().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap()
    };
    let supervisor = home.supervisor();
    // All that is allocated once is, by then.
    for _ in 0..5 {
        round().await;
    }
    let agent = memory(&home);
    let (before, host) =
        (in_guest(&home, COUNT), (descriptors(supervisor), memory_kib(supervisor)));
    for _ in 0..scaled(1000, 100) / AT_ONCE {
        round().await;
    }
    assert_eq!(in_guest(&home, COUNT), before);
    let after = memory(&home);
    assert!(after < agent + MEMORY_SLACK_KIB, "agent: {agent} KiB before, {after} after");
    // A connection that has just ended may not be closed yet; another says so.
    let enough = patient(Duration::from_secs(5));
    let since = Instant::now();
    while descriptors(supervisor) > host.0 {
        assert!(since.elapsed() < enough, "{} of {}", descriptors(supervisor), host.0);
        in_guest(&home, "true");
    }
    let after = memory_kib(supervisor);
    assert!(after < host.1 + MEMORY_SLACK_KIB, "supervisor: {} KiB before, {after} after", host.1);
    delete(&home);
}
