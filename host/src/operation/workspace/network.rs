//! Operations on a workspace's network.

mod allow;
mod deny;
mod explain;
mod remove;
mod status;

pub use allow::NetworkAllow;
pub use deny::NetworkDeny;
pub use explain::{NetworkExplain, NetworkExplainAnswer};
pub use remove::NetworkRemove;
pub use status::{NetworkRuleEntry, NetworkStatus, NetworkStatusAnswer};
