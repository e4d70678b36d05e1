//! Many at once on a small host.

use pyro_smoke::clock::{ANSWERING, CLOCK_TOLERANCE, clock_error};
use pyro_smoke::{Home, scaled, stderr};
use std::process::Stdio;
use std::time::Duration;

const CROWD: u32 = 20;

#[test]
fn twenty_runs_at_once_all_succeed_and_know_the_time() {
    let home = Home::new();
    let children: Vec<_> = (0..scaled(CROWD, 4))
        .map(|number| {
            // The guest is asked for the time when it is up, by a thread that waits
            // for the answer.
            let script = format!("echo {number}; head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n'; echo; cat /etc/machine-id; {ANSWERING}");
            home.pyro(["run", "--mem-mib", "256", "debian:12", "--", "bash", "-c"])
                .arg(script)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("pyro starts")
        })
        .collect();
    let guests: Vec<_> =
        children.into_iter().map(|child| std::thread::spawn(move || ask(child))).collect();
    let mut random = std::collections::HashSet::new();
    let mut machines = std::collections::HashSet::new();
    for (number, guest) in guests.into_iter().enumerate() {
        let answer = guest.join().expect("no panic");
        assert_eq!(answer.number, number.to_string());
        assert!(random.insert(answer.random), "two guests drew the same random numbers");
        assert!(machines.insert(answer.machine), "two guests are the same machine");
        assert!(
            answer.clock_error < CLOCK_TOLERANCE,
            "guest {number}'s clock is at least {} s off",
            answer.clock_error
        );
    }
    home.expect_clean_within(Duration::from_secs(2));
}

struct Answer {
    number: String,
    random: String,
    machine: String,
    /// The least error that is consistent with all readings.
    clock_error: f64,
}

fn ask(mut child: std::process::Child) -> Answer {
    use std::io::{BufRead, BufReader};
    let mut stdin = child.stdin.take().expect("piped");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().expect("a line").expect("UTF-8");
    let (number, random, machine) = (line(), line(), line());
    let clock_error = clock_error(&mut stdin, line);
    drop(stdin);
    let output = child.wait_with_output().expect("pyro ends");
    assert!(output.status.success(), "{}", stderr(&output));
    Answer { number, random, machine, clock_error }
}
