//! Operations on a workspace's services.

mod list;
mod logs;
mod remove;
mod report;
mod restart;
mod start;
mod status;
mod stop;

pub use list::{ServiceList, ServiceListAnswer};
pub use logs::{ServiceLogs, ServiceLogsAnswer};
pub use remove::{ServiceRemove, ServiceRemoved};
pub use report::{ReadinessReport, RestartPolicy, ServiceReport, ServiceReportState, StopReason};
pub use restart::ServiceRestart;
pub use start::{ServiceStart, ServiceStartAnswer};
pub use status::ServiceStatus;
pub use stop::ServiceStop;

use crate::operation::argument::Number;
use std::time::Duration;

/// How long a service may take to obey TERM before it gets KILL.
pub type GraceSeconds = Number<0, 5, 600>;

fn grace(seconds: GraceSeconds) -> Duration {
    Duration::from_secs(seconds.get().into())
}
