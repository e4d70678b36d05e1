//! What cannot be done is said clearly, with the next step, and exit status 125.

use pyro_smoke::mounted::FileSystem;
use pyro_smoke::{Home, stderr, user_cache};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Output};

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

/// A home whose image of `debian:12-base` is a copy, free to be damaged.
fn home_with_an_image_of_its_own() -> (Home, PathBuf) {
    let cache = user_cache();
    let directory = Home::new().image_directory("debian:12-base");
    let home = Home::bare();
    let own = home.path().join("cache");
    fs::create_dir_all(own.join("images")).expect("writable");
    for name in ["kernels", "environments", "disks"] {
        std::os::unix::fs::symlink(cache.join(name), own.join(name)).expect("writable");
    }
    let copy = own.join("images").join(directory.file_name().expect("a digest"));
    let status =
        Command::new("cp").arg("-r").arg(&directory).arg(&copy).status().expect("cp starts");
    assert!(status.success());
    (home, copy.join("root.erofs"))
}

#[test]
fn a_flipped_byte_in_an_image() {
    let (home, image) = home_with_an_image_of_its_own();
    let run = || home.pyro(["run", "debian:12-base", "--", "true"]).output().expect("pyro starts");
    let before = run();
    assert!(before.status.success(), "{}", stderr(&before));
    let file = fs::File::options().read(true).write(true).open(&image).expect("writable");
    let (mut byte, middle) = ([0], file.metadata().expect("metadata").len() / 2);
    file.read_exact_at(&mut byte, middle).expect("readable");
    file.write_all_at(&[byte[0] ^ 1], middle).expect("writable");
    refused(&run(), "root.erofs", "pyro env build debian:12-base");
}

/// A home whose workspaces have so much room and no more.
fn home_with_room_for(bytes: u64) -> Option<Home> {
    Home::on(FileSystem::Small(bytes))
}

#[test]
fn a_full_disk() {
    let Some(home) = home_with_room_for(64 << 10) else { return };
    refused(&home.run(&["true"]), "disk", "free some space");
}

/// QEMU's own default is to stop the machine, and nobody would start it again.
#[test]
fn a_disk_that_fills_under_a_guest_is_an_error_in_the_guest() {
    let Some(home) = home_with_room_for(48 << 20) else { return };
    let output =
        home.run(&["sh", "-c", "dd if=/dev/zero of=/big bs=1M count=200 && sync /big; echo $?"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim() != "0", "{said}: {}", stderr(&output));
}
