//! `FileEdit`.

use super::draft::{Draft, existing};
use super::fault::{invalid, refused, refused_io};
use super::read;
use super::root::{Root, TreePath};
use super::status;
use crate::work::{Cancel, Stop};
use memchr::memmem;
use pyro_protocol::file::{EDIT_MAX, EDITS_MAX, Edit, FileEdit, FileEdited, Occurrences};
use pyro_protocol::{AgentError, AgentErrorKind};
use rustix::fs::{Stat, fstat};
use std::fs::File;
use std::io::Read;

/// Lines of an ambiguous text that the error names.
const LINES_TOLD: usize = 8;

/// How much of a text an error shows.
const TEXT_TOLD: usize = 60;

/// Answers `FileEdit`.
pub(super) fn run(root: &Root, call: &FileEdit, cancel: &Cancel) -> Result<FileEdited, Stop> {
    // Two edits of one file at a time would lose one of them; and each holds a
    // file in memory twice.
    let _turn = root.commits.turn()?;
    let path = root.target(&TreePath::new(&call.path)?)?;
    let (file, size) = read::regular(root, &path)?;
    let before = fstat(&file).map_err(|errno| refused(&path, errno))?;
    if size > EDIT_MAX {
        return Err(too_large(&path).into());
    }
    let mut content = Vec::new();
    File::from(file)
        .take(EDIT_MAX + 1)
        .read_to_end(&mut content)
        .map_err(|error| refused_io(&path, &error))?;
    let edited = apply(content, &call.edits, &path, cancel)?;
    replace(root, &path, &before, &edited.content)?;
    Ok(FileEdited {
        replacements: edited.replacements,
        first_line: edited.first_line,
        size_bytes: edited.content.len() as u64,
    })
}

fn replace(root: &Root, path: &TreePath, before: &Stat, content: &[u8]) -> Result<(), AgentError> {
    let place = root.place(path)?;
    let mut draft = Draft::new(&place.parent, path)?;
    draft.write(content)?;
    let now = existing(&place, path)?;
    let identity = |stat: &Stat| (stat.st_dev, stat.st_ino, stat.st_size, status::modified(stat));
    if now.as_ref().map(identity) != Some(identity(before)) {
        let text = format!("{path} was changed by somebody else meanwhile; nothing was edited");
        return Err(AgentError::new(AgentErrorKind::Conflict, text));
    }
    draft.dress(status::mode(before), Some(before))?;
    draft.replace(&place)
}

#[derive(Debug, PartialEq, Eq)]
struct Edited {
    content: Vec<u8>,
    replacements: u64,
    first_line: u64,
}

/// All the edits, one after the other.
fn apply(
    content: Vec<u8>,
    edits: &[Edit],
    path: &TreePath,
    cancel: &Cancel,
) -> Result<Edited, Stop> {
    if edits.is_empty() {
        return Err(invalid("there is no edit to make").into());
    }
    if edits.len() > EDITS_MAX {
        return Err(invalid(format!("more than {EDITS_MAX} edits at once")).into());
    }
    let mut edited = Edited { content, replacements: 0, first_line: u64::MAX };
    for edit in edits {
        cancel.check()?;
        let (old, new) = (edit.old.0.as_slice(), edit.new.0.as_slice());
        if old.is_empty() {
            return Err(invalid("the text to replace is empty").into());
        }
        let Some(first) = memmem::find(&edited.content, old) else {
            return Err(conflict(path, absence(&edited.content, old)).into());
        };
        let found = memmem::find_iter(&edited.content, old).count();
        match edit.occurrences {
            Occurrences::Exactly(count) if found != count as usize => {
                let text = ambiguity(&edited.content, old, found, count);
                return Err(conflict(path, text).into());
            }
            Occurrences::Exactly(_) | Occurrences::All => {}
        }
        edited.first_line = edited.first_line.min(line_of(&edited.content, first));
        edited.replacements += found as u64;
        let length = edited.content.len() - found * old.len();
        let length = length.saturating_add(found.saturating_mul(new.len()));
        if length as u64 > EDIT_MAX {
            return Err(too_large(path).into());
        }
        edited.content = replaced(&edited.content, old, new, length);
    }
    Ok(edited)
}

fn replaced(content: &[u8], old: &[u8], new: &[u8], length: usize) -> Vec<u8> {
    let mut result = Vec::with_capacity(length);
    let mut done = 0;
    // Looked for again: where they all are could be eight times the content.
    for at in memmem::find_iter(content, old) {
        result.extend_from_slice(&content[done..at]);
        result.extend_from_slice(new);
        done = at + old.len();
    }
    result.extend_from_slice(&content[done..]);
    result
}

fn line_of(content: &[u8], at: usize) -> u64 {
    1 + memchr::memchr_iter(b'\n', &content[..at]).count() as u64
}

/// Why a text is not found, as far as that can be seen.
fn absence(content: &[u8], old: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&old[..old.len().min(TEXT_TOLD)]);
    let lines = |bytes: &[u8]| memmem::find(bytes, b"\r\n").is_some();
    let reason = match (lines(content), old.contains(&b'\n') && !lines(old)) {
        (true, true) => "; the file's lines end in \\r\\n",
        _ => "",
    };
    format!("the text to replace is not in it: {shown:?}{reason}")
}

fn ambiguity(content: &[u8], old: &[u8], found: usize, wanted: u32) -> String {
    let told = memmem::find_iter(content, old).take(LINES_TOLD);
    let lines = told.map(|at| line_of(content, at).to_string()).collect::<Vec<_>>().join(", ");
    let rest = if found > LINES_TOLD { ", ..." } else { "" };
    let times = if found == 1 { "once" } else { "times" };
    let count = if found == 1 { String::new() } else { format!("{found} ") };
    let plural = if found == 1 { "line" } else { "lines" };
    format!(
        "the text to replace is in it {count}{times}, at {plural} {lines}{rest}; {wanted} expected"
    )
}

fn conflict(path: &TreePath, what: String) -> AgentError {
    AgentError::new(AgentErrorKind::Conflict, format!("{path}: {what}"))
}

fn too_large(path: &TreePath) -> AgentError {
    let text = format!("{path} is longer than {EDIT_MAX} bytes, the most that can be edited");
    AgentError::new(AgentErrorKind::TooLarge, text)
}
