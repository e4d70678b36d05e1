//! Guests that do not come up, and guests that go.

use crate::fake_vmm::{FakeVmm, serve_agent, serve_channel};
use crate::home::{DEADLINES, Home, run_shell};
use futures::future::pending;
use pyro::{Context, Error, ErrorKind, Pyro};
use std::time::{Duration, Instant};

async fn fail(home: &Home, pyro: &Pyro) -> (Error, Duration) {
    let started = Instant::now();
    let error = run_shell(pyro, "sleep 1000", Context::default()).await.expect_err("no guest");
    home.assert_nothing_left();
    (error, started.elapsed())
}

#[tokio::test]
async fn a_guest_that_never_speaks_has_a_deadline() {
    let home = Home::new();
    let silent = FakeVmm::new(|inside| async move {
        let _kept = inside;
        pending().await
    });
    let deadlines = pyro::Deadlines { tcg_boot: Duration::from_secs(1), ..DEADLINES };
    let pyro = Pyro { deadlines, ..home.pyro(silent) };
    let (error, took) = fail(&home, &pyro).await;
    assert_eq!(error.kind(), ErrorKind::BootFailed);
    assert_eq!(error.message(), "the guest did not come up within 1 s; its console stayed silent");
    assert!(error.next_step().is_some_and(|hint| hint.contains("pyro doctor")));
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(6), "{took:?}");
}

/// A kernel that is quiet and hangs leaves nothing to go by, so it is asked to
/// talk.
#[tokio::test]
async fn a_boot_that_fails_in_silence_is_tried_again_aloud() {
    let home = Home::new();
    let hangs = FakeVmm::new(|mut inside| async move {
        if inside.verbose {
            inside.print("VFS: Unable to mount root fs\n");
        }
        let _kept = inside;
        pending().await
    });
    let deadlines = pyro::Deadlines { tcg_boot: Duration::from_secs(1), ..DEADLINES };
    let pyro = Pyro { deadlines, ..home.pyro(hangs) };
    let (error, _) = fail(&home, &pyro).await;
    assert_eq!(error.kind(), ErrorKind::BootFailed);
    assert!(error.chain().contains("Unable to mount root"), "{}", error.chain());
}

/// What a kernel's last words were is what a person needs.
#[tokio::test]
async fn a_boot_that_fails_shows_the_end_of_the_console() {
    let home = Home::new();
    let panics = FakeVmm::new(|mut inside| async move {
        for line in 0..100 {
            inside.print(&format!("line {line}\r\n"));
        }
        inside.print("\x1b[31mKernel panic\x1b[0m - not syncing\u{202e}\n");
        "exited with status 0".into()
    });
    let (error, _) = fail(&home, &home.pyro(panics)).await;
    assert_eq!(error.kind(), ErrorKind::BootFailed);
    let message = error.chain();
    assert!(message.contains("the VMM exited with status 0 while the guest booted"), "{message}");
    assert!(message.contains("line 99") && !message.contains("line 80"), "{message}");
    assert!(message.contains("Kernel panic"), "{message}");
    assert!(!message.contains(['\x1b', '\r', '\u{202e}']), "{message:?}");
}

/// The two ends are noticed in any order; the answer is the same.
#[tokio::test]
async fn a_vmm_that_dies_at_once_says_how_and_why() {
    let home = Home::new();
    for _ in 0..20 {
        let dies = FakeVmm::new(|mut inside| async move {
            inside.print("qemu: could not open the disk\n");
            drop(inside.channel);
            "exited with status 1".into()
        });
        let (error, _) = fail(&home, &home.pyro(dies)).await;
        assert_eq!(error.kind(), ErrorKind::BootFailed);
        assert!(error.chain().contains("the VMM exited with status 1"), "{}", error.chain());
        assert!(error.chain().contains("could not open the disk"), "{}", error.chain());
    }
}

#[tokio::test]
async fn a_vmm_that_dies_between_announcing_and_activating() {
    let home = Home::new();
    let dies = FakeVmm::new(|inside| async move {
        let unheard = |stream, _| async move {
            let _kept: pyro_protocol::channel::Stream = stream;
            pending().await
        };
        tokio::select! {
            how = serve_channel(inside.channel, unheard) => how,
            () = tokio::time::sleep(Duration::from_millis(200)) => "was killed by signal 11".into(),
        }
    });
    let (error, took) = fail(&home, &home.pyro(dies)).await;
    assert_eq!(error.kind(), ErrorKind::BootFailed);
    assert!(error.chain().contains("the VMM was killed by signal 11"), "{}", error.chain());
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn a_vmm_that_dies_while_the_program_runs() {
    let home = Home::new();
    let dies = FakeVmm::new(|inside| async move {
        tokio::select! {
            how = serve_agent(inside.channel, "/tmp".into()) => how,
            () = tokio::time::sleep(Duration::from_millis(500)) => "was killed by signal 9".into(),
        }
    });
    let (error, took) = fail(&home, &home.pyro(dies)).await;
    assert_eq!(error.kind(), ErrorKind::GuestLost);
    assert_eq!(error.message(), "the guest is gone: the VMM was killed by signal 9");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

/// The agent is gone and the machine is not.
#[tokio::test]
async fn an_agent_that_dies_while_the_program_runs() {
    let home = Home::new();
    let dies = FakeVmm::new(|inside| async move {
        let guest = pyro_agent::Guest::in_process("/tmp", pyro_agent::Phase::Waiting);
        serve_channel(inside.channel, move |stream, count| {
            let guest = guest.clone();
            async move {
                let served = pyro_agent::serve_connection(stream, guest);
                match count {
                    0 => served.await,
                    _ => drop(tokio::time::timeout(Duration::from_millis(300), served).await),
                }
            }
        })
        .await
    });
    let (error, took) = fail(&home, &home.pyro(dies)).await;
    assert_eq!(error.kind(), ErrorKind::GuestLost, "{}", error.chain());
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[tokio::test]
async fn a_vmm_that_cannot_be_started() {
    struct Broken;
    impl pyro::vmm::Vmm for Broken {
        fn start<'a>(
            &'a self,
            _: &'a pyro::vmm::Machine,
            _: pyro::vmm::Place<'a>,
        ) -> futures::future::BoxFuture<'a, pyro::Result<pyro::vmm::Started>> {
            let error = Error::new(ErrorKind::Unsupported, "cannot confine the VMM").hint("a hint");
            Box::pin(async { Err(error) })
        }
    }
    let home = Home::new();
    let (error, _) = fail(&home, &home.pyro(Broken)).await;
    assert_eq!((error.kind(), error.next_step()), (ErrorKind::Unsupported, Some("a hint")));
}
