//! Bytes go in and come out as they are, while the command still runs.

use pyro_smoke::{Home, scaled, stderr};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::thread;

const MIB: usize = 1 << 20;

#[test]
fn r1_64_mib_of_random_bytes_survive_the_round_trip() {
    let home = Home::new();
    let mut sent = vec![0; scaled(64, 8) as usize * MIB];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut sent))
        .expect("random bytes");
    let mut child = home
        .pyro(["run", "debian:12", "--", "sh", "-c", "cat; echo done >&2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("pyro starts");
    let mut stdin = child.stdin.take().expect("piped");
    let to_send = sent.clone();
    let feeding = thread::spawn(move || stdin.write_all(&to_send));
    let output = child.wait_with_output().expect("pyro ends");
    feeding.join().expect("no panic").expect("the guest reads it all");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(output.stdout == sent, "{} bytes came back, or others", output.stdout.len());
    assert_eq!(stderr(&output), "done\n");
}

#[test]
fn the_first_line_comes_while_the_command_still_runs() {
    let home = Home::new();
    let mut child = home
        .pyro(["run", "debian:12", "--", "sh", "-c", "echo first; read line; echo got $line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("pyro starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    // The command waits for input that is sent only after its first line.
    assert_eq!(lines.next().expect("a line").expect("UTF-8"), "first");
    child.stdin.take().expect("piped").write_all(b"second\n").expect("it reads");
    assert_eq!(lines.next().expect("a line").expect("UTF-8"), "got second");
    assert!(child.wait().expect("pyro ends").success());
}

#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let home = Home::new();
    let mut child = home
        .pyro(["run", "debian:12", "--", "yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("pyro starts");
    let mut reader = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line");
    assert_eq!(line, "y\n");
    drop(reader);
    let output = child.wait_with_output().expect("pyro ends");
    assert_eq!(output.status.code(), Some(141), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    assert!(home.leftovers().is_empty());
}

#[test]
fn a_full_output_device_is_a_clear_error() {
    let home = Home::new();
    let full = File::options().write(true).open("/dev/full").expect("/dev/full");
    let output = home
        .pyro(["run", "debian:12", "--", "yes"])
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .expect("pyro starts");
    assert_eq!(output.status.code(), Some(125), "{}", stderr(&output));
    assert!(stderr(&output).contains("output"), "{}", stderr(&output));
    assert!(home.leftovers().is_empty());
}

#[test]
fn pyro_adds_nothing_to_a_commands_streams() {
    let home = Home::new();
    let output = home.run(&["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), b"out\n".as_slice()));
    assert_eq!(stderr(&output), "err\n");
}

#[test]
fn a_child_left_in_the_background_does_not_hold_the_command() {
    let home = Home::new();
    let output = home.run(&["sh", "-c", "sleep 1000 & echo started"]);
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(0), b"started\n".as_slice())
    );
}
