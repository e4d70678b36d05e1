//! Secrets: set, handed over, used, and told nowhere.

#[path = "secrets/living.rs"]
mod living;
#[path = "secrets/told.rs"]
mod told;

use crate::fake_vmm::{FakeVmm, serve_guest};
use crate::home::{ENVIRONMENT, Home};
use crate::workspaces::await_state;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use pyro::context::Roots;
use pyro::event::Event;
use pyro::operation::{
    AnyAnswer, Entry, Ink, Operation, SecretDelete, SecretList, SecretSet, WorkspaceCreate,
    WorkspaceDelete, WorkspaceExec, WorkspaceLogs, WorkspaceStart, WorkspaceStatus, WorkspaceStop,
};
use pyro::secret::redact::MARK;
use pyro::workspace::find::find;
use pyro::workspace::place::{Place, State};
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
                Event::Stage { .. }
                | Event::Progress(_)
                | Event::Warning(_)
                | Event::ProgramStarted => heard.1.push(format!("{event:?}")),
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

    fn place(&self) -> Place {
        find(&self.pyro.config, "w").unwrap()
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
    await_state(&bench.place(), State::Crashed).await;
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

/// R2: who sets others at the same time loses none, on the host or in the guest.
#[tokio::test]
async fn r2_secrets_that_are_set_at_once_are_all_there() {
    const COUNT: usize = 12;
    let bench = Bench::new().await;
    let names: Vec<_> = (0..COUNT).map(|number| format!("S{number}")).collect();
    let setting = names.iter().map(|name| {
        let file = bench.file_of(name, &format!("the value of {name}"));
        bench.ask::<SecretSet>(json!({ "name": name, "file": file }))
    });
    for set in futures::future::join_all(setting).await {
        set.unwrap();
    }
    let listed = bench.ask::<SecretList>(json!({})).await.unwrap().secrets;
    assert_eq!(listed.len(), COUNT + 1, "{listed:?}");
    let env: serde_json::Map<_, _> =
        names.iter().map(|name| (name.clone(), name.clone().into())).collect();
    let words: Vec<_> = names.iter().map(|name| format!("\"${name}\"")).collect();
    let command = format!("printf '%s\n' {} | sort -u | wc -c", words.join(" "));
    let told = json!({ "command": command, "secret_env": env });
    let told = bench.ask::<WorkspaceExec>(told).await.unwrap();
    let expected: usize = names.iter().map(|name| format!("the value of {name}\n").len()).sum();
    assert_eq!(told.output.stdout.trim(), expected.to_string());
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
