use super::*;
use crate::store::record;
use rustix::process::{Pid, test_kill_process};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// Long for anything these scripts do.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_is_built_is_found() {
    let lab = Lab::new();
    let built = lab.build(DEBIAN).await.expect("it builds");
    let installed = built.installed.expect("it is there");
    assert_eq!(installed.package_count, 2);
    assert_eq!(installed.outdated, []);
    assert_eq!(
        (installed.kernel_flavor, &*installed.kernel_version),
        (KernelFlavor::Stock, "6.1.0")
    );

    let bootable = lab.environments().resolve(DEBIAN).expect("it boots");
    assert_eq!(bootable.root_digest, Digest::of_file(&bootable.root_image).expect("read"));
    assert_eq!(bootable.kernel.digest, Digest::of_file(&bootable.kernel.vmlinux).expect("read"));
    let initrd = bootable.kernel.initrd.expect("the stock kernel needs one");
    assert_eq!(fs::read_to_string(initrd).expect("read"), "module\nan agent");
    assert_eq!(bootable.defaults.cwd, "/workspace");

    let manifest = lab.environments().manifest(DEBIAN).expect("it has one");
    assert_eq!(manifest.packages[1], Package { name: "git".into(), version: "2.39".into() });
    assert_eq!(lab.staged(), 0);
}

#[tokio::test]
async fn i8_stages_are_told_and_skipped_when_done() {
    let lab = Lab::new();
    lab.build(DEBIAN).await.expect("it builds");
    assert_eq!(lab.ran(), "tree image stock initrd");
    let stages = ["bootstrapping", "making the image", "building the kernel", "packing the initrd"];
    assert_eq!(lab.stages(), stages);
    assert!(lab.told.lock().expect("fine").contains(&Event::Progress("==> tree".into())));

    lab.build(DEBIAN).await.expect("it is there");
    assert_eq!(lab.ran(), "");
    lab.build("debian:12-base").await.expect("it builds");
    assert_eq!(lab.ran(), "tree image");
    lab.build_with(DEBIAN, BuildOptions { force: true }).await.expect("it builds again");
    assert_eq!(lab.ran(), "tree image", "the kernel is everybody's");
}

#[tokio::test]
async fn another_agent_makes_only_the_image_again() {
    let lab = Lab::built().await;
    let before = lab.image();
    lab.ran();
    lab.agent("another agent");
    assert_eq!(lab.image(), before, "it boots all the same");
    let seen =
        lab.environments().inspect(DEBIAN).expect("it is known").installed.expect("it boots");
    assert_eq!(seen.outdated, [Outdated::Agent]);

    lab.build(DEBIAN).await.expect("it builds");
    assert_eq!(lab.ran(), "image initrd");
    assert_ne!(lab.image(), before);
    assert!(before.exists(), "a workspace may have pinned it");
}

#[tokio::test]
async fn another_script_makes_everything_again() {
    let mut lab = Lab::built().await;
    lab.ran();
    lab.script(ROOT, &format!("{FAKE_ROOT}# changed"));
    let seen =
        lab.environments().inspect(DEBIAN).expect("it is known").installed.expect("it boots");
    assert_eq!(seen.outdated, [Outdated::Tree]);
    lab.build(DEBIAN).await.expect("it builds");
    assert_eq!(lab.ran(), "tree image");
    // The same bytes came out: the image stayed and its manifest is the new one.
    assert_eq!(
        lab.environments().inspect(DEBIAN).expect("known").installed.expect("there").outdated,
        []
    );
    lab.build(DEBIAN).await.expect("it is there");
    assert_eq!(lab.ran(), "");
}

#[tokio::test]
async fn the_tuned_kernel_is_preferred_once_it_is_there() {
    let mut lab = Lab::built().await;
    let flavor = |lab: &Lab| lab.environments().kernel().map(|kernel| kernel.flavor);
    assert_eq!(flavor(&lab).expect("stock is there"), KernelFlavor::Stock);

    lab.config.kernel = Some("tuned".into());
    let error = flavor(&lab).expect_err("it is not built");
    assert_eq!(error.kind(), ErrorKind::EnvironmentMissing);
    assert_eq!(hint(&error), "`pyro env build debian:12 --kernel tuned`");

    lab.config.kernel = None;
    lab.ran();
    let never = CancellationToken::new();
    let environments = lab.environments();
    for _ in 0..2 {
        let options = BuildOptions::default();
        environments
            .build_kernel(KernelFlavor::Tuned, options, &Events::discard(), &never)
            .await
            .expect("it builds");
    }
    assert_eq!(lab.ran(), "tuned");
    assert_eq!(flavor(&lab).expect("both are there"), KernelFlavor::Tuned);

    lab.config.kernel = Some("stock".into());
    assert_eq!(flavor(&lab).expect("both are there"), KernelFlavor::Stock);
    lab.config.kernel = Some("fast".into());
    assert_eq!(flavor(&lab).expect_err("no such kernel").kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn unknown_and_unbuilt_are_two_things() {
    let lab = Lab::new();
    let error = lab.environments().resolve("debian:13").expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(hint(&error).contains("did you mean debian:12?"), "{}", hint(&error));
    let error = lab.environments().resolve(DEBIAN).expect_err("it is not built");
    assert_eq!(error.kind(), ErrorKind::EnvironmentMissing);
    assert_eq!(hint(&error), "`pyro env build debian:12`");
    assert!(!lab.config.cache_dir.exists(), "asking makes nothing");
}

#[tokio::test]
async fn a_missing_program_is_named_with_its_package() {
    let lab = Lab::new();
    fs::remove_file(lab.home.path().join("bin/mmdebstrap")).expect("removed");
    let mut lab = lab;
    // The host may have it.
    lab.config.path.truncate(1);
    std::os::unix::fs::symlink("/bin/bash", lab.home.path().join("bin/bash")).expect("linked");
    let error = lab.build(DEBIAN).await.expect_err("it cannot be built");
    assert_eq!(error.kind(), ErrorKind::HostRequirement);
    assert!(error.message().contains("mmdebstrap"), "{error}");
    assert_eq!(hint(&error), "`apt-get install --no-install-recommends mmdebstrap`");
}

#[tokio::test]
async fn too_little_room_is_seen_before_it_is_used() {
    let lab = Lab::new();
    let mut environments = lab.environments();
    environments.free_bytes = |_| Ok(1 << 20);
    let error = environments
        .build(DEBIAN, BuildOptions::default(), &lab.events(), &CancellationToken::new())
        .await
        .expect_err("it cannot be built");
    assert_eq!(error.kind(), ErrorKind::DiskFull);
    assert_eq!(lab.ran(), "");
}

#[tokio::test]
async fn a_failed_script_is_quoted() {
    let mut lab = Lab::new();
    lab.script(ROOT, "seq 100; printf 'E: no \\033[1mnetwork' >&2; exit 3");
    let error = lab.build(DEBIAN).await.expect_err("it fails");
    assert_eq!(error.kind(), ErrorKind::Io);
    let chain = error.chain();
    assert!(chain.starts_with("bootstrapping debian:12 failed (exit status: 3)"), "{chain}");
    assert!(chain.ends_with("\n99\n100\nE: no  [1mnetwork"), "{chain}");
    assert!(!chain.contains("\n80\n"), "only the last lines: {chain}");
    assert_eq!(lab.staged(), 0);
    assert!(lab.environments().resolve(DEBIAN).is_err());
}

#[tokio::test]
async fn a_full_disk_has_a_kind_of_its_own() {
    let mut lab = Lab::new();
    lab.script(ROOT, "echo 'tar: ./usr: Cannot write: No space left on device'; exit 2");
    let error = lab.build(DEBIAN).await.expect_err("it fails");
    assert_eq!(error.kind(), ErrorKind::DiskFull);
    assert!(hint(&error).contains("pyro env prune"));
}

#[tokio::test]
async fn a_script_that_leaves_nothing_is_no_success() {
    let mut lab = Lab::new();
    lab.script(ROOT, "exit 0");
    let error = lab.build(DEBIAN).await.expect_err("there is no tree");
    assert!(error.message().contains("root.tar"), "{error}");
    assert_eq!(lab.staged(), 0);
}

/// A script that tells its process ids, starts a child and waits for ever.
const STUCK: &str = r#"
sleep 1000 &
echo "$$ $!"
(trap '' TERM; sleep 1000)
"#;

/// The ids that [`STUCK`] told; resolves when it has.
async fn stuck(events: &mut tokio::sync::mpsc::Receiver<Event>) -> Vec<Pid> {
    while let Some(event) = events.recv().await {
        if let Event::Progress(line) = event {
            let ids = line.split_whitespace().map(|id| id.parse().expect("a number"));
            return ids.filter_map(Pid::from_raw).collect();
        }
    }
    panic!("the script told nothing");
}

fn all_gone(processes: &[Pid]) -> bool {
    processes.iter().all(|process| {
        let state = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        test_kill_process(*process).is_err() || state.contains(") Z ")
    })
}

#[tokio::test]
async fn i8_a_cancelled_build_leaves_nothing() {
    let mut lab = Lab::new();
    lab.script(ROOT, STUCK);
    let (events, mut told) = Events::channel();
    let cancel = CancellationToken::new();
    let environments = lab.environments();
    let building = environments.build(DEBIAN, BuildOptions::default(), &events, &cancel);
    let cancelling = async {
        let processes = stuck(&mut told).await;
        assert_eq!(processes.len(), 2);
        cancel.cancel();
        processes
    };
    let (built, processes) =
        tokio::time::timeout(SOON, async { tokio::join!(building, cancelling) })
            .await
            .expect("it ends");
    assert_eq!(built.expect_err("it was cancelled").kind(), ErrorKind::Cancelled);
    assert!(all_gone(&processes));
    assert_eq!(lab.staged(), 0);
}

#[tokio::test]
async fn i8_a_second_builder_waits_and_finds() {
    let mut lab = Lab::new();
    let gate = lab.home.path().join("gate");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &gate,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .expect("made");
    lab.script(ROOT, &format!("[ $1 != tree ] || read -r _ <\"$HOME_DIR/gate\"\n{FAKE_ROOT}"));
    let first = lab.build(DEBIAN);
    // Opened for reading too, it does not wait for the script to come.
    let gate = fs::File::options().read(true).write(true).open(&gate).expect("opened");
    // Opens the gate as soon as the second builder says that it waits.
    let events = Events::discard().tap(move |event| {
        if let Event::Stage { name: "waiting for another build", .. } = event {
            (&gate).write_all(b"go\n").expect("written");
        }
    });
    let never = CancellationToken::new();
    let environments = lab.environments();
    let second = environments.build(DEBIAN, BuildOptions::default(), &events, &never);
    let both = async { tokio::join!(first, second) };
    let (first, second) = tokio::time::timeout(SOON, both).await.expect("both end");
    assert_eq!(first.expect("built"), second.expect("found"));
    assert_eq!(lab.ran(), "tree image stock initrd");
}

#[tokio::test]
async fn what_a_killed_builder_left_is_swept_by_the_next() {
    let lab = Lab::new();
    let left = lab.config.cache_dir.join("staging/0123456789abcdef/tree");
    fs::create_dir_all(&left).expect("made");
    fs::write(left.join("root.tar"), "half").expect("written");
    lab.build(DEBIAN).await.expect("it builds");
    assert_eq!(lab.staged(), 0);
}

#[tokio::test]
async fn s3_nothing_is_open_to_others() {
    let lab = Lab::built().await;
    let mut dirs = vec![lab.config.cache_dir.clone()];
    while let Some(dir) = dirs.pop() {
        let mode = dir.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", dir.display());
        let below = fs::read_dir(&dir).expect("read").map(|entry| entry.expect("read").path());
        // What scripts made lies inside.
        dirs.extend(below.filter(|path| path.is_dir() && !path.ends_with("modules")));
    }
}

#[tokio::test]
async fn r3_one_corrupt_record_harms_only_itself() {
    let lab = Lab::built().await;
    lab.build("debian:12-base").await.expect("it builds");
    let path =
        lab.environments().current_path(&lab.environments().recipe(DEBIAN).expect("known").name);
    fs::write(&path, "{\"schema_ver").expect("written");

    let list = lab.environments().list().expect("the others are fine");
    let problems: Vec<_> = list
        .iter()
        .map(|environment| (&*environment.name, environment.problem.is_some()))
        .collect();
    assert_eq!(problems, [("debian:12-base", false), (DEBIAN, true), ("debian:12-build", false)]);
    assert!(lab.environments().resolve("debian:12-base").is_ok());
    let error = lab.environments().resolve(DEBIAN).expect_err("its record is damaged");
    assert_eq!(error.kind(), ErrorKind::EnvironmentCorrupt);
    assert_eq!(hint(&error), "`pyro env build debian:12 --force`");
    assert!(error.message().contains("debian_12.json"), "{error}");

    lab.ran();
    lab.build(DEBIAN).await.expect("it mends");
    assert_eq!(lab.ran(), "image", "the tree was whole");
    assert!(record::read::<Current>(&path).is_ok());
}
