//! Secrets: set, handed over, used, and told nowhere.

use crate::fake_vmm::{FakeVmm, serve_guest};
use crate::home::{ENVIRONMENT, Home};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use pyro::context::Roots;
use pyro::event::Event;
use pyro::operation::{
    AnyAnswer, Entry, FileList, FileRead, FileSearch, FileStat, Ink, Operation, PatchApply,
    ProcessList, ProcessPoll, ProcessWait, SecretDelete, SecretList, SecretSet, WorkspaceCreate,
    WorkspaceDelete, WorkspaceDiff, WorkspaceEvents, WorkspaceExec, WorkspaceList, WorkspaceLogs,
    WorkspaceStart, WorkspaceStatus, WorkspaceStop,
};
use pyro::secret::redact::MARK;
use pyro::{Context, Error, ErrorKind, Events, Pyro};
use pyro_agent::{Guest, LayerPaths, Phase};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The value that is looked for everywhere.
const CANARY: &str = "canary/7f+3~e91'\"b%2c";

/// A workspace with the canary as its secret `CANARY`.
struct Bench {
    home: Home,
    pyro: Pyro,
    vmm: FakeVmm,
    /// All that was told: answers, events, errors.
    told: Mutex<Vec<String>>,
}

/// Machines with the real agent in them.
fn honest(home: &Home) -> FakeVmm {
    for directory in ["guest", "seed", "work/index"] {
        fs::create_dir_all(home.path(directory)).unwrap();
    }
    let layers = LayerPaths {
        lower: home.path("seed"),
        upper: home.path("guest"),
        work: home.path("work"),
        hard_links: None,
    };
    FakeVmm::new(move |inside| {
        let (workspace, phase) = (layers.upper.clone(), Phase::Waiting);
        let guest = Guest::in_process_on_layers(workspace, layers.clone(), phase);
        serve_guest(inside.channel, guest)
    })
}

fn create(more: Value) -> WorkspaceCreate {
    let mut arguments = json!({ "environment": ENVIRONMENT, "mem_mib": 128, "name": "w" });
    arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(arguments).unwrap()
}

impl Bench {
    async fn new() -> Self {
        let home = Home::new();
        let vmm = honest(&home);
        let pyro = home.pyro(vmm.clone());
        let bench = Self { home, pyro, vmm, told: Mutex::default() };
        let file = bench.file_of("value", &format!("{CANARY}\n"));
        pyro_call(&bench.pyro, create(json!({ "secrets": { "CANARY": file } }))).await;
        fs::remove_file(file).unwrap();
        bench
    }

    /// A file outside of all that is searched.
    fn file_of(&self, name: &str, content: &str) -> PathBuf {
        let path = self.home.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// What a caller of either surface is told.
    async fn ask<O: Operation>(&self, mut arguments: Value) -> pyro::Result<O::Output> {
        let schema = Entry::of::<O>().arguments_schema();
        if schema["properties"].get("workspace_id").is_some() {
            arguments["workspace_id"] = "w".into();
        }
        if schema["properties"].get("user").is_some() {
            let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
            arguments["user"] = format!("{}:{}", user.as_raw(), group.as_raw()).into();
        }
        let heard = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let listener = Arc::clone(&heard);
        let events = Events::discard().tap(move |event| {
            let mut heard = listener.lock().unwrap();
            match event {
                Event::Output { bytes, .. } => heard.0.extend_from_slice(bytes),
                other => heard.1.push(format!("{other:?}")),
            }
        });
        let operation: O = serde_json::from_value(arguments).unwrap();
        let context = Context { events, takes_output: true, ..Context::default() };
        let answer = self.pyro.call_with(operation, context).await;
        let mut told = self.told.lock().unwrap();
        match &answer {
            Ok(answer) => {
                told.push(answer.to_json().unwrap().to_string());
                told.push(answer.to_text(Ink::Plain));
            }
            Err(error) => told.push(told_error(error)),
        }
        let (output, others) = std::mem::take(&mut *heard.lock().unwrap());
        told.push(String::from_utf8_lossy(&output).into_owned());
        told.extend(others);
        answer
    }

    fn take_told(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }

    /// Nothing that was told, and no file of pyro's, has the canary.
    #[track_caller]
    fn assert_untold(&self) {
        for text in self.take_told() {
            assert_none(text.as_bytes(), &text);
        }
        let mut files = 0;
        search(&self.home.path("state"), &mut |path, content| {
            files += 1;
            assert_none(content, &path.display().to_string());
        });
        assert!(files > 5, "{files}");
    }

    async fn end(self) {
        self.ask::<WorkspaceDelete>(json!({})).await.unwrap();
        self.home.assert_nothing_left();
    }
}

async fn pyro_call<O: Operation>(pyro: &Pyro, operation: O) -> O::Output {
    pyro.call(operation).await.unwrap()
}

fn told_error(error: &Error) -> String {
    format!("{} {:?} {error:?}", error.chain(), error.next_step())
}

fn search(directory: &Path, look: &mut impl FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            search(&path, look);
        // What is longer is mostly holes: a disk, which is the guest's own.
        } else if meta.is_file() && meta.len() < 64 << 20 {
            look(&path, &fs::read(&path).unwrap());
        }
    }
}

/// How the canary may be spelled.
fn spellings() -> Vec<String> {
    let percent: String = CANARY.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let json = serde_json::to_string(CANARY).unwrap();
    vec![
        CANARY.into(),
        percent.to_lowercase(),
        percent,
        "canary%2F7f%2B3~e91%27%22b%252c".into(),
        json[1..json.len() - 1].into(),
        // Whatever surrounds it.
        STANDARD_NO_PAD.encode(CANARY)[..24].into(),
        STANDARD_NO_PAD.encode(format!("0{CANARY}"))[2..24].into(),
        STANDARD_NO_PAD.encode(format!("00{CANARY}"))[3..24].into(),
        URL_SAFE_NO_PAD.encode(CANARY)[..24].into(),
    ]
}

#[track_caller]
fn assert_none(content: &[u8], whose: &str) {
    for spelling in spellings() {
        let found = content.windows(spelling.len()).any(|bytes| bytes == spelling.as_bytes());
        assert!(!found, "{spelling} in {whose}");
    }
}

/// A program that prints the canary in every spelling, a few bytes at a time.
const TELL: &str = r#"for c in "$KEY" "[$KEY]"; do printf '%s\n' "$c"; done; \
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
    bench.ask::<FileStat>(json!({ "path": name })).await.unwrap();
    let patch = format!("--- /dev/null\n+++ b/{name}-2\n@@ -0,0 +1 @@\n+{CANARY}\n");
    let patched = bench.ask::<PatchApply>(json!({ "patch": patch })).await.unwrap();
    assert!(patched.entries[0].path.contains(MARK), "{patched:?}");
    for text in bench.take_told() {
        assert_none(text.as_bytes(), &text);
        assert!(!text.contains(&name), "{text}");
    }
    bench.assert_untold();
    bench.end().await;
}

#[tokio::test]
async fn s6_they_come_again_after_each_start_and_rotate() {
    let bench = Bench::new().await;
    let length = async |expected: usize| {
        let env = json!({ "CANARY": "KEY" });
        let command = json!({ "command": "printf %s \"$KEY\" | wc -c", "secret_env": env });
        let told = bench.ask::<WorkspaceExec>(command).await.unwrap();
        assert_eq!(told.output.stdout.trim(), expected.to_string());
    };
    length(CANARY.len()).await;
    bench.vmm.crash();
    length(CANARY.len()).await;
    let file = bench.file_of("value", "another-value");
    let set = json!({ "name": "CANARY", "file": file });
    let set = bench.ask::<SecretSet>(set).await.unwrap();
    assert!(set.in_guest, "a machine that runs has it at once");
    length("another-value".len()).await;
    bench.ask::<WorkspaceStop>(json!({})).await.unwrap();
    let set = json!({ "name": "OTHER", "file": file });
    assert!(!bench.ask::<SecretSet>(set).await.unwrap().in_guest);
    bench.ask::<WorkspaceStart>(json!({})).await.unwrap();
    length("another-value".len()).await;
    let listed = bench.ask::<SecretList>(json!({})).await.unwrap();
    let names: Vec<_> = listed.secrets.iter().map(|secret| &*secret.name).collect();
    assert_eq!(names, ["CANARY", "OTHER"]);
    bench.ask::<SecretDelete>(json!({ "name": "CANARY" })).await.unwrap();
    let gone = json!({ "command": "true", "secret_env": { "CANARY": "KEY" } });
    let error = bench.ask::<WorkspaceExec>(gone).await.expect_err("gone");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("CANARY"), "{error}");
    assert!(error.next_step().is_some_and(|hint| hint.contains("secret list")), "{error:?}");
    let error = bench.ask::<SecretDelete>(json!({ "name": "CANARY" })).await.expect_err("gone");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let again = json!({ "name": "CANARY", "ignore_missing": true });
    assert!(!bench.ask::<SecretDelete>(again).await.unwrap().deleted);
    bench.end().await;
}

#[tokio::test]
async fn two_values_for_one_variable_are_refused() {
    let bench = Bench::new().await;
    let both = json!({ "command": "true", "env": { "A": "1" }, "secret_env": { "CANARY": "A" } });
    let error = bench.ask::<WorkspaceExec>(both).await.expect_err("two values");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.message().contains("variable A"), "{error}");
    bench.end().await;
}

#[tokio::test]
async fn r3_what_cannot_be_unsealed_is_not_shown_and_can_be_set_again() {
    let bench = Bench::new().await;
    bench.ask::<WorkspaceExec>(json!({ "command": ["echo", CANARY] })).await.unwrap();
    let key = bench.home.path("state/secret.key");
    fs::remove_file(&key).unwrap();
    for error in [
        bench.ask::<WorkspaceExec>(json!({ "command": "env" })).await.map(drop),
        bench.ask::<WorkspaceLogs>(json!({})).await.map(drop),
    ] {
        let error = error.expect_err("no key");
        assert!(error.chain().contains("secret.key"), "{}", error.chain());
        assert!(error.next_step().is_some_and(|hint| hint.contains("secret set")), "{error:?}");
    }
    bench.ask::<WorkspaceStatus>(json!({})).await.expect("it is still there");
    let file = bench.file_of("value", CANARY);
    bench.ask::<SecretSet>(json!({ "name": "CANARY", "file": file })).await.unwrap();
    bench.ask::<WorkspaceExec>(json!({ "command": "true" })).await.expect("all is well");
    bench.assert_untold();
    bench.end().await;
}

/// R14: nothing is made before all is known to be right.
#[tokio::test]
async fn r14_a_bad_secret_leaves_nothing() {
    let home = Home::new();
    let vmm = honest(&home);
    let pyro = home.pyro(vmm.clone());
    let file = |name: &str, content: &[u8]| {
        let path = home.path(name);
        fs::write(&path, content).unwrap();
        path
    };
    let (empty, long) = (file("empty", b""), file("long", &vec![b'x'; 65_537]));
    for path in [empty, long, home.path("none")] {
        let bad = create(json!({ "secrets": { "GOOD": file("good", b"12345678"), "BAD": path } }));
        let error = pyro.call(bad).await.expect_err("a bad secret");
        let wanted = [ErrorKind::InvalidInput, ErrorKind::NotFound];
        assert!(wanted.contains(&error.kind()), "{}", error.chain());
        assert!(!home.path("state").exists(), "nothing is made");
    }
    assert_eq!(vmm.started(), 0);
    let mut unset = create(json!({}));
    unset.secrets.secret_env = vec!["TOKEN=PYRO_NO_SUCH_VARIABLE".parse().unwrap()];
    let error = pyro.call(unset).await.expect_err("not set");
    assert!(error.message().contains("PYRO_NO_SUCH_VARIABLE"), "{error}");
    let roots = Roots::below(&[home.path("guest")]).unwrap();
    let outside = create(json!({ "secrets": { "A": home.path("good") } }));
    let context = Context { roots, ..Context::default() };
    let error = pyro.call_with(outside, context).await.expect_err("a model may not name it");
    assert!(error.message().contains("outside the roots"), "{error}");
    for bad in [json!({ "1": "/x" }), json!({ "A": "" }), json!({ "A": null })] {
        let arguments = json!({ "environment": ENVIRONMENT, "secrets": bad });
        assert!(serde_json::from_value::<WorkspaceCreate>(arguments).is_err());
    }
    home.assert_nothing_left();
}

/// The guest's console is the guest's to print on.
#[tokio::test]
async fn s6_the_console_tells_no_secret() {
    let home = Home::new();
    let value = home.path("value");
    fs::write(&value, CANARY).unwrap();
    fs::create_dir_all(home.path("guest")).unwrap();
    let guest = home.path("guest");
    let vmm = FakeVmm::new(move |mut inside| {
        let guest = guest.clone();
        async move {
            let (first, second) = CANARY.split_at(5);
            inside.print(&format!("init: {CANARY}\r\nonce more {first}"));
            inside.print(&format!("{second}\n"));
            serve_guest(inside.channel, Guest::in_process(guest, Phase::Waiting)).await
        }
    });
    let pyro = home.pyro(vmm);
    pyro_call(&pyro, create(json!({ "secrets": { "CANARY": value } }))).await;
    let stop: WorkspaceStop = serde_json::from_value(json!({ "workspace_id": "w" })).unwrap();
    pyro_call(&pyro, stop).await;
    let mut seen = false;
    search(&home.path("state"), &mut |path, content| {
        assert_none(content, &path.display().to_string());
        seen |= String::from_utf8_lossy(content).contains(&format!("once more {MARK}"));
    });
    assert!(seen, "the rest is there");
}
