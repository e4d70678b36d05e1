use super::name::{DomainName, NamePattern};
use super::range::Range;
use super::rule::{BadRule, Matcher, Takes};
use super::{
    Destination, Effect, Policy, Protocol, RULES_MAX, Reason, RuleId, RuleRef, Said, TooManyRules,
};
use ipnet::IpNet;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn rule(text: &str) -> Matcher {
    text.parse().unwrap()
}

fn said(effect: Effect, text: &str) -> Said {
    (effect, rule(text)).into()
}

fn policy(otherwise: Effect, rules: &[(Effect, &str)]) -> Policy {
    let mut policy = match otherwise {
        Effect::Allow => Policy::open(),
        Effect::Deny => Policy::closed(),
    };
    for (effect, text) in rules {
        policy.append([said(*effect, text)]).unwrap();
    }
    policy
}

fn tcp(address: &str, port: u16) -> Destination<'static> {
    let address = address.parse().unwrap();
    Destination { address, port, protocol: Protocol::Tcp, names: &[], is_host: false }
}

fn allows(policy: &Policy, address: &str, port: u16) -> bool {
    policy.decide(&tcp(address, port)).allowed()
}

/// What is near the host, or is the host, and what a cloud tells its machines.
const NOT_PUBLIC: &[(&str, Range)] = &[
    ("0.0.0.0", Range::Unspecified),
    ("10.0.0.1", Range::Private),
    ("100.64.0.1", Range::CarrierNat),
    ("100.100.100.200", Range::Metadata),
    ("127.0.0.1", Range::Loopback),
    ("127.255.255.254", Range::Loopback),
    ("169.254.0.1", Range::LinkLocal),
    ("169.254.169.254", Range::Metadata),
    ("172.31.255.255", Range::Private),
    ("192.168.1.1", Range::Private),
    ("224.0.0.251", Range::Multicast),
    ("255.255.255.255", Range::Broadcast),
    ("::", Range::Unspecified),
    ("::1", Range::Loopback),
    ("::ffff:127.0.0.1", Range::EmbeddedV4),
    ("::ffff:8.8.8.8", Range::EmbeddedV4),
    ("::7f00:1", Range::EmbeddedV4),
    ("64:ff9b::a00:1", Range::EmbeddedV4),
    ("2002:7f00:1::1", Range::EmbeddedV4),
    ("2001:0:7f00:1::", Range::EmbeddedV4),
    ("fd00:ec2::254", Range::Metadata),
    ("fd00::1", Range::Private),
    ("fe80::1", Range::LinkLocal),
    ("ff02::1", Range::Multicast),
    ("9000::1", Range::Reserved),
];

#[test]
fn s7_nothing_but_its_own_network_opens_what_is_not_public() {
    let names = [name("rebound.example.org")];
    let domain = policy(Effect::Allow, &[(Effect::Allow, "*"), (Effect::Allow, "*.example.org")]);
    let all = policy(Effect::Allow, &[(Effect::Allow, "0.0.0.0/0"), (Effect::Allow, "::/0")]);
    for (address, range) in NOT_PUBLIC {
        for policy in [&Policy::open(), &domain, &all] {
            let verdict = policy.decide(&Destination { names: &names, ..tcp(address, 80) });
            assert!(!verdict.allowed(), "{address}");
            assert_eq!(verdict.reason, Reason::Range(*range), "{address}");
        }
        let named = policy(Effect::Deny, &[(Effect::Allow, address)]);
        let verdict = named.decide(&tcp(address, 80));
        assert!(verdict.allowed(), "{address}");
        assert_eq!(verdict.reason, Reason::Rule(RuleId(1)));
    }
}

#[test]
fn s7_the_hosts_own_addresses_are_named_one_by_one() {
    let host = Destination { is_host: true, ..tcp("192.168.1.5", 22) };
    let neighbours = policy(Effect::Allow, &[(Effect::Allow, "192.168.0.0/16")]);
    assert_eq!(neighbours.decide(&host).reason, Reason::Range(Range::Host));
    assert!(allows(&neighbours, "192.168.1.6", 22));
    let public = Destination { is_host: true, ..tcp("1.1.1.1", 22) };
    assert!(!Policy::open().decide(&public).allowed());
    let named = policy(Effect::Allow, &[(Effect::Allow, "192.168.1.5:22")]);
    assert!(named.decide(&host).allowed());
}

#[test]
fn s7_a_range_within_a_range_has_to_be_named_itself() {
    let link = policy(Effect::Deny, &[(Effect::Allow, "169.254.0.0/16")]);
    assert!(allows(&link, "169.254.1.1", 80));
    assert!(!allows(&link, "169.254.169.254", 80));
    let unique = policy(Effect::Deny, &[(Effect::Allow, "fd00::/8")]);
    assert!(allows(&unique, "fd12::1", 80));
    assert!(!allows(&unique, "fd00:ec2::254", 80));
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = [
        (Effect::Deny, "1.2.3.4:25"),
        (Effect::Allow, "tcp:1.2.3.0/24"),
        (Effect::Deny, "1.0.0.0/8"),
        (Effect::Allow, "*:8000-8999,443"),
    ];
    let policy = policy(Effect::Deny, &rules);
    assert!(!allows(&policy, "1.2.3.4", 25));
    assert!(allows(&policy, "1.2.3.4", 80));
    assert!(!allows(&policy, "1.9.9.9", 8000));
    assert!(allows(&policy, "5.5.5.5", 8999) && allows(&policy, "5.5.5.5", 443));
    assert_eq!(policy.decide(&tcp("5.5.5.5", 80)).reason, Reason::Otherwise);
    let udp = Destination { protocol: Protocol::Udp, ..tcp("1.2.3.4", 80) };
    assert_eq!(policy.decide(&udp).reason, Reason::Rule(RuleId(3)));
}

#[test]
fn what_was_said_last_holds_and_replaces_the_same() {
    let mut policy =
        policy(Effect::Allow, &[(Effect::Allow, "1.1.1.1"), (Effect::Deny, "2.2.2.2")]);
    assert_eq!(policy.put_first([said(Effect::Deny, "*")]), Ok(vec![RuleId(3)]));
    assert!(!allows(&policy, "1.1.1.1", 80));
    assert_eq!(policy.put_first([said(Effect::Allow, "*")]), Ok(vec![RuleId(4)]));
    assert!(allows(&policy, "2.2.2.2", 80));
    assert_eq!(policy.rules.len(), 3);
    for port in 1.. {
        match policy.append([said(Effect::Allow, &format!("*:{port}"))]) {
            Ok(_) => {}
            Err(TooManyRules) => break,
        }
    }
    assert_eq!(policy.rules.len(), RULES_MAX);
    assert_eq!(policy.put_first([said(Effect::Deny, "3.3.3.3")]), Err(TooManyRules));
    assert_eq!(policy.rules.len(), RULES_MAX);
    // The same again needs no room.
    assert!(policy.put_first([said(Effect::Deny, "2.2.2.2")]).is_ok());
}

#[test]
fn rules_are_taken_back_by_id_by_text_and_with_their_set() {
    let of_set = |effect, text| Said { set: Some("@ours".parse().unwrap()), ..said(effect, text) };
    let mut policy = policy(Effect::Deny, &[(Effect::Allow, "1.1.1.1"), (Effect::Deny, "a.org")]);
    let set = [of_set(Effect::Deny, "2.2.2.2"), of_set(Effect::Allow, "2.2.2.0/24")];
    assert_eq!(policy.put_first(set.clone()), Ok(vec![RuleId(3), RuleId(4)]));
    assert!(allows(&policy, "2.2.2.3", 80) && !allows(&policy, "2.2.2.2", 80));
    // What it was before goes, also what it has no more.
    assert_eq!(policy.put_first(set[1..].to_vec()), Ok(vec![RuleId(5)]));
    assert!(allows(&policy, "2.2.2.2", 80));
    let ours = || "@ours".parse().unwrap();
    assert_eq!(policy.remove(&RuleRef::Set(ours())), [RuleId(5)]);
    assert_eq!(policy.remove(&RuleRef::Set(ours())), []);
    assert_eq!(policy.remove(&RuleRef::Matcher(rule("A.org"))), [RuleId(2)]);
    assert_eq!(policy.remove(&RuleRef::Id(RuleId(1))), [RuleId(1)]);
    // Nothing is allowed by there being no rules.
    assert!(policy.rules.is_empty() && !allows(&policy, "1.1.1.1", 80));
}

#[test]
fn names_are_compared_as_dns_does() {
    assert_eq!(name("PyPI.org.").as_str(), "pypi.org");
    assert_eq!(name("bücher.example").as_str(), "xn--bcher-kva.example");
    let below = NamePattern::Below(name("Example.org"));
    assert!(below.matches(&name("a.b.example.org")));
    for other in ["example.org", "badexample.org", "example.org.evil.net", "org"] {
        assert!(!below.matches(&name(other)), "{other}");
    }
    let long = format!("{}.org", "x".repeat(64));
    for bad in ["", ".", "a..b", "a b", "a/b", "*", "1.2.3.4", "1.2.3.400", "a.0", &long] {
        assert!(DomainName::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_name_may_be_asked_after_when_something_of_it_can_be_reached() {
    let rules = [
        (Effect::Deny, "*.evil.org"),
        (Effect::Deny, "pypi.org:80"),
        (Effect::Allow, "pypi.org:443"),
        (Effect::Allow, "10.0.0.0/8"),
    ];
    let closed = policy(Effect::Deny, &rules);
    assert!(closed.decide_name(&name("pypi.org")).allowed());
    assert!(!closed.decide_name(&name("files.pypi.org")).allowed());
    let open = policy(Effect::Allow, &rules);
    assert!(open.decide_name(&name("any.org")).allowed());
    assert_eq!(open.decide_name(&name("x.evil.org")).reason, Reason::Rule(RuleId(1)));
}

#[test]
fn what_is_no_rule_says_why() {
    let error = |text: &str| text.parse::<Matcher>().unwrap_err();
    let network = "10.0.0.0/8".parse().unwrap();
    assert_eq!(error("10.0.0.1/8"), BadRule::HostBits { given: "10.0.0.1/8".into(), network });
    for bad in ["a:0", "a:", "a:65536", "a:9-8", "a:+1", "a:1,", "a:1-2-3"] {
        assert!(matches!(error(bad), BadRule::Ports(_)), "{bad}");
    }
    for bad in ["", ":80", "*.1.2.3.4", "*.*.org", "[::1]x:1", "1.2.3.4/33"] {
        assert!(matches!(error(bad), BadRule::Target(_)), "{bad}");
    }
    assert_eq!(error(&format!("a:{}1", "1,".repeat(16))), BadRule::TooManyPorts);
    assert_eq!(error(&"a".repeat(2000)), BadRule::TooLong);
}

#[test]
fn rules_are_written_as_they_are_read() {
    for text in [
        "*",
        "pypi.org:443",
        "*.debian.org",
        "10.0.0.0/8:5432",
        "udp:[fd00::/8]:53,5353",
        "tcp:8.8.8.8/32:1-1024",
        "2001:db8::/32",
    ] {
        assert_eq!(rule(text).to_string(), text);
    }
    assert_eq!(rule("fd00::/8:53"), rule("[fd00::/8]:53"));
    assert_eq!(rule("2600::1:443").to_string(), "2600::1:443/128");
    let json =
        serde_json::to_string(&policy(Effect::Deny, &[(Effect::Allow, "a.org:80")])).unwrap();
    assert_eq!(
        json,
        r#"{"rules":[{"id":1,"effect":"allow","matcher":"a.org:80"}],"otherwise":"deny","next":2}"#
    );
    assert_eq!(rule("a.org:80").takes_name(&name("a.org")), Takes::Some);
}

/// Every address as a number, IPv4 apart from IPv6.
fn number(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(address) => (true, u32::from(address).into()),
        IpAddr::V6(address) => (false, address.into()),
    }
}

fn ends(network: IpNet) -> (bool, u128, u128) {
    let (v4, first) = number(network.network());
    (v4, first, number(network.broadcast()).1)
}

/// The same again, told by intervals of numbers and by words.
fn decide_naively(rules: &[(Effect, String)], otherwise: Effect, to: &Destination<'_>) -> bool {
    let special = Range::of(to.address, to.is_host).map(|(_, network)| ends(network));
    for (effect, text) in rules {
        let bare = text.trim_start_matches("tcp:").trim_start_matches("udp:");
        let (host, ports) = bare.rsplit_once('#').unwrap_or((bare, ""));
        let word = to.protocol.to_string();
        let protocol = bare == text || text.starts_with(&word);
        let port = ports.is_empty() || ports == to.port.to_string();
        let network = host.parse::<IpNet>().ok().map(ends);
        let (v4, at) = number(to.address);
        let hit = match (host, network) {
            ("*", _) => true,
            (_, Some((is_v4, first, last))) => is_v4 == v4 && first <= at && at <= last,
            (pattern, None) => to.names.iter().any(|name| match pattern.strip_prefix('*') {
                Some(dotted) => name.as_str().ends_with(dotted),
                None => name.as_str() == pattern,
            }),
        };
        let named = match (special, network) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((_, first, last)), Some((_, from, to))) => first <= from && to <= last,
        };
        match effect {
            Effect::Deny if hit && port && protocol => return false,
            Effect::Allow if hit && port && protocol && named => return true,
            Effect::Allow | Effect::Deny => {}
        }
    }
    special.is_none() && otherwise == Effect::Allow
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    let special = prop::sample::select(NOT_PUBLIC).prop_map(|(text, _)| text.parse().unwrap());
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from(bits))),
        any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from(bits))),
        any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from(bits >> 3 | 1 << 125))),
        special,
    ]
}

fn any_effect() -> impl Strategy<Value = Effect> {
    prop_oneof![Just(Effect::Allow), Just(Effect::Deny)]
}

/// A rule as [`decide_naively`] reads it: `#` before its port.
fn any_rule() -> impl Strategy<Value = String> {
    let network = (any_address(), 0u8..=128).prop_map(|(address, length)| {
        let length = if address.is_ipv4() { length % 33 } else { length };
        IpNet::new(address, length).unwrap().trunc().to_string()
    });
    let names = prop::sample::select(&["*", "a.org", "*.a.org", "b.a.org", "*.org"][..]);
    let target = prop_oneof![network, names.prop_map(str::to_owned)];
    let protocol = prop::sample::select(&["", "tcp:", "udp:"][..]);
    let port = prop::sample::select(&["", "#80", "#443"][..]);
    (protocol, target, port)
        .prop_map(|(protocol, target, port)| format!("{protocol}{target}{port}"))
}

fn parse_naive(text: &str) -> Matcher {
    match text.rsplit_once('#') {
        Some((target, port)) if target.contains("::") || target.matches(':').count() > 1 => {
            let (protocol, target) = match target.split_at(4) {
                (protocol @ ("tcp:" | "udp:"), rest) => (protocol, rest),
                _ => ("", target),
            };
            rule(&format!("{protocol}[{target}]:{port}"))
        }
        _ => rule(&text.replace('#', ":")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn s7_decisions_are_those_of_the_naive_reference(
        rules in prop::collection::vec((any_effect(), any_rule()), 0..8),
        otherwise in any_effect(),
        address in any_address(),
        port in prop::sample::select(&[80u16, 443, 22][..]),
        udp in any::<bool>(),
        names in prop::sample::subsequence(vec!["a.org", "b.a.org", "c.org"], 0..=3),
        is_host in prop::bool::weighted(0.1),
    ) {
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        let names: Vec<_> = names.into_iter().map(name).collect();
        let to = Destination { address, port, protocol, names: &names, is_host };
        let mut policy = match otherwise {
            Effect::Allow => Policy::open(),
            Effect::Deny => Policy::closed(),
        };
        for (effect, text) in &rules {
            policy.append([Said::from((*effect, parse_naive(text)))]).unwrap();
        }
        prop_assert_eq!(
            policy.decide(&to).allowed(),
            decide_naively(&rules, otherwise, &to)
        );
    }

    #[test]
    fn a_rule_that_is_printed_is_the_same_rule(text in any_rule()) {
        let once = parse_naive(&text);
        prop_assert_eq!(&rule(&once.to_string()), &once);
    }

    #[test]
    fn any_text_is_a_rule_or_an_error(text in "\\PC{0,60}", wire in "[ -~]{0,300}") {
        drop(text.parse::<Matcher>());
        drop(wire.parse::<Matcher>());
        drop(DomainName::from_ascii(&wire));
    }

    #[test]
    fn what_std_calls_special_is_special(bits in any::<u32>()) {
        let address = Ipv4Addr::from(bits);
        let special = address.is_private()
            || address.is_loopback()
            || address.is_link_local()
            || address.is_multicast()
            || address.is_broadcast()
            || address.is_unspecified()
            || address.is_documentation();
        if special {
            prop_assert!(Range::of(address.into(), false).is_some(), "{}", address);
        }
    }
}
