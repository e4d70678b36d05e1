//! The built `pyro` at a terminal, attached to a shell.

use crate::exec::Bench;
use crate::tty::Tty;
use pyro::operation::{SecretSet, ShellList, ShellOpen, ShellRead, ShellWrite, WorkspaceStop};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tokio::task::spawn_blocking;

/// `pyro` at home there.
fn pyro(home: &PathBuf, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pyro"));
    command.env("PYRO_HOME", home).env("TERM", "xterm-256color").args(words);
    command
}

fn user() -> String {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    format!("{}:{}", user.as_raw(), group.as_raw())
}

/// Sits at a new shell; `work` is one who does not wait for the runtime.
async fn at_new(bench: &Bench, work: impl FnOnce(Tty) + Send + 'static) {
    let home = bench.home();
    let sitting = move || {
        let words = ["workspace", "attach", "w", "--user", &user()];
        work(Tty::start(pyro(&home, &words), 100, 20));
    };
    spawn_blocking(sitting).await.unwrap();
}

impl Bench {
    /// Gives the workspace a secret.
    async fn hide(&self, value: &str) {
        let file = self.home().join("token");
        std::fs::write(&file, value).unwrap();
        self.ask::<SecretSet>(json!({ "name": "TOKEN", "file": file })).await.unwrap();
        std::fs::remove_file(file).unwrap();
    }
}

async fn shells(bench: &Bench) -> Vec<String> {
    let list = bench.ask::<ShellList>(json!({})).await.unwrap();
    list.shells.into_iter().map(|shell| shell.shell_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_is_sat_at_and_left_by_its_exit() {
    let bench = Bench::new().await;
    at_new(&bench, |mut tty| {
        tty.sees("pyro$");
        assert!(tty.is_raw());
        tty.types(b"echo $(stty size) rows-and-cols\r");
        tty.sees("20 100 rows-and-cols");
        tty.resize(120, 33);
        tty.types(b"sleep 0.3; echo $(stty size) are-there-now\r");
        tty.sees("33 120 are-there-now");
        // Keys reach the job, not pyro.
        tty.types(b"echo rea''dy; cat\r");
        tty.sees("ready");
        tty.types(b"some text\r");
        tty.sees("some text\nsome text");
        tty.types(b"\x03");
        tty.sees("^C\npyro$");
        tty.types(b"exit 42\r");
        assert_eq!(tty.ends().code(), Some(42));
        assert!(!tty.is_raw());
    })
    .await;
    assert_eq!(shells(&bench).await, Vec::<String>::new());
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r17_detaching_leaves_the_shell_and_restores_the_terminal() {
    let bench = Bench::new().await;
    at_new(&bench, |mut tty| {
        tty.sees("pyro$");
        tty.types(b"NAME=kept; printf '\\033[?1049h\\033[2J\\033[Hfull scr''een\\033[?25l'; cat\r");
        tty.sees("full screen");
        tty.types(b"\x10\x11");
        assert_eq!(tty.ends().code(), Some(0));
        assert!(!tty.is_raw());
        let screen = tty.screen();
        assert!(
            screen.contains("detached from shell") && !screen.contains("full screen"),
            "{screen}"
        );
    })
    .await;
    let id = shells(&bench).await.remove(0);
    let home = bench.home();
    let sitting = move || {
        let words = ["workspace", "shell", "attach", "w", &id, "--detach-keys", "ctrl-],q"];
        let mut tty = Tty::start(pyro(&home, &words), 90, 25);
        // The screen is there again, as it was.
        tty.sees("full screen");
        tty.types(b"\x03");
        tty.sees("pyro$");
        tty.types(b"printf '\\033[?1049l'; echo $NAME\r");
        tty.sees("kept");
        tty.types(b"\x1dq");
        assert_eq!(tty.ends().code(), Some(0));
    };
    spawn_blocking(sitting).await.unwrap();
    assert_eq!(shells(&bench).await.len(), 1);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_told_to_leave_leaves_the_terminal_as_it_was() {
    let bench = Bench::new().await;
    for signal in [Signal::TERM, Signal::HUP, Signal::INT, Signal::QUIT] {
        at_new(&bench, move |mut tty| {
            tty.sees("pyro$");
            assert!(tty.is_raw());
            let pid = Pid::from_child(&tty.child);
            kill_process(pid, signal).unwrap();
            assert_eq!(tty.ends().code(), Some(128 + signal.as_raw()));
            assert!(!tty.is_raw());
        })
        .await;
    }
    assert_eq!(shells(&bench).await.len(), 4);
    bench.end().await;
}

/// Nobody reads what comes out, as when a window hangs.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_sees_no_output_any_more_can_leave_all_the_same() {
    let bench = Bench::new().await;
    at_new(&bench, |mut tty| {
        tty.sees("pyro$");
        tty.types(b"yes more and more\r");
        // Until it comes faster than it is read.
        (0..100).for_each(|_| tty.reads());
        tty.types(b"\x10\x11");
        tty.is_left();
        assert_eq!(tty.ends().code(), Some(0));
    })
    .await;
    // Also when there is what may be the beginning of a secret.
    bench.hide("hunter22").await;
    for more in ["yes more and more", "yes hunter2 | tr -d '\\n'"] {
        at_exec(&bench, &["--shell", more], |mut tty| {
            // Until it comes faster than it is read.
            (0..100).for_each(|_| tty.reads());
            kill_process(Pid::from_child(&tty.child), Signal::TERM).unwrap();
            tty.is_left();
            assert_eq!(tty.ends().code(), Some(128 + Signal::TERM.as_raw()));
        })
        .await;
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_nowhere_to_show_a_shell_is_detached_from_it() {
    let bench = Bench::new().await;
    let home = bench.home();
    let sitting = spawn_blocking(move || {
        let (_, nowhere) = std::io::pipe().unwrap();
        let command = pyro(&home, &["workspace", "attach", "w", "--user", &user()]);
        let mut tty = Tty::start_writing_to(Some(nowhere.into()), command, 80, 24);
        let status = tty.ends();
        assert!(!tty.is_raw() && tty.screen().contains("detached from shell"), "{}", tty.screen());
        assert_eq!(status.code(), Some(0));
    });
    sitting.await.unwrap();
    assert_eq!(shells(&bench).await.len(), 1);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_lost_is_told_and_the_terminal_is_as_it_was() {
    let bench = Bench::new().await;
    let (sat, has_sat) = tokio::sync::oneshot::channel();
    let home = bench.home();
    let sitting = spawn_blocking(move || {
        let words = ["workspace", "attach", "w", "--user", &user()];
        let mut tty = Tty::start(pyro(&home, &words), 100, 20);
        tty.sees("pyro$");
        sat.send(()).unwrap();
        let status = tty.ends();
        assert!(!tty.is_raw());
        assert_ne!(status.code(), Some(0), "{}", tty.screen());
    });
    has_sat.await.unwrap();
    bench.ask::<WorkspaceStop>(json!({ "force": true })).await.unwrap();
    sitting.await.unwrap();
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s6_why_nothing_is_attached_is_told_without_secrets() {
    let bench = Bench::new().await;
    bench.hide("hunter22").await;
    let home = bench.home();
    let sitting = spawn_blocking(move || {
        let words = ["workspace", "attach", "w", "--user", &user(), "--", "/no/hunter22"];
        let mut tty = Tty::start(pyro(&home, &words), 100, 20);
        assert_eq!(tty.ends().code(), Some(127));
        let screen = tty.screen();
        assert!(screen.contains("/no/[REDACTED]") && !screen.contains("hunter22"), "{screen}");
    });
    sitting.await.unwrap();
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_nothing_is_attached() {
    let bench = Bench::new().await;
    let home = bench.home();
    let asking = spawn_blocking(move || {
        let mut command = pyro(&home, &["workspace", "attach", "w"]);
        command.stdin(Stdio::null()).output().unwrap()
    });
    let output = asking.await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no terminal") && said.contains("shell write"), "{said}");
    assert_eq!(shells(&bench).await, Vec::<String>::new());
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_sat_at_as_a_shell_is() {
    let bench = Bench::new().await;
    let home = bench.home();
    let sitting = spawn_blocking(move || {
        let script = "stty size; read line; echo \"got $line\"; exit 9";
        let user = user();
        let words = ["workspace", "attach", "w", "--user", &user, "--", "sh", "-c", script];
        let mut tty = Tty::start(pyro(&home, &words), 70, 10);
        tty.sees("10 70");
        tty.types(b"a line\r");
        tty.sees("got a line");
        assert_eq!(tty.ends().code(), Some(9));
        let words = ["workspace", "attach", "w", "--user", &user, "--", "no-such-program"];
        let mut tty = Tty::start(pyro(&home, &words), 70, 10);
        assert_eq!(tty.ends().code(), Some(127));
        assert!(!tty.is_raw() && tty.screen().contains("no-such-program"), "{}", tty.screen());
    });
    sitting.await.unwrap();
    assert_eq!(shells(&bench).await, Vec::<String>::new());
    bench.end().await;
}

/// `pyro workspace exec -it w` and these words; `work` is who sits there.
async fn at_exec(bench: &Bench, words: &[&str], work: impl FnOnce(Tty) + Send + 'static) {
    let (home, user) = (bench.home(), user());
    let given = [&["workspace", "exec", "-it", "w", "--user", &user], words].concat();
    let command = pyro(&home, &given);
    spawn_blocking(move || work(Tty::start(command, 70, 10))).await.unwrap();
}

async fn no_shell_is_left(bench: &Bench) {
    // Its end comes after the caller's, and nobody tells of it.
    let gone = async { while !shells(bench).await.is_empty() {} };
    tokio::time::timeout(std::time::Duration::from_secs(60), gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_the_terminal_that_it_is_given() {
    let bench = Bench::new().await;
    let script = "trap 'echo caught' INT; stty size; until read line; do :; done; \
                  echo \"got $line\"; exit 9";
    at_exec(&bench, &["--", "bash", "-c", script], |mut tty| {
        tty.sees("10 70");
        assert!(tty.is_raw());
        tty.types(b"\x03");
        tty.sees("caught");
        tty.types(b"a line\r");
        tty.sees("got a line");
        assert_eq!(tty.ends().code(), Some(9));
        assert!(!tty.is_raw());
    })
    .await;
    // It is a command as any other.
    let logs = bench.logs().await;
    assert_eq!((logs.len(), logs[0].exit_code), (1, Some(9)));
    assert!(logs[0].output.stdout.contains("got a line"), "{:?}", logs[0].output.stdout);
    no_shell_is_left(&bench).await;
    bench.end().await;
}

/// A secret begins as words do that are typed.
#[tokio::test(flavor = "multi_thread")]
async fn s6_what_is_typed_is_seen_and_a_secret_is_in_no_history() {
    let bench = Bench::new().await;
    bench.hide("echoes").await;
    at_exec(&bench, &[], |mut tty| {
        tty.sees("pyro$");
        tty.types(b"echo");
        tty.sees("pyro$ echo");
        tty.types(b" of ec''hoes; exit 4\r");
        assert_eq!(tty.ends().code(), Some(4));
        let screen = tty.screen();
        assert!(screen.contains("\nof [REDACTED]"), "{screen}");
    })
    .await;
    at_exec(&bench, &["--shell", "printf 'of echo'; read line; echo es"], |mut tty| {
        tty.sees("of echo");
        tty.types(b"\r");
        assert_eq!(tty.ends().code(), Some(0));
    })
    .await;
    let logs = bench.logs().await;
    let told = logs.iter().map(|entry| &*entry.output.stdout).collect::<String>();
    assert_eq!(told.matches("of [REDACTED]").count(), 2, "{told}");
    assert!(!told.contains("of echo"), "{told}");
    no_shell_is_left(&bench).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_without_a_command_is_a_shells() {
    let bench = Bench::new().await;
    at_exec(&bench, &[], |mut tty| {
        tty.sees("pyro$");
        tty.resize(90, 25);
        tty.types(b"sleep 0.3; printf '\\033[?25l'; echo $(stty size) are-there\r");
        tty.sees("25 90 are-there");
        // No keys leave it, for nobody could come back.
        tty.types(b"\x10\x11echo sti''ll here\r");
        tty.sees("still here");
        tty.types(b"exit 3\r");
        assert_eq!(tty.ends().code(), Some(3));
        assert!(!tty.is_raw());
    })
    .await;
    at_exec(&bench, &["--", "no-such-program"], |mut tty| {
        assert_eq!(tty.ends().code(), Some(127));
        assert!(!tty.is_raw() && tty.screen().contains("no-such-program"), "{}", tty.screen());
    })
    .await;
    at_exec(&bench, &["--timeout-seconds", "1", "--", "sleep", "1000"], |mut tty| {
        assert_eq!(tty.ends().code(), Some(124));
        assert!(!tty.is_raw());
    })
    .await;
    no_shell_is_left(&bench).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_at_a_terminal_ends_with_its_caller() {
    let bench = Bench::new().await;
    for signal in [Signal::TERM, Signal::HUP, Signal::INT, Signal::QUIT, Signal::KILL] {
        at_exec(&bench, &["--shell", "echo up; exec sleep 1000"], move |mut tty| {
            tty.sees("up");
            assert!(tty.is_raw());
            kill_process(Pid::from_child(&tty.child), signal).unwrap();
            let status = tty.ends();
            if signal == Signal::KILL {
                return;
            }
            assert_eq!(status.code(), Some(128 + signal.as_raw()));
            assert!(!tty.is_raw());
        })
        .await;
        no_shell_is_left(&bench).await;
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_terminal_to_give_says_so() {
    let bench = Bench::new().await;
    let home = bench.home();
    let asking = spawn_blocking(move || {
        let ask = |words: &[&str]| {
            let output = pyro(&home, words).stdin(Stdio::null()).output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        for command in [&["workspace", "exec", "w"][..], &["run", "debian:12"]] {
            let (code, said) = ask(&[command, &["-it", "--", "true"]].concat());
            assert!(said.contains("no terminal") && said.contains("leave out `-t`"), "{said}");
            assert_eq!(code, Some(2));
            let (code, said) = ask(&[command, &["-t", "--json", "--", "true"]].concat());
            assert_eq!(code, Some(2), "{said}");
            let (code, said) = ask(&[command, &["-i"]].concat());
            let says = if command[0] == "run" { "does not say what to run" } else { "required" };
            assert!(code == Some(2) && said.contains(says), "{said}");
            let (code, said) = ask(&[command, &["-i", "--user", &user(), "--", "true"]].concat());
            assert!(code == Some(0) || command[0] == "run", "{said}");
        }
    });
    asking.await.unwrap();
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s6_secrets_are_there_at_a_terminal_and_shown_on_none() {
    const VALUE: &str = "hunter2-at-the-terminal";
    let bench = Bench::new().await;
    let file = bench.home().join("value");
    std::fs::write(&file, VALUE).unwrap();
    bench.ask::<SecretSet>(json!({ "name": "TOKEN", "file": file })).await.unwrap();
    std::fs::remove_file(file).unwrap();
    let (home, directory) = (bench.home(), bench.directory());
    let sitting = spawn_blocking(move || {
        let user = user();
        let sit = |command: &[&str], more: &[&str]| {
            let words = [&["workspace"], command, &["w", "--user", &user], more].concat();
            Tty::start(pyro(&home, &words), 70, 10)
        };
        for command in [&["attach"][..], &["exec", "-it"]] {
            let mut tty = sit(command, &["--secret-env", "TOKEN=KEY"]);
            tty.types(b"echo ${#KEY} long, [$KEY]; exit 3\r");
            tty.sees("23 long, [[REDACTED]]");
            assert_eq!(tty.ends().code(), Some(3));
            assert!(!tty.screen().contains("hunter2"), "{}", tty.screen());
            let mut tty = sit(command, &["--secret-env", "NONE"]);
            assert_eq!(tty.ends().code(), Some(125), "{}", tty.screen());
            let said = tty.screen().replace('\n', "");
            assert!(said.contains("NONE") && said.contains("secret list"), "{said}");
        }
        let events = std::fs::read_to_string(directory.join("events.jsonl")).unwrap();
        assert_eq!(events.matches("secret_used").count(), 2, "{events}");
        crate::told::assert_written_nowhere(&directory, VALUE);
    });
    sitting.await.unwrap();
    bench.end().await;
}

/// A reader that dies in the middle takes nothing along.
#[tokio::test(flavor = "multi_thread")]
async fn r17_a_reader_that_is_killed_leaves_the_shell() {
    let bench = Bench::new().await;
    let shell = bench.ask::<ShellOpen>(json!({})).await.unwrap();
    let id = shell.shell_id;
    let words = ["workspace", "shell", "read", "w", &id, "--wait-seconds", "300", "--json"];
    let silence = ["--wait-for-idle-ms", "10000"];
    for more in [&[][..], &silence[..]] {
        let mut command = pyro(&bench.home(), &[&words[..], more].concat());
        let mut reader = command.stdout(Stdio::null()).spawn().unwrap();
        let write = json!({ "shell_id": id, "input": "echo still there" });
        bench.ask::<ShellWrite>(write).await.unwrap();
        reader.kill().unwrap();
        reader.wait().unwrap();
    }
    let read = json!({ "shell_id": id, "plain": true, "wait_for_idle_ms": 300 });
    let read = bench.ask::<ShellRead>(read).await.unwrap();
    assert_eq!(read.output.matches("\nstill there\n").count(), 2, "{}", read.output);
    bench.end().await;
}
