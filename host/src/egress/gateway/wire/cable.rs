//! The other end of a NIC's cable: frames of Ethernet over a socket.
//!
//! ```text
//! length u32, big endian | to [u8; 6] | from [u8; 6] | kind u16 | packet
//! ```
//!
//! So QEMU's `-netdev socket` has it. Its guest may send any frame; what is no
//! packet of IP is dropped, as there is nobody who would hear it.

use super::{Incoming, Outgoing};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use pyro_protocol::Lost;
use pyro_protocol::egress::{GATEWAY_NIC, MTU_MAX, NIC, Packets};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};

const LENGTH: usize = 4;
const HEADER: usize = 14;
const V4: u16 = 0x0800;
const V6: u16 = 0x86dd;

/// QEMU sends none that is longer (`NET_BUFSIZE` in its net/net.h), and drops the
/// guest's that are.
const FRAME_MAX: usize = 4096 + 65536;

const _: () = assert!(MTU_MAX as usize + HEADER <= FRAME_MAX);

/// What is read at once: two of the longest frames.
const READ: usize = 2 * (LENGTH + FRAME_MAX);

/// One end of a cable. Whoever carries packets over it may be dropped in the
/// middle of one; the next goes on there.
#[derive(Debug)]
pub struct Cable {
    socket: UnixStream,
    read: BytesMut,
    unsent: BytesMut,
}

/// What comes from the NIC.
#[derive(Debug)]
pub struct FromNic<'a> {
    socket: ReadHalf<'a>,
    read: &'a mut BytesMut,
}

/// What goes to it.
#[derive(Debug)]
pub struct ToNic<'a> {
    socket: WriteHalf<'a>,
    unsent: &'a mut BytesMut,
}

impl Cable {
    /// The cable behind a socket that the VMM has the other end of.
    #[must_use]
    pub fn new(socket: UnixStream) -> Self {
        Self { socket, read: BytesMut::new(), unsent: BytesMut::new() }
    }

    /// Both directions.
    pub fn split(&mut self) -> (FromNic<'_>, ToNic<'_>) {
        let Self { socket, read, unsent } = self;
        let (from, to) = socket.split();
        (FromNic { socket: from, read }, ToNic { socket: to, unsent })
    }
}

impl Incoming for FromNic<'_> {
    async fn next(&mut self) -> Result<Bytes, Lost> {
        loop {
            while let Some(frame) = take_frame(self.read)? {
                if let Some(packet) = packet(frame) {
                    return Ok(packet);
                }
            }
            self.read.reserve(READ);
            if self.socket.read_buf(self.read).await.map_err(Lost::Io)? == 0 {
                return Err(Lost::Closed);
            }
        }
    }
}

/// The next frame, if all of it is there.
fn take_frame(read: &mut BytesMut) -> Result<Option<Bytes>, Lost> {
    let Some((length, rest)) = read.split_first_chunk::<LENGTH>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > FRAME_MAX {
        let text = format!("the NIC's cable carries a frame of {length} bytes");
        return Err(Lost::Io(io::Error::new(io::ErrorKind::InvalidData, text)));
    }
    if rest.len() < length {
        return Ok(None);
    }
    read.advance(LENGTH);
    Ok(Some(read.split_to(length).freeze()))
}

/// The packet of a frame. What a NIC adds to fill short frames is left out.
fn packet(mut frame: Bytes) -> Option<Bytes> {
    let kind = frame.get(HEADER - 2..HEADER)?;
    if kind != V4.to_be_bytes() && kind != V6.to_be_bytes() {
        return None;
    }
    frame.advance(HEADER);
    let length = Packets::of(&frame).next()?.ok()?.len();
    Some(frame.split_to(length))
}

/// The packets of all frames that are there, as [`FromNic`] takes them.
///
/// # Errors
/// When no frame comes after them.
pub(in super::super) fn decode(bytes: &[u8]) -> Result<Vec<Bytes>, Lost> {
    let mut read = BytesMut::from(bytes);
    let mut packets = Vec::new();
    while let Some(frame) = take_frame(&mut read)? {
        packets.extend(packet(frame));
    }
    Ok(packets)
}

impl Outgoing for ToNic<'_> {
    async fn send(&mut self, packets: &[u8]) -> Result<(), Lost> {
        // The rest of what another was in the middle of.
        self.flush().await?;
        for packet in Packets::of(packets) {
            let packet = packet.map_err(|error| Lost::Io(io::Error::other(error)))?;
            let kind = if packet.first().is_some_and(|first| first >> 4 == 6) { V6 } else { V4 };
            let length = HEADER + packet.len();
            self.unsent.reserve(LENGTH + length);
            // None is longer than a u16 can say.
            self.unsent.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
            self.unsent.put_slice(&NIC);
            self.unsent.put_slice(&GATEWAY_NIC);
            self.unsent.put_u16(kind);
            self.unsent.put_slice(packet);
        }
        self.flush().await
    }
}

impl ToNic<'_> {
    async fn flush(&mut self) -> Result<(), Lost> {
        while !self.unsent.is_empty() {
            self.socket.write_buf(self.unsent).await.map_err(Lost::Io)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::poll;
    use std::pin::pin;
    use std::task::Poll;

    /// A packet of so many bytes altogether.
    fn packet(version: u8, length: usize) -> Vec<u8> {
        let mut packet = vec![0xaa; length];
        packet[0] = version << 4 | 5;
        let (at, said) = if version == 4 { (2, length) } else { (4, length - 40) };
        packet[at..at + 2].copy_from_slice(&u16::try_from(said).unwrap().to_be_bytes());
        packet
    }

    fn frame(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut frame = u32::try_from(HEADER + body.len()).unwrap().to_be_bytes().to_vec();
        frame.extend(GATEWAY_NIC);
        frame.extend(NIC);
        frame.extend(kind.to_be_bytes());
        frame.extend(body);
        frame
    }

    fn cable() -> (Cable, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Cable::new(ours), theirs)
    }

    #[tokio::test]
    async fn packets_come_whole_however_they_were_cut() {
        let (mut cable, mut nic) = cable();
        let sent = [packet(4, 20), packet(6, 40), packet(4, MTU_MAX.into()), packet(6, 1500)];
        let bytes: Vec<u8> = sent
            .iter()
            .flat_map(|packet| frame(if packet[0] >> 4 == 4 { V4 } else { V6 }, packet))
            .collect();
        let write = async {
            for piece in bytes.chunks(977) {
                nic.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let read = async {
            for packet in &sent {
                // Whoever waited is dropped again and again, and nothing is lost.
                let whole = loop {
                    let waiting = async {
                        let (mut from, _) = cable.split();
                        from.next().await.unwrap()
                    };
                    if let Poll::Ready(whole) = poll!(pin!(waiting)) {
                        break whole;
                    }
                    tokio::task::yield_now().await;
                };
                assert_eq!(whole, packet);
            }
        };
        tokio::join!(write, read);
    }

    #[tokio::test]
    async fn s7_what_is_no_packet_is_dropped_and_the_next_is_heard() {
        let (mut cable, mut nic) = cable();
        let mut padded = packet(4, 28);
        padded.extend([0; 18]);
        let mut cut = packet(4, 28);
        cut.truncate(27);
        let frames = [
            frame(0x0806, &[1; 28]),
            frame(V4, &[]),
            frame(V4, &cut),
            frame(V6, &[0x60; 39]),
            vec![0, 0, 0, 0],
            vec![0, 0, 0, 3, 1, 2, 3],
            frame(V4, &padded),
        ];
        nic.write_all(&frames.concat()).await.unwrap();
        let (mut from, _) = cable.split();
        assert_eq!(from.next().await.unwrap(), packet(4, 28));
        drop(nic);
        assert!(matches!(from.next().await, Err(Lost::Closed)));
    }

    #[tokio::test]
    async fn s7_a_frame_without_end_is_refused_before_it_is_read() {
        let (mut cable, mut nic) = cable();
        let length = u32::try_from(FRAME_MAX + 1).unwrap();
        nic.write_all(&length.to_be_bytes()).await.unwrap();
        let (mut from, _) = cable.split();
        let error = from.next().await.unwrap_err();
        assert!(matches!(&error, Lost::Io(error) if error.kind() == io::ErrorKind::InvalidData));
    }

    #[tokio::test]
    async fn packets_leave_whole_though_their_sender_is_dropped_midway() {
        let (mut cable, nic) = cable();
        let long = packet(4, MTU_MAX.into());
        let batch = [packet(6, 60), packet(4, 20)].concat();
        // Nobody reads yet: it stands in the middle of a frame at last.
        let stuck = async {
            let (_, mut to) = cable.split();
            loop {
                to.send(&long).await.unwrap();
            }
        };
        assert!(poll!(pin!(stuck)).is_pending());
        let mut far = Cable::new(nic);
        let (mut from, _) = far.split();
        let send = async {
            let (_, mut to) = cable.split();
            to.send(&batch).await.unwrap();
        };
        let hear = async {
            loop {
                let heard = from.next().await.unwrap();
                if heard != long {
                    break heard;
                }
            }
        };
        let ((), first) = tokio::join!(send, hear);
        assert_eq!(first, packet(6, 60));
        assert_eq!(from.next().await.unwrap(), packet(4, 20));
    }

    proptest::proptest! {
        /// Whatever bytes come, decoding ends, and gives whole packets only.
        #[test]
        fn s4_any_bytes_are_decoded(bytes: Vec<u8>) {
            for packet in decode(&bytes).into_iter().flatten() {
                let whole = Packets::of(&packet).map(|packet| packet.unwrap().len());
                proptest::prop_assert_eq!(whole.collect::<Vec<_>>(), [packet.len()]);
            }
        }
    }
}
