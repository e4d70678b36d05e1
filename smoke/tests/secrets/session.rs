//! A model's session over MCP, with all that was said in it.

use pyro_smoke::Home;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Stdio};

pub struct Session {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// What the model said.
    pub asked: Vec<String>,
    /// What it was told.
    pub told: Vec<String>,
}

impl Session {
    /// Begins one that may name files of the home.
    pub fn begin(home: &Home) -> Self {
        let root = home.path().to_str().expect("UTF-8");
        let mut child = home
            .pyro(["mcp", "serve", "--profile", "workspace-full", "--root", root])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("pyro starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut session = Self { child, lines, asked: Vec::new(), told: Vec::new() };
        let hello = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": { "name": "story", "version": "1" },
        });
        session.ask("initialize", hello);
        session.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        session
    }

    fn say(&mut self, message: &Value) {
        let line = message.to_string();
        let stdin = self.child.stdin.as_mut().expect("piped");
        writeln!(stdin, "{line}").expect("the server reads");
        self.asked.push(line);
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.asked.len();
        self.say(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        loop {
            let line = self.lines.next().expect("the server lives").expect("UTF-8");
            let message: Value = serde_json::from_str(&line).expect("nothing but JSON");
            self.told.push(line);
            if message["id"] == id {
                return message["result"].clone();
            }
        }
    }

    /// Calls a tool about the workspace; gives what it answers.
    pub fn call(&mut self, tool: &str, mut arguments: Value) -> Value {
        arguments["workspace_id"] = "w".into();
        self.ask("tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    /// Ends it; what the server said to its user is told too.
    pub fn end(mut self) -> (Vec<String>, Vec<String>) {
        drop(self.child.stdin.take());
        self.told.extend(self.lines.by_ref().map(|line| line.expect("UTF-8")));
        let output = self.child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{output:?}");
        self.told.push(String::from_utf8_lossy(&output.stderr).into_owned());
        (self.asked, self.told)
    }
}
