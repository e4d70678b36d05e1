//! What one guest knows, looked for in all that others have.

use pyro_smoke::dice::Dice;
use pyro_smoke::templates::position;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What every canary begins with.
const BEGINNING: &str = "pyro-canary-";

/// The digits that tell one from another.
const DIGITS: usize = 32;

const PAGE: u64 = 4096;

/// Of what the kernel says of a page: it is in memory.
const IS_PRESENT: u64 = 1 << 63;

/// One that nobody else has.
pub fn new(dice: &mut Dice) -> String {
    format!("{BEGINNING}{:016x}{:016x}", dice.number(), dice.number())
}

/// Those in there.
fn search(bytes: &[u8], found: &mut BTreeSet<String>) {
    let mut rest = bytes;
    while let Some(at) = position(rest, BEGINNING.as_bytes()) {
        rest = &rest[at + BEGINNING.len()..];
        let digits = &rest[..DIGITS.min(rest.len())];
        // The beginning alone is in scripts.
        if digits.len() == DIGITS && digits.iter().all(u8::is_ascii_hexdigit) {
            found.insert(format!("{BEGINNING}{}", String::from_utf8_lossy(digits)));
        }
    }
}

/// The canaries in a file; its holes are not read.
pub fn in_file(path: &Path) -> BTreeSet<String> {
    use rustix::fs::{SeekFrom, seek};
    let mut found = BTreeSet::new();
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut at = 0;
    // No data is after the last.
    while let Ok(start) = seek(&file, SeekFrom::Data(at)) {
        let end = seek(&file, SeekFrom::Hole(start)).expect("the file ends");
        search(&read(&file, start, end).expect("it is readable"), &mut found);
        at = end;
    }
    found
}

/// The canaries in the memory of a process: its guest's, and its own.
pub fn in_process(pid: u32) -> io::Result<BTreeSet<String>> {
    let place = |name: &str| format!("/proc/{pid}/{name}");
    let (memory, pages) = (File::open(place("mem"))?, File::open(place("pagemap"))?);
    let mut found = BTreeSet::new();
    for line in fs::read_to_string(place("maps"))?.lines() {
        let (range, rest) = line.split_once(' ').expect("a range");
        let bounds = range.split_once('-').expect("two addresses");
        let [start, end] = [bounds.0, bounds.1].map(|at| u64::from_str_radix(at, 16).expect("hex"));
        // What is the kernel's cannot be read.
        if !rest.starts_with('r') || line.contains("[v") {
            continue;
        }
        for (start, end) in present(&pages, start / PAGE, end / PAGE)? {
            // It may have been given back since.
            if let Ok(bytes) = read(&memory, start * PAGE, end * PAGE) {
                search(&bytes, &mut found);
            }
        }
    }
    Ok(found)
}

/// Which of these pages are in memory, from where to where.
fn present(pagemap: &File, start: u64, end: u64) -> io::Result<Vec<(u64, u64)>> {
    let entries = read(pagemap, start * 8, end * 8)?;
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (page, entry) in (start..).zip(entries.chunks_exact(8)) {
        let entry = u64::from_le_bytes(entry.try_into().expect("eight bytes"));
        match runs.last_mut() {
            _ if entry & IS_PRESENT == 0 => {}
            Some((_, end)) if *end == page => *end += 1,
            Some(_) | None => runs.push((page, page + 1)),
        }
    }
    Ok(runs)
}

fn read(file: &File, start: u64, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(end - start).expect("it is addressable")];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}
