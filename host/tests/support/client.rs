//! An MCP client that speaks in plain lines.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Output};

/// A client, and the server that it started.
pub struct Client {
    pub server: Child,
    pub to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    calls: u64,
}

impl Client {
    /// Speaks to a server whose input and output are pipes.
    pub fn of(mut server: Child) -> Self {
        let (to, from) = (server.stdin.take(), server.stdout.take().unwrap());
        Self { server, to, from: BufReader::new(from), calls: 0 }
    }

    /// Greets the server.
    pub fn initialize(&mut self, version: &str) -> Value {
        let params = json!({
            "protocolVersion": version,
            "capabilities": {},
            "clientInfo": { "name": "test", "version": "0" },
        });
        let answer = self.ask("initialize", params);
        self.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        answer["result"].clone()
    }

    /// Sends a line.
    pub fn say(&mut self, message: &Value) {
        writeln!(self.to.as_mut().unwrap(), "{message}").unwrap();
    }

    /// The next line, which must be JSON-RPC like every other.
    pub fn hear(&mut self) -> Value {
        let mut line = String::new();
        assert_ne!(self.from.read_line(&mut line).unwrap(), 0, "the server left");
        let message: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(message["jsonrpc"], "2.0", "{line}");
        message
    }

    /// Sends a request and waits for its answer, passing over all else.
    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        self.say(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        loop {
            let message = self.hear();
            if message["id"] == id {
                return message;
            }
        }
    }

    /// Calls a tool.
    pub fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.ask("tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    /// Closes the server's input and waits for its end.
    pub fn leave(mut self) -> Output {
        drop(self.to.take());
        drop(self.from);
        self.server.wait_with_output().unwrap()
    }
}
