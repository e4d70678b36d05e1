//! The frame reader, over bytes that arrive a few at a time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyro_protocol::FrameReader;
use tokio::io::AsyncWriteExt;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        // No more than a piece is ever there to be read.
        let (reader, mut writer) = tokio::io::simplex(usize::from(piece) + 1);
        let mut reader = FrameReader::new(reader);
        let write = async {
            // The reader may have given up.
            drop(writer.write_all(bytes).await);
            drop(writer.shutdown().await);
        };
        let read = async {
            let mut payload = 0;
            while let Ok(frame) = reader.next().await {
                assert!(frame.payload.len() <= frame.kind.limit());
                payload += frame.payload.len();
            }
            assert!(payload <= bytes.len());
            // So that the writer, if it waits for room, does not wait for ever.
            drop(reader);
        };
        tokio::select! {
            () = read => {}
            () = async { write.await; std::future::pending().await } => {}
        }
    });
});
