use super::*;
use proptest::prelude::*;
use tokio::io::{AsyncWriteExt, Lines};

const GREETING: &str = r#"{"QMP": {"version": {}, "capabilities": ["oob"]}}"#;
const EVENT: &str = r#"{"timestamp": {"seconds": 1}, "event": "STOP"}"#;

/// A monitor, and QEMU's end of it.
fn monitor() -> (Monitor, Qemu) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    (Monitor::new(ours), Qemu(BufReader::new(theirs).lines()))
}

struct Qemu(Lines<BufReader<UnixStream>>);

impl Qemu {
    async fn say(&mut self, bytes: &[u8]) {
        self.0.get_mut().get_mut().write_all(bytes).await.expect("somebody listens");
    }

    async fn lines(&mut self, lines: &[&str]) {
        for line in lines {
            self.say(format!("{line}\r\n").as_bytes()).await;
        }
    }

    async fn hears(&mut self, line: &str) {
        assert_eq!(self.0.next_line().await.expect("read").as_deref(), Some(line));
    }
}

#[tokio::test]
async fn nothing_is_said_before_something_is_wanted_and_what_is_not_asked_for_is_skipped() {
    let (mut monitor, mut qemu) = monitor();
    qemu.lines(&[GREETING]).await;
    let (done, ()) = tokio::join!(monitor.stop(), async {
        qemu.hears(r#"{"execute":"qmp_capabilities"}"#).await;
        qemu.hears(r#"{"execute":"stop","id":1}"#).await;
        qemu.lines(&[r#"{"return": {}}"#, EVENT, r#"{"return": {}, "id": 1}"#]).await;
        qemu.hears(r#"{"execute":"query-status","id":2}"#).await;
        qemu.lines(&[r#"{"return": {"status": "paused", "running": false}, "id": 2}"#]).await;
    });
    done.expect("it stands still");
}

#[tokio::test]
async fn disks_are_added_up() {
    let (mut monitor, mut qemu) = monitor();
    let disk = |n: u64| {
        let stats = format!(
            r#""rd_bytes": {n}, "wr_bytes": {}, "rd_operations": 3, "wr_operations": {}"#,
            n * 2,
            u64::MAX
        );
        format!(r#"{{"device": "", "parent": {{"stats": {{}}}}, "stats": {{{stats}}}}}"#)
    };
    let answer = format!(r#"{{"return": [{}, {}], "id": 1}}"#, disk(512), disk(1024));
    qemu.lines(&[GREETING, &answer]).await;
    assert_eq!(
        monitor.metrics().await.expect("counted"),
        Metrics {
            disk_read_bytes: 1536,
            disk_read_count: 6,
            disk_write_bytes: 3072,
            disk_write_count: u64::MAX,
            vsock_received_bytes: None,
            vsock_sent_bytes: None,
        }
    );
}

#[tokio::test]
async fn what_obeyed_and_did_not_is_an_error() {
    let (mut monitor, mut qemu) = monitor();
    let status = r#"{"return": {"running": false}, "id": 2}"#;
    qemu.lines(&[r#"{"return": {}, "id": 1}"#, status]).await;
    let error = monitor.cont().await.expect_err("it stands still");
    assert_eq!(error.to_string(), "QEMU obeyed, and the guest still stands still");
    let refusal = r#"{"id": 3, "error": {"class": "GenericError", "desc": "no\u001b[2J"}}"#;
    qemu.lines(&[refusal]).await;
    let error = monitor.stop().await.expect_err("refused");
    assert_eq!(error.to_string(), r#"QEMU refused "stop": no\u{1b}[2J"#);
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_answer_is_waited_for_in_vain_and_its_late_answer_skipped() {
    let (mut monitor, mut qemu) = monitor();
    qemu.lines(&[GREETING]).await;
    let error = monitor.stop().await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(error.to_string(), r#"QEMU did not answer "stop" within 30 s"#);
    // In the middle of it.
    qemu.say(br#"{"retu"#).await;
    let idle = timeout(Duration::from_secs(1), monitor.heed_nothing()).await;
    assert!(idle.is_err(), "QEMU still lives");
    qemu.say(b"rn\": {}, \"id\": 1}\n").await;
    qemu.lines(&[r#"{"return": {}, "id": 2}"#, r#"{"return": {"running": true}, "id": 3}"#]).await;
    monitor.cont().await.expect("it goes on");
}

#[tokio::test]
async fn events_that_nobody_asked_for_do_not_pile_up() {
    let (mut monitor, mut qemu) = monitor();
    tokio::select! {
        never = monitor.heed_nothing() => match never {},
        () = async { for _ in 0..100_000 { qemu.lines(&[EVENT]).await } } => {}
    }
}

/// QEMU looks up what it answers, and tells what has changed since before it has
/// answered; then it tells nothing more.
#[tokio::test(start_paused = true)]
async fn that_a_machine_is_restored_is_heard_also_before_a_late_answer() {
    let (mut monitor, mut qemu) = monitor();
    let (restored, ()) = tokio::join!(monitor.restore(7), async {
        let completed = r#"{"event": "MIGRATION", "data": {"status": "completed"}}"#;
        qemu.lines(&[GREETING, r#"{"return": {}, "id": 1}"#, r#"{"return": {}, "id": 2}"#]).await;
        qemu.lines(&[completed, r#"{"return": {"status": "active"}, "id": 3}"#]).await;
        qemu.lines(&[r#"{"return": {"status": "completed"}, "id": 4}"#]).await;
    });
    restored.expect("it goes on");
}

/// What becomes of a question that this is the answer to, and QEMU's end.
async fn told(bytes: &[u8]) -> Result<Metrics> {
    let (mut monitor, mut qemu) = monitor();
    let (metrics, ()) = tokio::join!(monitor.metrics(), async {
        qemu.hears(r#"{"execute":"qmp_capabilities"}"#).await;
        qemu.hears(r#"{"execute":"query-blockstats","id":1}"#).await;
        qemu.say(bytes).await;
        drop(qemu);
    });
    metrics
}

#[tokio::test]
async fn s4_lines_without_end_and_what_is_no_answer_are_errors() {
    let lies: &[(&[u8], ErrorKind)] = &[
        (&[b'x'; LINE_MAX], ErrorKind::GuestLost),
        (b"\n", ErrorKind::Protocol),
        (b"[]\n", ErrorKind::Protocol),
        (b"{\"id\": -1}\n", ErrorKind::Protocol),
        (b"{\"id\": 1}\n", ErrorKind::Protocol),
        (b"{\"id\": 1, \"return\": 7}\n", ErrorKind::Protocol),
        (b"\xff\n", ErrorKind::Protocol),
        (&[b'['; 10_000], ErrorKind::GuestLost),
    ];
    for (bytes, kind) in lies {
        let error = told(bytes).await.expect_err("nonsense");
        assert_eq!(error.kind(), *kind, "{error:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn s4_whatever_it_says_there_is_an_end(bytes: Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            assert!(told(&bytes).await.is_err());
        });
    }
}
