//! Snapshots: back to what a workspace was, and others made from it.

use pyro_smoke::mounted::FileSystem;
use pyro_smoke::{Home, scaled, stdout, tool};
use rustix::fs::{SeekFrom, seek};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

fn succeed(home: &Home, words: &[&str]) -> String {
    stdout(&home.pyro(words).output().expect("pyro starts"))
}

fn json(home: &Home, words: &[&str]) -> Value {
    serde_json::from_str(&succeed(home, &[words, &["--json"]].concat())).expect("JSON")
}

fn shell(home: &Home, workspace: &str, line: &str) -> String {
    succeed(home, &["workspace", "exec", workspace, "--shell", line])
}

/// All that a disk can have: modes, times, owners, links, holes, attributes and
/// capabilities; in the workspace and outside.
const MAKE: &str = r"
set -e
umask 022
printf '#!/bin/sh\necho ran\n' > tool; chmod 4755 tool; touch -d 2001-02-03T04:05:06Z tool
ln -s ../../etc/passwd climbs; ln -s /nowhere dangles; ln tool same-tool
mkdir -m 1777 open; mkfifo pipe; truncate -s 1G hole; echo end >> hole
printf 'a\0b\377' > bytes; : > 'a name
with two lines'
cp /bin/true /usr/local/bin/mine; setcap cap_net_raw+ep /usr/local/bin/mine 2>/dev/null || :
chown 1234:5678 /usr/local/bin/mine; touch -d 1999-12-31T23:59:58Z /usr/local/bin/mine
echo changed >> /etc/hosts.allow; rm -rf /usr/share/doc; mv seeded moved
";

/// All of it in words: what was there, and nothing else.
const TELL: &str = r"
for at in . /usr/local /etc/hosts.allow; do
    find $at -printf '%p %y %m %U:%G %s %T@ %n %l\n' | sort
done
stat -c %b hole; md5sum bytes tool moved; test -d /usr/share/doc || echo no doc; ./tool
";

/// What was written of a file, without its holes.
fn written(path: &Path) -> Vec<u8> {
    let file = File::open(path).expect("ours");
    let mut content = Vec::new();
    let mut at = 0;
    while let Ok(start) = seek(&file, SeekFrom::Data(at)) {
        at = seek(&file, SeekFrom::Hole(start)).expect("it has an end");
        let length = usize::try_from(at - start).expect("it fits");
        let from = content.len();
        content.resize(from + length, 0);
        file.read_exact_at(&mut content[from..], start).expect("readable");
    }
    content
}

/// The files below a directory of the host that have some bytes in them.
fn with(directory: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        let meta = path.symlink_metadata().expect("there");
        if meta.is_dir() {
            found.extend(with(&path, bytes));
        } else if meta.is_file() && written(&path).windows(bytes.len()).any(|it| it == bytes) {
            found.push(path);
        }
    }
    found
}

#[test]
fn r5_r15_a_workspace_goes_back_to_all_that_its_disk_was() {
    let home = Home::new();
    let seed = home.path().join("seed");
    fs::create_dir(&seed).expect("a directory");
    fs::write(seed.join("seeded"), "from the host").expect("written");
    let seed = seed.to_str().expect("UTF-8");
    succeed(&home, &["workspace", "create", "debian:12", "--name", "w", "--seed-path", seed]);
    shell(&home, "w", MAKE);
    let then = shell(&home, "w", TELL);
    let patch = succeed(&home, &["workspace", "diff", "w"]);
    succeed(&home, &["workspace", "snapshot", "create", "w", "made"]);
    let break_all = "rm -rf ./* /usr/local/bin/mine /etc/hosts.allow; mkdir -p /usr/share/doc
        echo other > tool; rm -rf /usr/bin/python3*";
    shell(&home, "w", break_all);
    succeed(&home, &["workspace", "snapshot", "create", "w", "broken"]);
    succeed(&home, &["workspace", "reset", "w", "--snapshot", "made"]);
    assert_eq!(shell(&home, "w", TELL), then);
    assert_eq!(succeed(&home, &["workspace", "diff", "w"]), patch);
    shell(&home, "w", "python3 -c 'print(1)'");
    // Others lose nothing when one goes.
    succeed(&home, &["workspace", "snapshot", "rename", "w", "broken", "worst"]);
    succeed(&home, &["workspace", "snapshot", "delete", "w", "made"]);
    succeed(&home, &["workspace", "reset", "w", "--snapshot", "worst"]);
    assert_eq!(
        shell(&home, "w", "cat tool; test -e /usr/bin/python3 || echo none"),
        "other\nnone\n"
    );
    succeed(&home, &["workspace", "reset", "w"]);
    assert_eq!(
        shell(&home, "w", "ls; cat seeded; ls /usr/share/doc | head -c 1 | wc -c"),
        "seeded\nfrom the host1\n"
    );
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}

/// Writes numbered lines, each on the disk before the next, and says so.
const WRITER: &str = r#"
import os
file = os.open("lines", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
number = 0
while True:
    number += 1
    os.write(file, b"%0512d\n" % number)
    os.fsync(file)
    seen = os.open("seen.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(seen, b"%d" % number)
    os.close(seen)
    os.rename("seen.new", "seen")
"#;

#[test]
fn what_is_written_meanwhile_is_in_it_up_to_one_moment() {
    let home = Home::new();
    succeed(&home, &["workspace", "create", "debian:12", "--name", "w"]);
    succeed(&home, &["workspace", "file", "write", "w", "writer.py", "--text", WRITER]);
    succeed(&home, &["workspace", "exec", "w", "--detach", "--", "python3", "writer.py"]);
    shell(&home, "w", "until [ -s seen ]; do sleep 0.1; done");
    for number in 0..scaled(4, 2) {
        let name = format!("s{number}");
        let before: u64 = shell(&home, "w", "cat seen").parse().expect("a number");
        succeed(&home, &["workspace", "snapshot", "create", "w", &name]);
        let after: u64 = shell(&home, "w", "cat seen").parse().expect("a number");
        assert!(before <= after, "the writer goes on");
        let from = format!("w@{name}");
        succeed(&home, &["workspace", "create", "--from", &from, "--name", &name]);
        let check = "python3 -c '
lines = open(\"lines\", \"rb\").read().split(b\"\\n\")
whole = [int(line) for line in lines[:-1]]
assert whole == list(range(1, len(whole) + 1)), whole[:3]
assert int(open(\"seen\").read()) <= len(whole)
print(len(whole))'";
        let whole: u64 = shell(&home, &name, check).trim().parse().expect("a number");
        assert!((before..=after + 1).contains(&whole), "{before} <= {whole} <= {after}");
        succeed(&home, &["workspace", "delete", &name]);
    }
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}

#[test]
fn forks_go_their_own_way_and_know_no_secret() {
    let home = Home::new();
    let secret = home.path().join("secret");
    fs::write(&secret, "canary-7d1f0c5b9e").expect("written");
    let file = format!("TOKEN={}", secret.display());
    succeed(&home, &["workspace", "create", "debian:12", "--name", "w", "--secret-file", &file]);
    shell(&home, "w", "cat /run/pyro-secrets/TOKEN | wc -c; echo source > note");
    succeed(&home, &["workspace", "exec", "w", "--detach", "--", "sleep", "1000"]);
    succeed(&home, &["workspace", "snapshot", "create", "w", "s"]);
    let names = ["one", "two"];
    std::thread::scope(|scope| {
        for (name, from) in names.iter().zip(["w", "w@s"]) {
            let home = &home;
            scope.spawn(move || {
                succeed(home, &["workspace", "create", "--from", from, "--name", name]);
                let write = format!("cat note; echo {name} > note; pgrep -c sleep");
                let said = home
                    .pyro(["workspace", "exec", name, "--shell", &write])
                    .stderr(Stdio::inherit())
                    .output()
                    .expect("pyro starts");
                assert_eq!(String::from_utf8_lossy(&said.stdout), "source\n0\n");
            });
        }
    });
    let all = ["w", "one", "two"];
    let notes = all.map(|name| shell(&home, name, "cat note"));
    assert_eq!(notes, ["source\n", "one\n", "two\n"]);
    let identity = "cat /etc/machine-id /proc/sys/kernel/random/boot_id; hostname
        head -c 16 /dev/urandom | md5sum";
    let identities: BTreeSet<_> = all.iter().map(|name| shell(&home, name, identity)).collect();
    assert_eq!(identities.len(), 3);
    for name in names {
        assert_eq!(shell(&home, name, "ls -A /run/pyro-secrets 2>/dev/null | wc -l"), "0\n");
        assert_eq!(json(&home, &["workspace", "secret", "list", name])["count"], 0);
    }
    // Disks and snapshots included, where what is looked for would be found.
    let state = home.path().join("state");
    assert!(with(&state, b"source\n").len() >= 2);
    assert_eq!(with(&state, b"canary-7d1f0c5b9e"), Vec::<PathBuf>::new());
    for name in all {
        succeed(&home, &["workspace", "delete", name]);
    }
    home.expect_clean_within(Duration::from_secs(5));
}

/// The bytes of a file's blocks that others have as well, as its file system tells.
fn shared(file: &Path) -> u64 {
    let mut filefrag = tool("filefrag").expect("e2fsprogs is installed");
    let told = stdout(&filefrag.args(["-v", "-b1"]).arg(file).output().expect("it starts"));
    // `0: 0.. 4095: 8192.. 12287: 4096: 8192: last,shared,eof`
    let extents = told.lines().filter(|line| line.contains("shared"));
    let length = |line: &str| line.split(':').nth(3).and_then(|it| it.trim().parse::<u64>().ok());
    extents.map(|line| length(line).unwrap_or_else(|| panic!("no extent: {line}"))).sum()
}

#[test]
fn p2_p9_where_files_are_copied_by_reference_a_gigabyte_is_there_once() {
    let Some(home) = Home::on(FileSystem::ByReference(8 << 30)) else { return };
    let written = u64::from(scaled(1024, 256)) << 20;
    let create = ["workspace", "create", "debian:12", "--disk-mib", "4096", "--id-only"];
    let id = succeed(&home, &[&create[..], &["--name", "w"]].concat());
    let write = format!("dd if=/dev/zero of=large bs=1M count={} status=none", written >> 20);
    shell(&home, "w", &format!("{write}; echo then > note; sync"));
    let before = home.mounted().used();
    assert!(before > written, "{before}");
    let taken = json(&home, &["workspace", "snapshot", "create", "w", "s"]);
    let forked = ["workspace", "create", "--from", "w", "--name", "fork", "--id-only"];
    let fork = succeed(&home, &forked);
    let grown = home.mounted().used() - before;
    assert!(grown < written / 10, "{grown} of {written} bytes are there twice");
    let workspaces = home.path().join("state/workspaces");
    let snapshot = workspaces.join(id.trim()).join("snapshots/s/disk.ext4");
    for disk in [snapshot, workspaces.join(fork.trim()).join("disk-0.ext4")] {
        let shared = shared(&disk);
        assert!(shared > written / 10 * 9, "{shared} bytes of {}", disk.display());
    }
    // The answer says as much.
    let bytes = |name: &str| taken["snapshot"][name].as_u64().expect("a number");
    assert!(bytes("size_bytes") > written && bytes("exclusive_bytes") < written / 10, "{taken}");
    // What one writes the others do not see.
    shell(&home, "w", "echo now > note; rm large; sync");
    let look = "cat note; stat -c %s large";
    assert_eq!(shell(&home, "fork", look), format!("then\n{written}\n"));
    succeed(&home, &["workspace", "reset", "w", "--snapshot", "s"]);
    assert_eq!(shell(&home, "w", look), format!("then\n{written}\n"));
    let grown = home.mounted().used() - before;
    assert!(grown < written / 5, "{grown} of {written} bytes are there twice");
    for name in ["w", "fork"] {
        succeed(&home, &["workspace", "delete", name]);
    }
    home.expect_clean_within(Duration::from_secs(5));
}
