use super::*;
use pyro_protocol::kept::OutputStream;
use pyro_protocol::process::Exit;
use pyro_protocol::process::Outcome;
use tokio::io::DuplexStream;

type Ends = (FrameReader<ReadHalf<DuplexStream>>, FrameWriter<WriteHalf<DuplexStream>>);

/// One who sits at a terminal, and the guest's end of it.
fn seat() -> (Attached<DuplexStream>, Ends) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let ends = |stream| {
        let (reader, writer) = tokio::io::split(stream);
        (FrameReader::new(reader), FrameWriter::new(writer))
    };
    let (reader, writer) = ends(ours);
    (Attached { reader, writer }, ends(theirs))
}

/// What becomes of a seat whose guest sends this, while nobody does anything.
async fn told<F>(guest: impl FnOnce(Ends) -> F) -> Result<Option<Exit>>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (attached, ends) = seat();
    let guest = tokio::spawn(guest(ends));
    let (_acts, receiver) = mpsc::channel(1);
    let told = attached.sit(receiver, |_| std::future::ready(())).await;
    guest.abort();
    told
}

#[tokio::test]
async fn s1_a_terminal_that_is_none_is_refused() {
    let exit = Exit { outcome: Outcome::Exited { code: 7 }, took_us: 1 };
    let good = told(async move |(_reader, mut writer)| {
        writer.send_raw(FrameKind::Stdout, b"hello").await.unwrap();
        writer.send(FrameKind::Exit, &exit).await.unwrap();
    });
    assert_eq!(good.await.unwrap(), Some(exit));
    let greedy = told(async |(_reader, mut writer)| {
        writer.send(FrameKind::StdinTaken, &StdinTaken { bytes: 1 }).await.unwrap();
    });
    assert_eq!(greedy.await.unwrap_err().kind(), ErrorKind::Protocol);
    for kind in [FrameKind::Stderr, FrameKind::Data, FrameKind::Reply, FrameKind::Stdin] {
        let strange = told(async move |(_reader, mut writer)| {
            writer.send_raw(kind, b"hello").await.unwrap();
        });
        assert_eq!(strange.await.unwrap_err().kind(), ErrorKind::Protocol, "{kind:?}");
    }
    for kind in [FrameKind::Exit, FrameKind::Skipped, FrameKind::StdinTaken] {
        let garbled = told(async move |(_reader, mut writer)| {
            writer.send_raw(kind, &[0xff; 3]).await.unwrap();
        });
        assert_eq!(garbled.await.unwrap_err().kind(), ErrorKind::Protocol, "{kind:?}");
    }
    let cut = told(async |ends| drop(ends));
    assert_eq!(cut.await.unwrap_err().kind(), ErrorKind::GuestLost);
}

/// A guest that reads nothing gets no more than its window, and signals all the
/// same.
#[tokio::test]
async fn r17_keys_wait_here_for_a_shell_that_does_not_read() {
    let (attached, (mut reader, mut writer)) = seat();
    let (acts, receiver) = mpsc::channel(1);
    let sitting = tokio::spawn(attached.sit(receiver, |_| std::future::ready(())));
    acts.send(Act::Type(vec![b'x'; 2 * STDIN_WINDOW])).await.unwrap();
    acts.send(Act::Signal(2)).await.unwrap();
    let (mut typed, mut signalled) = (0, false);
    while typed < STDIN_WINDOW || !signalled {
        let frame = reader.next().await.unwrap();
        match frame.kind == FrameKind::Stdin {
            true => typed += frame.payload.len(),
            false => signalled = frame.kind == FrameKind::Signal,
        }
    }
    assert_eq!(typed, STDIN_WINDOW);
    writer.send(FrameKind::StdinTaken, &StdinTaken { bytes: 100 }).await.unwrap();
    assert_eq!(reader.next().await.unwrap().payload.len(), 100);
    // Nobody acts any more.
    drop(acts);
    assert_eq!(sitting.await.unwrap().unwrap(), None);
}

/// Half a sequence before a gap does not swallow what comes after it.
#[tokio::test]
async fn r22_a_gap_ends_the_sequence_that_it_cuts() {
    let (attached, (_reader, mut writer)) = seat();
    let skipped = Skipped { stream: OutputStream::Stdout, bytes: 9 };
    let exit = Exit { outcome: Outcome::Exited { code: 0 }, took_us: 1 };
    writer.send_raw(FrameKind::Stdout, b"a\x1b]0;a titl").await.unwrap();
    writer.send(FrameKind::Skipped, &skipped).await.unwrap();
    writer.send_raw(FrameKind::Stdout, b"b").await.unwrap();
    writer.send(FrameKind::Exit, &exit).await.unwrap();
    let mut seen = Vec::new();
    let (_acts, receiver) = mpsc::channel(1);
    let sitting = attached.sit(receiver, |bytes| {
        seen.extend(bytes);
        std::future::ready(())
    });
    sitting.await.unwrap();
    let size = TerminalSize { cols: 10, rows: 2 };
    assert_eq!(crate::workspace::screen::look(&seen, 0, size, 100).text, "ab\n");
}
