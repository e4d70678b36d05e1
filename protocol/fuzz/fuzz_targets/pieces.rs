//! A stream of pieces is taken apart whatever it is, and holds one entry at most.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyro_protocol::export::ExportEntry;
use pyro_protocol::piece::PieceReader;

fuzz_target!(|bytes: &[u8]| {
    let mut reader = PieceReader::<ExportEntry>::default();
    for mut chunk in bytes.chunks(100) {
        loop {
            match reader.next(&mut chunk) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
