//! Of services.

use super::encoded;
use pyro_protocol::kept::OutputStream;
use pyro_protocol::process::{Exit, Outcome, StartProcess};
use pyro_protocol::service::{
    CountServices, ListServices, LogChunk, Probe, Readiness, RemoveService, Restart,
    RestartService, Service, ServiceCounts, ServiceFailure, ServiceList, ServiceLogging,
    ServiceLogs, ServiceName, ServiceState, ServiceStatus, StartService, StopHow, StopService,
};
use pyro_protocol::{Call, GuestPath};

fn web() -> ServiceName {
    "web".parse().expect("a name")
}

#[test]
fn calls_about_services() {
    let program = StartProcess {
        argv: vec!["true".into()],
        cwd: None,
        env: Vec::new(),
        user: None,
        stdin: false,
        timeout_ms: None,
    };
    let start = |probe, restart| {
        let readiness = Some(Readiness { probe, interval_ms: 5, timeout_ms: 6 });
        let (name, program) = (web(), program.clone());
        Call::StartService(StartService { name, program, readiness, restart })
    };
    let cases = [
        (
            start(Probe::File(GuestPath::new("f").expect("a path")), Restart::Never),
            "1803776562010474727565000000000001000166050600",
        ),
        (
            start(Probe::Tcp("[::1]:8".parse().expect("it")), Restart::OnFailure { limit: 3 }),
            "180377656201047472756500000000000101075b3a3a315d3a3805060103",
        ),
        (
            start(Probe::Http("http://127.0.0.1/".parse().expect("it")), Restart::Never),
            "18037765620104747275650000000000010211687474703a2f2f3132372e302e302e312f050600",
        ),
        (
            start(Probe::Command(vec!["t".into()]), Restart::Always { limit: 4 }),
            "18037765620104747275650000000000010301017405060204",
        ),
        (Call::ListServices(ListServices), "19"),
        (Call::CountServices(CountServices), "1a"),
        (Call::ServiceStatus(ServiceStatus { name: web() }), "1b03776562"),
        (
            Call::ServiceLogs(ServiceLogs { name: web(), tail_lines: Some(9), follow: true }),
            "1c03776562010901",
        ),
        (Call::StopService(StopService { name: web(), grace_ms: 7 }), "1d0377656207"),
        (Call::RestartService(RestartService { name: web(), grace_ms: 7 }), "1e0377656207"),
        (Call::RemoveService(RemoveService { name: web(), grace_ms: 7 }), "1f0377656207"),
    ];
    for (call, expected) in cases {
        assert_eq!(encoded(&call), expected, "{}", call.name());
    }
}

#[test]
fn replies_about_services() {
    let exit = Exit { outcome: Outcome::Exited { code: 3 }, took_us: 9 };
    let service = |state| Service {
        name: web(),
        argv: vec!["true".into()],
        cwd: None,
        readiness: None,
        restart: Restart::Never,
        started_at_ns: 1,
        restarts: 2,
        state,
    };
    let (pid, since_ns, ready_at_ns, at_ns) = (5, 1, 2, 3);
    let failed = |reason| ServiceState::Failed { at_ns, reason, exit: None };
    let stopped = |how| ServiceState::Stopped { at_ns, how, exit: Some(exit) };
    let states = [
        (ServiceState::Starting { pid, since_ns }, "000502"),
        (ServiceState::Running { pid, since_ns, ready_at_ns }, "01050204"),
        (ServiceState::Backoff { next_ns: 4, exit }, "0208000309"),
        (ServiceState::Exited { at_ns, exit }, "0306000309"),
        (stopped(StopHow::Terminated), "04060001000309"),
        (stopped(StopHow::Killed), "04060101000309"),
        (stopped(StopHow::Idle), "04060201000309"),
        (failed(ServiceFailure::ExitedBeforeReady), "05060000"),
        (failed(ServiceFailure::ReadinessTimeout), "05060100"),
        (failed(ServiceFailure::StartCancelled), "05060200"),
        (failed(ServiceFailure::RestartLimit), "05060300"),
        (failed(ServiceFailure::NotStarted), "05060400"),
    ];
    for (state, expected) in states {
        assert_eq!(encoded(&state), expected, "{state:?}");
    }
    let one = service(failed(ServiceFailure::NotStarted));
    assert_eq!(encoded(&one), "03776562010474727565000000020205060400");
    assert_eq!(encoded(&ServiceList { services: Vec::new() }), "00");
    assert_eq!(encoded(&ServiceCounts { services: 3, running: 1 }), "0301");
    let logging = ServiceLogging { service: one, truncated: true };
    assert_eq!(encoded(&logging), "0377656201047472756500000002020506040001");
    let chunk = LogChunk { stream: OutputStream::Stderr, at_ns: -1, data: "hi".into() };
    assert_eq!(encoded(&chunk), "0101026869");
}
