//! Whatever a patch's bytes are, it is taken apart and applied without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8])| {
    let (patch, file) = input;
    pyro_agent::fuzz_patch(patch, file);
});
