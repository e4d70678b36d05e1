//! Before there is a workspace.

use crate::host::{Host, sh};
use pyro_agent::Phase;
use pyro_protocol::power::{Activate, ENTROPY_LEN, Ping, ShiftClock};
use pyro_protocol::{AgentErrorKind, ByteString, GENERATION};

fn activate() -> Activate {
    Activate {
        entropy: ByteString(vec![7; ENTROPY_LEN]),
        clock_offset_ns: 0,
        hostname: "lab-1".to_owned(),
        machine_id: "0123456789abcdef0123456789abcdef".to_owned(),
        seeded: false,
    }
}

#[tokio::test]
async fn nothing_runs_before_activation() {
    let host = Host::in_phase(Phase::Waiting);
    host.call(Ping).await.expect("anybody may ask whether somebody is there");
    assert_eq!(host.refusal(sh("touch ran")).await, AgentErrorKind::WrongState);
    assert!(!host.workspace.path().join("ran").exists());
}

#[tokio::test]
async fn activation_happens_once() {
    let host = Host::in_phase(Phase::Waiting);
    host.call(activate()).await.expect("the first");
    let error = host.call(activate()).await.expect_err("the second");
    assert_eq!(error.kind, AgentErrorKind::WrongState);
    assert_eq!(host.script("echo up").await.text(), "up\n");
}

#[tokio::test]
async fn the_clock_is_stepped_only_in_a_machine_that_has_its_workspace() {
    let host = Host::in_phase(Phase::Waiting);
    let hour = ShiftClock { offset_ns: 3_600_000_000_000 };
    let error = host.call(hour).await.expect_err("it is set when it gets one");
    assert_eq!(error.kind, AgentErrorKind::WrongState);
    host.call(activate()).await.expect("it works");
    host.call(hour).await.expect("it is nobody's clock but the machine's");
}

#[tokio::test]
async fn the_welcome_says_whether_it_has_happened() {
    let host = Host::in_phase(Phase::Waiting);
    let welcome = host.unacquainted().greet().await;
    assert_eq!((welcome.activated, welcome.generation), (false, GENERATION));
    host.call(activate()).await.expect("it works");
    assert!(host.unacquainted().greet().await.activated);
}

#[tokio::test]
async fn what_is_no_identity_is_refused_and_may_be_put_right() {
    let host = Host::in_phase(Phase::Waiting);
    let wrong = [
        Activate { entropy: ByteString(vec![7; ENTROPY_LEN - 1]), ..activate() },
        Activate { hostname: "not a name".to_owned(), ..activate() },
        Activate { hostname: String::new(), ..activate() },
        Activate { machine_id: "0123456789ABCDEF0123456789ABCDEF".to_owned(), ..activate() },
        Activate { machine_id: "../../etc/passwd".to_owned(), ..activate() },
    ];
    for call in wrong {
        let what = format!("{call:?}");
        let error = host.call(call).await.expect_err(&what);
        assert_eq!(error.kind, AgentErrorKind::InvalidArgument, "{what}");
    }
    host.call(activate()).await.expect("the right one");
}
