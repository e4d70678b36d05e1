//! The guest's network: the NIC that the machine has, or a TUN device whose
//! packets travel on a connection.

mod interface;
mod nic;
mod resolver;
mod tun;

use crate::guest::{Guest, Machine};
use crate::server::Connection;
use nic::Nic;
use pyro_protocol::carry::{Carry, Fetch};
use pyro_protocol::egress::{BATCH, GatewayOpened, MTU_MAX, OpenGateway, Packets};
use pyro_protocol::{AgentError, AgentErrorKind, FrameKind, FrameReader, FrameWriter, Lost};
use resolver::Resolver;
use std::io;
use std::net::Ipv4Addr;
use tun::Tun;

/// What the kernel takes for its network.
enum Device {
    /// Its packets go by way of the connection.
    Tun(Tun),
    /// Its packets go their own way.
    Nic(Nic),
}

/// Answers `OpenGateway`, and keeps the network, with its packets where they go
/// by way of the connection, until the host closes.
pub(crate) async fn run<R: Fetch, W: Carry>(
    guest: &Guest,
    call: OpenGateway,
    connection: &mut Connection<R, W>,
) -> Result<(), Lost> {
    let device = match open(guest, call) {
        Ok(device) => device,
        Err(error) => return connection.reply::<GatewayOpened>(Err(error)).await,
    };
    let names = match &guest.machine {
        Machine::Virtual { .. } => {
            Some(Resolver::point_to(&[call.gateway_v4.into(), call.gateway_v6.into()]))
        }
        Machine::InProcess { .. } => None,
    };
    connection.reply(Ok(GatewayOpened)).await?;
    let carried = match &device {
        Device::Tun(tun) => tokio::select! {
            ended = to_guest(&mut connection.reader, tun) => ended,
            ended = to_host(tun, &mut connection.writer) => ended,
        },
        Device::Nic(nic) => tokio::select! {
            ended = silence(&mut connection.reader) => ended,
            lowered = nic.lowered() => lowered.map_err(Lost::Io),
        },
    };
    drop(names);
    // The host's end is how a network ends.
    match carried {
        Err(Lost::Closed) => Ok(()),
        other => other,
    }
}

/// Waits for the end of a connection on which nothing is to come.
async fn silence<R: Fetch>(reader: &mut FrameReader<R>) -> Result<(), Lost> {
    let frame = reader.next().await?;
    Err(Lost::OutOfPlace { got: frame.kind, wanted: "nothing" })
}

fn open(guest: &Guest, call: OpenGateway) -> Result<Device, AgentError> {
    guest.require_activated()?;
    let invalid = |text: String| AgentError::new(AgentErrorKind::InvalidArgument, text);
    if !(1280..=MTU_MAX).contains(&call.mtu) {
        return Err(invalid(format!("an MTU of {}", call.mtu)));
    }
    if call.guest_v4 == Ipv4Addr::UNSPECIFIED || call.guest_v6.is_unspecified() {
        return Err(invalid("a guest's address is missing".into()));
    }
    match &guest.machine {
        Machine::Virtual { .. } => {
            let opened = match call.nic {
                Some(address) => Nic::raise(address, &call).map(Device::Nic),
                None => Tun::open(&call).map(Device::Tun),
            };
            opened.map_err(|error| {
                let busy = error.raw_os_error() == Some(libc::EBUSY);
                let kind = if busy { AgentErrorKind::WrongState } else { AgentErrorKind::System };
                AgentError::new(kind, format!("the network cannot be opened: {error}"))
            })
        }
        Machine::InProcess { wire: Some(wire), .. } => {
            wire.open().and_then(Tun::over).map(Device::Tun).map_err(|error| {
                AgentError::new(AgentErrorKind::System, format!("the wire is cut: {error}"))
            })
        }
        Machine::InProcess { wire: None, .. } => {
            let text = "a guest without a machine has no network of its own";
            Err(AgentError::new(AgentErrorKind::Unsupported, text))
        }
    }
}

/// Hands what comes from the host to the kernel.
async fn to_guest<R: Fetch>(reader: &mut FrameReader<R>, tun: &Tun) -> Result<(), Lost> {
    loop {
        let frame = reader.next().await?;
        if frame.kind != FrameKind::Data {
            return Err(Lost::OutOfPlace { got: frame.kind, wanted: "Data" });
        }
        for packet in Packets::of(&frame.payload) {
            let packet = packet.map_err(|error| Lost::Io(io::Error::other(error)))?;
            // What the kernel does not want is lost, as on any network.
            drop(tun.send(packet));
        }
    }
}

/// Sends what the guest's programs say, as many packets at a time as there are.
async fn to_host<W: Carry>(tun: &Tun, writer: &mut FrameWriter<W>) -> Result<(), Lost> {
    const LONGEST: usize = MTU_MAX as usize;
    // What does not fit any more goes alone, from where it was read to.
    let mut batch = vec![0; BATCH + LONGEST];
    loop {
        let mut filled = tun.receive(&mut batch[..LONGEST]).await.map_err(Lost::Io)?;
        while filled < BATCH {
            let room = filled..filled + LONGEST;
            match tun.pending(&mut batch[room]).map_err(Lost::Io)? {
                Some(length) if filled + length <= BATCH => filled += length,
                Some(length) => {
                    writer.send_raw(FrameKind::Data, &batch[..filled]).await?;
                    batch.copy_within(filled..filled + length, 0);
                    filled = length;
                }
                None => break,
            }
        }
        writer.send_raw(FrameKind::Data, &batch[..filled]).await?;
    }
}
