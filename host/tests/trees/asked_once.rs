//! R16: what a guest refuses is refused; nobody asks again.

use crate::exporting::wanted;
use crate::guest::{Served, called};
use crate::pushing::{run, to};
use pyro::ErrorKind;
use pyro::workspace::export::export;
use pyro_protocol::{AgentError, AgentErrorKind, FrameKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A guest that refuses every call, and how many there were.
fn refusing(kind: AgentErrorKind) -> (Served, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let served = Served::hostile(move |stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            let (mut reader, mut writer) = called(stream).await;
            let error = AgentError { kind, message: "no".into() };
            writer.send(FrameKind::Error, &error).await.unwrap();
            // What the host had underway already is heard out.
            while reader.next().await.is_ok() {}
        }
    });
    (served, calls)
}

#[tokio::test]
async fn r16_a_refusal_is_final() {
    let place = tempfile::tempdir().unwrap();
    let (served, calls) = refusing(AgentErrorKind::NotFound);
    let error =
        export(&served.agent, wanted("absent", &place.path().join("output")), &Default::default())
            .await;
    assert_eq!(error.expect_err("refused").kind(), ErrorKind::NotFound);
    assert_eq!(calls.load(Ordering::Relaxed), 1);

    std::fs::write(place.path().join("file"), vec![7; 1 << 20]).unwrap();
    for kind in [AgentErrorKind::Conflict, AgentErrorKind::TooLarge, AgentErrorKind::System] {
        let (served, calls) = refusing(kind);
        run(&served, place.path(), to(".")).await.expect_err("refused");
        assert_eq!(calls.load(Ordering::Relaxed), 1, "{kind:?}");
    }
}
