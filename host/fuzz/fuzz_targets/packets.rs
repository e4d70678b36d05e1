//! A guest's frames of packets: the gateway takes anything, and what it sends are
//! packets.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|frames: Vec<Vec<u8>>| pyro::egress::gateway::fuzz(&frames));
