//! `kill -9` of agents, supervisors and callers while shells, services, ports and
//! a network are alive: who waits is told, and nothing else is lost.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails")]

#[path = "network/story.rs"]
mod story;
#[path = "../../host/tests/support/tty.rs"]
mod tty;
#[path = "network/world.rs"]
mod world;

use pyro_smoke::{Home, ends_within, patient, pyro_executable, scaled, stderr, stdout};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use story::{Story, is_tellable};
use tty::Tty;
use world::PAGES;

const REFUSED: i32 = 125;

/// A workspace in which there is something of everything, and who waits for it.
struct Alive {
    story: Story,
    /// Sits at a shell.
    seat: Tty,
    /// Waits for another to say something.
    reader: Child,
    /// Follows a service's log.
    follower: Child,
    port: u16,
    /// Talks to the service.
    client: TcpStream,
}

/// Says hello to everybody, and keeps them.
const SERVER: &str = r#"
import socket
server = socket.create_server(("127.0.0.1", 8000))
open("/run/listens", "w").close()
print("listens", flush=True)
kept = []
while True:
    client, _ = server.accept()
    client.sendall(b"hello")
    kept.append(client)
"#;

impl Alive {
    fn begin(name: &'static str) -> Self {
        let story = Story::begin(name, &["app.test:80", "*.app.test"]);
        let json = |words: &[&str]| -> Value {
            let said = stdout(&story.pyro(&[&["workspace"], words, &["--json"]].concat()));
            serde_json::from_str(&said).unwrap()
        };
        // Changed since it was made.
        story.well(&["workspace", "network", "deny", name, "www.app.test"]);
        assert_eq!(story.connect(&[("app.test", PAGES)]), ["hello"]);
        let published = json(&["port", "publish", name, "8000"]);
        let port = published["published_ports"][0]["host_port"].as_u64().unwrap();
        let shell = json(&["shell", "open", name])["shell_id"].as_str().unwrap().to_owned();
        let read = ["shell", "read", name, &shell, "--wait-seconds", "300"];
        // Nothing comes after the prompt.
        let mut cursor = "0".to_owned();
        loop {
            let read = json(&[&read[..], &["--cursor", &cursor]].concat());
            cursor = read["next_cursor"].to_string();
            if read["output"].as_str().unwrap().ends_with("pyro$ ") {
                break;
            }
        }
        let read = [&["workspace"], &read[..], &["--cursor", &cursor]].concat();
        let reader = waiting(story.command(&read));
        let mut command = Command::new(pyro_executable());
        command.args(["workspace", "attach", name]).env("PYRO_HOME", story.home.path());
        let mut seat = Tty::start(command, 100, 30);
        seat.types(b"sleep 3001 & echo rea''dy\r");
        seat.sees("ready");
        let mut alive = Self {
            follower: serve(&story),
            story,
            seat,
            reader,
            port: port.try_into().unwrap(),
            client: TcpStream::connect(("127.0.0.1", port.try_into().unwrap())).unwrap(),
        };
        alive.client.set_read_timeout(Some(patient(Duration::from_secs(60)))).unwrap();
        let mut hello = [0; 5];
        alive.client.read_exact(&mut hello).unwrap();
        alive
    }

    /// All who waited are told what happened, and their terminals are as before.
    fn expect_told(self) -> (Story, u16) {
        let Self { story, mut seat, reader, follower, port, mut client } = self;
        for waited in [reader, follower] {
            let output = waited.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(REFUSED), "{}", stderr(&output));
            assert!(stderr(&output).contains("guest"), "{}", stderr(&output));
        }
        let status = seat.ends();
        assert_eq!(status.code(), Some(REFUSED), "{}", seat.screen());
        assert!(!seat.is_raw());
        let ended = client.read(&mut [0; 1]);
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        (story, port)
    }
}

/// Starts the server as a service, once more if it was lost, and follows its log.
fn serve(story: &Story) -> Child {
    let name = story.name;
    let start = ["workspace", "service", "start", name, "web", "--ready-file", "/run/listens"];
    story.well(&[&start[..], &["--", "python3", "-c", SERVER]].concat());
    let follow = ["workspace", "service", "logs", name, "web", "--all", "--follow"];
    let mut follower = waiting(story.command(&follow));
    let mut line = String::new();
    let mut stdout = BufReader::new(follower.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "listens\n");
    follower
}

fn waiting(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("pyro starts")
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).expect("it lives");
}

/// What holds in a workspace that has lost all that was alive in it.
fn expect_all_else(story: &Story) {
    let name = story.name;
    let said = |words: &[&str]| stdout(&story.pyro(words));
    assert_eq!(said(&["workspace", "shell", "list", name]), "No shells.\n");
    assert_eq!(said(&["workspace", "service", "list", name]), "No services.\n");
    // Neither them nor what they started; not the shell that looks.
    let look = "pgrep -f '^(sleep 3001|bash|python3 -c)' | wc -l";
    assert_eq!(stdout(&story.exec(&["sh", "-c", look])).trim(), "0");
    // Its network is there a moment later, by the rules of now.
    let again = "import socket, time\n\
                 while True:\n \
                 try: socket.create_connection(('app.test', 80), 20); break\n \
                 except OSError: time.sleep(0.05)\n";
    story.python(again);
    let told = story.connect(&[("app.test", PAGES), ("www.app.test", PAGES), ("8.8.8.8", PAGES)]);
    assert_eq!(told, ["hello", "gaierror", "ConnectionRefusedError"]);
    let status = said(&["workspace", "status", name, "--json"]);
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["state"], "running");
    assert_eq!((&status["shell_count"], &status["service_count"]), (&0.into(), &0.into()));
}

const BOOT: [&str; 2] = ["cat", "/proc/sys/kernel/random/boot_id"];

/// Whoever is root in the guest kills the agent: its init starts another, and the
/// supervisor finds it.
#[test]
fn r10_an_agent_that_is_killed_is_another_one_in_the_same_machine() {
    if !is_tellable() {
        return;
    }
    let alive = Alive::begin("agent");
    let boot = stdout(&alive.story.exec(&BOOT));
    alive.story.well(&["workspace", "exec", "agent", "--shell", "echo kept > note"]);
    let suicide = alive.story.exec(&["sh", "-c", "kill -9 $(pgrep -xo pyro-agent)"]);
    assert_eq!(suicide.status.code(), Some(REFUSED), "{suicide:?}");
    assert!(stderr(&suicide).contains("guest"), "{}", stderr(&suicide));
    let (story, port) = alive.expect_told();
    expect_all_else(&story);
    assert_eq!(stdout(&story.exec(&BOOT)), boot, "the machine went on");
    assert_eq!(stdout(&story.exec(&["cat", "note"])), "kept\n");
    let events = story.events();
    assert!(events.iter().any(|event| event["event"] == "network_reopened"), "{events:#?}");
    // What is the host's stayed, and works with a new server.
    story.well(&["workspace", "exec", "agent", "--", "rm", "/run/listens"]);
    let follower = serve(&story);
    let mut hello = [0; 5];
    TcpStream::connect(("127.0.0.1", port)).unwrap().read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    story.well(&["workspace", "delete", "agent"]);
    let followed = follower.wait_with_output().unwrap();
    assert!(followed.status.code().is_some(), "{followed:?}");
    story.home.expect_clean_within(Duration::from_secs(5));
}

#[test]
fn r10_r11_a_supervisor_that_is_killed_takes_all_along_and_the_next_call_starts_anew() {
    if !is_tellable() {
        return;
    }
    let alive = Alive::begin("super");
    alive.story.well(&["workspace", "exec", "super", "--shell", "echo kept > note; sync"]);
    let home = &alive.story.home;
    let vmm = home.processes().into_iter().find(|(_, line)| pyro_smoke::is_vmm(line)).unwrap().0;
    kill(home.supervisor());
    let (story, port) = alive.expect_told();
    assert!(ends_within(vmm, patient(Duration::from_secs(10))), "the VMM stays");
    TcpStream::connect(("127.0.0.1", port)).expect_err("nobody listens any more");
    assert_eq!(story.home.processes(), [], "all of them are gone");
    let status = stdout(&story.pyro(&["workspace", "status", "super"]));
    assert!(status.contains("crashed"), "{status}");
    assert_eq!(stdout(&story.exec(&["cat", "note"])), "kept\n");
    expect_all_else(&story);
    let ports = stdout(&story.pyro(&["workspace", "port", "list", "super"]));
    assert_eq!(ports, "No published ports.\n");
    story.well(&["workspace", "delete", "super"]);
    story.home.expect_clean_within(Duration::from_secs(5));
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

/// Whoever is killed in the middle of what they read leaves nothing with the
/// supervisor or the agent, and takes nothing along.
#[test]
fn r17_callers_that_are_killed_mid_stream_leave_nothing() {
    let home = Home::new();
    let said = |words: &[&str]| stdout(&home.pyro(words).output().expect("pyro starts"));
    said(&["workspace", "create", "debian:12", "--name", "w"]);
    let flood = ["--shell", "while :; do echo tick; done"];
    said(&[&["workspace", "service", "start", "w", "flood"], &flood[..]].concat());
    let shell = said(&["workspace", "shell", "open", "w", "--id-only"]).trim().to_owned();
    let input = "while :; do echo tock; done";
    said(&["workspace", "shell", "write", "w", &shell, "--input", input]);
    let quiet = said(&["workspace", "shell", "open", "w", "--id-only"]).trim().to_owned();
    let streams: [&[&str]; 4] = [
        &["service", "logs", "w", "flood", "--all", "--follow"],
        &["shell", "read", "w", &quiet, "--wait-for-idle-ms", "10000", "--wait-seconds", "300"],
        &["exec", "w", "--shell", "while :; do echo tack; done"],
        &["events", "w", "--follow"],
    ];
    let agent = "ls /proc/$(pgrep -xo pyro-agent)/fd | wc -l; pgrep -fc '[t]ack' | cat";
    let agent = || -> Vec<usize> {
        let said = said(&["workspace", "exec", "w", "--shell", agent]);
        said.lines().map(|count| count.trim().parse().unwrap()).collect()
    };
    let supervisor = home.supervisor();
    let before = (agent(), descriptors(supervisor));
    for _ in 0..scaled(8, 2) {
        for stream in streams {
            let mut caller = waiting(home.pyro([&["workspace"], stream].concat()));
            if stream[0] != "shell" && stream[0] != "events" {
                // In the middle of it.
                caller.stdout.as_mut().unwrap().read_exact(&mut [0; 20_000]).unwrap();
            }
            kill(caller.id());
            let ended: Output = caller.wait_with_output().unwrap();
            assert_eq!(ended.status.code(), None);
        }
    }
    // The guest hears of the last ones a moment later.
    let (enough, since) = (patient(Duration::from_secs(10)), Instant::now());
    loop {
        let after = (agent(), descriptors(supervisor));
        if after.0 <= before.0 && after.1 <= before.1 {
            break;
        }
        assert!(since.elapsed() < enough, "{before:?} before, {after:?} after");
    }
    // Those who live on do.
    for (words, wanted) in [
        (&["service", "status", "w", "flood", "--json"][..], r#""state": "running""#),
        (&["shell", "read", "w", &shell, "--plain"], "tock"),
    ] {
        let said = said(&[&["workspace"], words].concat());
        assert!(said.contains(wanted), "{said}");
    }
    said(&["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}
