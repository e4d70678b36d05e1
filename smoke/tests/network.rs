//! A guest with a network policy reaches what its rules allow, and nothing else.
//!
//! The host's world is a pair of network namespaces: pyro runs in one, and the
//! other has a server at addresses that are public elsewhere, and a DNS server that
//! tells them for every name. Nothing leaves the two.

use pyro_smoke::{Home, stdout};
use rustix::thread::{UnshareFlags, gettid, unshare_unsafe};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;

const SITE_V4: &str = "93.184.215.14";
const SITE_V6: &str = "2606:2800:21f::e";
const PORT: u16 = 80;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn ip(words: &str) {
    let done = Command::new("ip").args(words.split(' ')).output().expect("iproute2 is installed");
    assert!(done.status.success(), "ip {words}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Puts this thread, and what it starts, into a network of its own.
fn leave_the_network() {
    // SAFETY: only the network namespace of this thread changes; no memory is
    // unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("root may make namespaces");
    ip("link set lo up");
}

/// Puts this thread into a network with one neighbour, who serves pages and names.
fn move_in() {
    leave_the_network();
    let (told, hear) = mpsc::channel();
    let (ready, go) = mpsc::channel::<()>();
    thread::spawn(move || {
        leave_the_network();
        told.send(gettid().as_raw_nonzero()).expect("the story waits");
        go.recv().expect("the story goes on");
        ip(&format!("addr add {SITE_V4}/24 dev there"));
        ip(&format!("addr add {SITE_V6}/64 dev there nodad"));
        ip("link set there up");
        let names = UdpSocket::bind((address(SITE_V4), 53)).expect("a port");
        let sites = [SITE_V4, SITE_V6].map(|site| TcpListener::bind((address(site), PORT)));
        for site in sites {
            let site = site.expect("a port");
            thread::spawn(move || serve(&site));
        }
        told.send(gettid().as_raw_nonzero()).expect("the story waits");
        tell_names(&names);
    });
    let there = hear.recv().expect("a neighbour");
    ip("link add here type veth peer name there");
    ip(&format!("link set there netns /proc/{}/task/{there}/ns/net", std::process::id()));
    ip("addr add 93.184.215.1/24 dev here");
    ip("addr add 2606:2800:21f::1/64 dev here nodad");
    ip("link set here up");
    ready.send(()).expect("a neighbour");
    hear.recv().expect("a neighbour that serves");
}

/// Answers every request with the same page.
fn serve(site: &TcpListener) {
    for stream in site.incoming() {
        let mut stream = stream.expect("a connection");
        let mut request = [0; 4096];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    }
}

/// Tells the site's addresses for every name, and for one a private address.
fn tell_names(socket: &UdpSocket) {
    let mut packet = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut packet) {
        // The question ends where the record begins that says what fits.
        let question = &packet[..length - 11];
        let is_v4 = question[question.len() - 3] == 1;
        let told = match (is_v4, question[12..].starts_with(b"\x07rebound")) {
            (true, true) => "10.0.0.1",
            (true, false) => SITE_V4,
            (false, true) => "::1",
            (false, false) => SITE_V6,
        };
        let (kind, octets) = match address(told) {
            IpAddr::V4(address) => (1, address.octets().to_vec()),
            IpAddr::V6(address) => (28, address.octets().to_vec()),
        };
        let mut answer = question.to_vec();
        answer[2] |= 0x80;
        (answer[7], answer[11]) = (1, 0);
        answer.extend([0xc0, 0x0c, 0, kind, 0, 1, 0, 0, 0, 60, 0, octets.len() as u8]);
        answer.extend(octets);
        let _ = socket.send_to(&answer, from);
    }
}

struct Story {
    home: Home,
}

impl Story {
    fn pyro(&self, words: &[&str]) -> Output {
        let mut command: Command = self.home.pyro(words);
        command.env("PYRO_RESOLVERS", SocketAddr::new(address(SITE_V4), 53).to_string());
        command.output().expect("pyro runs")
    }

    fn python(&self, script: &str) -> String {
        stdout(&self.pyro(&["workspace", "exec", "net", "--", "python3", "-c", script]))
    }

    /// Says in one word what comes of connecting to each.
    fn connect(&self, to: &[(&str, u16)]) -> Vec<String> {
        let script = format!(
            "import socket\n\
             for to in {to:?}:\n \
             try:\n  \
             with socket.create_connection(to, 20) as s:\n   \
             s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')\n   \
             print(s.makefile().read()[-5:])\n \
             except OSError as error: print(type(error).__name__)\n"
        );
        self.python(&script).lines().map(str::to_owned).collect()
    }

    fn events(&self) -> Vec<Value> {
        let output = self.pyro(&["workspace", "events", "net", "--json"]);
        let history: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
        history["events"].as_array().expect("a list").clone()
    }
}

#[test]
fn s7_r21_r23_a_guest_reaches_what_its_rules_allow_and_nothing_else() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root may make the network that this story is told in");
        return;
    }
    move_in();
    let story = Story { home: Home::new() };
    let devices = || std::fs::read_to_string("/proc/thread-self/net/dev").expect("a network");
    let devices = || devices().lines().count();
    let before = devices();
    let mut create = vec!["workspace", "create", "debian:12", "--name", "net"];
    create.extend(["--network-policy", "egress", "--allow", "app.test:80"]);
    create.extend(["--allow", "*.app.test"]);
    let created = story.pyro(&create);
    assert!(created.status.success(), "{created:?}");

    let looks = "import os; print(open('/etc/resolv.conf').read(), os.listdir('/sys/class/net'))";
    let looks = story.python(looks);
    assert!(looks.contains("nameserver 10.112.121.1") && looks.contains("pyro0"), "{looks}");

    // Nothing of it is on the host, so nothing can stay there.
    assert_eq!(devices(), before);

    // Before anybody has told what it is called, an address is nobody's.
    let refused = [(SITE_V4, PORT), ("169.254.169.254", PORT), ("8.8.8.8", PORT)];
    assert_eq!(story.connect(&refused), ["ConnectionRefusedError"; 3]);
    // By name over IPv4 and IPv6; then the addresses have that name.
    let by_name = [("app.test", PORT), (SITE_V4, PORT), (SITE_V6, PORT)];
    assert_eq!(story.connect(&by_name), ["hello"; 3]);
    assert_eq!(story.connect(&[("app.test", 81)]), ["ConnectionRefusedError"]);
    // What is refused by name is refused at once, and so is what leads inside.
    let unknown = [("other.test", PORT), ("rebound.app.test", PORT)];
    assert_eq!(story.connect(&unknown), ["gaierror"; 2]);

    // Changed while it runs.
    let denied = story.pyro(&["workspace", "network", "deny", "net", "*"]);
    assert!(stdout(&denied).starts_with("policy egress\nr3 deny *\n"), "{denied:?}");
    assert_eq!(story.connect(&[("app.test", PORT)]), ["gaierror"]);
    assert_eq!(story.connect(&[(SITE_V6, PORT)]), ["ConnectionRefusedError"]);

    let events = story.events();
    let decided = |action: &str, destination: &str, rule: &str| {
        let wanted = [("event", "network"), ("action", action), ("rule", rule)];
        let decided = events.iter().any(|event| {
            event["destination"] == destination && wanted.iter().all(|(key, to)| event[*key] == *to)
        });
        assert!(decided, "{action} {destination} by {rule}: {events:#?}");
    };
    decided("resolve", "app.test", "r1");
    decided("connect", "93.184.215.14:80", "otherwise");
    decided("connect", "93.184.215.14:80", "r1");
    decided("connect", "[2606:2800:21f::e]:80", "r1");
    decided("connect", "169.254.169.254:80", "built-in:metadata");
    decided("resolve", "other.test", "otherwise");
    decided("resolve", "rebound.app.test", "rebinding:private");
    decided("resolve", "app.test", "r3");

    let explained = story.pyro(&["workspace", "network", "explain", "net", "10.0.0.1"]);
    assert_eq!(stdout(&explained), "deny 10.0.0.1 by r3: deny *\n");

    // It is there again after a start, by the same rules.
    assert!(story.pyro(&["workspace", "network", "allow", "net", "*.app.test"]).status.success());
    assert!(story.pyro(&["workspace", "stop", "net"]).status.success());
    assert!(story.pyro(&["workspace", "start", "net"]).status.success());
    assert_eq!(story.connect(&[("www.app.test", PORT), ("app.test", PORT)]), ["hello", "gaierror"]);
}
