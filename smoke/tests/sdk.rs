//! A Rust program uses pyro as a library.

use pyro::operation::{EnvList, Run};
use pyro::{Config, Context, ErrorKind, Event, Events, Pyro};
use pyro_smoke::{Home, pyro_executable};

/// As a program would, but in the story's home.
fn pyro(home: &Home) -> Pyro {
    let mut config = Config::from_environment().expect("a home directory");
    config.cache_dir = home.path().join("cache");
    config.state_dir = home.path().join("state");
    config.executable = pyro_executable();
    config.agent = config.executable.with_file_name("pyro-agent").into();
    Pyro::new(config)
}

#[tokio::test]
async fn a_call_is_answered_with_types() {
    let home = Home::new();
    let pyro = pyro(&home);
    let answer = pyro.call(Run::new("debian:12", ["git", "--version"])).await.expect("it runs");
    assert_eq!(answer.exit_code, 0);
    assert!(answer.output.stdout.starts_with("git version"), "{answer:?}");

    let environments = pyro.call(EnvList::default()).await.expect("a list").environments;
    assert!(environments.iter().any(|one| one.name == "debian:12" && one.installed.is_some()));

    let error =
        pyro.call(Run::new("debian:12", ["no-such-program"])).await.expect_err("it is missing");
    assert_eq!(error.kind(), ErrorKind::ProgramNotFound);
    assert!(home.leftovers().is_empty());
}

#[tokio::test]
async fn output_comes_as_events_while_the_program_runs() {
    let home = Home::new();
    let pyro = pyro(&home);
    let (events, mut told) = Events::channel();
    let context =
        Context { events, stdin: Some(Box::new(&b"one\ntwo\n"[..])), ..Context::default() };
    let running = pyro.call_with(Run::new("debian:12", ["cat"]), context);
    let listening = async {
        let mut bytes = Vec::new();
        while let Some(event) = told.recv().await {
            if let Event::Output { bytes: more, .. } = event {
                bytes.extend(more);
            }
        }
        bytes
    };
    let (answer, bytes) = tokio::join!(running, listening);
    assert_eq!(answer.expect("it runs").exit_code, 0);
    assert_eq!(bytes, b"one\ntwo\n");
}
