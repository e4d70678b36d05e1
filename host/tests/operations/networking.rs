//! Network policies, with a socket for the guest's kernel.

use crate::fake_vmm::FakeVmm;
use crate::home::{ENVIRONMENT, Home, request};
use crate::reboot::as_after_a_reboot;
use pyro::egress::NetworkPolicy;
use pyro::egress::gateway::packet::datagram;
use pyro::egress::policy::Effect;
use pyro::event_log::Happening;
use pyro::operation::{
    AnyAnswer, Ink, NetworkAllow, NetworkDeny, NetworkExplain, NetworkRemove, NetworkStatus,
    Operation, WorkspaceCreate, WorkspaceEvents, WorkspaceExec, WorkspaceStop,
};
use pyro::{ErrorKind, Pyro};
use pyro_agent::Wire;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

fn pyro(home: &Home) -> Pyro {
    fs::create_dir_all(home.path("guest")).unwrap();
    home.pyro(FakeVmm::honest(home.path("guest")))
}

async fn create(pyro: &Pyro, more: Value) -> pyro::Result<()> {
    let mut wanted = json!({ "environment": ENVIRONMENT, "mem_mib": 128, "name": "w" });
    wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let create: WorkspaceCreate = serde_json::from_value(wanted).unwrap();
    pyro.call(create).await.map(drop)
}

async fn ask<O: Operation>(pyro: &Pyro, more: Value) -> pyro::Result<O::Output> {
    let mut asked = json!({ "workspace_id": "w" });
    asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    pyro.call(serde_json::from_value::<O>(asked).unwrap()).await
}

/// The guest's kernel, as far as it has to do with a network.
pub struct Kernel(OwnedFd);

/// Where to hear of networks that are opened, the first `failing` of which after
/// the first cannot be.
pub fn wire(failing: usize) -> (Wire, Receiver<Kernel>) {
    let (tell, opened) = mpsc::channel();
    let asked = AtomicUsize::new(0);
    let wire = Wire::new(move || {
        let asked = asked.fetch_add(1, Ordering::Relaxed);
        if (1..=failing).contains(&asked) {
            return Err(std::io::ErrorKind::ResourceBusy.into());
        }
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::io::ioctl_fionbio(&theirs, true)?;
        set_socket_timeout(&ours, Timeout::Recv, Some(Duration::from_secs(20)))?;
        tell.send(Kernel(ours)).map_err(std::io::Error::other)?;
        Ok(theirs)
    });
    (wire, opened)
}

impl Kernel {
    /// Sends a datagram and gives what comes back; nothing when the network is gone.
    fn ask(&self, to: &str, data: &[u8]) -> Option<Vec<u8>> {
        let from = "10.112.121.2:4000".parse().unwrap();
        let packet = datagram(from, to.parse().unwrap(), data).unwrap();
        rustix::io::write(&self.0, &packet).ok()?;
        let mut answer = vec![0; 65536];
        let length = rustix::io::read(&self.0, &mut answer).unwrap();
        answer.truncate(length);
        (length > 0).then_some(answer)
    }

    /// Asks for a name's addresses; gives the code of the answer.
    pub fn lookup(&self, name: &str) -> u8 {
        let mut query = b"\xab\xcd\x01\0\0\x01\0\0\0\0\0\0".to_vec();
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend(label.bytes());
        }
        query.extend(b"\0\0\x01\0\x01");
        let answer = self.ask("10.112.121.1:53", &query).unwrap();
        // After the headers of IP and UDP.
        answer[28 + 3] & 0xf
    }

    /// Whether an address is refused at once.
    pub fn is_refused(&self, to: &str) -> bool {
        const ICMP: u8 = 1;
        self.ask(to, b"?").is_some_and(|answer| answer[9] == ICMP)
    }
}

async fn events(pyro: &Pyro) -> Vec<Happening> {
    let history = ask::<WorkspaceEvents>(pyro, json!({})).await.unwrap();
    history.events.into_iter().map(|line| line.happening).collect()
}

#[tokio::test]
async fn a_network_that_is_lost_is_opened_again_by_the_rules_of_then() {
    let home = Home::new();
    fs::create_dir_all(home.path("guest")).unwrap();
    let (wire, opened) = wire(2);
    let pyro = home.pyro(FakeVmm::networked(home.path("guest"), wire));
    create(&pyro, json!({ "network_policy": "egress", "allow": ["pypi.org"] })).await.unwrap();
    let kernel = opened.recv().unwrap();
    assert!(kernel.is_refused("8.8.8.8:53"));
    assert_eq!(kernel.lookup("other.org"), 3);
    ask::<NetworkDeny>(&pyro, json!({ "rule": "1.1.1.1" })).await.unwrap();
    // As whoever is root in the guest removes the interface.
    drop(kernel);
    let kernel = opened.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(kernel.is_refused("1.1.1.1:53"));
    let happened = events(&pyro).await;
    let at = |is: fn(&Happening) -> bool| happened.iter().position(is);
    let lost = at(|event| matches!(event, Happening::NetworkLost { .. })).unwrap();
    let again = at(|event| matches!(event, Happening::NetworkReopened { .. })).unwrap();
    assert!(lost < again, "{happened:#?}");
    let decided = |by: &str, to: &str| {
        happened.iter().any(|event| {
            matches!(event, Happening::Network { destination, allowed: false, rule, .. }
                if destination == to && rule == by)
        })
    };
    assert!(decided("otherwise", "8.8.8.8:53") && decided("otherwise", "other.org"));
    assert!(decided("r2", "1.1.1.1:53"));
    // That it goes with its guest is no loss.
    ask::<WorkspaceStop>(&pyro, json!({})).await.unwrap();
    let count = |of: &[Happening]| {
        of.iter().filter(|event| matches!(event, Happening::NetworkLost { .. })).count()
    };
    assert_eq!(count(&events(&pyro).await), 1);
}

/// R21: nothing of a network is on the host but what is written in the record.
#[tokio::test]
async fn r21_a_network_is_there_again_after_the_host_was_down() {
    let home = Home::new();
    fs::create_dir_all(home.path("guest")).unwrap();
    let (wire, opened) = wire(0);
    let pyro = home.pyro(FakeVmm::networked(home.path("guest"), wire));
    create(&pyro, json!({ "network_policy": "egress", "allow": ["pypi.org"] })).await.unwrap();
    opened.recv().unwrap();
    ask::<NetworkDeny>(&pyro, json!({ "rule": "1.1.1.1" })).await.unwrap();
    ask::<WorkspaceStop>(&pyro, json!({})).await.unwrap();
    as_after_a_reboot(pyro::workspace::find::find(&pyro.config, "w").unwrap().path());
    let own = rustix::process::geteuid().as_raw();
    let user = format!("{own}:{}", rustix::process::getegid().as_raw());
    let exec = json!({ "command": "echo on", "user": user });
    assert_eq!(ask::<WorkspaceExec>(&pyro, exec).await.unwrap().output.stdout, "on\n");
    let kernel = opened.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(kernel.is_refused("1.1.1.1:53"));
    assert_eq!(kernel.lookup("other.org"), 3);
    let happened = events(&pyro).await;
    let denied =
        |event: &Happening| matches!(event, Happening::Network { rule, .. } if rule == "r2");
    assert!(happened.iter().any(denied), "{happened:#?}");
}

/// R2: who changes rules at the same time loses none.
#[tokio::test]
async fn r2_rules_that_are_added_at_once_are_all_there() {
    const COUNT: usize = 12;
    let home = Home::new();
    fs::create_dir_all(home.path("guest")).unwrap();
    let (wire, opened) = wire(0);
    let pyro = home.pyro(FakeVmm::networked(home.path("guest"), wire));
    create(&pyro, json!({ "network_policy": "egress" })).await.unwrap();
    let _kernel = opened.recv().unwrap();
    let adding = (0..COUNT).map(|number| {
        let (pyro, rule) = (&pyro, json!({ "rule": format!("{number}.test") }));
        async move { ask::<NetworkDeny>(pyro, rule).await.map(drop) }
    });
    for added in futures::future::join_all(adding).await {
        added.unwrap();
    }
    let status = ask::<NetworkStatus>(&pyro, json!({})).await.unwrap();
    let ids: BTreeSet<_> = status.rules.iter().map(|rule| rule.id.clone()).collect();
    assert_eq!((ids.len(), status.rules.len()), (COUNT, COUNT), "{:?}", status.rules);
}

#[tokio::test]
async fn a_run_can_have_a_network_and_says_what_it_was_refused() {
    let home = Home::new();
    let guest = home.path("guest");
    fs::create_dir_all(&guest).unwrap();
    let (wire, opened) = wire(0);
    let pyro = home.pyro(FakeVmm::networked(guest.clone(), wire));
    let asking = std::thread::spawn(move || {
        let kernel = opened.recv().unwrap();
        assert_eq!(kernel.lookup("other.org"), 3);
        assert_eq!(kernel.lookup("other.org"), 3);
        fs::write(guest.join("asked"), "").unwrap();
        kernel
    });
    let answer = pyro.call(request(&json!({
        "command": "until [ -e asked ]; do sleep 0.01; done",
        "network_policy": "egress", "allow": ["pypi.org"],
    })));
    let answer = answer.await.unwrap();
    assert_eq!(answer.exit_code, 0);
    assert_eq!(answer.network_refused, ["resolve other.org by otherwise"]);
    drop(asking.join().unwrap());
    home.assert_nothing_left();
    let error = pyro.call(request(&json!({ "command": "true", "allow": ["pypi.org"] })));
    assert_eq!(error.await.unwrap_err().next_step(), Some("add `--network-policy egress`"));
}

#[tokio::test]
async fn sets_of_rules_come_from_the_configuration_and_go_as_they_came() {
    let home = Home::new();
    fs::create_dir_all(home.path("guest")).unwrap();
    let (wire, opened) = wire(0);
    let pyro = home.pyro(FakeVmm::networked(home.path("guest"), wire));
    let wanted = json!({
        "network_policy": "egress", "allow": ["@python"], "network_connections": 7,
        "network_down_kib_per_second": 512,
    });
    let error = create(&pyro, wanted.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let file = &pyro.config.settings;
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, "[network.sets.python]\nallow = ['py pi']\n").unwrap();
    let error = create(&pyro, wanted.clone()).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("{}:2: ", file.display())), "{error}");
    home.assert_nothing_left();
    let set = "[network.sets.python]\nallow = ['pypi.org']\ndeny = ['tcp:*:25']\n";
    fs::write(file, set).unwrap();
    create(&pyro, wanted).await.unwrap();
    let kernel = opened.recv().unwrap();
    let status = ask::<NetworkStatus>(&pyro, json!({})).await.unwrap();
    assert_eq!(
        status.to_text(Ink::Plain),
        "policy egress\nr1 deny tcp:*:25 of @python\nr2 allow pypi.org of @python\n\
         otherwise deny\ndown at most 512 KiB/s\n"
    );
    assert_eq!((status.connections, status.up_kib_per_second), (7, None));
    let error = ask::<NetworkDeny>(&pyro, json!({ "rule": "@python" })).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let removed = ask::<NetworkRemove>(&pyro, json!({ "rule": "@python" })).await.unwrap();
    assert_eq!((removed.removed.len(), removed.rules.len()), (2, 0));
    assert_eq!(kernel.lookup("pypi.org"), 3);
    let error = ask::<NetworkRemove>(&pyro, json!({ "rule": "r1" })).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn s7_a_guest_that_cannot_have_its_network_is_not_made() {
    let home = Home::new();
    let pyro = pyro(&home);
    let error = create(&pyro, json!({ "network_policy": "egress" })).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    home.assert_nothing_left();
}

#[tokio::test]
async fn rules_need_a_network() {
    let home = Home::new();
    let pyro = pyro(&home);
    let error = create(&pyro, json!({ "allow": ["pypi.org"] })).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.next_step(), Some("add `--network-policy egress`"));
    create(&pyro, json!({})).await.unwrap();
    let error = ask::<NetworkAllow>(&pyro, json!({ "rule": "pypi.org" })).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let status = ask::<NetworkStatus>(&pyro, json!({})).await.unwrap();
    assert_eq!((status.network_policy, status.otherwise), (NetworkPolicy::Off, Effect::Deny));
    let why = ask::<NetworkExplain>(&pyro, json!({ "host": "pypi.org" })).await.unwrap();
    assert_eq!((why.effect, why.rule.as_str()), (Effect::Deny, "off"));
}

#[tokio::test]
async fn what_is_said_last_goes_first_and_is_explained() {
    let home = Home::new();
    let pyro = pyro(&home);
    create(&pyro, json!({})).await.unwrap();
    ask::<WorkspaceStop>(&pyro, json!({})).await.unwrap();
    // As one has it whose guest could have a network.
    let record = pyro::workspace::find::find(&pyro.config, "w").unwrap().path().join("record.json");
    let text = fs::read_to_string(&record).unwrap();
    let text = text.replace(r#""network_policy":"off""#, r#""network_policy":"egress""#);
    let text = text.replace(r#""network_policy": "off""#, r#""network_policy": "egress""#);
    fs::write(&record, text).unwrap();

    let explain = async |host: &str, port: u16| {
        let why = ask::<NetworkExplain>(&pyro, json!({ "host": host, "port": port })).await;
        let why = why.unwrap();
        (why.effect, why.rule)
    };
    assert_eq!(explain("pypi.org", 443).await, (Effect::Allow, "otherwise".into()));
    assert_eq!(explain("10.0.0.1", 443).await, (Effect::Deny, "built-in:private".into()));
    assert_eq!(explain("127.0.0.1", 443).await, (Effect::Deny, "built-in:host".into()));
    ask::<NetworkDeny>(&pyro, json!({ "rule": "*" })).await.unwrap();
    let added = ask::<NetworkAllow>(&pyro, json!({ "rule": "*.pypi.org:443" })).await.unwrap();
    assert_eq!(added.added, ["r2"]);
    assert_eq!(
        added.rules.iter().map(|rule| &*rule.rule).collect::<Vec<_>>(),
        ["*.pypi.org:443", "*"]
    );
    assert_eq!(explain("files.pypi.org", 443).await, (Effect::Allow, "r2".into()));
    assert_eq!(explain("files.pypi.org", 80).await, (Effect::Deny, "r1".into()));
    assert_eq!(explain("pypi.org", 443).await, (Effect::Deny, "r1".into()));
    let error = ask::<NetworkExplain>(&pyro, json!({ "host": "http://x" })).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
