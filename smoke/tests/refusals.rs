//! What cannot be done is said clearly, with the next step, and exit status 125.

use pyro_smoke::{Home, stderr, user_cache};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Output;

fn refused(output: &Output, names: &str, next_step: &str) {
    assert_eq!(output.status.code(), Some(125), "{}", stderr(output));
    let said = stderr(output);
    assert!(said.contains(names), "{names:?} is not in: {said}");
    assert!(said.contains(next_step), "{next_step:?} is not in: {said}");
    assert!(output.stdout.is_empty());
}

#[test]
fn an_unknown_environment() {
    let home = Home::new();
    let output = home.pyro(["run", "debain:12", "--", "true"]).output().expect("pyro starts");
    refused(&output, "debain:12", "debian:12");
}

#[test]
fn an_environment_that_is_not_built() {
    let home = Home::bare();
    refused(&home.run(&["true"]), "debian:12", "pyro env build debian:12");
}

#[test]
fn too_little_memory() {
    let home = Home::new();
    let output = home
        .pyro(["run", "--mem-mib", "4000000", "debian:12", "--", "true"])
        .output()
        .expect("pyro starts");
    refused(&output, "memory", "--mem-mib");
}

#[test]
fn a_missing_qemu() {
    let home = Home::new();
    let output = home
        .pyro(["run", "debian:12", "--", "true"])
        .env("PATH", "/nonexistent")
        .output()
        .expect("pyro starts");
    refused(&output, "qemu-system-x86_64", "apt-get install qemu-system-x86");
    let output = home
        .pyro(["run", "debian:12", "--", "true"])
        .env("PYRO_QEMU", "/nonexistent")
        .output()
        .expect("pyro starts");
    refused(&output, "/nonexistent", "PYRO_QEMU");
}

/// The largest file below a directory: the root image of a home with one.
fn largest(directory: &Path) -> PathBuf {
    let mut files = vec![];
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("readable").flatten() {
            let meta = entry.metadata().expect("metadata");
            if meta.is_dir() {
                directories.push(entry.path());
            } else {
                files.push((meta.len(), entry.path()));
            }
        }
    }
    files.into_iter().max().expect("a file").1
}

/// A home with a copy of what `debian:12-base` needs, free to be damaged.
fn home_of_its_own() -> Home {
    let home = Home::bare();
    let status = std::process::Command::new("cp")
        .args(["-r", "--reflink=auto", "--sparse=always"])
        .arg(user_cache())
        .arg(home.path().join("cache"))
        .status()
        .expect("cp starts");
    assert!(status.success());
    home
}

#[test]
fn a_flipped_byte_in_an_image() {
    let home = home_of_its_own();
    let image = largest(&home.path().join("cache/images"));
    let file = fs::File::options().read(true).write(true).open(&image).expect("writable");
    let (mut byte, middle) = ([0], file.metadata().expect("metadata").len() / 2);
    file.read_exact_at(&mut byte, middle).expect("readable");
    file.write_all_at(&[byte[0] ^ 1], middle).expect("writable");
    // Whichever environment it belongs to, the others still run.
    let names = ["debian:12-base", "debian:12", "debian:12-build"];
    let outputs = names
        .map(|name| (name, home.pyro(["run", name, "--", "true"]).output().expect("pyro starts")));
    let failed: Vec<_> = outputs.iter().filter(|(_, output)| !output.status.success()).collect();
    assert_eq!(failed.len(), 1, "{outputs:?}");
    let (name, output) = failed[0];
    refused(output, "root.erofs", &format!("pyro env build {name}"));
}

#[test]
fn a_full_disk() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can mount a small file system");
        return;
    }
    let home = Home::new();
    let state = home.path().join("state");
    fs::create_dir(&state).expect("writable");
    let mounted = SmallMount::on(&state);
    let output = home.run(&["true"]);
    drop(mounted);
    refused(&output, "disk", "free some space");
}

/// A file system with hardly any room, unmounted when dropped.
struct SmallMount(PathBuf);

impl SmallMount {
    fn on(path: &Path) -> Self {
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "none"])
            .arg(path)
            .status()
            .expect("mount starts");
        assert!(status.success());
        Self(path.to_owned())
    }
}

impl Drop for SmallMount {
    fn drop(&mut self) {
        let status = std::process::Command::new("umount").arg(&self.0).status();
        assert!(status.is_ok_and(|status| status.success()), "{} stays mounted", self.0.display());
    }
}
