//! A guest with a network policy reaches what its rules allow, and nothing else,
//! and one that floods its gateway harms nobody else.

#[path = "network/story.rs"]
mod story;
#[path = "network/world.rs"]
mod world;

use pyro_smoke::{is_vmm, parent, scaled, stdout};
use serde_json::Value;
use std::fs;
use story::{Story, expect, is_tellable};
use world::{PACKAGE, PAGES, PROXY, SITE_V4, SITE_V6};

/// What a flood may add to a supervisor: its buffers and no more.
const SUPERVISOR_MAX_KIB: u64 = 64 << 10;

#[test]
fn s7_r21_r23_a_guest_reaches_what_its_rules_allow_and_nothing_else() {
    if !is_tellable() {
        return;
    }
    let devices = || fs::read_to_string("/proc/thread-self/net/dev").expect("a network");
    let story = Story::begin("net", &["app.test:80", "*.app.test"]);
    // The world's own, and that of the loopback, below two headings; of the guest's
    // nothing is on the host, so nothing can stay there.
    assert_eq!(devices().lines().count(), 4, "{}", devices());

    let looks = "import os; print(open('/etc/resolv.conf').read(), os.listdir('/sys/class/net'))";
    let looks = story.python(looks);
    assert!(looks.contains("nameserver 10.112.121.1") && looks.contains("pyro0"), "{looks}");

    // Before anybody has told what it is called, an address is nobody's.
    let (v4, v6) = (SITE_V4.to_string(), SITE_V6.to_string());
    let refused = [(v4.as_str(), PAGES), ("169.254.169.254", PAGES), ("8.8.8.8", PAGES)];
    assert_eq!(story.connect(&refused), ["ConnectionRefusedError"; 3]);
    // By name over IPv4 and IPv6; then the addresses have that name.
    let by_name = [("app.test", PAGES), (v4.as_str(), PAGES), (v6.as_str(), PAGES)];
    assert_eq!(story.connect(&by_name), ["hello"; 3]);
    assert_eq!(story.connect(&[("app.test", 81)]), ["ConnectionRefusedError"]);
    // What is refused by name is refused at once, and so is what leads inside.
    let unknown = [("other.test", PAGES), ("rebound.app.test", PAGES)];
    assert_eq!(story.connect(&unknown), ["gaierror"; 2]);

    // Changed while it runs.
    let denied = story.pyro(&["workspace", "network", "deny", "net", "*"]);
    assert!(stdout(&denied).starts_with("policy egress\nr3 deny *\n"), "{denied:?}");
    assert_eq!(story.connect(&[("app.test", PAGES)]), ["gaierror"]);
    assert_eq!(story.connect(&[(v6.as_str(), PAGES)]), ["ConnectionRefusedError"]);

    story.expect_decided("resolve", "app.test", "r1");
    story.expect_decided("connect", "93.184.215.14:80", "otherwise");
    story.expect_decided("connect", "93.184.215.14:80", "r1");
    story.expect_decided("connect", "[2606:2800:21f::e]:80", "r1");
    story.expect_decided("connect", "169.254.169.254:80", "built-in:metadata");
    story.expect_decided("resolve", "other.test", "otherwise");
    story.expect_decided("resolve", "rebound.app.test", "rebinding:private");
    story.expect_decided("resolve", "app.test", "r3");

    let explained = story.pyro(&["workspace", "network", "explain", "net", "10.0.0.1"]);
    assert_eq!(stdout(&explained), "deny 10.0.0.1 by r3: deny *\n");
    story.well(&["workspace", "network", "remove", "net", "r3"]);
    assert_eq!(story.connect(&[("app.test", PAGES)]), ["hello"]);

    // Whoever is root in the guest takes its interface away, or lowers one that
    // cannot be taken: it comes back, by the same rules.
    let gone = "import fcntl, socket, struct\n\
                its = open('/sys/class/net/pyro0/ifindex').read()\n\
                s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\n\
                s.send(struct.pack('=IHHIIBxHiII', 32, 17, 5, 1, 0, 0, 0, int(its), 0, 0))\n\
                if struct.unpack_from('=i', s.recv(4096), 16)[0] != 0:\n \
                s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n \
                fcntl.ioctl(s, 0x8914, struct.pack('16sH14x', b'pyro0', 0))\n\
                print('gone')\n";
    assert_eq!(story.python(gone), "gone\n");
    // Its addresses come a moment after the interface.
    let again = "import socket, time\n\
                 while True:\n \
                 try: socket.create_connection(('app.test', 80), 20); break\n \
                 except OSError: time.sleep(0.05)\n";
    story.python(again);
    assert_eq!(
        story.connect(&[("app.test", PAGES), ("8.8.8.8", PAGES)]),
        ["hello", "ConnectionRefusedError"]
    );
    assert!(story.events().iter().any(|event| event["event"] == "network_reopened"));

    // It is there again after a start, by the same rules.
    story.well(&["workspace", "network", "deny", "net", "app.test"]);
    story.well(&["workspace", "stop", "net"]);
    story.well(&["workspace", "start", "net"]);
    let told = story.connect(&[("www.app.test", PAGES), ("app.test", PAGES)]);
    assert_eq!(told, ["hello", "gaierror"]);
}

#[test]
fn packages_come_through_a_proxy_that_is_allowed_and_no_other() {
    if !is_tellable() {
        return;
    }
    let allowed = [format!("four.proxy.test:{PROXY}"), format!("six.proxy.test:{PROXY}")];
    let story = Story::begin("apt", &allowed.each_ref().map(String::as_str));
    let sources = "deb [trusted=yes allow-insecure=yes] http://archive.test/ ./\n";
    story.well(&["workspace", "file", "write", "apt", "sources.list", "--text", sources]);
    let apt = |proxy: &str, words: &str| {
        let line = format!(
            "apt-get -o Dir::Etc::SourceList=/workspace/sources.list -o Dir::Etc::SourceParts=- \
             -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=0 \
             -o Acquire::http::Proxy=http://{proxy}.proxy.test:{PROXY} {words}"
        );
        story.exec(&["sh", "-c", &line])
    };
    for proxy in ["four", "six"] {
        expect(&story.exec(&["sh", "-c", "rm -rf /var/lib/apt/lists *.deb"]));
        expect(&apt(proxy, "update"));
        expect(&apt(proxy, "download hello"));
        assert_eq!(stdout(&story.exec(&["sh", "-c", "cat *.deb"])), PACKAGE, "{proxy}");
    }
    story.expect_decided("connect", &format!("{SITE_V4}:{PROXY}"), "r1");
    story.expect_decided("connect", &format!("[{SITE_V6}]:{PROXY}"), "r2");

    // Another proxy, of the same address, is not so much as found.
    let refused = apt("other", "update");
    let said = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
    assert!(said.contains("Could not resolve 'other.proxy.test'"), "{said}");
    story.expect_decided("resolve", "other.proxy.test", "otherwise");
    // And without one there is no way at all.
    let direct =
        story.exec(&["python3", "-c", "import socket; socket.getaddrinfo('archive.test', 80)"]);
    assert!(!direct.status.success());

    // A run for one command says why it did not get there.
    let words =
        ["run", "--network-policy", "egress", "--allow", &allowed[0], "--json", "debian:12"];
    let script = format!(
        "import socket\n\
         socket.create_connection(('four.proxy.test', {PROXY})).close()\n\
         try: socket.getaddrinfo('other.proxy.test', 80)\n\
         except OSError: print('refused')\n"
    );
    let run = stdout(&story.pyro(&[&words[..], &["--", "python3", "-c", &script]].concat()));
    let run: Value = serde_json::from_str(&run).expect("JSON");
    assert_eq!(run["stdout"], "refused\n", "{run:#}");
    assert_eq!(run["network_refused"][0], "resolve other.proxy.test by otherwise", "{run:#}");
}

/// What a hostile guest does, one after the other and all at once at the end.
const FLOOD: &str = r#"
import os, random, socket, sys, threading, time
until = time.monotonic() + float(sys.argv[1])
def go_on(): return time.monotonic() < until
def malformed():
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    while go_on():
        protocol = random.choice([1, 2, 6, 6, 6, 17, 17, 50, 255])
        body = os.urandom(random.choice([0, 1, 7, 8, 19, 20, 60, 1400, 30000]))
        head = bytes([0x45 + random.choice([0, 0, 0, 10]), 0]) + (20 + len(body)).to_bytes(2, "big")
        head += os.urandom(2) + random.choice([b"\0\0", b"\0\0", b"\x20\0", b"\0\x40"])
        head += bytes([64, protocol, 0, 0, 10, 112, 121, 2]) + bytes([93, 184, 215, 14])
        try: s.sendto(head + body, ("93.184.215.14", 0))
        except OSError: pass
def storm():
    kept = []
    while go_on():
        s = socket.socket()
        s.setblocking(False)
        try: s.connect(("93.184.215.14", random.choice([80, 81, 3128])))
        except OSError: pass
        kept.append(s)
        if len(kept) > 700:
            for s in kept: s.close()
            kept.clear()
def tunnel():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setblocking(False)
    while go_on():
        labels = [os.urandom(30).hex().encode() for _ in range(random.choice([1, 2, 3]))]
        name = b"".join(bytes([len(l)]) + l for l in labels + [random.choice([b"app", b"other"]), b"test"])
        query = os.urandom(2) + b"\1\0\0\1\0\0\0\0\0\0" + name + b"\0\0" + random.choice([b"\1", b"\x10"]) + b"\0\1"
        try:
            s.sendto(query, ("10.112.121.1", 53))
            s.recv(2048)
        except OSError: pass
works = [threading.Thread(target=work) for work in (malformed, storm, tunnel)]
for work in works: work.start()
for work in works: work.join()
"#;

#[test]
fn s4_a_guest_that_floods_its_gateway_harms_nobody_else() {
    if !is_tellable() {
        return;
    }
    let mut story = Story::begin("flood", &["93.184.215.0/24", "*.app.test"]);
    story.create("other", &["app.test"]);
    story.well(&["workspace", "file", "write", "flood", "flood.py", "--text", FLOOD]);
    let seconds = scaled(20, 5).to_string();
    let words = ["workspace", "exec", "flood", "--detach", "--id-only", "--"];
    let flood = [&words[..], &["python3", "/workspace/flood.py", &seconds]].concat();
    let flood = stdout(&story.pyro(&flood)).trim().to_owned();
    // Meanwhile the other one has its names and connections.
    story.name = "other";
    for _ in 0..3 {
        assert_eq!(story.connect(&[("app.test", PAGES)]), ["hello"]);
    }
    story.well(&["workspace", "process", "wait", "flood", &flood]);
    let supervisors: Vec<_> = story
        .home
        .processes()
        .iter()
        .filter(|(_, line)| is_vmm(line))
        .filter_map(|(vmm, _)| parent(*vmm))
        .collect();
    for supervisor in supervisors {
        let status = fs::read_to_string(format!("/proc/{supervisor}/status")).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
        assert!(peak < SUPERVISOR_MAX_KIB, "{peak} KiB of {supervisor}");
    }
    // And so has the flooding one, when it has had enough.
    story.name = "flood";
    assert_eq!(story.connect(&[(&SITE_V4.to_string(), PAGES)]), ["hello"]);
    // There is an end to what is written down.
    let told = story.events();
    let of = |name: &str| told.iter().filter(|event| event["event"] == name).count();
    assert!(of("network") < 1500, "{}", of("network"));
}
