//! Bytes through `pyro run` next to bytes through a bare stream of the same
//! guest's channel.
//!
//! Both end in the same agent, cross the same multiplexer, VMM, supervisor and
//! Unix socket. The bare stream begins and ends in the agent itself: no frames,
//! no calls, no program in the guest, no `pyro` on the host. The other begins
//! in a program's pipe and ends in `pyro`'s standard output, or the other way
//! round. Time runs from the first byte to the last, so that starting the
//! program is not counted.
//!
//! A pipe between two programs of the guest is measured too: on one virtual
//! processor its time adds to the stream's, and that sum is what the best
//! conceivable `pyro` would take.

use crate::Result;
use crate::guest::Guest;
use crate::report::{Figure, Goal, Row};
use crate::sample::{Pairs, Series};
use pyro_protocol::{SINK_PORT, SOURCE_PORT};
use pyro_smoke::Home;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

const PAIRS: usize = 9;

/// Moved at each measurement.
const MIB: usize = 64;
const BYTES: usize = MIB << 20;

/// What the host reads and writes at once.
const CHUNK: usize = 64 << 10;

/// Does what it is told, with as few system calls as a program would that moves
/// bytes in bulk.
const PROGRAM: &str = "echo ready
while read -r verb blocks; do case $verb in
    give) dd if=/dev/zero bs=64k count=$blocks status=none;;
    pipe) dd if=/dev/zero bs=64k count=$blocks status=none | dd of=/dev/null bs=64k status=none; echo done;;
    take) echo now; dd of=/dev/null bs=64k count=$blocks iflag=fullblock status=none; echo done;;
esac; done";

pub fn measure(home: &Home) -> Result<Vec<Figure>> {
    let mut guest = Guest::start(home, &["sh", "-c", PROGRAM])?;
    let mut source = guest.connect(SOURCE_PORT)?;
    let mut sink = guest.connect(SINK_PORT)?;
    let (mut out, mut into) = (Pairs::default(), Pairs::default());
    let mut pipe = Series::default();
    for round in 0..=PAIRS {
        let (ours, bare) = (give(&mut guest)?, bare_source(&mut source, BYTES)?);
        let (ours_in, bare_in) = (take(&mut guest)?, bare_sink(&mut sink)?);
        let piped = through_a_pipe(&mut guest)?;
        // The first round warms the emulator's translations up.
        if round > 0 {
            out.ours.push(ours);
            out.floor.push(bare);
            into.ours.push(ours_in);
            into.floor.push(bare_in);
            pipe.push(piped);
        }
    }
    Ok(vec![
        figure(
            "Bytes out of the guest",
            "a program's output through `pyro run`",
            "out of the agent",
            out,
            &pipe,
        ),
        figure(
            "Bytes into the guest",
            "a program's input through `pyro run`",
            "into the agent",
            into,
            &pipe,
        ),
    ])
}

fn figure(title: &'static str, ours: &str, bare: &str, pairs: Pairs, pipe: &Series) -> Figure {
    let one_after_another = 1.0 / (1.0 / pairs.floor.median() + 1.0 / pipe.median());
    let note = format!("median of the {PAIRS} pairwise ratios: {:.3}", pairs.median_of_ratios());
    let reachable = format!(
        "{:.3} of what stream and pipe one after the other allow, {one_after_another:.2} MiB/s",
        pairs.ours.median() / one_after_another
    );
    Figure {
        title,
        goal: Goal::at_least(pairs.ratio_of_medians(), 0.8, ""),
        rows: vec![
            Row::new(ours, "MiB/s", pairs.ours),
            Row::new(&format!("a bare stream {bare}"), "MiB/s", pairs.floor),
            Row::new(
                "for comparison, a pipe between two programs in the guest",
                "MiB/s",
                pipe.clone(),
            ),
        ],
        notes: vec![note, reachable],
    }
}

/// MiB a second.
pub fn rate(started: Instant, bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20) / started.elapsed().as_secs_f64()
}

fn give(guest: &mut Guest) -> Result<f64> {
    guest.say(&format!("give {}\n", BYTES / CHUNK))?;
    swallow(&mut guest.stdout, BYTES)
}

/// Four times as much, for the start of the two programs counts here.
fn through_a_pipe(guest: &mut Guest) -> Result<f64> {
    let started = Instant::now();
    guest.say(&format!("pipe {}\n", 4 * BYTES / CHUNK))?;
    guest.hear()?;
    Ok(rate(started, 4 * BYTES))
}

/// So many bytes out of a stream that begins in the agent.
pub fn bare_source(source: &mut UnixStream, bytes: usize) -> Result<f64> {
    source.write_all(&(bytes as u64).to_le_bytes())?;
    swallow(source, bytes)
}

/// Reads all of it, and counts from the first of it.
pub fn swallow(from: &mut impl Read, bytes: usize) -> Result<f64> {
    let mut chunk = vec![0; CHUNK];
    let first = from.read(&mut chunk)?;
    let started = Instant::now();
    let mut left = bytes - first;
    while left > 0 {
        let length = from.read(&mut chunk[..left.min(CHUNK)])?;
        if length == 0 {
            return Err("a stream ended early".into());
        }
        left -= length;
    }
    Ok(rate(started, bytes - first))
}

fn take(guest: &mut Guest) -> Result<f64> {
    guest.say(&format!("take {}\n", BYTES / CHUNK))?;
    guest.hear()?;
    let started = Instant::now();
    pour(&mut guest.stdin)?;
    guest.hear()?;
    Ok(rate(started, BYTES))
}

fn bare_sink(sink: &mut UnixStream) -> Result<f64> {
    sink.write_all(&(BYTES as u64).to_le_bytes())?;
    let started = Instant::now();
    pour(sink)?;
    sink.read_exact(&mut [0])?;
    Ok(rate(started, BYTES))
}

fn pour(to: &mut impl Write) -> Result<()> {
    let chunk = vec![0; CHUNK];
    for _ in 0..BYTES / CHUNK {
        to.write_all(&chunk)?;
    }
    Ok(())
}
