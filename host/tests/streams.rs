//! Streams, signals and exit codes of the command line, with operations that
//! need no guest. The processes under test are this executable once more, with
//! the command line over a table of their own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/fake.rs"]
mod fake;

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes a tenth of it.
const TOO_LONG: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    fake::main(&[
        ("output_passes_as_it_is", output_passes_as_it_is),
        ("megabytes_pass_both_ways", megabytes_pass_both_ways),
        ("a_line_passes_while_the_program_runs", a_line_passes_while_the_program_runs),
        ("a_reader_that_leaves_ends_it_quietly", a_reader_that_leaves_ends_it_quietly),
        ("a_full_device_is_an_error", a_full_device_is_an_error),
        ("a_silent_stdin_does_not_hang_the_exit", a_silent_stdin_does_not_hang_the_exit),
        ("closed_streams_do_no_harm", closed_streams_do_no_harm),
        ("a_nonblocking_stdout_loses_nothing", a_nonblocking_stdout_loses_nothing),
        ("the_first_interrupt_is_the_programs", the_first_interrupt_is_the_programs),
        ("an_interrupt_before_the_program_cancels", an_interrupt_before_the_program_cancels),
        ("termination_cancels", termination_cancels),
        ("what_does_not_stop_is_left", what_does_not_stop_is_left),
        ("a_stuck_reader_does_not_hang_a_stop", a_stuck_reader_does_not_hang_a_stop),
        ("ignored_signals_stay_ignored", ignored_signals_stay_ignored),
        ("json_is_one_document", json_is_one_document),
        ("an_answer_in_bytes_is_alone_on_stdout", an_answer_in_bytes_is_alone_on_stdout),
        ("what_an_answer_lacks_is_said_to_scripts", what_an_answer_lacks_is_said_to_scripts),
        ("json_tells_of_a_stop", json_tells_of_a_stop),
    ])
}

fn pyro(words: &[&str]) -> Command {
    let mut command = fake::pyro();
    command.arg("fake").args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits, and kills what takes too long.
fn finish(mut child: Child) -> Output {
    let start = Instant::now();
    let pid = Pid::from_child(&child);
    let (done, waited) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if waited.recv_timeout(TOO_LONG) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            kill_process(pid, Signal::KILL).unwrap();
        }
    });
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    drop(done);
    watchdog.join().unwrap();
    assert!(start.elapsed() < TOO_LONG, "it did not end: {output:?}");
    output
}

fn run(command: &mut Command) -> Output {
    finish(command.spawn().unwrap())
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn first_line(child: &mut Child) -> (String, BufReader<std::process::ChildStdout>) {
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    (line, stdout)
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
}

fn output_passes_as_it_is() {
    let output = run(&mut pyro(&["both"]));
    assert_code(&output, 7);
    assert_eq!(output.stdout, b"out\xff\n");
    assert_eq!(output.stderr, b"err\n", "nothing of pyro's own, not even the warning");
}

fn megabytes_pass_both_ways() {
    let data: Vec<u8> =
        (0..8_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut child = pyro(&["cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = data.clone();
    let feeder = std::thread::spawn(move || stdin.write_all(&feed).unwrap());
    let output = finish(child);
    feeder.join().unwrap();
    assert_code(&output, 0);
    assert!(output.stdout == data, "{} bytes came back", output.stdout.len());
}

fn a_line_passes_while_the_program_runs() {
    let mut child = pyro(&["wait"]).spawn().unwrap();
    let (line, _stdout) = first_line(&mut child);
    assert_eq!(line, "ready\n");
    assert!(child.try_wait().unwrap().is_none(), "it still runs");
    signal(&child, Signal::TERM);
    finish(child);
}

fn a_reader_that_leaves_ends_it_quietly() {
    let mut child = pyro(&["flood"]).spawn().unwrap();
    let (line, stdout) = first_line(&mut child);
    assert_eq!(line, "y\n");
    drop(stdout);
    let output = finish(child);
    assert_code(&output, 141);
    assert_eq!(output.stderr, b"");
}

fn a_full_device_is_an_error() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = run(pyro(&["flood"]).stdout(full));
    assert_code(&output, 125);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("pyro: cannot write the output: No space left"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

fn a_silent_stdin_does_not_hang_the_exit() {
    for what in ["both", "sip"] {
        let mut child = pyro(&[what]).stdin(Stdio::piped()).spawn().unwrap();
        let held = child.stdin.take();
        let output = finish(child);
        assert_code(&output, 7);
        drop(held);
    }
}

fn closed_streams_do_no_harm() {
    let exe = std::env::current_exe().unwrap();
    let script = "\"$0\" fake cat <&- && \"$0\" fake both >&- 2>&-";
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(exe).env(fake::UNDER_TEST, "1");
    let output = run(shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    assert_code(&output, 7);
    assert_eq!((output.stdout, output.stderr), (vec![], vec![]));
}

fn a_nonblocking_stdout_loses_nothing() {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
    let mut command = pyro(&["gulp"]);
    let child = command.stdout(writer).spawn().unwrap();
    // The command holds the pipe's other end.
    drop(command);
    let mut all = Vec::new();
    std::fs::File::from(reader).read_to_end(&mut all).unwrap();
    assert_code(&finish(child), 0);
    assert_eq!(all.len(), fake::GULP);
}

fn the_first_interrupt_is_the_programs() {
    let mut child = pyro(&["wait"]).spawn().unwrap();
    let (_, mut stdout) = first_line(&mut child);
    signal(&child, Signal::INT);
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "signal 2\n");
    signal(&child, Signal::INT);
    let output = finish(child);
    assert_code(&output, 130);
    assert_eq!(output.stderr, b"");
}

fn an_interrupt_before_the_program_cancels() {
    let child = started(&["boot"]);
    signal(&child, Signal::INT);
    let output = finish(child);
    assert_code(&output, 130);
    assert_eq!((output.stdout, output.stderr), (vec![], vec![]));
}

fn termination_cancels() {
    for (number, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut child = pyro(&["wait"]).spawn().unwrap();
        let (_, _stdout) = first_line(&mut child);
        signal(&child, number);
        assert_code(&finish(child), code);
    }
}

fn what_does_not_stop_is_left() {
    let child = started(&["stuck"]);
    signal(&child, Signal::INT);
    // Another, for two of a kind may arrive as one.
    signal(&child, Signal::TERM);
    let code = finish(child).status.code();
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
}

fn a_stuck_reader_does_not_hang_a_stop() {
    let mut child = pyro(&["flood"]).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 1];
    stdout.read_exact(&mut first).unwrap();
    signal(&child, Signal::TERM);
    assert_code(&finish(child), 143);
    drop(stdout);
}

fn ignored_signals_stay_ignored() {
    let exe = std::env::current_exe().unwrap();
    let mut shell = Command::new("sh");
    let script = "trap '' HUP; exec \"$0\" fake wait";
    shell.arg("-c").arg(script).arg(exe).env(fake::UNDER_TEST, "1");
    let shell = shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = shell.spawn().unwrap();
    let (_, mut stdout) = first_line(&mut child);
    signal(&child, Signal::HUP);
    signal(&child, Signal::INT);
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "signal 2\n");
    signal(&child, Signal::TERM);
    assert_code(&finish(child), 143);
}

fn json_is_one_document() {
    let output = run(&mut pyro(&["both", "--json"]));
    assert_code(&output, 7);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document, serde_json::json!({ "exit_code": 7 }));
    assert_eq!(output.stderr, b"");
}

/// What is no program's output goes the same way, and remarks keep out of it.
fn an_answer_in_bytes_is_alone_on_stdout() {
    let pour = |words: &[&str]| {
        let mut command = fake::pyro();
        command.arg("pour").args(words).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let output = run(&mut pour(&["3000"]));
    assert_code(&output, 0);
    assert_eq!(output.stdout.len(), 3000 << 10);
    assert_eq!(output.stderr, b"pyro: warning: a remark\n");
    let output = run(&mut pour(&["1", "--json"]));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document, serde_json::json!({ "takes_output": false }));
    let mut child = pour(&["4000000"]).spawn().unwrap();
    drop(first_line(&mut child));
    let output = finish(child);
    assert_code(&output, 141);
    assert_eq!(output.stderr, b"");
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = run(pour(&["4000000"]).stdout(full));
    assert_code(&output, 125);
    assert!(output.stderr.starts_with(b"pyro: cannot write the output: No space"), "{output:?}");
}

/// Nobody applies half a patch unawares because stderr is a file.
fn what_an_answer_lacks_is_said_to_scripts() {
    let mut command = fake::pyro();
    command.arg("excerpt").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = run(&mut command);
    assert_code(&output, 0);
    assert_eq!(output.stdout, b"a part");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "pyro: warning: one file is left out\npyro: there is more\n"
    );
}

fn json_tells_of_a_stop() {
    let child = started(&["boot", "--json"]);
    signal(&child, Signal::TERM);
    let output = finish(child);
    assert_code(&output, 143);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["error"]["kind"], "cancelled");
}

/// A process whose operation runs, so that it listens to signals already.
fn started(words: &[&str]) -> Child {
    let (child, mut diary) = fake::spawn_with_diary(pyro(words));
    let mut note = [0];
    diary.read_exact(&mut note).unwrap();
    assert_eq!(note, [fake::STARTED]);
    child
}
