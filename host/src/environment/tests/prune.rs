use super::*;

fn prune(lab: &Lab, options: PruneOptions) -> Pruned {
    lab.environments().prune(options).expect("the cache is ours")
}

fn what(pruned: &Pruned) -> Vec<&str> {
    let mut what: Vec<_> = pruned.removed.iter().map(|removed| &*removed.what).collect();
    what.sort_unstable();
    what
}

const ALL: PruneOptions = PruneOptions { dry_run: false, all: true };

/// A lab whose image was replaced, and the old one.
async fn replaced() -> (Lab, Bootable) {
    let lab = Lab::built().await;
    let old = lab.environments().resolve(DEBIAN).expect("built");
    lab.agent("another agent");
    lab.build(DEBIAN).await.expect("it builds");
    (lab, old)
}

#[tokio::test]
async fn what_is_current_stays() {
    let lab = Lab::built().await;
    assert_eq!(prune(&lab, PruneOptions::default()), Pruned::default());
    assert!(lab.environments().resolve(DEBIAN).is_ok());
}

#[tokio::test]
async fn what_was_replaced_goes() {
    let (lab, old) = replaced().await;
    let image = old.root_image.clone();
    drop(old);
    let dry = prune(&lab, PruneOptions { dry_run: true, all: false });
    assert_eq!(what(&dry), ["image of debian:12", "initrd"]);
    assert!(image.exists());
    let pruned = prune(&lab, PruneOptions::default());
    assert_eq!(pruned, dry);
    assert!(pruned.bytes > 0 && !image.exists());
    assert!(lab.environments().resolve(DEBIAN).is_ok());
    lab.ran();
    lab.build(DEBIAN).await.expect("it is there");
    assert_eq!(lab.ran(), "");
}

#[tokio::test]
async fn what_a_process_holds_stays() {
    let (lab, old) = replaced().await;
    assert_eq!(what(&prune(&lab, ALL)), ["image of debian:12", "packages of debian:12"]);
    assert!(old.root_image.exists(), "the old one is held");
    assert!(old.kernel.vmlinux.exists());
}

#[tokio::test]
async fn what_a_workspace_pins_stays_and_boots() {
    let (lab, old) = replaced().await;
    let digest = old.root_digest;
    drop(old);
    // As any version of pyro may have written it.
    lab.workspace(&format!("{{\"schema_version\": 99, \"root_digest\": \"{digest}\"}}"));
    assert_eq!(what(&prune(&lab, PruneOptions::default())), ["initrd"]);
    let pinned = lab.environments().resolve_pinned(DEBIAN, digest).expect("it is there");
    assert_eq!(pinned.root_digest, digest);
    assert!(!what(&prune(&lab, ALL)).contains(&"stock kernel"), "something must boot it");
}

#[tokio::test]
async fn r3_a_workspace_that_cannot_say_keeps_every_image() {
    let (lab, old) = replaced().await;
    drop(old);
    lab.workspace("{\"root_dig");
    let pruned = prune(&lab, PruneOptions::default());
    assert_eq!(what(&pruned), ["initrd"]);
    assert!(pruned.problems.iter().any(|problem| problem.contains("record.json")), "{pruned:?}");
}

/// Not only one workspace may be unable to say, but all of them.
#[tokio::test]
async fn r3_workspaces_that_cannot_be_listed_keep_every_image() {
    let (lab, old) = replaced().await;
    drop(old);
    fs::create_dir_all(&lab.config.state_dir).expect("made");
    fs::write(lab.config.state_dir.join("workspaces"), "").expect("written");
    let pruned = prune(&lab, ALL);
    assert!(!what(&pruned).contains(&"image of debian:12"), "{pruned:?}");
    assert!(pruned.problems.iter().any(|problem| problem.contains("workspaces")), "{pruned:?}");
}

#[tokio::test]
async fn all_leaves_nothing_but_locks() {
    let (lab, old) = replaced().await;
    drop(old);
    let pruned = prune(&lab, ALL);
    assert_eq!(pruned.problems, [] as [String; 0]);
    let error = lab.environments().resolve(DEBIAN).expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::EnvironmentMissing);
    for shelf in ["images", "trees", "kernels/stock", "kernels/initrd", "staging"] {
        let left = fs::read_dir(lab.config.cache_dir.join(shelf)).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{shelf}");
    }
    lab.build(DEBIAN).await.expect("it builds again");
}

#[tokio::test]
async fn leftovers_go_and_work_under_way_stays() {
    let lab = Lab::built().await;
    let staging = lab.config.cache_dir.join("staging");
    let alive = crate::store::staging::Staging::new(&staging).expect("made");
    fs::create_dir(staging.join("0123456789abcdef")).expect("made");
    let pruned = prune(&lab, PruneOptions::default());
    assert_eq!(what(&pruned), ["what a build left behind"]);
    assert!(alive.path().exists());
    assert!(!staging.join("0123456789abcdef").exists());
}

#[tokio::test]
async fn what_is_not_ours_stays() {
    let lab = Lab::built().await;
    let odd = lab.config.cache_dir.join("images/my-notes");
    fs::create_dir(&odd).expect("made");
    prune(&lab, ALL);
    assert!(odd.exists());
}

#[tokio::test]
async fn a_pinned_image_that_is_gone_says_so() {
    let lab = Lab::built().await;
    let error = lab.environments().resolve_pinned(DEBIAN, Digest::of(b"x")).expect_err("gone");
    assert_eq!(error.kind(), ErrorKind::EnvironmentMissing);
}
