//! An AI model's client runs a command over MCP.

use pyro_smoke::Home;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

/// A client that speaks the protocol line by line, as it stands in the
/// specification.
struct Client {
    child: Child,
    stdin: ChildStdin,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(home: &Home) -> Self {
        let mut child = home
            .pyro(["mcp", "serve", "--profile", "workspace-full"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("pyro starts");
        let stdin = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut client = Self { child, stdin, lines };
        let hello = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": { "name": "story", "version": "1" },
        });
        client.send(&json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello }));
        assert_eq!(client.receive()["result"]["serverInfo"]["name"], "pyro");
        client.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        client
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.stdin, "{message}").expect("the server reads");
    }

    fn call(&mut self, id: u64, tool: &str, arguments: &Value) {
        let params = json!({ "name": tool, "arguments": arguments });
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }));
    }

    /// The next answer; notifications are passed over.
    fn receive(&mut self) -> Value {
        loop {
            let line = self.lines.next().expect("the server lives").expect("UTF-8");
            let message: Value = serde_json::from_str(&line).expect("nothing but JSON on stdout");
            if message.get("id").is_some() {
                return message;
            }
        }
    }

    fn end(mut self) {
        drop(self.stdin);
        assert!(self.child.wait().expect("it ends").success());
    }
}

#[test]
fn p4_calls_run_at_the_same_time_and_answer_by_their_ids() {
    let home = Home::new();
    let mut client = Client::start(&home);
    client.call(
        1,
        "vm_run",
        &json!({ "environment": "debian:12", "command": "sleep 3; uname -s" }),
    );
    client.call(
        2,
        "vm_run",
        &json!({ "environment": "debian:12", "command": ["sh", "-c", "echo $0; exit 7", "word"] }),
    );
    client.call(3, "vm_run", &json!({ "environment": "debian:13", "command": "true" }));
    let mut answers: Vec<Value> = (0..3).map(|_| client.receive()).collect();
    // The refusal needs no guest, and the sleeper comes last.
    assert_eq!(answers.last().expect("three")["id"], 1);
    answers.sort_by_key(|answer| answer["id"].as_u64());

    let one = &answers[0]["result"];
    assert_eq!(one["isError"], false, "{one}");
    assert_eq!(one["structuredContent"]["stdout"], "Linux\n");
    assert!(one["content"][0]["text"].as_str().is_some_and(|text| text.contains("Linux")), "{one}");
    let two = &answers[1]["result"]["structuredContent"];
    assert_eq!((&two["stdout"], &two["exit_code"]), (&json!("word\n"), &json!(7)));
    let three = &answers[2]["result"];
    assert_eq!(three["isError"], true);
    assert!(
        three["content"][0]["text"].as_str().is_some_and(|text| text.contains("debian:12")),
        "{three}"
    );
    client.end();
    home.expect_clean_within(Duration::from_secs(2));
}

#[test]
fn p4_a_cancelled_call_leaves_nothing() {
    let home = Home::new();
    let mut client = Client::start(&home);
    client.call(1, "vm_run", &json!({ "environment": "debian:12", "command": "sleep 1000" }));
    client.send(&json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 },
    }));
    // Whatever the first call came to, the server answers the next.
    client.call(2, "vm_run", &json!({ "environment": "debian:12", "command": "echo next" }));
    loop {
        let answer = client.receive();
        if answer["id"] == 2 {
            assert_eq!(answer["result"]["structuredContent"]["stdout"], "next\n");
            break;
        }
    }
    home.expect_clean_within_but(Duration::from_secs(5), "mcp serve");
    client.end();
}
