//! What services write.

use super::{LONG, Written, name, service};
use crate::host::{Host, soon};
use pyro_protocol::service::{LOG_RETAINED, RemoveService, ServiceLogs, ServiceState};
use pyro_protocol::{Call, FrameKind};
use std::sync::Arc;

#[tokio::test]
async fn the_last_lines_of_each_stream_are_told() {
    let host = Host::new();
    let script = "seq 1 10; seq 1 3 >&2; printf open; exec sleep 1000";
    host.serve(service("web", script)).await;
    let (_, mut all) = host.log("web", None, true).await;
    let mut written = Written::default();
    while !(written.stdout.ends_with(b"open") && written.stderr.ends_with(b"3\n")) {
        assert!(all.log_step(&mut written).await.is_none());
    }
    for (tail, stdout, stderr, truncated) in [
        (Some(0), "", "", true),
        (Some(1), "open", "3\n", true),
        (Some(3), "9\n10\nopen", "1\n2\n3\n", true),
        (Some(11), "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\nopen", "1\n2\n3\n", false),
        (None, "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\nopen", "1\n2\n3\n", false),
    ] {
        let (logging, mut connection) = host.log("web", tail, false).await;
        let (told, service) = connection.log_to_end().await;
        assert_eq!(told.stdout(), stdout, "{tail:?}");
        assert_eq!(told.stderr, stderr.as_bytes(), "{tail:?}");
        assert_eq!((logging.truncated, told.gone), (truncated, 0), "{tail:?}");
        assert!(matches!(service.state, ServiceState::Running { .. }), "it is not followed");
    }
    host.stop("web", LONG).await;
}

/// Bytes are bytes, in order, whatever they are.
#[tokio::test]
async fn r25_followers_get_every_byte() {
    let host = Host::new();
    let script =
        "head -c 300000 /dev/urandom | tee copy; printf '\\000\\377no newline' | tee -a copy";
    host.serve(service("web", script)).await;
    let ((one, _), (other, ended)) = tokio::join!(host.written("web"), host.written("web"));
    assert!(matches!(ended.state, ServiceState::Exited { .. }));
    let copy = std::fs::read(host.at("copy")).expect("it was written");
    assert!(one.stdout == copy && other.stdout == copy);
}

#[tokio::test]
async fn s4_a_log_is_bounded_and_says_what_is_gone() {
    let host = Host::new();
    let length = 3 * LOG_RETAINED;
    let script = format!("head -c {length} /dev/zero; echo; echo last");
    host.serve(service("web", &script)).await;
    host.until("web", |service| service.state.is_over()).await;
    let (logging, mut connection) = host.log("web", None, false).await;
    assert!(logging.truncated);
    let (written, _) = connection.log_to_end().await;
    assert!(written.stdout.ends_with(b"\0\nlast\n"));
    let kept = written.stdout.len() as u64;
    assert!((LOG_RETAINED - 64 * 1024..2 * LOG_RETAINED).contains(&kept), "{kept} bytes");
    let (_, mut connection) = host.log("web", Some(1), false).await;
    assert_eq!(connection.log_to_end().await.0.stdout(), "last\n");
}

/// A follower that does not read stops neither the service nor anybody else.
#[tokio::test]
async fn p3_a_slow_follower_misses_bytes_and_is_told_how_many() {
    let host = Host::new();
    let script = "read x < go; head -c 30000000 /dev/zero | tr '\\0' x; echo end";
    host.fifo("go");
    host.serve(service("web", script)).await;
    let (_, mut slow) = host.log("web", None, true).await;
    host.script("echo > go").await;
    host.until("web", |service| service.state.is_over()).await;
    let (written, _) = slow.log_to_end().await;
    assert!(written.gone > 0);
    assert_eq!(written.stdout.len() as u64 + written.gone, 30_000_004);
    assert!(written.stdout.ends_with(b"xend\n"));
}

#[tokio::test]
async fn a_follower_that_hangs_up_leaves_nothing() {
    let host = Host::new();
    host.serve(service("web", "exec sleep 1000")).await;
    let before = Arc::strong_count(&host.guest);
    let mut connection = host.connect().await;
    let call = ServiceLogs { name: name("web"), tail_lines: None, follow: true };
    connection.send(FrameKind::Call, &Call::from(call)).await;
    assert_eq!(connection.next().await.kind, FrameKind::Reply);
    drop(connection);
    soon("its end", async {
        while Arc::strong_count(&host.guest) > before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    host.stop("web", LONG).await;
}

#[tokio::test]
async fn removing_ends_followers() {
    let host = Host::new();
    host.serve(service("web", "exec sleep 1000")).await;
    let (_, mut log) = host.log("web", None, true).await;
    let remove = RemoveService { name: name("web"), grace_ms: LONG };
    let (removed, (_, ended)) = tokio::join!(host.call(remove), log.log_to_end());
    assert_eq!(removed.expect("it was there"), ended);
}
