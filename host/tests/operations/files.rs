//! Files of a workspace through the operations, with the real agent.

use crate::fake_vmm::FakeVmm;
use crate::home::{ENVIRONMENT, Home};
use pyro::operation::{
    FileDelete, FileEdit, FileList, FileMove, FileRead, FileSearch, FileStat, FileWrite, Operation,
    PatchApply, ProcessList, ProcessSignal, WorkspaceCreate, WorkspaceDelete, WorkspaceExec,
    WorkspaceExport, WorkspaceStatus, WorkspaceStop, WorkspaceSyncPush,
};
use pyro::store::lock::{Lock, Mode};
use pyro::{Context, ErrorKind, Pyro, Result};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

/// Asks as a program would, by JSON; the answer as JSON.
async fn ask<O: Operation>(pyro: &Pyro, arguments: Value) -> Result<Value> {
    ask_with::<O>(pyro, arguments, Context::default()).await
}

async fn ask_with<O: Operation>(pyro: &Pyro, mut more: Value, context: Context) -> Result<Value> {
    more.as_object_mut().unwrap().insert("workspace_id".into(), "w".into());
    let operation: O = serde_json::from_value(more).unwrap();
    pyro.call_with(operation, context).await.map(|answer| serde_json::to_value(answer).unwrap())
}

/// A home, a running workspace named `w`, and where its files really are.
async fn workspace() -> (Home, Pyro, std::path::PathBuf) {
    let home = Home::new();
    let guest = home.path("guest");
    fs::create_dir_all(&guest).unwrap();
    let pyro = home.pyro(FakeVmm::honest(&guest));
    let create = json!({ "environment": ENVIRONMENT, "mem_mib": 128, "name": "w" });
    let create: WorkspaceCreate = serde_json::from_value(create).unwrap();
    pyro.call(create).await.unwrap();
    (home, pyro, guest)
}

async fn done(home: Home, pyro: Pyro) {
    let delete = json!({ "workspace_id": "w" });
    pyro.call(serde_json::from_value::<WorkspaceDelete>(delete).unwrap()).await.unwrap();
    home.assert_nothing_left();
}

#[tokio::test]
async fn a_file_is_written_read_edited_moved_found_and_deleted() {
    let (home, pyro, guest) = workspace().await;
    let asked = json!({ "path": "src/a.txt", "text": "one\ntwo\n", "mode": "640" });
    let written = ask::<FileWrite>(&pyro, asked).await.unwrap();
    assert_eq!((&written["created"], &written["mode"]), (&json!(true), &json!("0640")));
    let read =
        ask::<FileRead>(&pyro, json!({ "path": "src/a.txt", "first_line": 2 })).await.unwrap();
    assert_eq!((&read["content"], &read["encoding"]), (&json!("two\n"), &json!("utf-8")));
    assert_eq!((&read["size_bytes"], &read["offset"]), (&json!(8), &json!(4)));
    let edit = json!({ "path": "src/a.txt", "old": "two", "new": "three" });
    assert_eq!(ask::<FileEdit>(&pyro, edit.clone()).await.unwrap()["first_line"], 2);
    let error = ask::<FileEdit>(&pyro, edit).await.expect_err("it is there no more");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let moved = json!({ "path": "src/a.txt", "new_path": "lib/b.txt" });
    ask::<FileMove>(&pyro, moved).await.unwrap();
    let found = ask::<FileSearch>(&pyro, json!({ "pattern": "^th" })).await.unwrap();
    let first = &found["matches"][0];
    assert_eq!((&first["path"], &first["line"]), (&json!("/workspace/lib/b.txt"), &json!(2)));
    let stat = ask::<FileStat>(&pyro, json!({ "path": "lib/b.txt" })).await.unwrap();
    assert_eq!((&stat["artifact_type"], &stat["size_bytes"]), (&json!("file"), &json!(10)));
    assert_eq!(fs::read(guest.join("lib/b.txt")).unwrap(), b"one\nthree\n");
    let gone = json!({ "path": "lib", "recursive": true });
    assert_eq!(ask::<FileDelete>(&pyro, gone).await.unwrap()["deleted"], true);
    let gone = json!({ "path": "lib", "ignore_missing": true });
    assert_eq!(ask::<FileDelete>(&pyro, gone).await.unwrap()["deleted"], false);
    done(home, pyro).await;
}

#[tokio::test]
async fn what_is_no_text_is_base64_and_input_is_streamed() {
    let (home, pyro, guest) = workspace().await;
    ask::<FileWrite>(&pyro, json!({ "path": "b", "base64": "/wA=" })).await.unwrap();
    let read = ask::<FileRead>(&pyro, json!({ "path": "b" })).await.unwrap();
    assert_eq!((&read["content"], &read["encoding"]), (&json!("/wA="), &json!("base64")));
    let content = vec![b'x'; 3_000_000];
    let stdin: pyro::operation::Input = Box::new(std::io::Cursor::new(content.clone()));
    let context = Context { stdin: Some(stdin), ..Context::default() };
    ask_with::<FileWrite>(&pyro, json!({ "path": "big" }), context).await.unwrap();
    assert!(fs::read(guest.join("big")).unwrap() == content);
    let part = json!({ "path": "big", "offset": 10, "max_bytes": 5 });
    let read = ask::<FileRead>(&pyro, part).await.unwrap();
    assert_eq!((&read["truncated"], &read["next_offset"]), (&json!(true), &json!(15)));
    for bad in [
        json!({ "path": "b" }),
        json!({ "path": "b", "text": "x", "base64": "eA==" }),
        json!({ "path": "b", "base64": "!" }),
        json!({ "path": "b", "text": "x", "mode": "9" }),
        json!({ "path": "b", "text": "x", "append": true, "create_new": true }),
    ] {
        let error = ask::<FileWrite>(&pyro, bad.clone()).await.expect_err("it makes no sense");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
    }
    done(home, pyro).await;
}

/// A model gets files; whoever may name anything may wait for a pipe's writer.
#[tokio::test]
async fn p4_a_pipe_holds_up_no_server() {
    let (home, pyro, guest) = workspace().await;
    let pipe = home.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let roots = pyro::context::Roots::below(&[home.path("")]).unwrap();
    let bound = || Context { roots: roots.clone(), ..Context::default() };
    let write = json!({ "path": "f", "text_file": &pipe });
    let patch = json!({ "patch_file": &pipe });
    let error = ask_with::<FileWrite>(&pyro, write.clone(), bound()).await.expect_err("a pipe");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let error = ask_with::<PatchApply>(&pyro, patch.clone(), bound()).await.expect_err("a pipe");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::write(pipe, "hello").unwrap()
    });
    ask::<FileWrite>(&pyro, write).await.unwrap();
    writer.join().unwrap();
    assert_eq!(fs::read(guest.join("f")).unwrap(), b"hello");
    let context = Context::default();
    context.cancel.cancel();
    let error = ask_with::<PatchApply>(&pyro, patch, context).await.expect_err("cancelled");
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    // A thread that waits for a writer, or is about to, gets one for good: the test
    // ends only after it.
    let writer = fs::File::options().read(true).write(true).open(pipe).unwrap();
    std::mem::forget(writer);
    done(home, pyro).await;
}

#[tokio::test]
async fn a_text_is_cut_between_characters() {
    let (home, pyro, _) = workspace().await;
    ask::<FileWrite>(&pyro, json!({ "path": "f", "text": "aéb" })).await.unwrap();
    let asked = |offset: f64, max_bytes: u32| json!({ "path": "f", "offset": offset, "max_bytes": max_bytes });
    let read = ask::<FileRead>(&pyro, asked(0.0, 2)).await.unwrap();
    let told = (&read["content"], &read["encoding"], &read["next_offset"]);
    assert_eq!(told, (&json!("a"), &json!("utf-8"), &json!(1)));
    let read = ask::<FileRead>(&pyro, asked(1.0, 2)).await.unwrap();
    assert_eq!((&read["content"], &read["next_offset"]), (&json!("é"), &json!(3)));
    let read = ask::<FileRead>(&pyro, asked(1.0, 1)).await.unwrap();
    assert_eq!((&read["encoding"], &read["next_offset"]), (&json!("base64"), &json!(2)));
    let error = ask::<FileRead>(&pyro, json!({ "path": "." })).await.expect_err("a directory");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    done(home, pyro).await;
}

/// Every wait ends with its caller.
#[tokio::test]
async fn p4_who_waits_for_another_can_leave() {
    let (home, pyro, _) = workspace().await;
    let status: WorkspaceStatus = serde_json::from_value(json!({ "workspace_id": "w" })).unwrap();
    let id = pyro.call(status).await.unwrap().workspace.workspace_id;
    let life = home.path("state/workspaces").join(id).join("life.lock");
    let held = Lock::take(&life, Mode::Exclusive, Duration::from_secs(1)).await.unwrap();
    let cancelled = || {
        let context = Context::default();
        context.cancel.cancel();
        context
    };
    let error = ask_with::<WorkspaceStop>(&pyro, json!({}), cancelled()).await.expect_err("held");
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    drop(held);
    let list = ask_with::<ProcessList>(&pyro, json!({}), cancelled()).await;
    assert_eq!(list.expect_err("cancelled").kind(), ErrorKind::Cancelled);
    done(home, pyro).await;
}

#[tokio::test]
async fn a_list_goes_on_where_it_ended() {
    use std::os::unix::ffi::OsStrExt;
    let (home, pyro, guest) = workspace().await;
    for name in [b"a".as_slice(), b"b", b"\xff"] {
        fs::write(guest.join(std::ffi::OsStr::from_bytes(name)), "").unwrap();
    }
    let mut paths = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let mut asked = json!({ "limit": 1 });
        if !cursor.is_null() {
            asked["cursor"] = cursor;
        }
        let page = ask::<FileList>(&pyro, asked).await.unwrap();
        paths.push(page["entries"][0].clone());
        cursor = page["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!((paths.len(), &paths[1]["path"]), (3, &json!("/workspace/b")));
    assert_eq!(paths[2]["path_base64"], "L3dvcmtzcGFjZS//");
    let error = ask::<FileList>(&pyro, json!({ "cursor": "?" })).await.expect_err("no cursor");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    done(home, pyro).await;
}

/// What an export tells its caller, byte by byte.
async fn streamed(pyro: &Pyro, more: Value) -> (Value, Vec<u8>) {
    let (events, mut told) = pyro::Events::channel();
    let context = Context { events, takes_output: true, ..Context::default() };
    let mut asked = json!({ "output_path": "-" });
    asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let hearing = async {
        let mut bytes = Vec::new();
        while let Some(event) = told.recv().await {
            if let pyro::Event::Output { stream: pyro::event::Stream::Stdout, bytes: more } = event
            {
                bytes.extend(more);
            }
        }
        bytes
    };
    let (answer, bytes) = tokio::join!(ask_with::<WorkspaceExport>(pyro, asked, context), hearing);
    (answer.unwrap(), bytes)
}

#[tokio::test]
async fn an_export_goes_to_standard_output_as_bytes() {
    let (home, pyro, guest) = workspace().await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    fs::create_dir(guest.join("d")).unwrap();
    fs::write(guest.join("d/big"), &content).unwrap();
    fs::write(guest.join("empty"), "").unwrap();
    std::os::unix::fs::symlink("d/big", guest.join("link")).unwrap();
    fs::File::create(guest.join("hole")).unwrap().set_len(1 << 20).unwrap();
    let (answer, bytes) = streamed(&pyro, json!({ "path": "d/big" })).await;
    assert_eq!(
        (&answer["output_path"], &answer["bytes_written"]),
        (&json!("-"), &json!(3_000_000))
    );
    assert!(bytes == content);
    assert_eq!(streamed(&pyro, json!({ "path": "empty" })).await.1, b"");
    assert_eq!(streamed(&pyro, json!({ "path": "hole" })).await.1, vec![0; 1 << 20]);
    for (path, format, member) in
        [("d", "auto", "./\nbig\n"), ("link", "auto", "link\n"), ("d/big", "tar", "big\n")]
    {
        let asked = json!({ "path": path, "format": format });
        let archive = home.path("archive.tar");
        fs::write(&archive, streamed(&pyro, asked).await.1).unwrap();
        let listed = std::process::Command::new("tar").arg("-tf").arg(&archive).output().unwrap();
        assert_eq!(String::from_utf8(listed.stdout).unwrap(), member, "{path}");
    }
    // Who asks for JSON, and a model, has no standard output to give.
    let to_nobody = json!({ "path": "empty", "output_path": "-" });
    let error = ask::<WorkspaceExport>(&pyro, to_nobody).await.expect_err("nobody takes it");
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.next_step().is_some_and(|hint| hint.contains("--output")), "{error:?}");
    assert!(!std::path::Path::new("-").exists());
    done(home, pyro).await;
}

/// Every error of that kind names the thing and says what to do next.
#[tokio::test]
async fn what_is_not_there_is_named_with_the_next_step() {
    async fn check<O: Operation>(pyro: &Pyro, asked: Value, name: &str, hint: &str) {
        let error = ask::<O>(pyro, asked.clone()).await.expect_err("it is not there");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{asked} {error:?}");
        let next_step = error.next_step().unwrap_or_default();
        assert!(error.message().contains(name) && next_step.contains(hint), "{asked} {error:?}");
    }
    let (home, pyro, _) = workspace().await;
    let id = &home.workspaces()[0].file_name().unwrap().to_string_lossy().into_owned();
    let (inside, look) = (json!({ "path": "src/none" }), format!("file list {id} src`"));
    check::<FileRead>(&pyro, inside.clone(), "src/none", &look).await;
    check::<FileStat>(&pyro, inside.clone(), "src/none", &look).await;
    check::<FileDelete>(&pyro, inside.clone(), "src/none", &look).await;
    check::<FileList>(&pyro, inside.clone(), "src/none", &look).await;
    let edit = json!({ "path": "src/none", "old": "a", "new": "b" });
    check::<FileEdit>(&pyro, edit, "src/none", &look).await;
    let moved = json!({ "path": "src/none", "new_path": "other" });
    check::<FileMove>(&pyro, moved, "src/none", &look).await;
    let search = json!({ "path": "src/none", "pattern": "x" });
    check::<FileSearch>(&pyro, search, "src/none", &look).await;
    let export = json!({ "path": "none", "output_path": home.path("out") });
    check::<WorkspaceExport>(&pyro, export, "none", &format!("file list {id}`")).await;
    let user = format!("{}:{}", rustix::process::geteuid().as_raw(), 0);
    let exec = json!({ "command": "true", "cwd": "src/none", "user": user });
    check::<WorkspaceExec>(&pyro, exec, "src/none", &look).await;
    let exec = json!({ "command": "true", "user": "nobody-knows" });
    check::<WorkspaceExec>(&pyro, exec, "nobody-knows", "--user").await;
    let signal = json!({ "process_id": "0123456789ab", "signal": "TERM" });
    check::<ProcessSignal>(&pyro, signal, "0123456789ab", "process list").await;
    let source = json!({ "source_path": "/no/such/tree" });
    check::<WorkspaceSyncPush>(&pyro, source, "/no/such/tree", "relative path").await;
    let patch = json!({ "patch_file": "/no/such/patch" });
    check::<PatchApply>(&pyro, patch, "/no/such/patch", "relative path").await;
    let text = json!({ "path": "x", "text_file": "/no/such/text" });
    check::<FileWrite>(&pyro, text, "/no/such/text", "relative path").await;
    let create = json!({ "environment": ENVIRONMENT, "seed_path": "/no/such/tree" });
    let create: WorkspaceCreate = serde_json::from_value(create).unwrap();
    let error = pyro.call(create).await.expect_err("it is not there");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert!(error.next_step().is_some(), "{error:?}");
    let outside = ask::<FileRead>(&pyro, json!({ "path": "/etc/passwd" })).await;
    let outside = outside.expect_err("it is elsewhere");
    assert!(outside.next_step().is_some_and(|hint| hint.contains("/workspace")), "{outside:?}");
    done(home, pyro).await;
}

#[tokio::test]
async fn trees_go_in_and_come_out() {
    let (home, pyro, guest) = workspace().await;
    let source = home.path("source");
    fs::create_dir_all(source.join("d")).unwrap();
    fs::write(source.join("d/f"), "content").unwrap();
    fs::write(guest.join("old"), "").unwrap();
    let push = json!({ "source_path": source, "delete": true });
    let pushed = ask::<WorkspaceSyncPush>(&pyro, push.clone()).await.unwrap();
    let sync = &pushed["workspace_sync"];
    assert_eq!((&sync["created"], &sync["deleted"]), (&json!(2), &json!(1)));
    assert_eq!((&sync["entry_count"], &sync["bytes_written"]), (&json!(2), &json!(7)));
    assert!(!guest.join("old").exists());
    let again = ask::<WorkspaceSyncPush>(&pyro, push).await.unwrap();
    assert_eq!(again["workspace_sync"]["changed"], false);
    let output = home.path("output");
    let export = json!({ "path": "/workspace", "output_path": output });
    let exported = ask::<WorkspaceExport>(&pyro, export.clone()).await.unwrap();
    assert_eq!(exported["artifact_type"], "directory");
    assert_eq!(exported["entry_count"], 3);
    assert_eq!(fs::read(output.join("d/f")).unwrap(), b"content");
    let error = ask::<WorkspaceExport>(&pyro, export).await.expect_err("it is there");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    done(home, pyro).await;
}
