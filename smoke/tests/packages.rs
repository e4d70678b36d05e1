//! One file is enough, whatever it is called and however it is installed.

use pyro_smoke::installed::from_pypi;
use pyro_smoke::{Home, pyro_executable, stderr, stdout, user_cache};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", stderr(&output));
    stdout(&output)
}

/// Has a script of packaging/ make its package; it says where that is.
fn package(script: &str, to: &Path) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(script);
    let said = succeed(Command::new(script).arg(pyro_executable()).arg(to));
    PathBuf::from(said.trim_end())
}

/// The installed program answers, and runs a guest.
fn expect_to_work(pyro: &Path) {
    let version = succeed(Command::new(pyro).arg("--version"));
    assert_eq!(version, concat!("pyro ", env!("CARGO_PKG_VERSION"), "\n"));
    let home = Home::new();
    let words = ["run", "debian:12", "--", "uname", "-s"];
    let said = succeed(Command::new(pyro).args(words).env("PYRO_HOME", home.path()));
    assert_eq!(said, "Linux\n");
    home.expect_clean_within(Duration::from_secs(5));
}

/// What comes along, below a `share` directory.
fn expect_share(share: &Path, completions: &[&str]) {
    let page = share.join("man/man1/pyro-workspace-exec.1.gz");
    let page = succeed(Command::new("zcat").arg(page));
    assert!(page.contains("Run a command in a workspace"), "{page}");
    assert!(share.join("man/man1/pyro.1.gz").is_file());
    for name in completions {
        let script = fs::read_to_string(share.join(name)).expect(name);
        assert!(script.contains("workspace"), "{name}");
    }
}

const COMPLETIONS: &[&str] = &[
    "bash-completion/completions/pyro",
    "zsh/vendor-completions/_pyro",
    "fish/vendor_completions.d/pyro.fish",
];

#[test]
fn i1_i2_the_wheel_brings_all_that_it_needs() {
    let place = TempDir::new().expect("a directory");
    let wheel = package("wheel.py", &place.path().join("one"));
    let again = package("wheel.py", &place.path().join("two"));
    assert!(fs::read(&wheel).expect("made") == fs::read(&again).expect("made"), "the same bytes");
    let venv = place.path().join("venv");
    succeed(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    // No index: it depends on nothing.
    let pip = venv.join("bin/python");
    succeed(
        Command::new(&pip)
            .args(["-m", "pip", "install", "--quiet", "--no-index", "--no-cache-dir"])
            .arg(&wheel)
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
    );
    expect_to_work(&venv.join("bin/pyro"));
    expect_share(&venv.join("share"), COMPLETIONS);
    let words = ["-m", "pip", "uninstall", "--quiet", "--yes", "pyro-microvm"];
    succeed(Command::new(&pip).args(words));
    assert!(!venv.join("bin/pyro").exists() && !venv.join("share/man/man1/pyro.1.gz").exists());
}

const UV: &str = "uv==0.13.9";

#[test]
fn i2_uvx_runs_the_wheel() {
    let Some(uv) = from_pypi(UV) else { return };
    let place = TempDir::new().expect("a directory");
    let wheel = package("wheel.py", &place.path().join("wheel"));
    let home = Home::new();
    let said = succeed(
        Command::new(uv.join("bin/uvx"))
            // It looks for nothing beyond the wheel.
            .args(["--offline", "--no-config", "--no-python-downloads", "--python", "python3"])
            .arg("--from")
            .arg(wheel)
            .args(["pyro", "run", "debian:12", "--", "uname", "-s"])
            .env("UV_CACHE_DIR", place.path().join("uv"))
            .env("PYRO_HOME", home.path()),
    );
    assert_eq!(said, "Linux\n");
    home.expect_clean_within(Duration::from_secs(5));
}

/// dpkg on a root of its own.
fn dpkg(root: &Path) -> Command {
    let mut dpkg = Command::new("dpkg");
    // It depends on e2fsprogs, which is the host's and not this root's.
    dpkg.arg(format!("--root={}", root.display())).args(["--force-depends", "--force-not-root"]);
    dpkg.arg(format!("--log={}", root.join("log").display()));
    dpkg.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    dpkg
}

#[test]
fn i1_the_debian_package_brings_all_that_it_needs() {
    let place = TempDir::new().expect("a directory");
    let package_file = package("deb.sh", &place.path().join("one"));
    let again = package("deb.sh", &place.path().join("two"));
    assert!(
        fs::read(&package_file).expect("made") == fs::read(&again).expect("made"),
        "the same bytes"
    );
    let field =
        |name: &str| succeed(Command::new("dpkg-deb").arg("--field").arg(&package_file).arg(name));
    assert_eq!(field("Version").trim(), env!("CARGO_PKG_VERSION"));
    assert_eq!(field("Depends").trim(), "e2fsprogs");
    assert!(field("Recommends").contains("qemu-system-x86"));

    let root = place.path().join("root");
    for directory in ["updates", "info"] {
        fs::create_dir_all(root.join("var/lib/dpkg").join(directory)).expect("made");
    }
    fs::write(root.join("var/lib/dpkg/status"), "").expect("written");
    succeed(dpkg(&root).arg("--install").arg(&package_file));
    assert_eq!(succeed(dpkg(&root).args(["--verify", "pyro"])), "", "all is as its digests say");
    expect_to_work(&root.join("usr/bin/pyro"));
    expect_share(&root.join("usr/share"), COMPLETIONS);
    for name in ["copyright", "changelog.gz", "README.md", "SKILL.md", "docs/install.md"] {
        assert!(root.join("usr/share/doc/pyro").join(name).is_file(), "{name}");
    }
    succeed(dpkg(&root).args(["--remove", "pyro"]));
    assert!(!root.join("usr/bin/pyro").exists() && !root.join("usr/share/doc/pyro").exists());
}

/// A home that has packages and kernels, and no image yet.
fn home_without_images() -> Home {
    let home = Home::bare();
    let cache = home.path().join("cache");
    fs::create_dir(&cache).expect("made");
    for name in ["trees", "kernels"] {
        symlink(user_cache().join(name), cache.join(name)).expect("linked");
    }
    home
}

/// Asks a server over its standard streams.
struct Client {
    server: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Client {
    fn ask(&mut self, ask: &Value) {
        let stdin = self.server.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "{ask}").expect("it listens");
    }

    fn answer(&mut self, id: u64) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.said.read_line(&mut line).expect("it speaks") > 0, "it has ended");
            let answer: Value = serde_json::from_str(&line).expect("JSON");
            if answer["id"] == id {
                return answer;
            }
        }
    }
}

#[test]
fn one_file_of_any_name_is_enough() {
    let home = home_without_images();
    let directory = home.path().join("bin");
    fs::create_dir(&directory).expect("made");
    let pyro = directory.join("pyro-next");
    fs::copy(pyro_executable(), &pyro).expect("copied");
    let command = |words: &[&str]| {
        let mut command = Command::new(&pyro);
        command.args(words).env("PYRO_HOME", home.path()).stdin(Stdio::null());
        command
    };
    succeed(&mut command(&["env", "build", "debian:12-base"]));
    let baked = command(&["run", "debian:12-base", "--", "cat", "/usr/lib/pyro/pyro-agent"]);
    let baked = { baked }.output().expect("it starts");
    assert!(baked.status.success(), "{}", stderr(&baked));
    let built = fs::read(pyro_executable().with_file_name("pyro-agent")).expect("it is built");
    assert!(baked.stdout == built, "the agent inside is the one that was built (`make build`)");

    // A server outlives its file, as when another version is installed.
    let mut server = command(&["mcp", "serve", "--profile", "vm-run"]);
    server.stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir(&directory);
    let mut server = server.spawn().expect("it starts");
    let said = BufReader::new(server.stdout.take().expect("a pipe"));
    let mut client = Client { server, said };
    client.ask(&json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "story", "version": "1"}}}));
    client.answer(1);
    client.ask(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    fs::remove_file(&pyro).expect("removed");
    client.ask(&json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {
        "name": "vm_run",
        "arguments": {"environment": "debian:12-base", "command": ["echo", "still here"]}}}));
    let answer = client.answer(2);
    assert_eq!(answer["result"]["structuredContent"]["stdout"], "still here\n", "{answer}");
    drop(client.server.stdin.take());
    assert!(client.server.wait().expect("it ends").success());
    home.expect_clean_within(Duration::from_secs(5));
}
