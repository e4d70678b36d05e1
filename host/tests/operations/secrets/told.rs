//! The canary, wherever a program or a caller may put it.

use super::{Bench, CANARY, assert_none};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pyro::ErrorKind;
use pyro::operation::{
    FileList, FileRead, FileSearch, FileStat, PatchApply, ProcessList, ProcessPoll, ProcessWait,
    SecretSet, WorkspaceDiff, WorkspaceEvents, WorkspaceExec, WorkspaceList, WorkspaceLogs,
    WorkspaceStatus,
};
use pyro::secret::redact::MARK;
use serde_json::json;
use std::fs;

/// A program that prints the canary in every spelling, a few bytes at a time.
pub(super) const TELL: &str = r#"for c in "$KEY" "[$KEY]"; do printf '%s\n' "$c"; done; \
printf %s "$KEY" | base64; printf 'user:%s' "$KEY" | base64; \
printf %s "$KEY" | od -An -v -tx1 | tr -d ' \n' | sed 's/../%&/g'; echo; \
printf %s "$KEY" | dd bs=3 2>/dev/null; echo; printf %s "$KEY" >&2"#;

#[tokio::test]
async fn s6_a_program_has_it_and_nobody_is_told() {
    let bench = Bench::new().await;
    let env = json!({ "CANARY": "KEY" });
    let proof = json!({ "command": "printf %s \"$KEY\" | wc -c", "secret_env": env });
    let proof = bench.ask::<WorkspaceExec>(proof).await.unwrap();
    assert_eq!(proof.output.stdout.trim(), CANARY.len().to_string(), "it has no line end");
    for yields in [json!(45), json!(null)] {
        let tell = json!({ "command": TELL, "secret_env": env, "yield_seconds": yields });
        let told = bench.ask::<WorkspaceExec>(tell).await.unwrap();
        assert_eq!(told.output.stderr, MARK);
        let expected = format!("{MARK}\n[{MARK}]\n{MARK}\n");
        assert!(told.output.stdout.starts_with(&expected), "{}", told.output.stdout);
        assert_eq!(told.output.stdout.matches(MARK).count(), 6, "{}", told.output.stdout);
    }
    bench.ask::<WorkspaceLogs>(json!({})).await.unwrap();
    bench.assert_untold();
    bench.end().await;
}

#[tokio::test]
async fn s6_words_of_a_command_are_told_nowhere() {
    let bench = Bench::new().await;
    let line = format!("echo {CANARY:?}; exit 3");
    bench.ask::<WorkspaceExec>(json!({ "command": line })).await.unwrap();
    let argv = json!(["printf", "%s", CANARY]);
    bench.ask::<WorkspaceExec>(json!({ "command": argv })).await.unwrap();
    let missing = json!([format!("/no/{CANARY}"), CANARY]);
    let error = bench.ask::<WorkspaceExec>(json!({ "command": missing })).await.expect_err("none");
    assert_eq!(error.kind(), ErrorKind::ProgramNotFound);
    let detached = json!({ "command": argv, "detach": true });
    bench.ask::<WorkspaceExec>(detached).await.unwrap();
    bench.ask::<ProcessList>(json!({})).await.unwrap();
    bench.ask::<WorkspaceLogs>(json!({})).await.unwrap();
    bench.ask::<WorkspaceStatus>(json!({})).await.unwrap();
    bench.ask::<WorkspaceList>(json!({})).await.unwrap();
    bench.ask::<WorkspaceEvents>(json!({})).await.unwrap();
    bench.ask::<FileRead>(json!({ "path": format!("no/{CANARY}") })).await.expect_err("none");
    bench.assert_untold();
    bench.end().await;
}

#[tokio::test]
async fn s6_cursors_of_a_process_lead_through_what_is_left_out() {
    let bench = Bench::new().await;
    let text = "printf 'before %s after' \"$KEY\"; printf 'and %s.' \"$KEY\" >&2; sleep 1000";
    let start = json!({ "command": text, "detach": true, "secret_env": { "CANARY": "KEY" } });
    let started = bench.ask::<WorkspaceExec>(start).await.unwrap();
    let id = started.process_id.unwrap();
    for step in [1, 3, 7, 1000] {
        let (mut cursor, mut seen) = (0, String::new());
        // To its very end, of which the last bytes begin nothing.
        while !seen.ends_with("after") {
            let poll = json!({
                "process_id": id, "stdout_cursor": cursor, "limit_bytes": step, "wait_seconds": 60,
            });
            let polled = bench.ask::<ProcessPoll>(poll).await.unwrap();
            assert_eq!(polled.stdout_start, cursor);
            seen.push_str(&polled.stdout);
            cursor = polled.stdout_next_cursor;
        }
        assert_eq!(seen, format!("before {MARK} after"));
        assert_eq!(cursor as usize, "before  after".len() + CANARY.len());
    }
    // Wherever one begins, no half of it is seen.
    for cursor in 0..(12 + CANARY.len()) {
        let poll = json!({ "process_id": id, "stdout_cursor": cursor, "wait_seconds": 60 });
        let polled = bench.ask::<ProcessPoll>(poll).await.unwrap();
        assert!(!polled.stdout.contains(['7', '~', '"', 'y']), "{}", polled.stdout);
    }
    bench.assert_untold();
    bench.end().await;
}

/// One that yields in the middle of it goes on with all of it.
#[tokio::test]
async fn s6_what_a_caller_leaves_midway_is_held_back() {
    let bench = Bench::new().await;
    let (first, second) = CANARY.split_at(9);
    let go_on = bench.home.path("guest/go-on");
    let line = format!(
        "printf 'x{first}'; while ! test -e go-on; do sleep 0.01; done; printf '%s' '{}'",
        second.replace('\'', r"'\''")
    );
    let exec = json!({ "command": line, "yield_seconds": 1 });
    let left = bench.ask::<WorkspaceExec>(exec).await.unwrap();
    assert_eq!((&*left.output.stdout, left.stdout_cursor), ("x", Some(1)));
    fs::write(go_on, "").unwrap();
    let id = left.process_id.unwrap();
    let wait = json!({ "process_id": id, "follow": true, "wait_seconds": 60 });
    assert_eq!(bench.ask::<ProcessWait>(wait).await.unwrap().condition.exit_code, Some(0));
    let poll = json!({ "process_id": id, "stdout_cursor": 1 });
    let polled = bench.ask::<ProcessPoll>(poll).await.unwrap();
    assert_eq!(polled.stdout, MARK);
    assert_eq!(polled.stdout_next_cursor as usize, 1 + CANARY.len());
    // What was recorded by both is one.
    let entry = bench.ask::<WorkspaceLogs>(json!({})).await.unwrap().entries.remove(0);
    assert_eq!(entry.output.stdout, format!("x{MARK}"));
    let told = bench.take_told().join("");
    assert!(!told.contains("canary/7f+3~e91'\\\\\""), "{told}");
    bench.assert_untold();
    bench.end().await;
}

#[tokio::test]
async fn s6_files_show_no_secret_in_any_part() {
    let bench = Bench::new().await;
    let guest = bench.home.path("guest");
    fs::create_dir_all(&guest).unwrap();
    let text = format!("one\ntoken = {CANARY}\nthree\n");
    fs::write(guest.join("config"), &text).unwrap();
    let whole = bench.ask::<FileRead>(json!({ "path": "config" })).await.unwrap();
    assert_eq!(whole.content, format!("one\ntoken = {MARK}\nthree\n"));
    assert_eq!((whole.size_bytes as usize, whole.next_offset), (text.len(), None));
    let line = json!({ "path": "config", "first_line": 2, "line_count": 1 });
    let line = bench.ask::<FileRead>(line).await.unwrap();
    assert_eq!(line.content, format!("token = {MARK}\n"));
    for content_only in [true, false] {
        let read = json!({ "path": "config", "content_only": content_only });
        bench.ask::<FileRead>(read).await.unwrap();
    }
    for max in [1, 5, 12] {
        let (mut offset, mut seen) = (0, String::new());
        loop {
            let read = json!({ "path": "config", "offset": offset, "max_bytes": max });
            let part = bench.ask::<FileRead>(read).await.unwrap();
            seen.push_str(&part.content);
            match part.next_offset {
                Some(next) => offset = next,
                None => break,
            }
        }
        assert_eq!(seen, whole.content);
    }
    for offset in 0..text.len() {
        let read = json!({ "path": "config", "offset": offset, "max_bytes": 4 });
        let part = bench.ask::<FileRead>(read).await.unwrap();
        assert!(!part.content.contains(['7', '~', '"', 'y']), "{}", part.content);
    }
    let found = bench.ask::<FileSearch>(json!({ "pattern": "token" })).await.unwrap();
    assert_eq!(found.matches[0].text.as_deref(), Some(&*format!("token = {MARK}")));
    let patch = "--- a/none\n+++ b/none\n@@ -1 +1 @@\n-a\n+b\n";
    let patch = patch.replace("none", &format!("no-{}", "canary"));
    bench.ask::<PatchApply>(json!({ "patch": patch })).await.expect_err("it is not there");
    bench.assert_untold();
    bench.end().await;
}

#[tokio::test]
async fn s6_diffs_patches_and_names_show_no_secret() {
    let bench = Bench::new().await;
    let (seed, guest) = (bench.home.path("seed"), bench.home.path("guest"));
    fs::write(seed.join("config"), "token =\n").unwrap();
    fs::write(guest.join("config"), format!("token = {CANARY}\n")).unwrap();
    let name = CANARY.replace('/', "\u{2215}");
    let named = bench.file_of("named", &name);
    bench.ask::<SecretSet>(json!({ "name": "NAMED", "file": named })).await.unwrap();
    fs::write(guest.join(&name), "x\n").unwrap();
    fs::create_dir(guest.join("pages")).unwrap();
    std::os::unix::fs::symlink(CANARY, guest.join("link")).unwrap();
    let diff = bench.ask::<WorkspaceDiff>(json!({})).await.unwrap();
    assert!(diff.patch.contains(&format!("+token = {MARK}\n")), "{}", diff.patch);
    for how in [json!({ "stat": true }), json!({ "name_only": true })] {
        let told = bench.ask::<WorkspaceDiff>(how).await.unwrap();
        assert!(told.entries.iter().any(|entry| entry.path.ends_with(MARK)), "{told:?}");
    }
    let listed = bench.ask::<FileList>(json!({})).await.unwrap();
    let link = listed.entries.iter().find(|entry| entry.name.path.ends_with("link")).unwrap();
    assert_eq!(link.link_target.as_deref(), Some(MARK));
    // Cursors hold the names at which they go on.
    for name in [&name, &format!("{name}-2")] {
        fs::write(guest.join("pages").join(name), "some text\n").unwrap();
    }
    let page = json!({ "path": "pages", "limit": 1 });
    assert!(bench.ask::<FileList>(page).await.unwrap().next_cursor.is_some());
    let page = json!({ "path": "pages", "pattern": "some text", "limit": 1 });
    assert!(bench.ask::<FileSearch>(page).await.unwrap().next_cursor.is_some());
    bench.ask::<FileStat>(json!({ "path": name })).await.unwrap();
    let patch = format!("--- /dev/null\n+++ b/{name}-2\n@@ -0,0 +1 @@\n+{CANARY}\n");
    let patched = bench.ask::<PatchApply>(json!({ "patch": patch })).await.unwrap();
    assert!(patched.entries[0].path.contains(MARK), "{patched:?}");
    for text in bench.take_told() {
        assert_none(text.as_bytes(), &text);
        assert!(!text.contains(&name), "{text}");
        // Wherever it stands, some of these are whole.
        for at in 0..3 {
            let encoded = STANDARD.encode(&name.as_bytes()[at..at + 12]);
            assert!(!text.contains(&encoded), "{text}");
        }
    }
    bench.assert_untold();
    bench.end().await;
}
