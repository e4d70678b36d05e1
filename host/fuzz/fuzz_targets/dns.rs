//! DNS from both sides: a guest's questions, a server's answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyro::egress::gateway::dns::wire::{Kind, Query, answer};
use pyro::egress::policy::name::DomainName;

fuzz_target!(|packet: &[u8]| {
    if let Ok(query) = Query::parse(packet) {
        let told = query.tell(&[[1, 2, 3, 4].into(); 9], 60);
        assert!(told.len() <= 512);
    }
    let Ok(name) = DomainName::parse("pypi.org") else { return };
    let id = u16::from_be_bytes([packet.first().copied().unwrap_or(0), packet.get(1).copied().unwrap_or(0)]);
    drop(answer(packet, id, &name, Kind::A));
    drop(answer(packet, id, &name, Kind::Aaaa));
});
