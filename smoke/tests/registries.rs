//! Images that others made: pulled from a real registry, and run.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails")]

#[path = "registries/image.rs"]
mod image;
#[path = "registries/proxy.rs"]
mod proxy;
#[path = "registries/server.rs"]
mod server;

use image::{Layer, Packed, push, push_index, tar_of};
use proxy::Proxy;
use pyro_smoke::{Home, on_path, pyro_executable, stderr, stdout, user_cache};
use serde_json::Value;
use server::{Registry, header};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

/// A home that borrows the user's kernels and nothing else: what is pulled is its
/// own.
fn home() -> Home {
    let home = Home::bare();
    let cache = home.path().join("cache");
    fs::create_dir(&cache).unwrap();
    fs::set_permissions(&cache, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    symlink(user_cache().join("kernels"), cache.join("kernels")).unwrap();
    home
}

fn pyro(home: &Home, words: &[&str]) -> Output {
    home.pyro(words).output().unwrap()
}

fn told(home: &Home, words: &[&str]) -> String {
    stdout(&pyro(home, words))
}

fn json(home: &Home, words: &[&str]) -> Value {
    serde_json::from_str(&told(home, words)).unwrap()
}

/// Debian's static busybox as one directory: two names of one file.
fn busybox(directory: &Path) {
    fs::create_dir_all(directory.join("bin")).unwrap();
    let program = on_path("busybox").expect("`make test` installs it");
    fs::copy(program, directory.join("bin/busybox")).unwrap();
    fs::hard_link(directory.join("bin/busybox"), directory.join("bin/sh")).unwrap();
    fs::create_dir_all(directory.join("data")).unwrap();
    fs::write(directory.join("data/old"), "old").unwrap();
    fs::write(directory.join("data/stays"), "stays").unwrap();
}

const BUSYBOX_SAYS: &str = r#""Env":["GREETING=hello there","PATH=/bin"],"User":"7:8",
    "WorkingDir":"/srv/app","Entrypoint":["/bin/sh","-c"],
    "Cmd":["echo $GREETING; busybox id -u; busybox id -g; pwd; busybox ls /data"]"#;

fn busybox_layers() -> [Layer; 2] {
    let lower = tempfile::tempdir().unwrap();
    busybox(lower.path());
    let upper = tempfile::tempdir().unwrap();
    fs::create_dir(upper.path().join("data")).unwrap();
    fs::write(upper.path().join("data/.wh.old"), "").unwrap();
    fs::write(upper.path().join("data/new"), "new").unwrap();
    let tars = [tar_of(lower.path()), tar_of(upper.path())];
    let [lower, upper] = tars;
    [Layer { tar: lower, packed: Packed::Gzip }, Layer { tar: upper, packed: Packed::Zstd }]
}

#[test]
fn i9_a_busybox_image_runs_as_its_makers_say() {
    let (registry, home) = (Registry::start(), home());
    push_index(&registry, "box", BUSYBOX_SAYS, &busybox_layers());
    let reference = format!("{}/box:1", registry.address);
    let pulled = json(&home, &["env", "pull", &reference, "--json"]);
    assert_eq!(pulled["name"], Value::from(reference.as_str()));
    assert_eq!(told(&home, &["run", &reference]), "hello there\n7\n8\n/srv/app\nnew\nstays\n");
    let own = ["run", &reference, "--user", "0", "--cwd", "/", "--env", "GREETING=mine", "--"];
    let line = ["sh", "-c", "echo $GREETING; busybox id -u; pwd; busybox stat -c %h /bin/sh"];
    assert_eq!(told(&home, &[&own[..], &line].concat()), "mine\n0\n/\n2\n");

    // Nothing of it is fetched again, and its name leads to it as any other does.
    let again = pyro(&home, &["env", "pull", &reference]);
    assert!(!stderr(&again).contains("layer"), "{}", stderr(&again));
    let listed = json(&home, &["env", "list", "--json"]);
    let listed = listed["environments"].as_array().unwrap();
    assert!(listed.iter().any(|known| known["origin"]["source"] == reference.as_str()));

    // A workspace has the image for life, also when the name means another one.
    let workspace = json(&home, &["workspace", "create", &reference, "--json"]);
    let id = workspace["workspace_id"].as_str().unwrap();
    push(&registry, "box", r#""Cmd":["/bin/sh","-c","echo another"]"#, &busybox_layers());
    assert!(pyro(&home, &["env", "pull", &reference]).status.success());
    assert_eq!(told(&home, &["run", &reference]), "another\n");
    let line = ["workspace", "exec", id, "--", "sh", "-c", "echo $GREETING in $PWD"];
    assert_eq!(told(&home, &line), "hello there in /srv/app\n");
    assert!(pyro(&home, &["workspace", "delete", id]).status.success());
}

#[test]
fn i9_an_image_of_one_static_program_runs() {
    let (registry, home) = (Registry::start(), home());
    let directory = tempfile::tempdir().unwrap();
    let program = pyro_executable().with_file_name("pyro-agent");
    fs::copy(program, directory.path().join("hello")).unwrap();
    let layer = Layer { tar: tar_of(directory.path()), packed: Packed::Gzip };
    push(&registry, "one", r#""Entrypoint":["/hello"],"Cmd":["--version"]"#, &[layer]);
    let reference = format!("{}/one:1", registry.address);
    told(&home, &["env", "pull", &reference, "--name", "one"]);
    assert!(told(&home, &["run", "one"]).starts_with("pyro-agent "));
    let missing = pyro(&home, &["run", "one", "--shell", "true"]);
    assert_eq!(missing.status.code(), Some(127), "{}", stderr(&missing));
}

/// Debian as a guest sees it, with a file whose capabilities matter.
fn debian() -> Vec<u8> {
    let home = Home::new();
    let places = [
        "bin",
        "sbin",
        "lib",
        "lib64",
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "etc",
        "var/lib",
    ];
    let line = "cp /bin/cat /usr/bin/privileged && /sbin/setcap cap_net_raw+ep /usr/bin/privileged \
        2>/dev/null; exec tar -c --numeric-owner --xattrs --xattrs-include='*' -C / \"$@\"";
    let words = ["run", "debian:12-base", "--", "sh", "-c", line, "sh"];
    let output = home.pyro(words.iter().chain(&places)).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    output.stdout
}

#[test]
fn i8_a_pull_of_debian_that_is_killed_goes_on_where_it_was() {
    let (registry, home) = (Registry::start(), home());
    let layer = Layer { tar: debian(), packed: Packed::Gzip };
    push(&registry, "debian", r#""Cmd":["/bin/cat","/etc/debian_version"]"#, &[layer]);
    let proxy = Proxy::to(&registry.address);
    let reference = format!("{}/debian:1", proxy.address);
    let mut first = home.pyro(["env", "pull", &reference]).spawn().unwrap();
    proxy.wait();
    first.kill().unwrap();
    first.wait().unwrap();
    let whole = proxy.asked().len();
    told(&home, &["env", "pull", &reference]);
    let ranges: Vec<_> =
        proxy.asked()[whole..].iter().filter_map(|head| header(head, "range")).collect();
    let from = ranges.iter().find_map(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    let from: usize = from.expect("the rest is asked for").parse().unwrap();
    assert!(from > 0 && from <= proxy::PASSES, "{from}");
    assert!(told(&home, &["run", &reference]).starts_with("12."));
    let line =
        "dpkg --version | head -1; ls -ld /tmp; test -x /usr/lib/pyro/pyro-agent && echo baked";
    let said = told(&home, &["run", &reference, "--", "sh", "-c", line]);
    assert!(
        said.contains("dpkg") && said.contains("drwxrwxrwt") && said.contains("baked"),
        "{said}"
    );
}

/// A program that Docker's file names, which notes what it is asked for.
fn helper(directory: &Path, says: &str) {
    let program = directory.join("docker-credential-story");
    let noted = directory.join("asked");
    let script =
        format!("#!/bin/sh\nread -r key\necho \"$* $key\" >> {}\n{says}\n", noted.display());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn i9_a_private_registry_proves_itself_and_is_shown_a_login() {
    let (open, home, place) = (Registry::start(), home(), tempfile::tempdir().unwrap());
    push(&open, "box", r#""Cmd":["/bin/sh","-c","echo it runs"]"#, &busybox_layers());
    let private = open.private();
    let reference = format!("{}/box:1", private.address);
    let docker = place.path().join("config.json");
    let pull = |authority: bool| {
        let path = std::env::var("PATH").unwrap();
        let mut command = home.pyro(["env", "pull", &reference]);
        command.env("DOCKER_CONFIG", place.path());
        command.env("PATH", format!("{}:{path}", place.path().display()));
        if authority {
            command.env("SSL_CERT_FILE", private.authority());
        }
        let output = command.output().unwrap();
        let said = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
        assert!(!said.contains(server::PASSWORD), "{said}");
        (output.status.success(), said)
    };
    let refused = |authority: bool, why: &str| {
        let (succeeded, said) = pull(authority);
        assert!(!succeeded && said.contains(why), "{why}: {said}");
    };
    fs::write(&docker, format!(r#"{{"credHelpers":{{"{}":"story"}}}}"#, private.address)).unwrap();
    let login =
        format!(r#"echo '{{"Username":"{}","Secret":"{}"}}'"#, server::USER, server::PASSWORD);
    helper(place.path(), &login);
    // Nobody is asked for a login for whom nobody vouches.
    refused(false, "certificate");
    let asked = place.path().join("asked");
    assert!(!asked.exists());
    let (succeeded, said) = pull(true);
    assert!(succeeded, "{said}");
    assert_eq!(fs::read_to_string(&asked).unwrap(), format!("get {}\n", private.address));
    assert_eq!(told(&home, &["run", &reference]), "it runs\n");

    // All that may be wrong with a login.
    helper(place.path(), r#"echo '{"Username":"story","Secret":"another"}'"#);
    refused(true, "does not let you have");
    helper(place.path(), "echo credentials not found in native keychain; exit 1");
    refused(true, "wants a login");
    helper(place.path(), "echo it is broken; exit 1");
    refused(true, "docker-credential-story fails");
    fs::write(&docker, r#"{"credsStore":"elsewhere"}"#).unwrap();
    refused(true, "docker-credential-elsewhere is not on PATH");
    fs::remove_file(&docker).unwrap();
    refused(true, "wants a login");
}
