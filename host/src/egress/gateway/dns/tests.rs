use super::wire::{Answer, Code, Kind, Query, TOLD_MAX, answer, question};
use crate::egress::policy::name::DomainName;
use proptest::prelude::*;
use std::net::IpAddr;

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

/// The answer to our own question, as a server would make it.
fn answered(kind: Kind, records: &[u8], count: u8) -> Vec<u8> {
    let mut packet = question(7, &name("pypi.org"), kind);
    // Without the record that says how much we take.
    packet.truncate(packet.len() - 11);
    packet[2] |= 0x80;
    (packet[7], packet[11]) = (count, 0);
    packet.extend_from_slice(records);
    packet
}

fn read(packet: &[u8], kind: Kind) -> Option<Answer> {
    answer(packet, 7, &name("pypi.org"), kind)
}

#[test]
fn addresses_are_found_through_aliases() {
    // pypi.org CNAME a.b (60 s), a.b A 1.2.3.4 (30 s), another's A.
    let records = [
        &b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x05\x01a\x01b\0"[..],
        b"\x01A\x01b\0\0\x01\0\x01\0\0\0\x1e\0\x04\x01\x02\x03\x04",
        b"\x01c\0\0\x01\0\x01\0\0\0\x01\0\x04\x09\x09\x09\x09",
    ]
    .concat();
    let told = Answer::Addresses(vec![IpAddr::from([1, 2, 3, 4])], 30);
    assert_eq!(read(&answered(Kind::A, &records, 3), Kind::A), Some(told));
    let nothing = Some(Answer::Addresses(vec![], 60));
    assert_eq!(read(&answered(Kind::Aaaa, &records, 3), Kind::Aaaa), nothing);
    assert_eq!(read(&answered(Kind::A, &records[..20], 3), Kind::A), Some(Answer::Failed));
}

#[test]
fn an_answer_to_another_question_is_none() {
    let packet = answered(Kind::A, &[], 0);
    assert_eq!(answer(&packet, 8, &name("pypi.org"), Kind::A), None);
    assert_eq!(answer(&packet, 7, &name("pypi.com"), Kind::A), None);
    assert_eq!(answer(&packet, 7, &name("pypi.org"), Kind::Aaaa), None);
    let mut none = packet.clone();
    none[3] |= 3;
    assert_eq!(read(&none, Kind::A), Some(Answer::NoName));
    let mut cut = packet;
    cut[2] |= 2;
    assert_eq!(read(&cut, Kind::A), Some(Answer::Truncated));
}

#[test]
fn a_question_is_repeated_as_it_came() {
    let asked = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04PyPI\x03org\0\0\x1c\0\x01";
    let query = Query::parse(asked).unwrap();
    assert_eq!((query.name.clone(), query.kind), (Some(name("pypi.org")), Kind::Aaaa));
    let reply = query.refuse(Code::NxDomain);
    assert_eq!(reply[..4], [0x12, 0x34, 0x81, 0x83]);
    assert_eq!(reply[12..], asked[12..]);
    let many = vec![IpAddr::from([0; 16]); 20];
    let told = query.tell(&many, 60);
    assert_eq!(told[7], TOLD_MAX as u8);
    assert_eq!(told.len(), asked.len() + TOLD_MAX * 28);
}

#[test]
fn what_is_no_question_is_told_so_or_ignored() {
    assert_eq!(Query::parse(b"\x01"), Err(None));
    assert_eq!(Query::parse(&[0xff; 40]), Err(None));
    let complaint = |packet: &[u8]| Query::parse(packet).unwrap_err().unwrap()[3] & 0xf;
    assert_eq!(complaint(b"\0\0\x01\0\0\0\0\0\0\0\0\0"), Code::FormErr as u8);
    assert_eq!(complaint(b"\0\0\x29\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01"), Code::NotImp as u8);
    // A pointer to itself, and a label with a dot in it.
    assert_eq!(complaint(b"\0\0\x01\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x01\0\x01"), Code::FormErr as u8);
    let dotted = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x05a.org\0\0\x01\0\x01";
    assert_eq!(Query::parse(dotted).unwrap().name, None);
}

proptest! {
    #[test]
    fn s4_any_bytes_are_read(packet in prop::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index, to: u8) {
        drop(Query::parse(&packet));
        drop(read(&packet, Kind::A));
        let records = b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x05\x01a\x01b\0\x01A\x01b\0\0\x01\0\x01\0\0\0\x1e\0\x04\x01\x02\x03\x04";
        let mut ours = answered(Kind::A, records, 2);
        let place = at.index(ours.len());
        ours[place] = to;
        drop(read(&ours, Kind::A));
        drop(Query::parse(&ours));
    }
}
