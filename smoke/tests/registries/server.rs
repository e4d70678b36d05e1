//! Debian's `docker-registry`, on the loopback interface and in a directory of its
//! own, and as much of HTTP as it takes to give it images.

use pyro::digest::Sha256;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use tempfile::TempDir;

/// Where Debian has it.
const PROGRAM: &str = "docker-registry";

/// Who is let through the private door, and with which password, which the
/// registry knows hashed by bcrypt.
pub const USER: &str = "story";
pub const PASSWORD: &str = "hunter2";
const HASHED: &str = "$2y$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8.";

/// What makes an authority that nobody knows, and a certificate of its.
const CERTIFICATE: [&str; 2] = [
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
     -subj /CN=authority -keyout authority.key -out authority.pem",
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
     -subj /CN=registry -addext subjectAltName=IP:127.0.0.1 \
     -addext basicConstraints=critical,CA:FALSE -CA authority.pem -CAkey authority.key \
     -keyout server.key -out server.pem",
];

/// A registry that ends with this.
pub struct Registry {
    child: Child,
    directory: Rc<TempDir>,
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
        Self::serve(Rc::new(tempfile::tempdir().unwrap()), "open", "", "")
    }

    /// Another door to the same images, behind a certificate and a login: the
    /// one of [`authority`], and that of [`USER`].
    pub fn private(&self) -> Self {
        let directory = Rc::clone(&self.directory);
        let at = |name: &str| directory.path().join(name).display().to_string();
        for line in CERTIFICATE {
            let status = Command::new("openssl")
                .args(line.split(' '))
                .current_dir(directory.path())
                .stderr(Stdio::null())
                .status()
                .unwrap();
            assert!(status.success(), "openssl {line}");
        }
        fs::write(at("users"), format!("{USER}:{HASHED}\n")).unwrap();
        let tls =
            format!(", tls: {{certificate: {}, key: {}}}", at("server.pem"), at("server.key"));
        let auth = format!("auth: {{htpasswd: {{realm: story, path: {}}}}}\n", at("users"));
        Self::serve(directory, "private", &tls, &auth)
    }

    /// Who vouches for the private door.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("authority.pem")
    }

    /// `http` is said of its address, `more` of other things.
    fn serve(directory: Rc<TempDir>, name: &str, http: &str, more: &str) -> Self {
        let config = directory.path().join(name);
        let storage = directory.path().join("storage");
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:0'{http}}}\n{more}",
            storage.display()
        );
        fs::write(&config, text).unwrap();
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
                let is_end = |c: char| matches!(c, '"' | ',') || c.is_whitespace();
                break rest[..rest.find(is_end).unwrap_or(rest.len())].to_owned();
            }
        };
        // What it goes on to say must go somewhere.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, directory, address }
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
