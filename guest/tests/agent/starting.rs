//! What runs, where, and with what around it; and what never ran.

use crate::host::{Host, argv, is_root, path, sh};
use pyro_protocol::{AgentErrorKind, ByteString};

#[tokio::test]
async fn r1_exec_is_at_most_once() {
    let host = Host::new();
    // Output that is no text, and a failure: nothing to try again for.
    let ended = host.script("echo ran >> runs; printf '\\377\\000\\376'; exit 3").await;
    assert_eq!((ended.code(), ended.stdout.as_slice()), (3, b"\xff\x00\xfe".as_slice()));
    let runs = std::fs::read_to_string(host.workspace.path().join("runs")).expect("its trace");
    assert_eq!(runs, "ran\n");
}

#[tokio::test]
async fn words_arrive_byte_for_byte() {
    let host = Host::new();
    let mut call = sh("printf '%s|' \"$@\"");
    let words = [&b"$HOME *"[..], b"", b"\xff\xfe", b"a\nb", b"--", b"'\"\\"];
    call.argv.push("name".into());
    call.argv.extend(words.iter().map(|word| ByteString(word.to_vec())));
    let ended = host.run(call).await.expect("it starts");
    assert_eq!(ended.stdout, b"$HOME *||\xff\xfe|a\nb|--|'\"\\|");
}

#[tokio::test]
async fn a_program_is_looked_up_in_its_own_path() {
    let host = Host::new();
    std::fs::create_dir(host.workspace.path().join("tools")).expect("a directory");
    host.write("tools/pyro-test-tool", "#!/bin/sh\necho found\n", 0o755);
    let mut call = argv(&["pyro-test-tool"]);
    assert_eq!(host.refusal(call.clone()).await, AgentErrorKind::ProgramNotFound);
    // Relative to where it runs, and after one that is not there.
    call.env = vec![("PATH".into(), "/nonexistent:tools".into())];
    assert_eq!(host.run(call).await.expect("it starts").text(), "found\n");
}

#[tokio::test]
async fn an_unexecutable_namesake_earlier_in_the_path_is_passed_over() {
    let host = Host::new();
    for directory in ["first", "second"] {
        std::fs::create_dir(host.workspace.path().join(directory)).expect("a directory");
    }
    host.write("first/pyro-test-tool", "#!/bin/sh\necho first\n", 0o644);
    let mut call = argv(&["pyro-test-tool"]);
    call.env = vec![("PATH".into(), "first:second".into())];
    assert_eq!(host.refusal(call.clone()).await, AgentErrorKind::ProgramNotExecutable);
    host.write("second/pyro-test-tool", "#!/bin/sh\necho second\n", 0o755);
    assert_eq!(host.run(call).await.expect("it starts").text(), "second\n");
}

#[tokio::test]
async fn what_cannot_be_executed_never_ran() {
    let host = Host::new();
    host.write("plain", "echo no\n", 0o644);
    host.write("noise", "\x01\x02\x03\x04", 0o755);
    host.write("orphan", "#!/nonexistent/interpreter\n", 0o755);
    let kinds = [
        ("./plain", AgentErrorKind::ProgramNotExecutable),
        ("./noise", AgentErrorKind::ProgramNotExecutable),
        ("/etc", AgentErrorKind::ProgramNotExecutable),
        ("./missing", AgentErrorKind::ProgramNotFound),
        ("./plain/below", AgentErrorKind::ProgramNotFound),
        ("./orphan", AgentErrorKind::ProgramNotFound),
        ("pyro-no-such-program", AgentErrorKind::ProgramNotFound),
        ("", AgentErrorKind::ProgramNotFound),
    ];
    for (program, kind) in kinds {
        assert_eq!(host.refusal(argv(&[program])).await, kind, "{program:?}");
    }
}

#[tokio::test]
async fn the_error_names_the_program() {
    let host = Host::new();
    let error = host.start(argv(&["pyro-no-such-program"])).await.err().expect("it is not there");
    assert!(error.message.contains("pyro-no-such-program"), "{}", error.message);
}

#[tokio::test]
async fn calls_that_make_no_sense_are_refused() {
    let host = Host::new();
    let mut nothing = sh("true");
    nothing.argv.clear();
    let mut nul_word = sh("true");
    nul_word.argv.push(ByteString(b"a\0b".to_vec()));
    let variable = |name: &str, value: &str| {
        let mut call = sh("true");
        call.env = vec![(name.into(), value.into())];
        call
    };
    let calls = [nothing, nul_word, variable("", "x"), variable("A=B", "x"), variable("A", "x\0y")];
    for call in calls {
        let what = format!("{call:?}");
        assert_eq!(host.refusal(call).await, AgentErrorKind::InvalidArgument, "{what}");
    }
}

#[tokio::test]
async fn more_words_than_the_kernel_takes_are_refused() {
    let host = Host::new();
    let mut call = sh("true");
    call.argv.extend((0..24).map(|_| ByteString(vec![b'x'; 127 * 1024])));
    assert_eq!(host.refusal(call).await, AgentErrorKind::InvalidArgument);
}

#[tokio::test]
async fn it_runs_where_it_is_told_to() {
    let host = Host::new();
    let workspace = host.workspace.path().canonicalize().expect("it is there");
    std::fs::create_dir(workspace.join("sub")).expect("a directory");
    let below = workspace.join("sub");
    let places = [
        (None, workspace.as_path()),
        (path("sub"), &below),
        (path("/workspace"), &workspace),
        (path("/workspace/sub"), &below),
        (path("/"), std::path::Path::new("/")),
    ];
    for (cwd, expected) in places {
        let mut call = sh("pwd -P");
        call.cwd = cwd;
        let ended = host.run(call).await.expect("it starts");
        assert_eq!(ended.text().trim_end(), expected.to_str().expect("text"));
    }
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_told_from_a_program() {
    let host = Host::new();
    host.write("file", "", 0o644);
    for missing in ["nowhere", "/nonexistent", "file"] {
        let mut call = sh("true");
        call.cwd = path(missing);
        assert_eq!(host.refusal(call).await, AgentErrorKind::DirectoryNotFound, "{missing}");
    }
}

#[tokio::test]
async fn the_environment_is_the_defaults_and_the_callers() {
    let host = Host::new();
    let mut call = argv(&["/usr/bin/env"]);
    call.env = vec![
        ("PYRO_TEST".into(), "first".into()),
        ("LANG".into(), "C".into()),
        ("PYRO_TEST".into(), "last = wins".into()),
    ];
    let ended = host.run(call).await.expect("it starts");
    let mut names: Vec<_> =
        ended.text().lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "LANG", "LOGNAME", "PATH", "PYRO_TEST", "SHELL", "USER"]);
    assert!(ended.text().contains("PYRO_TEST=last = wins\n"), "{}", ended.text());
    assert!(ended.text().contains("LANG=C\n"), "{}", ended.text());
}

#[tokio::test]
async fn nothing_of_the_agents_leaks_into_a_program() {
    let host = Host::new();
    let script = "ls /proc/self/fd; umask; grep -E 'Sig(Blk|Ign)' /proc/self/status";
    let ended = host.script(script).await;
    let words: Vec<_> = ended.text().split_whitespace().collect();
    let [descriptors @ .., umask, _, blocked, _, ignored] = words.as_slice() else {
        panic!("{words:?}");
    };
    // Descriptor 3 is ls's own.
    assert_eq!((descriptors, *umask), (&["0", "1", "2", "3"][..], "0022"));
    // Signals 32 and up are libc's own.
    let classic = |mask: &str| u64::from_str_radix(mask, 16).expect("a mask") & 0x7fff_ffff;
    assert_eq!((classic(blocked), classic(ignored)), (0, 0));
}

#[tokio::test]
async fn a_program_leads_its_own_session() {
    let host = Host::new();
    let running = host.start(argv(&["/bin/cat", "/proc/self/stat"])).await.expect("it starts");
    let pid = running.pid.to_string();
    let ended = running.finish().await;
    let fields: Vec<_> = ended.text().split_whitespace().collect();
    // pid, comm, state, parent, group, session
    assert_eq!((fields[0], fields[4], fields[5]), (&*pid, &*pid, &*pid));
}

#[tokio::test]
async fn an_unknown_user_is_refused() {
    let host = Host::new();
    for user in ["pyro-no-such-user", "", "root:pyro-no-such-group", "-1", "4294967295"] {
        let mut call = sh("true");
        call.user = Some(user.to_owned());
        assert_eq!(host.refusal(call).await, AgentErrorKind::UserNotFound, "{user:?}");
    }
}

#[tokio::test]
async fn s11_it_runs_as_the_user_it_is_told_to() {
    let host = Host::new();
    let (user, uid) = match is_root() {
        true => ("65534:65534".to_owned(), 65534),
        // An ordinary user can run programs as nobody but itself.
        false => {
            let own = rustix::process::geteuid().as_raw();
            (format!("{own}:{}", rustix::process::getegid().as_raw()), own)
        }
    };
    // The workspace is ours alone; its own output is everybody's.
    let mut call = sh("id -u; echo again > /dev/stdout");
    call.cwd = path("/");
    call.user = Some(user);
    assert_eq!(host.run(call).await.expect("it starts").text(), format!("{uid}\nagain\n"));
}

#[tokio::test]
async fn an_ordinary_user_cannot_become_another() {
    if is_root() {
        eprintln!("skipped: root can");
        return;
    }
    let host = Host::new();
    let mut call = sh("true");
    call.user = Some("0:0".to_owned());
    assert_eq!(host.refusal(call).await, AgentErrorKind::System);
}
