//! Debian's `docker-registry`, on the loopback interface and in a directory of its
//! own, and as much of HTTP as it takes to give it images.

use pyro::digest::Sha256;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Where Debian has it.
const PROGRAM: &str = "docker-registry";

/// A registry that ends with this.
pub struct Registry {
    child: Child,
    _directory: TempDir,
    pub address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        // One that has ended by itself has failed the story already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Registry {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.yml");
        let storage = directory.path().join("storage");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:0'}}\n",
            storage.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new(PROGRAM)
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{PROGRAM}: {error}; `make test` installs it"));
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "the registry ended");
            if let Some((_, rest)) = line.split_once("listening on ") {
                let end = rest.find(|c: char| c == '"' || c.is_whitespace()).unwrap_or(rest.len());
                break rest[..end].to_owned();
            }
        };
        // What it goes on to say must go somewhere.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, _directory: directory, address }
    }

    /// Gives it a blob; gives its digest.
    pub fn push_blob(&self, name: &str, blob: &[u8]) -> String {
        let digest = Sha256::of(blob).to_string();
        let (head, _) = self.ask("POST", &format!("/v2/{name}/blobs/uploads/"), "", &[]);
        let location = header(&head, "location").unwrap();
        let path = &location[location.find("/v2/").unwrap()..];
        let path = format!("{path}&digest={digest}");
        self.ask("PUT", &path, "application/octet-stream", blob);
        digest
    }

    /// Gives it a manifest or an index.
    pub fn push_manifest(&self, name: &str, tag: &str, media_type: &str, text: &str) -> String {
        self.ask("PUT", &format!("/v2/{name}/manifests/{tag}"), media_type, text.as_bytes());
        Sha256::of(text.as_bytes()).to_string()
    }

    fn ask(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> (String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\
             Content-Type: {media_type}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let is_good = head.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
        assert!(is_good, "{method} {path}: {}", String::from_utf8_lossy(&answer));
        (head, answer[end + 4..].to_vec())
    }
}

pub fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (its, value) = line.split_once(':')?;
        its.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}
