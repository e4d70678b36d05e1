//! Images that lie on the host, of every kind, and what of them holds in a guest.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails")]

#[path = "imports/kept.rs"]
mod kept;
#[path = "imports/tar.rs"]
mod tar;

use kept::Parts;
use pyro_smoke::{Home, on_path, stderr, stdout};
use std::fs;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use tar::{Member, tar_of};

/// A home that borrows the user's kernels and nothing else.
fn home() -> Home {
    let home = Home::bare();
    let cache = home.path().join("cache");
    fs::DirBuilder::new().mode(0o700).create(&cache).unwrap();
    symlink(pyro_smoke::user_cache().join("kernels"), cache.join("kernels")).unwrap();
    home
}

fn pyro(home: &Home, words: &[&str]) -> Output {
    home.pyro(words).output().unwrap()
}

fn told(home: &Home, words: &[&str]) -> String {
    stdout(&pyro(home, words))
}

/// Debian's static busybox under two names, and a table of users.
fn busybox() -> Vec<Member> {
    let program = on_path("busybox").expect("`make test` installs it");
    vec![
        Member::program("bin/busybox", fs::read(program).unwrap()),
        Member::hard_link("bin/sh", "bin/busybox"),
        Member::directory("etc/"),
        Member::file("etc/passwd", "root:x:0:0::/:/bin/sh\napp:x:7:8::/home:/bin/sh\n"),
        Member::file("etc/group", "root:x:0:\napp:x:8:\nmore:x:9:app\n"),
    ]
}

const SAYS: &str = r#""Env":["GREETING=hello there","PATH=/bin"],"User":"app",
    "WorkingDir":"/srv/app","Entrypoint":["/bin/sh","-c"],
    "Cmd":["echo $GREETING; busybox id -u; busybox id -g; pwd; busybox cat /etc/said"]"#;

fn gzip(path: &Path) {
    let status = Command::new("gzip").arg("-1").arg(path).status().unwrap();
    assert!(status.success());
}

#[test]
fn i9_every_kind_of_image_runs_as_its_makers_say() {
    let home = home();
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let layers = [tar_of(&busybox()), tar_of(&[Member::file("etc/said", "from above\n")])];
    Parts::layout("a/layout:1", SAYS, &layers).put_into(&at("layout"));
    let archive = Parts::layout("an/archive:1", SAYS, &layers).into_archive();
    fs::write(at("archive.tar"), archive).unwrap();
    fs::write(at("saved.tar"), Parts::saved("it/saved:1", SAYS, &layers).into_archive()).unwrap();
    let packed = Parts::saved("it/packed:1", SAYS, &layers).into_archive();
    fs::write(at("packed.tar"), packed).unwrap();
    gzip(&at("packed.tar"));
    for (file, name) in [
        ("layout", "a/layout:1"),
        ("archive.tar", "an/archive:1"),
        ("saved.tar", "it/saved:1"),
        ("packed.tar.gz", "it/packed:1"),
    ] {
        told(&home, &["env", "import", at(file).to_str().unwrap()]);
        let said = told(&home, &["run", name]);
        assert_eq!(said, "hello there\n7\n8\n/srv/app\nfrom above\n", "{file}");
    }
    // Whoever runs it has the last word, and a workspace has the image's.
    let own = ["run", "a/layout:1", "--user", "0", "--cwd", "/", "--env", "GREETING=mine", "--"];
    let line = ["sh", "-c", "echo $GREETING; busybox id -u; pwd"];
    assert_eq!(told(&home, &[&own[..], &line].concat()), "mine\n0\n/\n");
    told(&home, &["workspace", "create", "it/saved:1", "--name", "w"]);
    let line = "echo $GREETING; busybox id -G; pwd";
    let said = told(&home, &["workspace", "exec", "w", "--shell", line]);
    assert_eq!(said, "hello there\n8 9\n/srv/app\n");
    told(&home, &["workspace", "delete", "w"]);
}

#[test]
fn i9_a_tree_without_words_of_its_own_is_roots() {
    let home = home();
    let place = tempfile::tempdir().unwrap();
    let (root, tar) = (place.path().join("root"), place.path().join("root.tar"));
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir(root.join("data")).unwrap();
    fs::copy(on_path("busybox").expect("`make test` installs it"), root.join("bin/busybox"))
        .unwrap();
    fs::hard_link(root.join("bin/busybox"), root.join("bin/sh")).unwrap();
    fs::write(root.join("data/old"), "old\n").unwrap();
    symlink("old", root.join("data/link")).unwrap();
    let mut members = busybox();
    members.push(Member::file("data/old", "old\n"));
    members.push(Member::symlink("data/link", "old"));
    fs::write(&tar, tar_of(&members)).unwrap();
    for (name, path) in [("tree", &root), ("tar", &tar)] {
        told(&home, &["env", "import", path.to_str().unwrap(), "--name", name]);
        let line = "busybox cat /data/link; busybox stat -c '%u %g %h' /bin/sh; busybox id -u; pwd";
        assert_eq!(told(&home, &["run", name, "--shell", line]), "old\n0 0 2\n0\n/workspace\n");
        let silent = pyro(&home, &["run", name]);
        assert_eq!(silent.status.code(), Some(2), "{}", stderr(&silent));
    }
    let taken = pyro(&home, &["env", "import", tar.to_str().unwrap(), "--name", "debian:12"]);
    assert!(stderr(&taken).contains("--name"), "{}", stderr(&taken));
}

/// A program of 34 bytes: `setuid(0); exit(geteuid())`.
fn who_may_be_root() -> Vec<u8> {
    const CODE: &[u8] = &[
        0xb8, 0x69, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05, // mov eax, setuid; xor edi, edi; syscall
        0xb8, 0x6b, 0, 0, 0, 0x0f, 0x05, // mov eax, geteuid; syscall
        0x89, 0xc7, 0xb8, 0x3c, 0, 0, 0, 0x0f, 0x05, // mov edi, eax; mov eax, exit; syscall
    ];
    const AT: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for word in [AT + HEADERS, 64, 0] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
    // Flags, the sizes and counts of headers.
    elf.extend_from_slice(&[0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // One segment to be loaded, readable and executable: all of the file.
    elf.extend_from_slice(&[1, 0, 0, 0, 5, 0, 0, 0]);
    let all = HEADERS + CODE.len() as u64;
    for word in [0, AT, AT, all, all, 0x1000] {
        elf.extend_from_slice(&word.to_le_bytes());
    }
    elf.extend_from_slice(CODE);
    elf
}

/// `cap_setuid+ep`, as Linux keeps it: revision 2, effective; permitted, inheritable.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn layers_of_rights() -> [Vec<u8>; 2] {
    let mut lower = busybox();
    lower.extend([
        Member::program("rights/plain", who_may_be_root()),
        Member::program("rights/setuid", who_may_be_root()).mode(0o4755),
        Member::program("rights/capable", who_may_be_root())
            .attribute("security.capability", CAPABILITY),
        Member::file("data/noted", "noted\n")
            .attribute("user.note", b"n\0te\n")
            .attribute("trusted.overlay.opaque", b"y")
            .owner(3_000_000, 65_534),
        Member::directory("data/shared/").mode(0o3775).owner(7, 8),
        Member::file("data/gone", "a secret that was removed"),
        Member::file("data/tree/below/gone", "gone"),
        Member::file("data/opaque/old", "old"),
        Member::file("data/opaque/deep/old", "old"),
        Member::file("data/replaced", "a secret that was replaced"),
        Member::file("data/kept", "what nobody took away"),
        // Of the host's own, were it not for the guest's kernel.
        Member::block_device("data/disk"),
        Member::character_device("data/null"),
        Member::pipe("data/pipe"),
        Member::block_device("dev/disk"),
        Member::file("dev/file", "x"),
    ]);
    let upper = [
        Member::file("data/.wh.gone", ""),
        Member::file("data/.wh.tree", ""),
        Member::file("data/opaque/new", "new"),
        Member::file("data/opaque/.wh..wh..opq", ""),
        Member::directory("data/replaced/"),
        Member::hard_link("bin/again", "bin/busybox"),
        // A link on the way, and a name that would leave the host's directory.
        Member::symlink("way", "/../../data"),
        Member::file("way/through", "through"),
    ];
    [tar_of(&lower), tar_of(&upper)]
}

#[test]
fn i9_rights_links_and_whiteouts_of_layers_hold_in_a_guest() {
    let home = home();
    let path = home.path().join("saved.tar");
    let says = r#""User":"app","Env":["PATH=/bin"]"#;
    fs::write(&path, Parts::saved("rights:1", says, &layers_of_rights()).into_archive()).unwrap();
    let imported = pyro(&home, &["env", "import", path.to_str().unwrap()]);
    assert!(imported.status.success(), "{}", stderr(&imported));
    for skipped in
        ["data/disk`: it is a device", "data/null`: it is a device", "data/pipe`: it is a FIFO"]
    {
        assert!(stderr(&imported).contains(skipped), "{}", stderr(&imported));
    }
    assert!(!stderr(&imported).contains("dev/disk"), "{}", stderr(&imported));
    told(&home, &["workspace", "create", "rights:1", "--name", "w"]);
    let says = |line: &str| told(&home, &["workspace", "exec", "w", "--shell", line]);
    // Who may become root: nobody, and whom a right of the file lets.
    let may = says("for one in plain setuid capable; do /rights/$one; echo $one $?; done");
    assert_eq!(may, "plain 7\nsetuid 0\ncapable 0\n");
    assert_eq!(
        says("cd /data; busybox find . | busybox sort"),
        ".\n./kept\n./noted\n./opaque\n./opaque/new\n./replaced\n./shared\n./through\n"
    );
    assert_eq!(
        says("busybox stat -c '%a %u %g %Y' /data/noted /data/shared"),
        "644 3000000 65534 1000000000\n3775 7 8 1000000000\n"
    );
    assert_eq!(
        says("busybox stat -c %h /bin/again; [ /bin/again -ef /bin/sh ] && echo one"),
        "3\none\n"
    );
    assert_eq!(says("busybox readlink /way; busybox cat /way/through"), "/../../data\nthrough");
    let devices = "for one in /dev/file /dev/disk /dev/null; do [ ! -e $one ] || echo $one; done";
    assert_eq!(says(devices), "/dev/null\n");

    // What was taken away is not in the image either.
    let image = fs::read(home.image_directory("rights:1").join("root.erofs")).unwrap();
    let has = |bytes: &[u8], words: &[u8]| bytes.windows(words.len()).any(|here| here == words);
    assert!(has(&image, b"what nobody took away"));
    assert!(!has(&image, b"a secret that was"));

    told(&home, &["workspace", "stop", "w"]);
    let exported = home.path().join("exported.tar");
    let to = exported.to_str().unwrap();
    told(&home, &["workspace", "disk", "export", "w", "--format", "tar", "--output", to]);
    let tar = fs::read(&exported).unwrap();
    assert!(has(&tar, b" SCHILY.xattr.user.note=n\0te\n\n"));
    assert!(has(&tar, &[b" SCHILY.xattr.security.capability=", CAPABILITY].concat()));
    assert!(!has(&tar, b"xattr.trusted."));
    told(&home, &["workspace", "delete", "w"]);
}
