//! Power-off.

use crate::host::{Host, argv, sh, soon};
use pyro_agent::Phase;
use pyro_protocol::AgentErrorKind;
use pyro_protocol::power::{Ping, PowerOff};
use pyro_protocol::process::Outcome;

const PATIENT: PowerOff = PowerOff { grace_ms: 60_000 };
const IMPATIENT: PowerOff = PowerOff { grace_ms: 1 };

#[tokio::test]
async fn programs_may_say_good_bye() {
    let host = Host::new();
    let script = "trap 'kill -9 $!; echo bye; exit 3' TERM; sleep 1000 & echo ready; wait";
    let mut running = host.start(sh(script)).await.expect("it starts");
    running.until(|seen| seen.stdout == b"ready\n").await;
    let (off, ended) = tokio::join!(host.call(PATIENT), running.finish());
    off.expect("it goes off");
    assert_eq!((ended.code(), ended.text()), (3, "ready\nbye\n"));
    soon("power-off", host.guest.powered_off()).await;
}

#[tokio::test]
async fn programs_that_will_not_go_are_made_to() {
    let host = Host::new();
    let script = "trap '' TERM; echo ready; exec sleep 1000";
    let mut running = host.start(sh(script)).await.expect("it starts");
    running.until(|seen| seen.stdout == b"ready\n").await;
    let (off, ended) = tokio::join!(host.call(IMPATIENT), running.finish());
    off.expect("it goes off");
    assert_eq!(ended.exit.outcome, Outcome::Signaled { signal: 9 });
}

#[tokio::test]
async fn nothing_starts_after_it() {
    let host = Host::new();
    host.call(PATIENT).await.expect("it goes off");
    assert_eq!(host.refusal(argv(&["/bin/true"])).await, AgentErrorKind::WrongState);
    let again = host.call(PATIENT).await.expect_err("it is off");
    assert_eq!(again.kind, AgentErrorKind::WrongState);
    host.call(Ping).await.expect("as long as somebody is there");
}

#[tokio::test]
async fn a_guest_without_a_workspace_goes_off_too() {
    let host = Host::in_phase(Phase::Waiting);
    host.call(PATIENT).await.expect("it goes off");
    soon("power-off", host.guest.powered_off()).await;
}
