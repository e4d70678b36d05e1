//! THE table of orders: what can be asked of a supervisor, and what comes of it.

use super::control::Reply;
use crate::published::{Mapping, Published};
use crate::vmm::Metrics;
use pyro_protocol::service::ServiceName;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::num::NonZeroU16;
use std::path::PathBuf;

/// An order as its giver sees it: what to say and what comes of it.
pub trait Order: Into<AnyOrder> {
    /// What comes of it when all went well.
    type Outcome: Serialize + DeserializeOwned;
}

macro_rules! orders {
    ($($order:ident -> $outcome:ty;)*) => {
        /// Any order, as it goes over the socket.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum AnyOrder {
            $(
                #[doc = concat!("See [`", stringify!($order), "`].")]
                $order($order),
            )*
        }

        /// An order that has arrived, and whoever waits for what comes of it.
        pub enum Ordered {
            $(
                #[doc = concat!("See [`", stringify!($order), "`].")]
                $order($order, Reply<$order>),
            )*
        }

        impl Ordered {
            pub(super) fn new(order: AnyOrder, client: tokio::net::UnixStream) -> Self {
                match order {
                    $(AnyOrder::$order(order) => Self::$order(order, Reply::to(client)),)*
                }
            }
        }

        $(
            impl From<$order> for AnyOrder {
                fn from(order: $order) -> Self {
                    Self::$order(order)
                }
            }

            impl Order for $order {
                type Outcome = $outcome;
            }
        )*
    };
}

orders! {
    Stop -> Stopped;
    Kill -> ();
    ReadTtl -> ();
    ReadNetwork -> ();
    ReadSecrets -> ();
    Pause -> Paused;
    Resume -> Resumed;
    ReadMetrics -> Metrics;
    Publish -> PortPublished;
    Unpublish -> Vec<Published>;
    ListPorts -> Vec<Published>;
    ClaimPorts -> ClaimId;
    SettlePorts -> Vec<Published>;
    CopyDisk -> DiskCopied;
}

/// Power the guest off in good order, and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// How long its processes may take to obey TERM.
    pub grace_ms: u32,
}

/// The guest is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Whether its disk was made consistent before.
    pub clean: bool,
}

/// Kill the guest, and end: nobody needs its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill;

/// The workspace's record says something else of how long it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadTtl;

/// The workspace's record says something else of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadNetwork;

/// The workspace's secrets are others: hand them to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadSecrets;

/// Make the guest stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause;

/// The guest stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Whether it did before.
    pub already: bool,
}

/// Let the guest go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume;

/// The guest goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// Whether it did before.
    pub already: bool,
    /// Why its clock is late, if it is.
    pub clock_is_late: Option<String>,
}

/// Copy the guest's disk while the guest stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyDisk {
    /// The disk.
    pub from: PathBuf,
    /// Where the copy is to be; nothing is there yet.
    pub to: PathBuf,
}

/// The disk is copied, and the guest goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskCopied {
    /// Whether the copy shares its blocks with the disk.
    pub by_reference: bool,
    /// How long the guest stood still for it.
    pub still_ms: u64,
}

/// Say what the VMM has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMetrics;

/// Let programs of the host connect to a TCP port of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// The port in the guest.
    pub guest_port: NonZeroU16,
    /// The port on the host; any free one if not said.
    pub host_port: Option<NonZeroU16>,
}

/// A port is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortPublished {
    /// Where.
    pub port: Published,
    /// Whether it was before.
    pub already: bool,
}

/// Let them no more. Says which were published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpublish {
    /// The port in the guest.
    pub guest_port: NonZeroU16,
    /// The port on the host; all if not said.
    pub host_port: Option<NonZeroU16>,
}

/// Say what is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPorts;

/// See to the ports of a service that is about to start or to end. What comes of
/// that is told by [`SettlePorts`]; whoever leaves before has told [`Became::Over`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimPorts {
    /// Which service.
    pub service: ServiceName,
    /// What is about to happen to it.
    pub fate: Fate,
}

/// What is about to happen to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It starts: these are published, all or none.
    Start(Vec<Mapping>),
    /// It starts again: what it was started with is published.
    Restart,
    /// It ends: what it has is published until it has.
    End,
}

/// Which claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClaimId(pub u64);

/// Leave published what a service has now. Says what that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettlePorts {
    /// Who claimed it.
    pub claim: ClaimId,
    /// What became of the service.
    pub became: Became,
}

/// What became of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Became {
    /// It was ready: it has what it was started with, and nothing else.
    Ready,
    /// It is over, or never was ready: it has nothing until it starts again.
    Over,
    /// It is not there any more.
    Gone,
    /// Nothing became of it: it has what it had before the claim.
    Unchanged,
}
