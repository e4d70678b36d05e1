//! DNS on the wire (RFC 1035): as much of it as asks for addresses and tells
//! them. Every reader is total: queries come from the guest, answers from a
//! server that may pass on anything.

use crate::egress::policy::name::DomainName;
use std::net::IpAddr;

/// The most addresses that are told. With the longest name they fit the 512
/// bytes that every client takes, so that nobody has to ask again by TCP.
pub const TOLD_MAX: usize = 8;

/// What an answer over UDP may be long; larger ones break on the way.
pub const EDNS_SIZE: u16 = 1232;

/// The longest answer that is read at all.
pub const ANSWER_MAX: usize = 16 * 1024;

const HEADER: usize = 12;
const ADDRESS_RECORD_V6: usize = 28;
const WIRE_NAME_MAX: usize = 255;
const _: () = assert!(HEADER + WIRE_NAME_MAX + 4 + TOLD_MAX * ADDRESS_RECORD_V6 <= 512);

/// The most aliases that are followed.
const ALIASES_MAX: usize = 16;

/// The most records that are looked at.
const RECORDS_MAX: usize = 256;

/// The most pointers in one name.
const POINTERS_MAX: usize = 32;

const CLASS_IN: u16 = 1;
const TYPE_CNAME: u16 = 5;

/// What is asked of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Something that nobody here tells.
    Other(u16),
}

/// How a question ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// With what there is, which may be nothing.
    NoError = 0,
    /// It was no question.
    FormErr = 1,
    /// Nobody could tell now.
    ServFail = 2,
    /// There is no such name, or none for the guest.
    NxDomain = 3,
    /// That cannot be asked.
    NotImp = 4,
}

/// A question of the guest's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    id: u16,
    recursion_desired: bool,
    /// As it came, to be repeated: clients compare the case of letters.
    question: Vec<u8>,
    /// The name; `None` if no host can have it.
    pub name: Option<DomainName>,
    /// What is asked of it.
    pub kind: Kind,
}

/// What a server says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Its addresses, of the kind that was asked for, and for how many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// There is no such name.
    NoName,
    /// It did not fit.
    Truncated,
    /// The server could not tell, or tells something else.
    Failed,
}

impl Kind {
    const fn code(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
            Self::Other(code) => code,
        }
    }

    const fn from_code(code: u16) -> Self {
        match code {
            1 => Self::A,
            28 => Self::Aaaa,
            other => Self::Other(other),
        }
    }
}

/// Reads on from a place in a packet.
#[derive(Clone, Copy)]
struct Reader<'a> {
    packet: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let bytes = self.packet.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).and_then(|bytes| bytes.first().copied())
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
    }

    /// A name in lower case with dots between its labels. One that no host can
    /// have is `Some(None)`; what is no name at all is `None`.
    fn name(&mut self) -> Option<Option<DomainName>> {
        let mut text = String::new();
        let mut is_host = true;
        let mut reader = *self;
        let mut pointers = 0;
        loop {
            let length = reader.u8()?;
            match length >> 6 {
                0 if length == 0 => break,
                0 => {
                    let label = reader.take(length.into())?;
                    if text.len() + label.len() + 1 > WIRE_NAME_MAX {
                        return None;
                    }
                    match std::str::from_utf8(label) {
                        // A dot within a label would make two of it.
                        Ok(label) if label.is_ascii() && !label.contains('.') => {
                            text.push_str(label);
                        }
                        Ok(_) | Err(_) => is_host = false,
                    }
                    text.push('.');
                }
                3 => {
                    let low = reader.u8()?;
                    if pointers == 0 {
                        self.at = reader.at;
                    }
                    pointers += 1;
                    let to = usize::from(length & 0x3f) << 8 | usize::from(low);
                    if pointers > POINTERS_MAX || to >= reader.at {
                        return None;
                    }
                    reader.at = to;
                }
                _ => return None,
            }
        }
        if pointers == 0 {
            self.at = reader.at;
        }
        Some(is_host.then(|| DomainName::from_ascii(&text)).flatten())
    }
}

impl Query {
    /// Reads a question. What is none, but has a header, is worth a reply.
    ///
    /// # Errors
    /// The reply, or nothing if even that would be too much.
    pub fn parse(packet: &[u8]) -> Result<Self, Option<Vec<u8>>> {
        let mut reader = Reader { packet, at: 0 };
        let header = (reader.u16(), reader.u16());
        let (Some(id), Some(flags)) = header else { return Err(None) };
        // An answer is not answered.
        if flags & 0x8000 != 0 {
            return Err(None);
        }
        let recursion_desired = flags & 0x0100 != 0;
        let none = |code| Err(Some(head(id, recursion_desired, code, 0, 0)));
        if flags & 0x7800 != 0 {
            return none(Code::NotImp);
        }
        if reader.u16() != Some(1) || reader.take(6).is_none() {
            return none(Code::FormErr);
        }
        let begin = reader.at;
        let asked = (reader.name(), reader.u16(), reader.u16());
        let (Some(name), Some(kind), Some(class)) = asked else { return none(Code::FormErr) };
        let question = packet.get(begin..reader.at).unwrap_or_default().to_vec();
        if class != CLASS_IN || question.len() > WIRE_NAME_MAX + 4 {
            return none(Code::NotImp);
        }
        Ok(Self { id, recursion_desired, question, name, kind: Kind::from_code(kind) })
    }

    /// A reply without addresses.
    #[must_use]
    pub fn refuse(&self, code: Code) -> Vec<u8> {
        let mut reply = head(self.id, self.recursion_desired, code, 1, 0);
        reply.extend_from_slice(&self.question);
        reply
    }

    /// A reply with addresses, the first [`TOLD_MAX`] of them.
    #[must_use]
    pub fn tell(&self, addresses: &[IpAddr], seconds: u32) -> Vec<u8> {
        let told = addresses.get(..TOLD_MAX).unwrap_or(addresses);
        let count = u16::try_from(told.len()).unwrap_or(0);
        let mut reply = head(self.id, self.recursion_desired, Code::NoError, 1, count);
        reply.extend_from_slice(&self.question);
        for address in told {
            // The name is where the question has it.
            reply.extend_from_slice(&[0xc0, 0x0c]);
            let (kind, octets) = match address {
                IpAddr::V4(address) => (Kind::A, address.octets().to_vec()),
                IpAddr::V6(address) => (Kind::Aaaa, address.octets().to_vec()),
            };
            reply.extend_from_slice(&kind.code().to_be_bytes());
            reply.extend_from_slice(&CLASS_IN.to_be_bytes());
            reply.extend_from_slice(&seconds.to_be_bytes());
            reply.extend_from_slice(&u16::try_from(octets.len()).unwrap_or(0).to_be_bytes());
            reply.extend_from_slice(&octets);
        }
        reply
    }
}

/// The header of a reply.
fn head(id: u16, recursion_desired: bool, code: Code, questions: u16, answers: u16) -> Vec<u8> {
    let flags = 0x8080 | u16::from(recursion_desired) << 8 | code as u16;
    let counts = [questions, answers, 0, 0];
    let mut head = Vec::with_capacity(512);
    for field in [id, flags].into_iter().chain(counts) {
        head.extend_from_slice(&field.to_be_bytes());
    }
    head
}

/// A question to a server.
#[must_use]
pub fn question(id: u16, name: &DomainName, kind: Kind) -> Vec<u8> {
    let mut packet = Vec::with_capacity(300);
    for field in [id, 0x0100, 1, 0, 0, 1] {
        packet.extend_from_slice(&field.to_be_bytes());
    }
    for label in name.as_str().split('.') {
        packet.push(u8::try_from(label.len()).unwrap_or(0));
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    packet.extend_from_slice(&kind.code().to_be_bytes());
    packet.extend_from_slice(&CLASS_IN.to_be_bytes());
    // EDNS (RFC 6891): the root's name, OPT, our size, no flags, no options.
    packet.extend_from_slice(&[0, 0, 41]);
    packet.extend_from_slice(&EDNS_SIZE.to_be_bytes());
    packet.extend_from_slice(&[0; 6]);
    packet
}

/// Reads a server's answer; `None` if it answers another question.
#[must_use]
pub fn answer(packet: &[u8], id: u16, name: &DomainName, kind: Kind) -> Option<Answer> {
    let mut reader = Reader { packet, at: 0 };
    let (got, flags) = (reader.u16()?, reader.u16()?);
    let (questions, records) = (reader.u16()?, reader.u16()?);
    reader.take(4)?;
    if got != id || flags & 0x8000 == 0 || questions != 1 {
        return None;
    }
    let asked = (reader.name()??, reader.u16()?, reader.u16()?);
    if asked != (name.clone(), kind.code(), CLASS_IN) {
        return None;
    }
    if flags & 0x0200 != 0 {
        return Some(Answer::Truncated);
    }
    Some(match flags & 0xf {
        0 => told(reader, records, name, kind).unwrap_or(Answer::Failed),
        3 => Answer::NoName,
        _ => Answer::Failed,
    })
}

/// The addresses in so many records, through aliases.
fn told(mut reader: Reader<'_>, count: u16, name: &DomainName, kind: Kind) -> Option<Answer> {
    let mut aliases = Vec::new();
    let mut addresses = Vec::new();
    for _ in 0..usize::from(count).min(RECORDS_MAX) {
        let owner = reader.name()?;
        let (record, class, seconds) = (reader.u16()?, reader.u16()?, reader.u32()?);
        let length = reader.u16()?;
        let mut data = reader;
        let bytes = reader.take(length.into())?;
        let Some(owner) = owner.filter(|_| class == CLASS_IN) else { continue };
        if record == TYPE_CNAME {
            aliases.push((owner, data.name()??, seconds));
        } else if record == kind.code()
            && let Some(address) = address(bytes)
        {
            addresses.push((owner, address, seconds));
        }
    }
    let (mut at, mut least) = (name.clone(), u32::MAX);
    for _ in 0..ALIASES_MAX {
        let Some((_, to, seconds)) = aliases.iter().find(|(owner, ..)| *owner == at) else { break };
        (at, least) = (to.clone(), least.min(*seconds));
    }
    let mut found = Vec::new();
    for (_, address, seconds) in addresses.into_iter().filter(|(owner, ..)| *owner == at) {
        found.push(address);
        least = least.min(seconds);
    }
    Some(Answer::Addresses(found, least))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
