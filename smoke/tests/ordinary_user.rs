//! Nothing of this needs root.

use pyro_smoke::{Home, pyro_executable, stderr, stdout, user_cache};
use std::path::Path;
use std::process::Command;

/// A user whom no host has.
const UID: u32 = 54_321;

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").arg(from).arg(to).status().expect("cp starts");
    assert!(status.success(), "cannot copy {}", from.display());
}

/// A home of that user's, with everything in it that `debian:12-base` needs.
fn home_of_the_user() -> Home {
    let home = Home::bare();
    let cache = home.path().join("cache");
    std::fs::create_dir_all(cache.join("images")).expect("writable");
    for name in ["kernels", "environments"] {
        copy(&user_cache().join(name), &cache.join(name));
    }
    copy(&Home::new().image_directory("debian:12-base"), &cache.join("images"));
    copy(&pyro_executable(), &home.path().join("pyro"));
    let owner = format!("{UID}:{UID}");
    let status =
        Command::new("chown").args(["-R", &owner]).arg(home.path()).status().expect("chown starts");
    assert!(status.success());
    home
}

fn as_the_user(home: &Home, arguments: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([format!("--reuid={UID}"), format!("--regid={UID}"), "--clear-groups".into()])
        .arg(home.path().join("pyro"))
        .args(arguments)
        .env("PYRO_HOME", home.path())
        .current_dir("/");
    command
}

#[test]
fn an_ordinary_user_runs_a_command() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: every other story is told by an ordinary user already");
        return;
    }
    let home = home_of_the_user();
    let output = as_the_user(&home, &["run", "debian:12-base", "--", "id", "-u"])
        .output()
        .expect("setpriv starts");
    assert_eq!(stdout(&output), "0\n", "root in the guest: {}", stderr(&output));

    let output = as_the_user(&home, &["doctor", "--json"]).output().expect("setpriv starts");
    let report: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert!(report["chosen"].is_string(), "{report}");
    let confinement = report["checks"]
        .as_array()
        .and_then(|checks| checks.iter().find(|check| check["name"] == "confinement of the VMM"))
        .expect("doctor looks at the confinement");
    assert_eq!(confinement["state"], "ok", "{confinement}");
    assert!(home.leftovers().is_empty());
}
