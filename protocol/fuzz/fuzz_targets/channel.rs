//! A guest's channel, over whatever a host sends: the hunt for SYNC, and the
//! multiplexer after it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyro_protocol::channel::{Side, connect};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

fuzz_target!(|input: (bool, &[u8])| {
    let (greet, bytes) = input;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (host, mut guest) = duplex(64 * 1024);
        let (mut from_guest, mut to_guest) = tokio::io::split(host);
        let host = async {
            // The guest may hang up at any time.
            if greet {
                drop(to_guest.write_all(b"\xffpyrosyn\x01\0\0\0\0\0\0\0").await);
            }
            drop(to_guest.write_all(bytes).await);
            drop(to_guest.shutdown().await);
            let mut answers = Vec::new();
            drop(from_guest.read_to_end(&mut answers).await);
        };
        let guest = async {
            // Each failure is the start of the next hunt, until the bytes end.
            while let Ok((_opener, mut acceptor, driver)) = connect(&mut guest, Side::Guest).await {
                let accept = async {
                    while let Some(inbound) = acceptor.accept().await {
                        drop(inbound.accept());
                    }
                };
                tokio::select! {
                    _ended = driver => {}
                    () = accept => {}
                }
            }
        };
        tokio::select! {
            () = host => {}
            () = guest => {}
        }
    });
});
