//! A secret in a real guest: there for the programs that are to have it, and told
//! nowhere.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails")]

#[path = "secrets/search.rs"]
mod search;
#[path = "secrets/session.rs"]
mod session;
#[path = "../../host/tests/support/tty.rs"]
mod tty;

use pyro_smoke::{Home, pyro_executable, stdout};
use search::{CANARY, IN_GUEST, telling_files, telling_processes, tells};
use serde_json::json;
use session::Session;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tty::Tty;

const NOWHERE: [&str; 0] = [];

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
    assert_eq!(telling_files(home.path()), NOWHERE);
    succeed(&home, &["workspace", "secret", "delete", "w", "TOKEN"]);
    let gone = ["workspace", "exec", "w", "--shell", "test -e /run/pyro-secrets || echo gone"];
    assert_eq!(succeed(&home, &gone), "gone\n");
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}

/// `pyro` with these words, and its standard input held open.
fn held(home: &Home, words: &[&str]) -> Child {
    let mut command = home.pyro(words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("pyro starts")
}

fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    let stdout = child.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    line
}

/// What the search in the guest finds.
fn telling_guest_processes(home: &Home) -> Vec<String> {
    let search = ["workspace", "exec", "w", "--", "python3", "search.py"];
    succeed(home, &search).lines().map(str::to_owned).collect()
}

#[test]
fn s6_no_process_tells_a_secret_but_those_that_are_to_have_it() {
    const WITH: [&str; 2] = ["--secret-env", "TOKEN=KEY"];
    let home = Home::new();
    succeed(&home, &["workspace", "create", "debian:12", "--name", "w"]);
    let mut setting = held(&home, &["workspace", "secret", "set", "w", "TOKEN"]);
    let mut stdin = setting.stdin.take().expect("it is piped");
    stdin.write_all(CANARY.as_bytes()).expect("it reads");
    assert_eq!(telling_processes(&home), NOWHERE, "while it is set");
    drop(stdin);
    let said = stdout(&setting.wait_with_output().expect("it ends"));
    assert!(said.contains("TOKEN") && !tells(said.as_bytes()), "{said}");
    succeed(&home, &["workspace", "file", "write", "w", "search.py", "--text", IN_GUEST]);
    shell(&home, "cp /bin/sleep mapped; cp /bin/sleep unmapped");

    // Programs of all kinds that have it, and some that do not.
    let exec = ["workspace", "exec", "w"];
    let service = |name: &str, more: &[&str]| {
        let line = format!("echo \"[$KEY]\"; exec /workspace/{name} 1000");
        let start = ["workspace", "service", "start", "w", name];
        succeed(&home, &[&start[..], more, &["--shell", &line]].concat());
    };
    service("mapped", &WITH);
    service("unmapped", &[]);
    succeed(&home, &[&["workspace", "shell", "open", "w"], &WITH[..]].concat());
    let cat = ["--shell", "echo \"[$KEY]\"; exec cat"];
    let mut running = held(&home, &[&exec[..], &WITH, &["-i"], &cat].concat());
    assert_eq!(first_line(&mut running), "[[REDACTED]]\n");
    let mut follower =
        held(&home, &["workspace", "service", "logs", "w", "mapped", "--all", "--follow"]);
    assert_eq!(first_line(&mut follower), "[[REDACTED]]\n");
    let mut attached = Command::new(pyro_executable());
    attached.args(["workspace", "attach", "w"]).args(WITH).env("PYRO_HOME", home.path());
    let mut seat = Tty::start(attached, 100, 30);
    seat.types(b"echo [$KEY] ${#KEY}\r");
    seat.sees(&format!("[[REDACTED]] {}", CANARY.len()));

    // All of these run, on both sides.
    let lines: Vec<_> = home.processes().into_iter().map(|(_, line)| line).collect();
    for words in ["__supervise", " exec w", " logs w", " attach w"] {
        assert!(lines.iter().any(|line| line.contains(words)), "{words}: {lines:?}");
    }
    assert_eq!(telling_processes(&home), NOWHERE);
    let mapped = ["environ of bash", "environ of cat", "environ of mapped"];
    assert_eq!(telling_guest_processes(&home), mapped);
    let others = "cat /run/pyro-secrets/TOKEN /proc/$(pgrep -xo mapped)/environ | wc -c";
    let others = [&exec[..], &["--user", "nobody", "--shell", others]].concat();
    assert_eq!(succeed(&home, &others), "0\n", "nobody but root");

    // What is planted is found.
    let plant = |arguments: &[&str], value: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", "echo; read line"]).args(arguments).env("PLANT", value);
        command.env("PYRO_HOME", home.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("sh");
        first_line(&mut child);
        child
    };
    for (mut planted, place) in
        [(plant(&[CANARY], ""), "cmdline of sh"), (plant(&[], CANARY), "environ of sh")]
    {
        let found = telling_processes(&home);
        drop(planted.stdin.take());
        planted.wait().expect("it ends");
        assert!(found.contains(&place.to_owned()), "{place}: {found:?}");
    }
    let sleeps = ["python3", "-c", "import time; time.sleep(1000)", CANARY];
    succeed(&home, &[&exec[..], &["--detach", "--"], &sleeps].concat());
    let found = telling_guest_processes(&home);
    assert!(found.contains(&"cmdline of python3".to_owned()), "{found:?}");
    let planted = home.path().join("state/planted");
    fs::write(&planted, format!("ab{CANARY}")).expect("written");
    assert_eq!(telling_files(home.path()), [planted.to_str().expect("UTF-8")]);
    fs::remove_file(planted).expect("removed");

    seat.types(b"exit\r");
    seat.ends();
    for mut child in [running, follower] {
        child.kill().expect("it runs");
        child.wait().expect("it ends");
    }
    assert_eq!(telling_files(home.path()), NOWHERE);
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}

#[test]
fn s6_a_model_uses_a_secret_that_is_in_nothing_it_says_or_hears() {
    let home = Home::new();
    succeed(&home, &["workspace", "create", "debian:12", "--name", "w"]);
    let file = home.path().join("token");
    fs::write(&file, format!("{CANARY}\n")).expect("written");
    let mut model = Session::begin(&home);
    let set = model.call("secret_set", json!({ "name": "TOKEN", "file": file }));
    fs::remove_file(file).expect("it is there");
    assert_eq!(set["isError"], false, "{set}");
    let env = json!({ "TOKEN": "KEY" });
    let tell = "echo $KEY; echo $KEY >&2; echo $KEY | base64; cp /run/pyro-secrets/TOKEN copy; \
                printf '%s %s' \"$KEY\" ${#KEY}";
    let told = model.call("workspace_exec", json!({ "command": tell, "secret_env": env }));
    let output = told["structuredContent"]["stdout"].as_str().expect("text");
    assert!(output.ends_with(&format!("[REDACTED] {}", CANARY.len())), "{told}");
    let fails = json!({ "command": ["sh", "-c", "exec /no/$KEY"], "secret_env": env });
    model.call("workspace_exec", fails);
    let read = model.call("workspace_file_read", json!({ "path": "copy" }));
    assert_eq!(read["structuredContent"]["content"], "[REDACTED]\n", "{read}");
    model.call("workspace_file_search", json!({ "pattern": "canary" }));
    model.call("workspace_diff", json!({}));
    let opened = model.call("shell_open", json!({ "secret_env": env }));
    let shell = opened["structuredContent"]["shell_id"].clone();
    model.call("shell_write", json!({ "shell_id": shell, "input": "echo [$KEY] fin''ished" }));
    for plain in [true, false] {
        let read = json!({ "shell_id": shell, "plain": plain, "wait_for_idle_ms": 1000 });
        let read = model.call("shell_read", read);
        let output = read["structuredContent"]["output"].as_str().expect("text");
        assert!(output.contains("[[REDACTED]] finished"), "{read}");
    }
    let start = json!({
        "service_name": "teller", "command": "echo $KEY; exit 3", "secret_env": env,
        "ready_file": "never",
    });
    model.call("service_start", start);
    model.call("service_logs", json!({ "service_name": "teller" }));
    let looks = ["workspace_logs", "workspace_status", "service_list", "shell_list", "secret_list"];
    for tool in looks {
        let answer = model.call(tool, json!({}));
        assert_eq!(answer["isError"], false, "{tool}: {answer}");
    }
    // Even what the model itself says is not said back.
    let echoed = model.call("workspace_exec", json!({ "command": ["echo", CANARY] }));
    assert_eq!(echoed["structuredContent"]["stdout"], "[REDACTED]\n", "{echoed}");
    let (asked, told) = model.end();
    assert_eq!(asked.iter().filter(|line| tells(line.as_bytes())).count(), 1, "the last one");
    let told: Vec<_> = told.iter().filter(|line| tells(line.as_bytes())).collect();
    assert!(told.is_empty(), "{told:#?}");
    assert_eq!(telling_files(home.path()), NOWHERE);
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}
