//! Of services.

use super::{byte_string, exit, guest_path, output_stream, start_process};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use pyro_protocol::Call;
use pyro_protocol::service::{
    CountServices, HttpUrl, ListServices, LogChunk, Probe, Readiness, RemoveService, Restart,
    RestartService, Service, ServiceCounts, ServiceFailure, ServiceList, ServiceLogging,
    ServiceLogs, ServiceName, ServiceState, ServiceStatus, StartService, StopHow, StopService,
    TcpAddress,
};
use std::net::{IpAddr, SocketAddr};

pub fn service_name() -> impl Strategy<Value = ServiceName> {
    "[A-Za-z0-9][A-Za-z0-9._-]{0,63}".prop_map(|name| name.parse().expect("a name"))
}

pub fn tcp_address() -> impl Strategy<Value = TcpAddress> {
    (any::<IpAddr>(), 1..=u16::MAX)
        .prop_map(|(ip, port)| SocketAddr::new(ip, port).to_string().parse().expect("an address"))
}

pub fn http_url() -> impl Strategy<Value = HttpUrl> {
    (tcp_address(), "(/[!\"$-~]{0,20})?")
        .prop_map(|(address, path)| format!("http://{address}{path}").parse().expect("a URL"))
}

pub fn readiness() -> impl Strategy<Value = Readiness> {
    let probe = prop_oneof![
        guest_path().prop_map(Probe::File),
        tcp_address().prop_map(Probe::Tcp),
        http_url().prop_map(Probe::Http),
        vec(byte_string(), 0..4).prop_map(Probe::Command),
    ];
    (probe, any::<u32>(), any::<u32>()).prop_map(|(probe, interval_ms, timeout_ms)| Readiness {
        probe,
        interval_ms,
        timeout_ms,
    })
}

fn restart() -> impl Strategy<Value = Restart> {
    prop_oneof![
        Just(Restart::Never),
        any::<u32>().prop_map(|limit| Restart::OnFailure { limit }),
        any::<u32>().prop_map(|limit| Restart::Always { limit }),
    ]
}

fn start_service() -> impl Strategy<Value = StartService> {
    (service_name(), start_process(), option::of(readiness()), restart()).prop_map(
        |(name, program, readiness, restart)| StartService { name, program, readiness, restart },
    )
}

fn service_state() -> impl Strategy<Value = ServiceState> {
    let how = prop_oneof![Just(StopHow::Terminated), Just(StopHow::Killed), Just(StopHow::Idle)];
    let reason = prop_oneof![
        Just(ServiceFailure::ExitedBeforeReady),
        Just(ServiceFailure::ReadinessTimeout),
        Just(ServiceFailure::StartCancelled),
        Just(ServiceFailure::RestartLimit),
        Just(ServiceFailure::NotStarted),
    ];
    prop_oneof![
        any::<(u32, i64)>().prop_map(|(pid, since_ns)| ServiceState::Starting { pid, since_ns }),
        any::<(u32, i64, i64)>().prop_map(|(pid, since_ns, ready_at_ns)| ServiceState::Running {
            pid,
            since_ns,
            ready_at_ns
        }),
        (any::<i64>(), exit()).prop_map(|(next_ns, exit)| ServiceState::Backoff { next_ns, exit }),
        (any::<i64>(), exit()).prop_map(|(at_ns, exit)| ServiceState::Exited { at_ns, exit }),
        (any::<i64>(), how, option::of(exit()))
            .prop_map(|(at_ns, how, exit)| ServiceState::Stopped { at_ns, how, exit }),
        (any::<i64>(), reason, option::of(exit()))
            .prop_map(|(at_ns, reason, exit)| ServiceState::Failed { at_ns, reason, exit }),
    ]
}

pub fn service() -> impl Strategy<Value = Service> {
    let what = (service_name(), vec(byte_string(), 0..4), option::of(guest_path()));
    let how = (option::of(readiness()), restart(), any::<(i64, u32)>(), service_state());
    (what, how).prop_map(
        |((name, argv, cwd), (readiness, restart, (started_at_ns, restarts), state))| Service {
            name,
            argv,
            cwd,
            readiness,
            restart,
            started_at_ns,
            restarts,
            state,
        },
    )
}

pub fn service_list() -> impl Strategy<Value = ServiceList> {
    vec(service(), 0..3).prop_map(|services| ServiceList { services })
}

pub fn service_counts() -> impl Strategy<Value = ServiceCounts> {
    any::<(u32, u32)>().prop_map(|(services, running)| ServiceCounts { services, running })
}

pub fn service_logging() -> impl Strategy<Value = ServiceLogging> {
    (service(), any::<bool>())
        .prop_map(|(service, truncated)| ServiceLogging { service, truncated })
}

pub fn log_chunk() -> impl Strategy<Value = LogChunk> {
    (output_stream(), any::<i64>(), byte_string()).prop_map(|(stream, at_ns, data)| LogChunk {
        stream,
        at_ns,
        data,
    })
}

pub fn service_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        start_service().prop_map(Call::StartService),
        Just(Call::ListServices(ListServices)),
        Just(Call::CountServices(CountServices)),
        service_name().prop_map(|name| Call::ServiceStatus(ServiceStatus { name })),
        (service_name(), option::of(any::<u32>()), any::<bool>()).prop_map(
            |(name, tail_lines, follow)| Call::ServiceLogs(ServiceLogs {
                name,
                tail_lines,
                follow
            })
        ),
        (service_name(), any::<u32>())
            .prop_map(|(name, grace_ms)| Call::StopService(StopService { name, grace_ms })),
        (service_name(), any::<u32>())
            .prop_map(|(name, grace_ms)| Call::RestartService(RestartService { name, grace_ms })),
        (service_name(), any::<u32>())
            .prop_map(|(name, grace_ms)| Call::RemoveService(RemoveService { name, grace_ms })),
    ]
}
