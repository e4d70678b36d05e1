//! How often those wake that have nothing to do: the agent, its watcher, the
//! supervisor, and clients that wait, with shells open, two of them attached,
//! services that are ready, and logs that are followed.
//!
//! A process that wakes gives its processor back sooner or later: that is
//! counted by the kernel, for each thread.

use crate::Result;
use crate::children::{self, Kept};
use crate::guest;
use crate::report::{Figure, Goal, Row};
use crate::sample::Series;
use crate::tty::Tty;
use crate::workspace::Workspace;
use pyro_smoke::Home;
use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

const SHELLS: usize = 4;
const SERVICES: usize = 2;

const RUNS: usize = 3;

/// How long is looked on, and how long before nobody does anything: a thread that
/// has worked waits ten seconds for more, and goes.
const LOOK: Duration = Duration::from_secs(6);
const SETTLING: Duration = Duration::from_secs(13);

/// The guest begins to look a second after the host, and nobody disturbs it.
const REST: Duration = Duration::from_secs(3);

/// Looks on in the guest, from a process that has nothing to do with the agent
/// meanwhile.
fn look_on() -> String {
    let (settling, look) = (SETTLING.as_secs() + 1, LOOK.as_secs());
    format!(
        r#"count() {{ for process in /proc/[0-9]*; do
            [ $process/exe -ef /proc/1/exe ] || continue
            sed -n 's/^voluntary_ctxt_switches://p' $process/task/*/status; done |
            {{ sum=0; while read -r count; do sum=$((sum + count)); done; echo $sum; }}; }}
            rm -f woken; sleep {settling}; before=$(count); sleep {look}; after=$(count)
            echo $((after - before)) >woken.new; mv woken.new woken"#
    )
}

pub fn measure(home: &Home) -> Result<Vec<Figure>> {
    let workspace = Workspace::create(home, &[])?;
    let supervisor = workspace.supervisor()?;
    let mut shells = Vec::new();
    for _ in 0..SHELLS {
        let shell = workspace.ask(&["shell", "open"], &["--id-only"])?;
        shells.push(shell.trim_end().to_owned());
    }
    let mut seats = Vec::new();
    for shell in &shells[..2] {
        let words = ["workspace", "shell", "attach", workspace.id(), shell];
        let mut seat = Tty::start(guest::pyro(home, &words), 100, 30);
        seat.sees("pyro$");
        seats.push(seat);
    }
    let mut followers = Vec::new();
    for number in 0..SERVICES {
        let name = format!("quiet{number}");
        workspace.ask(&["service", "start"], &[&name, "--", "sleep", "infinity"])?;
        followers.push(follow(home, &workspace, &name)?);
    }
    let (mut guests, mut hosts, mut clients) =
        (Series::default(), Series::default(), Series::default());
    for _ in 0..RUNS {
        workspace.ask(&["exec"], &["--detach", "--shell", &look_on()])?;
        sleep(SETTLING);
        let all: Vec<libc::pid_t> = seats
            .iter()
            .map(|seat| libc::pid_t::try_from(seat.child.id()).expect("a process id"))
            .chain(followers.iter().map(Kept::pid))
            .collect();
        let before = (woken(&[supervisor])?, woken(&all)?);
        sleep(LOOK);
        let after = (woken(&[supervisor])?, woken(&all)?);
        hosts.push(per_second(after.0 - before.0, LOOK));
        clients.push(per_second(after.1 - before.1, LOOK));
        sleep(REST);
        let seen = workspace
            .shell("timeout 60 sh -c 'until [ -e woken ]; do sleep 0.1; done'; cat woken")?;
        guests.push(per_second(seen.trim().parse()?, LOOK));
    }
    let most = guests.max().max(hosts.max()).max(clients.max());
    Ok(vec![Figure {
        title: "Wake-ups while shells, services and those who follow them are idle",
        goal: Goal::at_most(most, 0.0, "1/s"),
        rows: vec![
            Row::new("of the agent and its watcher", "1/s", guests),
            Row::new("of the supervisor", "1/s", hosts),
            Row::new("of two that are attached and two that follow a log", "1/s", clients),
        ],
        notes: vec![format!("{SHELLS} shells, {SERVICES} services.")],
    }])
}

fn follow(home: &Home, workspace: &Workspace<'_>, name: &str) -> Result<Kept> {
    let words = ["workspace", "service", "logs", workspace.id(), name, "--follow"];
    let mut command = guest::pyro(home, &words);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    children::start(command, libc::SIGTERM)
}

/// How often the threads of these processes have waited.
fn woken(pids: &[libc::pid_t]) -> Result<u64> {
    let mut sum = 0;
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = fs::read_to_string(task?.path().join("status"))?;
            let count =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sum += count.ok_or("no count")?.trim().parse::<u64>()?;
        }
    }
    Ok(sum)
}

fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
