//! Operations on a workspace's published ports.

mod list;
mod publish;
mod unpublish;

pub use list::PortList;
pub use publish::PortPublish;
pub use unpublish::PortUnpublish;

use crate::id::WorkspaceId;
use crate::operation::{Answer, Page};
use crate::published::{HOST, Published};
use anstyle::Style;
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt::{self, Write};

/// Ports of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PortsAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// How many there are.
    pub count: usize,
    /// Each of them.
    pub published_ports: Vec<PublishedPort>,
}

/// A TCP port of a workspace's guest, and where the host finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PublishedPort {
    /// The address on the host: 127.0.0.1.
    pub host: String,
    /// The port on the host.
    pub host_port: u16,
    /// The port in the guest.
    pub guest_port: u16,
    /// `tcp`.
    pub protocol: &'static str,
    /// The service that it was published for; null for none.
    pub service_name: Option<String>,
}

impl From<Published> for PublishedPort {
    fn from(Published { host_port, guest_port, service }: Published) -> Self {
        let (host_port, guest_port) = (host_port.get(), guest_port.get());
        let service_name = service.map(Into::into);
        Self { host: HOST.to_string(), host_port, guest_port, protocol: "tcp", service_name }
    }
}

impl PublishedPort {
    /// In a few words, without its service.
    pub(super) fn connection(&self) -> String {
        let Self { host, host_port, guest_port, protocol, service_name: _ } = self;
        format!("{guest_port}/{protocol} on {host}:{host_port}")
    }
}

impl PortsAnswer {
    fn of(workspace: WorkspaceId, ports: Vec<Published>) -> Self {
        let published_ports: Vec<_> = ports.into_iter().map(PublishedPort::from).collect();
        let count = published_ports.len();
        Self { workspace_id: workspace.to_string(), count, published_ports }
    }
}

impl Answer for PortsAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        if self.published_ports.is_empty() {
            return writeln!(page, "No published ports.");
        }
        let bold = Style::new().bold();
        let heading = ["HOST", "GUEST", "SERVICE"].map(|cell| page.paint(bold, cell));
        let rows = self.published_ports.iter().map(|port| {
            let PublishedPort { host, host_port, guest_port, protocol, service_name } = port;
            let service = service_name.clone().unwrap_or_default();
            [format!("{host}:{host_port}"), format!("{guest_port}/{protocol}"), service]
        });
        let rows: Vec<_> = std::iter::once(heading).chain(rows).collect();
        page.table(&rows)
    }
}
