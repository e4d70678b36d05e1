//! I1, I2: what is installed is all there is to install.

use crate::pyro;
use std::fs;
use std::process::{Command, Stdio};

/// The program header by which a program asks for an interpreter, which would
/// bring libraries along.
const PT_INTERP: u32 = 3;

fn number(bytes: &[u8], at: usize, width: usize) -> usize {
    bytes[at..at + width].iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

/// The kinds of the program headers of a 64-bit ELF.
fn program_headers(elf: &[u8]) -> Vec<usize> {
    assert_eq!(elf[..5], *b"\x7fELF\x02");
    let (at, size, count) = (number(elf, 32, 8), number(elf, 54, 2), number(elf, 56, 2));
    (0..count).map(|header| number(elf, at + header * size, 4)).collect()
}

#[test]
fn i1_i2_one_file_is_enough_and_brings_all_it_depends_on() {
    let elf = fs::read(env!("CARGO_BIN_EXE_pyro")).unwrap();
    let headers = program_headers(&elf);
    assert!(headers.len() > 2 && !headers.contains(&(PT_INTERP as usize)), "{headers:?}");
    // Alone in a directory, with an environment as empty as can be.
    let place = tempfile::tempdir().unwrap();
    let alone = place.path().join("pyro");
    fs::copy(env!("CARGO_BIN_EXE_pyro"), &alone).unwrap();
    for words in ["--version", "env list", "workspace list", "completions bash", "mcp serve"] {
        let output = Command::new(&alone)
            .args(words.split(' '))
            .env_clear()
            .env("PYRO_HOME", place.path().join("home"))
            .current_dir(place.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{words}: {output:?}");
    }
}

/// What goes into images is not in `pyro`; where it is missing, that is said
/// before anything is built.
#[test]
fn i1_a_missing_agent_is_named() {
    let home = tempfile::tempdir().unwrap();
    let output = pyro(home.path())
        .args(["env", "build", "debian:12-base"])
        .env("PYRO_AGENT", home.path().join("no-agent"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no-agent") && said.contains("\nhint: "), "{said}");
    assert!(!home.path().join("cache/trees").exists());
}
