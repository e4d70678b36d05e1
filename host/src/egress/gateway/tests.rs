//! The gateway with a whole stack for a guest, and with a hostile one.

mod guest;

use super::packet::datagram;
use super::selftest;
use super::{Action, Cause, Limit};
use crate::egress::NetworkLimits;
use crate::egress::policy::range::Range;
use crate::egress::policy::{Effect, Policy, Reason, RuleId};
use guest::{Loopback, Random, UNLIMITED, limited_story, policy, story};
use pyro_protocol::egress::{GUEST_V4, Packets};
use smoltcp::socket::tcp::RecvError;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

const SITE: &str = "93.184.215.14:443";
const SITE_V6: &str = "[2606:2800:21f::1]:443";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A server on the loopback device that the guest knows by other addresses.
async fn server(host: &Loopback, addresses: &[&str]) -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap();
    for address in addresses {
        host.0.borrow_mut().places.insert(at(address), place);
    }
    listener
}

#[tokio::test]
async fn a_connection_carries_bytes_both_ways_and_ends_by_halves() {
    let host = Loopback::default();
    let listener = server(&host, &[SITE, SITE_V6]).await;
    for address in [SITE, SITE_V6] {
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).await.unwrap();
            // Its own direction is open still.
            stream.write_all(format!("you said {said}").as_bytes()).await.unwrap();
        };
        let ask = story(&host, Policy::open(), async |guest, _| {
            let handle = guest.connect(at(address));
            assert!(guest.established(handle).await);
            guest.send_all(handle, b"hello").await;
            let heard = guest.receive_all(handle).await.unwrap();
            assert_eq!(heard, b"you said hello");
        });
        tokio::join!(serve, ask);
    }
    let decisions = host.decisions();
    assert_eq!(decisions.len(), 2);
    assert!(decisions.iter().all(|decision| decision.allowed));
    assert_eq!(decisions[0].destination, SITE);
    assert_eq!(decisions[0].cause, Cause::Policy(Reason::Otherwise));
}

#[tokio::test]
async fn s7_what_is_denied_is_reset_and_the_host_is_never_asked() {
    let host = Loopback::default();
    let _listener = server(&host, &[SITE, "169.254.169.254:80", "127.0.0.1:22"]).await;
    let closed = policy(Effect::Allow, &[(Effect::Deny, "93.184.0.0/16")]);
    story(&host, closed, async |guest, _| {
        for address in [SITE, "169.254.169.254:80", "127.0.0.1:22", "[::1]:22", "10.1.1.1:1"] {
            let handle = guest.connect(at(address));
            assert!(!guest.established(handle).await, "{address}");
        }
    })
    .await;
    assert!(host.0.borrow().connected.is_empty());
    let decisions = host.decisions();
    assert_eq!(decisions[0].cause, Cause::Policy(Reason::Rule(RuleId(1))));
    assert_eq!(decisions[1].cause, Cause::Policy(Reason::Range(Range::Metadata)));
    assert_eq!(decisions[1].action, Action::Connect);
}

#[tokio::test]
async fn what_the_other_end_refuses_or_resets_is_reset() {
    let host = Loopback::default();
    let listener = server(&host, &[SITE]).await;
    story(&host, Policy::open(), async |guest, _| {
        let nobody = guest.connect(at(SITE_V6));
        assert!(!guest.established(nobody).await);
        let handle = guest.connect(at(SITE));
        assert!(guest.established(handle).await);
        let (stream, _) = listener.accept().await.unwrap();
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        drop(stream);
        assert_eq!(guest.receive_all(handle).await, Err(RecvError::InvalidState));
    })
    .await;
}

#[tokio::test]
async fn what_the_guest_resets_is_reset_at_the_other_end() {
    let host = Loopback::default();
    let listener = server(&host, &[SITE]).await;
    story(&host, Policy::open(), async |guest, _| {
        let handle = guest.connect(at(SITE));
        assert!(guest.established(handle).await);
        let (mut stream, _) = listener.accept().await.unwrap();
        guest.socket(handle).abort();
        guest.until(|_| Some(())).await;
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    })
    .await;
}

#[tokio::test]
async fn megabytes_arrive_as_they_left() {
    let host = Loopback::default();
    let listener = server(&host, &[SITE]).await;
    let data: Vec<u8> =
        (0..6u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert!(all == data);
        stream.write_all(&all).await.unwrap();
    };
    let ask = story(&host, Policy::open(), async |guest, _| {
        let handle = guest.connect(at(SITE));
        guest.established(handle).await;
        guest.send_all(handle, &data).await;
        assert!(guest.receive_all(handle).await.unwrap() == data);
    });
    tokio::join!(serve, ask);
}

#[tokio::test]
async fn datagrams_go_where_they_may_and_come_back() {
    let host = Loopback::default();
    let echo = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    host.0.borrow_mut().places.insert(at("9.9.9.9:123"), echo.local_addr().unwrap());
    let open = policy(Effect::Deny, &[(Effect::Allow, "udp:9.9.9.9:123")]);
    story(&host, open, async |guest, gateway| {
        guest.send(1000, at("9.9.9.9:123"), b"what time is it?");
        guest.until(|_| Some(())).await;
        let mut said = [0; 64];
        let (length, from) = echo.recv_from(&mut said).await.unwrap();
        echo.send_to(&said[..length], from).await.unwrap();
        let (from, heard) = guest.until(|guest| guest.datagrams.pop_front()).await;
        assert_eq!((from, heard.as_slice()), (at("9.9.9.9:123"), &b"what time is it?"[..]));
        guest.send(1000, at("9.9.9.9:124"), b"and now?");
        guest.send(1000, at("[fe80::1]:123"), b"and now?");
        guest.until(|guest| (guest.prohibited == 2).then_some(())).await;
        assert_eq!(gateway.flow_count(), 1);
    })
    .await;
    assert_eq!(host.0.borrow().connected, [at("9.9.9.9:123")]);
}

#[tokio::test]
async fn s7_names_are_told_as_the_policy_allows_and_then_they_decide() {
    let host = Loopback::default();
    let _listener = server(&host, &[SITE]).await;
    let site = at(SITE).ip();
    {
        let mut world = host.0.borrow_mut();
        world.names.insert("pypi.org".into(), vec![site, IpAddr::V6(Ipv6Addr::LOCALHOST)]);
        world.names.insert("rebound.pypi.org".into(), vec![IpAddr::from([10, 0, 0, 1])]);
        world.names.insert("other.org".into(), vec![site]);
    }
    let rules = [(Effect::Allow, "pypi.org:443"), (Effect::Allow, "*.pypi.org")];
    story(&host, policy(Effect::Deny, &rules), async |guest, _| {
        // Before anybody has told what it is called, it is nobody.
        let handle = guest.connect(at(SITE));
        assert!(!guest.established(handle).await);
        assert_eq!(guest.lookup("other.org", 1).await, (3, vec![]));
        assert_eq!(guest.lookup("PyPI.org", 1).await, (0, vec![site]));
        // Of that kind it leads into the host only.
        assert_eq!(guest.lookup("pypi.org", 28).await, (3, vec![]));
        assert_eq!(guest.lookup("pypi.org", 16).await, (0, vec![]));
        assert_eq!(guest.lookup("rebound.pypi.org", 1).await, (3, vec![]));
        assert_eq!(guest.lookup("absent.pypi.org", 1).await, (3, vec![]));
        let long = ["x".repeat(60), "y".repeat(60), "z".repeat(60), "pypi.org".into()].join(".");
        assert_eq!(guest.lookup(&long, 1).await, (3, vec![]));
        let handle = guest.connect(at(SITE));
        assert!(guest.established(handle).await);
    })
    .await;
    assert_eq!(
        host.0.borrow().resolved,
        ["pypi.org", "pypi.org", "rebound.pypi.org", "absent.pypi.org"]
    );
    let decisions = host.decisions();
    assert_eq!(decisions[1].action, Action::Resolve);
    assert_eq!((decisions[1].destination.as_str(), decisions[1].allowed), ("other.org", false));
    let rebound = |decision: &super::Decision| decision.cause == Cause::Rebinding(Range::Private);
    assert!(decisions.iter().any(rebound));
    let last = decisions.last().unwrap();
    assert_eq!(last.names, ["pypi.org"]);
    assert_eq!(last.cause, Cause::Policy(Reason::Rule(RuleId(1))));
}

#[tokio::test]
async fn a_changed_policy_ends_what_it_does_not_allow() {
    let host = Loopback::default();
    let listener = server(&host, &[SITE, SITE_V6]).await;
    story(&host, Policy::open(), async |guest, gateway| {
        let (one, other) = (guest.connect(at(SITE)), guest.connect(at(SITE_V6)));
        assert!(guest.established(one).await && guest.established(other).await);
        let mut streams = Vec::new();
        for _ in 0..2 {
            streams.push(listener.accept().await.unwrap().0);
        }
        gateway.set_policy(policy(Effect::Deny, &[(Effect::Allow, "::/0")]));
        assert_eq!(guest.receive_all(one).await, Err(RecvError::InvalidState));
        assert_eq!(gateway.flow_count(), 1);
        for stream in &mut streams {
            // The one whose end was reset hears nothing more.
            drop(stream.write_all(b"still here").await);
            drop(stream.shutdown().await);
        }
        assert_eq!(guest.receive_all(other).await.unwrap(), b"still here");
    })
    .await;
}

#[tokio::test]
async fn s7_no_datagram_passes_once_the_policy_is_against_it() {
    let host = Loopback::default();
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (place, time, other) = (server.local_addr().unwrap(), at("9.9.9.9:123"), at("9.9.9.9:124"));
    host.0.borrow_mut().places.extend([(time, place), (other, place)]);
    story(&host, Policy::open(), async |_, gateway| {
        let guest = SocketAddr::new(GUEST_V4.into(), 1000);
        let say = |to, data: &[u8]| gateway.take(&datagram(guest, to, data).unwrap()).unwrap();
        say(time, b"before");
        gateway.set_policy(policy(Effect::Deny, &[(Effect::Allow, "udp:9.9.9.9:124")]));
        // Before the flow can end.
        say(time, b"after");
        say(other, b"elsewhere");
        let mut heard = [0; 64];
        for said in ["before", "elsewhere"] {
            let length = server.recv(&mut heard).await.unwrap();
            assert_eq!(&heard[..length], said.as_bytes());
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_reached_by_name_goes_on_when_the_name_is_forgotten() {
    let host = Loopback::default();
    let listener = server(&host, &[SITE]).await;
    host.0.borrow_mut().names.insert("pypi.org".into(), vec![at(SITE).ip()]);
    let rules = [(Effect::Allow, "pypi.org")];
    story(&host, policy(Effect::Deny, &rules), async |guest, gateway| {
        assert_eq!(guest.lookup("pypi.org", 1).await.0, 0);
        let handle = guest.connect(at(SITE));
        assert!(guest.established(handle).await);
        let (mut stream, _) = listener.accept().await.unwrap();
        // As after a long time, or many other names.
        gateway.0.shared.borrow_mut().bindings = Default::default();
        gateway.set_policy(policy(Effect::Deny, &rules));
        stream.write_all(b"still here").await.unwrap();
        drop(stream);
        assert_eq!(guest.receive_all(handle).await.unwrap(), b"still here");
    })
    .await;
}

#[tokio::test]
async fn a_lost_connection_ends_all_flows_by_a_reset_and_the_next_begins_anew() {
    let host = Loopback::default();
    let listener = server(&host, &[SITE]).await;
    let world = std::rc::Rc::clone(&host.0);
    let tell = move |told| world.borrow_mut().told.push(told);
    let gateway = super::Gateway::new(Policy::open(), UNLIMITED, host.clone(), tell);
    for _ in 0..3 {
        let mut stream = guest::run(&gateway, async |guest| {
            let handle = guest.connect(at(SITE));
            assert!(guest.established(handle).await);
            guest.send(1000, at("9.9.9.9:123"), b"nobody listens");
            guest.lookup("pypi.org", 1).await;
            listener.accept().await.unwrap().0
        })
        .await;
        assert_eq!(gateway.flow_count(), 0);
        let ended = stream.read(&mut [0]).await.unwrap_err();
        assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn connections_are_limited_as_wanted() {
    let host = Loopback::default();
    let _listener = server(&host, &[SITE]).await;
    let limits = NetworkLimits { connections: NonZeroU32::new(1), ..UNLIMITED };
    limited_story(&host, limits, async |guest| {
        let [one, other] = [guest.connect(at(SITE)), guest.connect(at(SITE))];
        assert!(guest.established(one).await);
        assert!(!guest.established(other).await);
    })
    .await;
    assert_eq!(host.decisions()[1].cause, Cause::Limit(Limit::Flows));
}

/// What is asked of the gateway itself needs no socket, so that time is the
/// test's own.
#[tokio::test(start_paused = true)]
async fn what_passes_is_limited_either_way() {
    const COUNT: u32 = 150;
    // A header of IP and one of UDP, the question, and what is told.
    const QUESTION: u32 = 20 + 8 + 12 + 14;
    let host = Loopback::default();
    host.0.borrow_mut().names.insert("pypi.org".into(), vec![at(SITE).ip()]);
    let one = NonZeroU32::new(1);
    for (limits, bytes) in [
        (NetworkLimits { up_kib_per_second: one, ..UNLIMITED }, QUESTION),
        (NetworkLimits { down_kib_per_second: one, ..UNLIMITED }, QUESTION + 16),
    ] {
        let began = tokio::time::Instant::now();
        limited_story(&host, limits, async |guest| {
            for _ in 0..COUNT {
                guest.lookup("pypi.org", 1).await;
            }
        })
        .await;
        let took = began.elapsed().as_secs_f64();
        let least = f64::from(COUNT * bytes) / 1024.0 - 0.5;
        assert!(least < took && took < least + 1.5, "{took} s of {least}");
    }
}

#[tokio::test]
async fn r20_guests_have_the_same_addresses_and_do_not_meet() {
    let hosts = [Loopback::default(), Loopback::default()];
    for (host, said) in hosts.iter().zip(["one", "other"]) {
        let listener = server(host, &[SITE]).await;
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
        });
    }
    let [one, other] = hosts.each_ref().map(|host| {
        story(host, Policy::open(), async |guest, _| {
            let handle = guest.connect(at(SITE));
            guest.receive_all_of(handle).await
        })
    });
    let (one, other) = tokio::join!(one, other);
    assert_eq!((one.as_slice(), other.as_slice()), (&b"one"[..], &b"other"[..]));
}

#[tokio::test]
async fn s4_a_flood_of_connections_stays_within_its_limits() {
    let host = Loopback::default();
    host.0.borrow_mut().stalls = true;
    let gateway = {
        let world = std::rc::Rc::clone(&host.0);
        super::Gateway::new(Policy::open(), UNLIMITED, host.clone(), move |told| {
            world.borrow_mut().told.push(told);
        })
    };
    for port in 0..20_000u16 {
        let mut syn = selftest::syn(at(SITE)).unwrap();
        // The checksum is wrong then, and nobody has looked at it.
        syn[20..22].copy_from_slice(&port.to_be_bytes());
        gateway.take(&syn).unwrap();
        gateway.take(&syn).unwrap();
    }
    assert_eq!(gateway.flow_count(), 128);
    let decisions = host.decisions();
    assert!(decisions.iter().any(|decision| decision.cause == Cause::Limit(Limit::Connecting)));
    assert!(host.0.borrow().told.len() < 600);
}

#[test]
fn s7_the_self_test_knows_whether_a_policy_holds() {
    for (otherwise, rules) in [
        (Effect::Allow, &[][..]),
        (Effect::Deny, &[]),
        (Effect::Deny, &[(Effect::Allow, "169.254.169.254"), (Effect::Allow, "*.org")]),
        (Effect::Allow, &[(Effect::Deny, "tcp:*:25"), (Effect::Allow, "10.0.0.0/8")]),
    ] {
        selftest::run(&policy(otherwise, rules)).unwrap();
    }
}

#[tokio::test]
async fn s4_mutated_packets_do_no_harm() {
    const COUNT: usize = 200_000;
    let host = Loopback::default();
    host.0.borrow_mut().stalls = true;
    let rules = [(Effect::Allow, "93.184.0.0/16"), (Effect::Allow, "*.org")];
    let gateway =
        super::Gateway::new(policy(Effect::Deny, &rules), UNLIMITED, host.clone(), |_| {});
    let from = at("10.112.121.2:1000");
    let query = b"\xab\xcd\x01\0\0\x01\0\0\0\0\0\0\x04pypi\x03org\0\0\x01\0\x01";
    let seeds = [
        selftest::syn(at(SITE)).unwrap(),
        selftest::syn(at(SITE_V6)).unwrap(),
        super::packet::datagram(from, at("10.112.121.1:53"), query).unwrap(),
        super::packet::datagram(from, at(SITE), b"data").unwrap(),
    ];
    let mut random = Random(0x5eed_0f9a_c7e7);
    for _ in 0..COUNT {
        let mut packet = seeds[random.below(seeds.len())].clone();
        for _ in 0..random.below(6) {
            let place = random.below(packet.len());
            packet[place] = random.below(256) as u8;
        }
        if random.below(8) == 0 {
            packet.truncate(random.below(packet.len()));
        }
        let _ = gateway.take(&packet);
        let mut shared = gateway.0.shared.borrow_mut();
        shared.stack.poll();
        while let Some(batch) = shared.stack.leaving() {
            assert!(Packets::of(&batch).all(|packet| packet.is_ok()));
        }
    }
    assert!(gateway.flow_count() <= 512);
}

#[tokio::test]
async fn s4_mangled_segments_of_a_connection_do_no_harm_to_the_next() {
    let host = Loopback::default();
    let listener = server(&host, &[SITE]).await;
    let serve = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    };
    let ask = story(&host, Policy::open(), async |guest, _| {
        for _ in 0..40 {
            let handle = guest.connect(at(SITE));
            assert!(guest.established(handle).await);
            guest.mangled = 20;
            for _ in 0..30 {
                // It may have been reset by what looks like its own wish.
                let _ = guest.socket(handle).send_slice(&[7; 700]);
                guest.until(|_| Some(())).await;
            }
            guest.mangled = 0;
            guest.socket(handle).abort();
            guest.until(|_| Some(())).await;
        }
        let handle = guest.connect(at(SITE));
        assert!(guest.established(handle).await);
        guest.send_all(handle, b"still there").await;
        assert_eq!(guest.receive_all(handle).await.unwrap(), b"still there");
    });
    tokio::select! {
        () = serve => {}
        () = ask => {}
    }
}
