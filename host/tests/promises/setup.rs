//! I2, I8: what pyro fetches is what it was, or nothing; without a network it
//! says so, and how to do without.

use crate::pyro;
use serde_json::Value;
use std::path::Path;
use std::process::Output;

fn setup(home: &Path, words: &[&str]) -> Output {
    // The network of whoever runs the test is none of its business.
    let mut command = pyro(home);
    command.env("no_proxy", "*").arg("setup").args(words);
    command.output().unwrap()
}

fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let entries = entries.filter(|entry| entry.metadata().unwrap().len() > 0);
    entries.filter(|e| e.path().is_file()).map(|e| e.path().display().to_string()).collect()
}

#[test]
fn i8_without_a_network_it_says_how_to_do_without() {
    let home = tempfile::tempdir().unwrap();
    // Nobody listens there.
    let url = "http://127.0.0.1:1/firecracker.tgz";
    let output = setup(home.path(), &["--from", url]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(output.stdout.is_empty());
    assert!(said.contains("pyro: cannot reach http://127.0.0.1:1: "), "{said}");
    assert!(said.contains("hint: "), "{said}");
    assert!(said.contains("https://github.com/firecracker-microvm/firecracker/"), "{said}");
    assert!(said.contains("`pyro setup --from FILE`"), "{said}");
    let place = home.path().join("cache/firecracker");
    assert_eq!(files(&place), [""; 0]);
    assert_eq!(std::fs::read_dir(place.join("staging")).unwrap().count(), 0);

    let output = setup(home.path(), &["--from", url, "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["error"]["kind"], "network", "{document}");
    assert_eq!(output.status.code(), Some(125));
}

#[test]
fn i2_what_is_not_the_release_is_not_taken() {
    let home = tempfile::tempdir().unwrap();
    let archive = home.path().join("firecracker.tgz");
    std::fs::write(&archive, "no archive").unwrap();
    let output = setup(home.path(), &["--from", archive.to_str().unwrap(), "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["error"]["kind"], "untrusted", "{document}");
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(files(&home.path().join("cache/firecracker")), [""; 0]);
}

#[test]
fn what_is_no_url_is_a_wrong_word() {
    let home = tempfile::tempdir().unwrap();
    for url in ["ftp://a.example/x", "https://me:secret@a.example/x"] {
        let output = setup(home.path(), &["--from", url]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{url}: {said}");
        assert!(!said.contains("secret"), "{said}");
    }
}
