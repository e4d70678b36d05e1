//! Progress, cancellation and the end of tool calls, with an operation that
//! needs no guest. The servers are this executable once more.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/client.rs"]
mod client;
#[path = "support/fake.rs"]
mod fake;

use client::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::{PipeReader, Read};
use std::process::{ExitCode, Stdio};

fn main() -> ExitCode {
    fake::main(&[
        ("an_answer_tells_of_warnings", an_answer_tells_of_warnings),
        ("who_asks_hears_of_progress", who_asks_hears_of_progress),
        ("a_cancelled_call_stops_and_is_not_answered", a_cancelled_call_stops_and_is_not_answered),
        ("a_slow_call_holds_up_nobody", a_slow_call_holds_up_nobody),
        ("calls_end_with_the_client", calls_end_with_the_client),
        ("calls_end_with_the_server", calls_end_with_the_server),
    ])
}

struct Session {
    client: Client,
    diary: PipeReader,
}

impl Session {
    fn start() -> Self {
        let mut command = fake::pyro();
        command.args(["mcp", "serve", "--profile", "workspace-full"]).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let (server, diary) = fake::spawn_with_diary(command);
        let mut client = Client::of(server);
        client.initialize("2025-11-25");
        Self { client, diary }
    }

    /// Sends a call and waits until its operation runs.
    fn begin(&mut self, id: u64, what: &str, meta: Value) {
        let params = json!({ "name": "fake", "arguments": { "what": what }, "_meta": meta });
        self.client
            .say(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }));
        assert_eq!(self.next_note(), fake::STARTED);
    }

    fn next_note(&mut self) -> u8 {
        let mut note = [0];
        self.diary.read_exact(&mut note).unwrap();
        note[0]
    }
}

fn an_answer_tells_of_warnings() {
    let mut session = Session::start();
    let answer = session.client.call("fake", json!({ "what": "Both" }));
    let result = &answer["result"];
    assert_eq!(result["isError"], false, "a program that fails is an answer: {answer}");
    assert_eq!(result["structuredContent"], json!({ "exit_code": 7 }));
    assert_eq!(result["content"][0]["text"], "warning: this is no guest\nexit code 7\n");
}

fn who_asks_hears_of_progress() {
    let mut session = Session::start();
    session.begin(7, "Boot", json!({ "progressToken": "token" }));
    let told = session.client.hear();
    assert_eq!(told["method"], "notifications/progress");
    let expected =
        json!({ "progressToken": "token", "progress": 1.0, "message": "booting nothing" });
    assert_eq!(told["params"], expected);
}

fn a_cancelled_call_stops_and_is_not_answered() {
    let mut session = Session::start();
    session.begin(7, "Boot", json!({}));
    session.client.say(&json!({
        "jsonrpc": "2.0",
        "method": "notifications/cancelled",
        "params": { "requestId": 7 },
    }));
    assert_eq!(session.next_note(), fake::CANCELLED);
    session.client.say(&json!({ "jsonrpc": "2.0", "id": 8, "method": "ping" }));
    assert_eq!(session.client.hear()["id"], 8);
}

fn a_slow_call_holds_up_nobody() {
    let mut session = Session::start();
    session.begin(7, "Boot", json!({}));
    let answer = session.client.call("fake", json!({ "what": "Gulp" }));
    assert_eq!(answer["result"]["structuredContent"]["exit_code"], 0);
}

fn calls_end_with_the_client() {
    let mut session = Session::start();
    session.begin(7, "Boot", json!({}));
    let output = session.client.leave();
    assert!(output.status.success(), "{output:?}");
    let mut notes = Vec::new();
    session.diary.read_to_end(&mut notes).unwrap();
    assert_eq!(notes, [fake::CANCELLED]);
}

fn calls_end_with_the_server() {
    let mut session = Session::start();
    session.begin(7, "Boot", json!({}));
    kill_process(Pid::from_child(&session.client.server), Signal::TERM).unwrap();
    assert_eq!(session.next_note(), fake::CANCELLED);
    let status = session.client.server.wait().unwrap();
    assert_eq!(status.code(), Some(143));
}
