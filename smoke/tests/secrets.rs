//! A secret in a real guest: there for the programs that are to have it, and told
//! nowhere.

use pyro_smoke::{Home, stdout};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const CANARY: &str = "canary-7f3e91c2~token/of%no+use";

fn succeed(home: &Home, words: &[&str]) -> String {
    stdout(&home.pyro(words).output().expect("pyro starts"))
}

fn shell(home: &Home, line: &str) -> String {
    succeed(home, &["workspace", "exec", "w", "--secret-env", "TOKEN=KEY", "--shell", line])
}

/// Sets it from standard input, with a line end.
fn set(home: &Home, value: &str) {
    let mut setting = home.pyro(["workspace", "secret", "set", "w", "TOKEN"]);
    setting.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut setting = setting.spawn().expect("pyro starts");
    let mut stdin = setting.stdin.take().expect("it is piped");
    writeln!(stdin, "{value}").expect("it reads");
    drop(stdin);
    let said = stdout(&setting.wait_with_output().expect("it ends"));
    assert!(said.contains("TOKEN") && !said.contains(value), "{said}");
}

/// What of pyro's own files has the canary. A disk is the guest's own.
fn told_in(directory: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).expect("readable").flatten() {
        let path = entry.path();
        let meta = path.symlink_metadata().expect("it is there");
        // It is mostly holes.
        let is_disk = meta.len() >= 64 << 20;
        if meta.is_dir() {
            told_in(&path, found);
        } else if meta.is_file() && !is_disk {
            let content = fs::read(&path).expect("readable");
            if content.windows(CANARY.len()).any(|bytes| bytes == CANARY.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
}

#[test]
fn s6_a_secret_is_there_after_every_start_and_told_nowhere() {
    let home = Home::new();
    succeed(&home, &["workspace", "create", "debian:12", "--name", "w"]);
    set(&home, CANARY);
    let length = CANARY.len();
    let has_it = |length: usize| {
        assert_eq!(shell(&home, "printf %s \"$KEY\" | wc -c").trim(), length.to_string());
        let file = shell(&home, "stat -c '%a %u %s' /run/pyro-secrets /run/pyro-secrets/TOKEN");
        let lines: Vec<_> = file.lines().collect();
        assert!(lines[0].starts_with("700 0 "), "{file}");
        assert_eq!(lines[1], format!("600 0 {}", length + 1));
        assert_eq!(shell(&home, "stat -f -c %T /run/pyro-secrets").trim(), "tmpfs");
    };
    has_it(length);
    let told = shell(&home, "cat /run/pyro-secrets/TOKEN; env | grep KEY=; echo \"$KEY\" | base64");
    assert_eq!(told, "[REDACTED]\nKEY=[REDACTED]\n[REDACTED]\n");
    shell(&home, "cp /run/pyro-secrets/TOKEN copy; echo \"$KEY\" > /dev/console");
    let read = succeed(&home, &["workspace", "file", "read", "w", "copy"]);
    assert_eq!(read.trim(), "[REDACTED]");
    let diff = succeed(&home, &["workspace", "diff", "w"]);
    assert!(diff.contains("+[REDACTED]\n"), "{diff}");
    let slowly = "for c in $(printf %s \"$KEY\" | sed 's/./& /g'); do printf %s $c; done";
    assert_eq!(shell(&home, slowly), "[REDACTED]");
    succeed(&home, &["workspace", "exec", "w", "--", "echo", CANARY]);
    for words in [["workspace", "logs", "w"], ["workspace", "events", "w"]] {
        let told = succeed(&home, &words);
        assert!(told.contains("[REDACTED]") && !told.contains("canary-7f3e91c2"), "{told}");
    }
    succeed(&home, &["workspace", "stop", "w"]);
    succeed(&home, &["workspace", "start", "w"]);
    has_it(length);
    succeed(&home, &["workspace", "reset", "w"]);
    has_it(length);
    set(&home, "another");
    has_it("another".len());
    set(&home, CANARY);
    let mut found = Vec::new();
    told_in(home.path(), &mut found);
    assert!(found.is_empty(), "{found:?}");
    succeed(&home, &["workspace", "secret", "delete", "w", "TOKEN"]);
    let gone = ["workspace", "exec", "w", "--shell", "test -e /run/pyro-secrets || echo gone"];
    assert_eq!(succeed(&home, &gone), "gone\n");
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}
