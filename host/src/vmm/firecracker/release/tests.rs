use super::*;
use crate::fetch::serving::{Server, headed, whole};
use proptest::prelude::*;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

/// A release of two programs that nobody runs.
fn release() -> Release {
    Release { version: "0.1.0", firecracker: Sha256::of(b"a VMM"), jailer: Sha256::of(b"a jailer") }
}

const FIRECRACKER: &str = "release-v0.1.0-x86_64/firecracker-v0.1.0-x86_64";
const JAILER: &str = "release-v0.1.0-x86_64/jailer-v0.1.0-x86_64";

/// A member: name, what kind it is, where it links to, content.
type Member<'a> = (&'a str, u8, &'a str, &'a [u8]);

const GOOD: [Member<'static>; 2] =
    [(FIRECRACKER, b'0', "", b"a VMM"), (JAILER, b'0', "", b"a jailer")];

fn header(name: &str, kind: u8, link: &str, size: u64) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn tar(members: &[Member<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, kind, link, content) in members {
        bytes.extend(header(name, *kind, link, content.len() as u64));
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn tgz(members: &[Member<'_>]) -> Vec<u8> {
    gzip(&tar(members))
}

/// Somewhere to set up, and what it told.
struct Lab {
    home: TempDir,
    config: Config,
}

impl Lab {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let config = Config::within(home.path());
        Self { home, config }
    }

    async fn set_up(&self, origin: Origin) -> Result<SetUp> {
        self.set_up_with(origin, &CancellationToken::new()).await
    }

    async fn set_up_with(&self, origin: Origin, cancel: &CancellationToken) -> Result<SetUp> {
        let (patience, events) = (Patience::default(), Events::discard());
        set_up(&self.config, &release(), origin, patience, &events, cancel).await
    }

    fn file(&self, bytes: &[u8]) -> Origin {
        let path = self.home.path().join("given");
        fs::write(&path, bytes).expect("written");
        Origin::File(path.clone(), File::open(path).expect("there"))
    }

    /// Every file and directory below the cache's place for releases.
    fn left(&self) -> Vec<String> {
        fn walk(dir: &Path, top: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                found.push(path.strip_prefix(top).expect("below").display().to_string());
                walk(&path, top, found);
            }
        }
        let top = home(&self.config);
        let mut found = Vec::new();
        walk(&top, &top, &mut found);
        found.retain(|path| !path.ends_with(".verified"));
        found.sort();
        found
    }

    fn assert_nothing_left(&self) {
        assert_eq!(self.left(), ["0.1.0.lock", "staging"]);
        assert!(release().programs(&self.config).expect_err("nothing is there").is_missing());
    }

    async fn refuse(&self, bytes: &[u8]) -> Error {
        let error = self.set_up(self.file(bytes)).await.expect_err("it is not the release");
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{}", error.chain());
        let given = self.home.path().join("given");
        let told = format!("{} is not the release of Firecracker 0.1.0", given.display());
        assert_eq!(error.message(), told);
        self.assert_nothing_left();
        error
    }
}

#[tokio::test]
async fn an_archive_that_was_fetched_by_hand_is_taken() {
    let lab = Lab::new();
    let made = lab.set_up(lab.file(&tgz(&GOOD))).await.expect("set up");
    assert!(!made.already_there);
    for (path, content) in
        [(&made.programs.firecracker, "a VMM"), (&made.programs.jailer, "a jailer")]
    {
        assert_eq!(fs::read_to_string(path).expect("there"), content);
        let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o7777;
        assert_eq!((mode(path), mode(path.parent().expect("in one"))), (0o755, 0o700));
    }
    assert_eq!(lab.left(), ["0.1.0", "0.1.0.lock", "0.1.0/firecracker", "0.1.0/jailer", "staging"]);
    // Whatever is given now is not even looked at.
    let again = lab.set_up(lab.file(b"nonsense")).await.expect("it is there");
    assert_eq!(again, SetUp { already_there: true, ..made });
}

#[tokio::test]
async fn it_is_fetched_from_a_mirror() {
    let lab = Lab::new();
    let server = Server::new(|_| whole(&tgz(&GOOD))).await;
    let (events, mut received) = Events::channel();
    let (told, made) = tokio::join!(
        async {
            let mut told = Vec::new();
            while let Some(event) = received.recv().await {
                told.push(event);
            }
            told
        },
        async {
            let (origin, cancel) = (Origin::Url(server.url("/x")), CancellationToken::new());
            let patience = Patience::default();
            let events = events;
            set_up(&lab.config, &release(), origin, patience, &events, &cancel).await
        },
    );
    assert!(!made.expect("set up").already_there);
    let from = format!("Firecracker 0.1.0 from {}", server.url("/").origin());
    let stage = |name, subject: &str| Event::Stage { name, subject: subject.into() };
    assert_eq!(told.first(), Some(&stage("fetching", &from)));
    assert_eq!(told.last(), Some(&stage("unpacking", "Firecracker 0.1.0")));
    assert!(told.iter().any(|event| matches!(event, Event::Progress(_))), "{told:?}");
}

#[tokio::test]
async fn what_was_damaged_is_replaced() {
    let lab = Lab::new();
    let made = lab.set_up(lab.file(&tgz(&GOOD))).await.expect("set up");
    fs::write(&made.programs.jailer, "another").expect("ours");
    let unfit = release().programs(&lab.config).expect_err("it is damaged");
    assert!(!unfit.is_missing() && unfit.to_string().contains("jailer is damaged"), "{unfit}");
    let again = lab.set_up(lab.file(&tgz(&GOOD))).await.expect("set up");
    assert_eq!(again, made);
    release().programs(&lab.config).expect("whole");
    assert_eq!(lab.left().len(), 5, "{:?}", lab.left());
}

#[tokio::test]
async fn a_failure_keeps_what_there_is() {
    let lab = Lab::new();
    let made = lab.set_up(lab.file(&tgz(&GOOD))).await.expect("set up");
    fs::remove_file(&made.programs.jailer).expect("ours");
    lab.set_up(lab.file(b"nonsense")).await.expect_err("nonsense");
    assert_eq!(fs::read_to_string(&made.programs.firecracker).expect("there"), "a VMM");
}

#[tokio::test]
async fn only_one_of_many_fetches_it() {
    let lab = Lab::new();
    let server = Server::new(|_| whole(&tgz(&GOOD))).await;
    let one = || lab.set_up(Origin::Url(server.url("/x")));
    let (a, b, c) = tokio::join!(one(), one(), one());
    let fresh = [a, b, c].map(|made| !made.expect("set up").already_there);
    assert_eq!(fresh.iter().filter(|fresh| **fresh).count(), 1);
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn without_the_network_it_says_how_to_do_without() {
    let lab = Lab::new();
    let gone = Server::new(|_| headed("404 Not Found", "", b"")).await;
    let error = lab.set_up(Origin::Url(gone.url("/x"))).await.expect_err("404");
    assert_eq!(error.kind(), ErrorKind::Network);
    let hint = error.next_step().expect("a next step");
    assert!(hint.contains(&release().url()), "{hint}");
    assert!(hint.contains("`pyro setup --from FILE`"), "{hint}");
    lab.assert_nothing_left();
}

#[tokio::test]
async fn a_caller_may_change_its_mind() {
    use crate::fetch::serving::Step;
    let lab = Lab::new();
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let server = Server::new(move |_| {
        stop.cancel();
        vec![Step::KeepSilent]
    })
    .await;
    let error = lab.set_up_with(Origin::Url(server.url("/x")), &cancel).await;
    assert_eq!(error.expect_err("cancelled").kind(), ErrorKind::Cancelled);
    lab.assert_nothing_left();
    // Later, too.
    let error = lab.set_up_with(lab.file(&tgz(&GOOD)), &cancel).await;
    assert_eq!(error.expect_err("cancelled").kind(), ErrorKind::Cancelled);
    lab.assert_nothing_left();
}

#[tokio::test]
async fn other_programs_are_not_taken() {
    let lab = Lab::new();
    let mut members = GOOD;
    members[1].3 = b"a traitor";
    let error = lab.refuse(&tgz(&members)).await;
    let chain = error.chain();
    assert!(chain.contains(&Sha256::of(b"a traitor").to_string()), "{chain}");
    assert!(chain.contains(&release().jailer.to_string()), "{chain}");
}

#[tokio::test]
async fn what_is_not_like_the_release_is_not_taken() {
    let lab = Lab::new();
    let dots = "../../../../../../../../../../tmp/firecracker-v0.1.0-x86_64";
    let cases: &[(&[Member<'_>], &str)] = &[
        (&[], "there is no release-v0.1.0-x86_64/firecracker"),
        (&GOOD[..1], "there is no release-v0.1.0-x86_64/jailer"),
        (&[GOOD[0], GOOD[0], GOOD[1]], "is in it twice"),
        (&[(FIRECRACKER, b'2', "/etc/passwd", b""), GOOD[1]], "is no file"),
        (&[GOOD[1], (FIRECRACKER, b'1', JAILER, b"")], "is no file"),
        (&[(FIRECRACKER, b'5', "", b"")], "is no file"),
        (&[(FIRECRACKER, b'3', "", b"")], "is no file"),
        (&[(dots, b'0', "", b"a VMM"), GOOD[1]], "there is no"),
        (&[("firecracker", b'0', "", b"a VMM"), GOOD[1]], "there is no"),
        (
            &[("/release-v0.1.0-x86_64/firecracker-v0.1.0-x86_64", b'0', "", b"a VMM")],
            "there is no",
        ),
    ];
    for (members, why) in cases {
        let chain = lab.refuse(&tgz(members)).await.chain();
        assert!(chain.contains(why), "{chain}");
    }
    for not_one in [&b""[..], b"nonsense", &tar(&GOOD), &gzip(b"nonsense"), &gzip(&[7; 2048])] {
        lab.refuse(not_one).await;
    }
}

#[tokio::test]
async fn what_is_too_large_is_not_unpacked() {
    let lab = Lab::new();
    // What it says is enough.
    let large = header(FIRECRACKER, b'0', "", (64 << 20) + 1);
    let chain = lab.refuse(&gzip(&large)).await.chain();
    assert!(chain.contains("more than 64 MiB"), "{chain}");
}

#[tokio::test]
async fn nothing_else_in_it_is_written() {
    let lab = Lab::new();
    let others: [Member<'_>; 4] = [
        ("./", b'5', "", b""),
        ("release-v0.1.0-x86_64/firecracker-v0.1.0-x86_64.debug", b'0', "", b"symbols"),
        ("/etc/evil", b'0', "", b"evil"),
        ("release-v0.1.0-x86_64/link", b'2', "/etc", b""),
    ];
    let members: Vec<_> = others.into_iter().chain(GOOD).collect();
    lab.set_up(lab.file(&tgz(&members))).await.expect("set up");
    assert_eq!(lab.left().len(), 5, "{:?}", lab.left());
}

/// Unpacks, and sees to it that there is nothing but the right programs.
fn unpacked(archive: &[u8]) -> Result<()> {
    let home = tempfile::tempdir().expect("a directory");
    let made = home.path().join("made");
    let (release, cancel) = (release(), CancellationToken::new());
    let done = unpack::unpack("it", archive, &release, &made, &cancel);
    for entry in fs::read_dir(&made).expect("made") {
        let name = entry.expect("read").file_name();
        assert!(name == "firecracker" || name == "jailer", "{name:?}");
    }
    if done.is_ok() {
        let whole = |name: &str| Sha256::of(&fs::read(made.join(name)).expect("there"));
        assert_eq!(whole("firecracker"), release.firecracker);
        assert_eq!(whole("jailer"), release.jailer);
    }
    done
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes_are_refused(bytes: Vec<u8>) {
        prop_assert!(unpacked(&bytes).is_err());
        prop_assert!(unpacked(&gzip(&bytes)).is_err());
    }

    #[test]
    fn what_is_cut_short_is_refused(cut in 0_usize..10_000) {
        let (tar, tgz) = (tar(&GOOD), tgz(&GOOD));
        // The end of the second program's content is all that has to be there.
        prop_assert!(unpacked(&gzip(&tar[..cut % (3 * 512 + 8)])).is_err());
        prop_assert!(unpacked(&tgz[..cut % (tgz.len() / 2)]).is_err());
    }

    #[test]
    fn what_is_altered_is_refused_or_means_the_same(at: prop::sample::Index, bit in 0..8_u8) {
        let mut tar = tar(&GOOD);
        let at = at.index(tar.len());
        tar[at] ^= 1 << bit;
        // `unpacked` compares what was made of it.
        drop(unpacked(&gzip(&tar)));
    }
}
