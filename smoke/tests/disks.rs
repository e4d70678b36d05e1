//! What is on the disk of a workspace that does not run: looked at in a guest
//! that has it read-only, after a clean stop and after a crash; and taken along.

use pyro_smoke::{Home, scaled, stderr, stdout};
use serde_json::Value;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

fn succeed(home: &Home, words: &[&str]) -> String {
    stdout(&home.pyro(words).output().expect("pyro starts"))
}

fn json(home: &Home, words: &[&str]) -> Value {
    serde_json::from_str(&succeed(home, &[words, &["--json"]].concat())).expect("JSON")
}

fn shell(home: &Home, line: &str) -> String {
    succeed(home, &["workspace", "exec", "w", "--shell", line])
}

/// The disk of the one workspace.
fn disk(home: &Home) -> PathBuf {
    let mut kept = home.leftovers().into_iter().filter(|path| path.join("record.json").exists());
    kept.next().expect("it is there").join("disk-0.ext4")
}

/// Of all that is no hole, and where it is.
fn digest(file: &Path) -> u64 {
    use rustix::fs::{SeekFrom, seek};
    let file = File::open(file).expect("there");
    let (mut hasher, mut buffer, mut at) = (DefaultHasher::new(), vec![0; 1 << 20], 0);
    while let Ok(start) = seek(&file, SeekFrom::Data(at)) {
        let end = seek(&file, SeekFrom::Hole(start)).expect("data end");
        at = start;
        while at < end {
            let room = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            let length = file.read_at(&mut buffer[..room], at).expect("read");
            hasher.write_u64(at);
            hasher.write(&buffer[..length]);
            at += length as u64;
        }
    }
    hasher.finish()
}

/// Whether the file system on a disk has a journal to be replayed before it is
/// what it should be.
fn needs_recovery(disk: &Path) -> bool {
    let mut superblock = [0; 1024];
    File::open(disk).and_then(|disk| disk.read_exact_at(&mut superblock, 1024)).expect("a disk");
    superblock[0x60] & 4 != 0
}

/// Names that no quoting survives, links, holes and attributes; and what a
/// workspace is made of: files of its seed changed, removed, renamed and linked.
const MAKE: &str = r#"set -e
mkdir -p 'odd/a b' ; cd odd
perl -e 'open F, ">", "a b/new\nline\xff`\$(x)*"; print F "odd"; close F;
  symlink("t/" x 1500, "long") or die; open F, ">", "hole"; seek F, 1 << 30, 0; print F "end"; close F;
  my ($file, $name, $value) = ("hole", "user.note", "n\0te");
  syscall(188, $file, $name, $value, 4, 0) == 0 or die "setxattr: $!"'
ln -s /etc/motd absolute; mkfifo pipe; echo linked > one; ln one two; chmod 4711 one
chown 1234:5678 hole; touch -d '2001-02-03 04:05:06.789' one
cd ..; rm removed; mv moved renamed; echo more >> linked-a; mkdir fresh; echo x > fresh/x
rm -rf replaced; mkdir replaced; echo new > replaced/new
echo outside > /etc/outside; rm -f /etc/issue; sync"#;

/// A workspace with a seed of which nothing is as it was.
fn create(home: &Home) {
    let seed = home.path().join("seed");
    fs::create_dir_all(seed.join("moved/deep")).expect("made");
    fs::create_dir(seed.join("replaced")).expect("made");
    for name in ["removed", "kept", "linked-a", "moved/deep/file", "replaced/old"] {
        fs::write(seed.join(name), format!("{name}\n")).expect("written");
    }
    fs::hard_link(seed.join("linked-a"), seed.join("linked-b")).expect("linked");
    let seed = seed.to_str().expect("UTF-8");
    succeed(home, &["workspace", "create", "debian:12", "--name", "w", "--seed-path", seed]);
    shell(home, MAKE);
}

/// All entries below a path, as answers have them; there are fewer than a page has.
fn listed(home: &Home, operation: &str, path: &str) -> Vec<Value> {
    let words = ["workspace", operation, "list", "w", path, "--recursive", "--limit", "10000"];
    json(home, &words)["entries"].as_array().expect("entries").clone()
}

fn read(home: &Home, path: &str) -> String {
    succeed(home, &["workspace", "disk", "read", "w", path, "--content-only"])
}

#[test]
fn r12_after_a_stop_everything_is_there_as_it_was() {
    let home = Home::new();
    create(&home);
    let before = listed(&home, "file", ".");
    let etc = shell(&home, "cd /etc; find . -type f | sort | md5sum");
    let refused = home.pyro(["workspace", "disk", "list", "w"]).output().expect("pyro starts");
    assert_eq!(refused.status.code(), Some(125));
    assert!(stderr(&refused).contains("pyro workspace stop"), "{}", stderr(&refused));
    succeed(&home, &["workspace", "stop", "w"]);
    let untouched = digest(&disk(&home));
    assert_eq!(listed(&home, "disk", "."), before, "the same as in the running guest");
    assert_eq!(read(&home, "linked-b"), "linked-a\nmore\n", "written through another name");
    assert_eq!(read(&home, "renamed/deep/file"), "moved/deep/file\n");
    assert_eq!(read(&home, "/etc/outside"), "outside\n");
    assert_eq!(read(&home, "odd/absolute"), read(&home, "/etc/motd"));
    let top = json(&home, &["workspace", "disk", "list", "w", "/"]);
    let names: Vec<_> = top["entries"].as_array().expect("entries").iter().collect();
    assert!(names.iter().any(|entry| entry["path"] == "/workspace"), "{top}");
    for kernel in ["/proc", "/sys", "/dev"] {
        assert_eq!(listed(&home, "disk", kernel), [] as [Value; 0], "{kernel} is no part of it");
    }
    let gone = home.pyro(["workspace", "disk", "read", "w", "/etc/issue"]).output();
    assert!(!gone.expect("pyro starts").status.success(), "it was removed");
    assert_eq!(digest(&disk(&home)), untouched);
    succeed(&home, &["workspace", "start", "w"]);
    assert_eq!(shell(&home, "cd /etc; find . -type f | sort | md5sum"), etc);
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}

#[test]
fn r12_after_a_crash_the_journal_is_recovered_and_the_disk_stays_as_it_was() {
    let home = Home::new();
    create(&home);
    shell(&home, "echo precious > precious; sync");
    let write = "i=0; while :; do i=$((i+1)); mkdir -p churn/$i; \
                 head -c 30000 /dev/urandom > churn/$i/f; mv churn/$i/f churn/$i/g; \
                 [ $((i % 8)) != 0 ] || sync; done";
    let words = ["workspace", "exec", "w", "--detach", "--shell", write];
    succeed(&home, &words);
    // Some of it is to be in the journal, and some nowhere.
    let directories = scaled(60, 12);
    shell(&home, &format!("until [ -e churn/{directories} ]; do sleep 0.05; done"));
    succeed(&home, &["workspace", "stop", "w", "--force"]);
    let untouched = digest(&disk(&home));
    assert!(needs_recovery(&disk(&home)));
    assert_eq!(read(&home, "precious"), "precious\n");
    let there = listed(&home, "disk", ".");
    assert!(there.len() > 10, "{}", there.len());
    let archive = home.path().join("w.tar");
    let to = archive.to_str().expect("UTF-8");
    let words = ["workspace", "disk", "export", "w", "--format", "tar", "--output", to];
    succeed(&home, &words);
    assert_eq!(digest(&disk(&home)), untouched);
    assert!(needs_recovery(&disk(&home)), "it still is as the crash left it");
    // What was seen is what a start finds.
    succeed(&home, &["workspace", "start", "w"]);
    assert_eq!(listed(&home, "file", "."), there);
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}

#[test]
fn r5_an_image_is_whole_sparse_and_boots() {
    let home = Home::new();
    create(&home);
    // Another runs meanwhile, and is not disturbed.
    succeed(&home, &["workspace", "create", "debian:12", "--name", "other"]);
    succeed(&home, &["workspace", "stop", "w", "--force"]);
    let image = home.path().join("w.ext4");
    let to = image.to_str().expect("UTF-8");
    let export = ["workspace", "disk", "export", "w", "--output", to];
    let exported = json(&home, &export);
    let again = home.pyro(export).output().expect("pyro starts");
    assert!(stderr(&again).contains("is there already"), "{}", stderr(&again));
    let meta = image.metadata().expect("there");
    assert_eq!(exported["size_bytes"].as_u64(), Some(meta.len()));
    assert!(meta.len() > 16 << 30, "as much room as the workspace had: {}", meta.len());
    assert!(meta.blocks() * 512 < meta.len() / 4, "holes: {}", meta.blocks());
    assert_eq!(meta.mode() & 0o777, 0o600);
    let checked = tool("e2fsck").args(["-fn", to]).output().expect("e2fsck starts");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    let mut attribute = tool("debugfs");
    attribute.args(["-R", "ea_get /workspace/odd/hole user.note", to]);
    let attribute = stdout(&attribute.output().expect("debugfs starts"));
    assert!(attribute.contains("6e 00 74 65") || attribute.contains(r"n\000te"), "{attribute}");
    let said = boot(&home, &image);
    for expected in [
        "linked 2 4711 2001-02-03",
        "hole 1073741827 1234:5678 small",
        "through linked-a more",
        "outside",
        "no issue",
        "odd names 1",
    ] {
        assert!(said.is_empty() || said.contains(expected), "{expected}: {said}");
    }
    assert_eq!(succeed(&home, &["workspace", "exec", "other", "--", "echo", "up"]), "up\n");
    for workspace in ["w", "other"] {
        succeed(&home, &["workspace", "delete", workspace]);
    }
    home.expect_clean_within(Duration::from_secs(5));
}

fn tool(name: &str) -> Command {
    pyro_smoke::tool(name).unwrap_or_else(|| panic!("{name} is missing"))
}

/// What a machine says that has nothing but the image, as its root, and the tuned
/// kernel; empty where there is no QEMU to be that machine.
fn boot(home: &Home, image: &Path) -> String {
    let script = r#"#!/bin/sh
mount -t proc proc /proc; cd /workspace
stat -c 'linked %h %a %y' odd/one; stat -c 'hole %s %u:%g' odd/hole | tr '\n' ' '
du -k odd/hole | awk '{print ($1 < 64) ? "small" : "big"}'
echo through $(cat linked-b); cat /etc/outside; [ -e /etc/issue ] || echo no issue
echo odd names $(ls -b 'odd/a b' | wc -l); sync; echo b > /proc/sysrq-trigger"#;
    let path = home.path().join("script");
    fs::write(&path, script).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
    let write = format!("write {} tell.sh", path.display());
    let written = tool("debugfs").args(["-w", "-R", &write]).arg(image).output();
    assert!(written.expect("debugfs starts").status.success());
    let kernels = home.path().join("cache/kernels/tuned");
    let record = fs::read_to_string(home.path().join("cache/kernels/tuned.json"));
    let Ok(record) = record else {
        eprintln!("not booted: there is no tuned kernel");
        return String::new();
    };
    let record: Value = serde_json::from_str(&record).expect("JSON");
    let digest = record["digest"].as_str().and_then(|text| text.strip_prefix("blake3:"));
    let kernel = kernels.join(digest.expect("a digest")).join("vmlinux");
    let drive = format!("file={},format=raw,if=none,id=root", image.display());
    let words =
        "console=ttyS0 quiet panic=-1 reboot=t root=/dev/vda rootfstype=ext4 rw init=/tell.sh";
    let booted = Command::new("qemu-system-x86_64")
        .args(["-M", "microvm,acpi=off", "-accel", "tcg", "-cpu", "max,-erms", "-m", "256"])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .args(["-serial", "stdio", "-drive", &drive, "-device", "virtio-blk-device,drive=root"])
        .arg("-kernel")
        .arg(kernel)
        .args(["-append", words])
        .stdin(Stdio::null())
        .output();
    match booted {
        Ok(output) => stdout(&output),
        Err(error) => {
            eprintln!("not booted: qemu-system-x86_64: {error}");
            String::new()
        }
    }
}
