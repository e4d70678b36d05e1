//! Eight bytes are a header only as we would write it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyro_protocol::frame::{HEADER_LEN, header, parse_header};

fuzz_target!(|bytes: [u8; HEADER_LEN]| {
    if let Ok((kind, length)) = parse_header(bytes) {
        assert_eq!(header(kind, length), bytes);
    }
});
