//! What the stories of guests with a network share.

#![allow(dead_code, reason = "each who shares it uses a part")]

use crate::world::{move_in, name_server};
use pyro_smoke::{Home, stdout};
use serde_json::Value;
use std::process::{Command, Output};

/// A home whose workspaces have a network.
pub struct Story {
    pub home: Home,
    /// The workspace.
    pub name: &'static str,
}

/// Whether the network can be made that these stories are told in.
pub fn is_tellable() -> bool {
    let tellable = rustix::process::geteuid().is_root();
    if !tellable {
        eprintln!("skipped: only root may make the network that this story is told in");
    }
    tellable
}

/// That it went well.
#[track_caller]
pub fn expect(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

impl Story {
    /// Moves this thread to the world, and makes the workspace there.
    pub fn begin(name: &'static str, allow: &[&str]) -> Self {
        move_in();
        let story = Self { home: Home::new(), name };
        story.create(name, allow);
        story
    }

    pub fn create(&self, name: &str, allow: &[&str]) {
        let mut words = vec!["workspace", "create", "debian:12", "--name", name];
        words.extend(["--network-policy", "egress"]);
        words.extend(allow.iter().flat_map(|rule| ["--allow", rule]));
        self.well(&words);
    }

    /// `pyro` in this world.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = self.home.pyro(words);
        command.env("PYRO_RESOLVERS", name_server().to_string());
        command
    }

    pub fn pyro(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("pyro runs")
    }

    /// What is to go well.
    #[track_caller]
    pub fn well(&self, words: &[&str]) {
        expect(&self.pyro(words));
    }

    pub fn exec(&self, program: &[&str]) -> Output {
        self.pyro(&[&["workspace", "exec", self.name, "--"], program].concat())
    }

    pub fn python(&self, script: &str) -> String {
        stdout(&self.exec(&["python3", "-c", script]))
    }

    /// Says in one word what comes of connecting to each.
    pub fn connect(&self, to: &[(&str, u16)]) -> Vec<String> {
        let script = format!(
            "import socket\n\
             for to in {to:?}:\n \
             try:\n  \
             with socket.create_connection(to, 20) as s:\n   \
             s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')\n   \
             print(s.makefile().read()[-5:])\n \
             except OSError as error: print(type(error).__name__)\n"
        );
        self.python(&script).lines().map(str::to_owned).collect()
    }

    pub fn events(&self) -> Vec<Value> {
        let words = ["workspace", "events", self.name, "--limit", "2000", "--json"];
        let history: Value = serde_json::from_str(&stdout(&self.pyro(&words))).expect("JSON");
        history["events"].as_array().expect("a list").clone()
    }

    /// Whether the policy has decided so.
    #[track_caller]
    pub fn expect_decided(&self, action: &str, destination: &str, rule: &str) {
        let wanted = [("event", "network"), ("action", action), ("rule", rule)];
        let events = self.events();
        let decided = events.iter().any(|event| {
            event["destination"] == destination && wanted.iter().all(|(key, to)| event[*key] == *to)
        });
        assert!(decided, "{action} {destination} by {rule}: {events:#?}");
    }
}
