//! A patch's text, taken apart. Total over any bytes: what is no patch is prose
//! and skipped, as git and patch do; what begins like one and is broken is
//! refused by its line.

use super::binary::BinaryHunk;
use super::hunk::{Hunk, Lines};
use crate::git::quote::unquoted;

/// What all that a patch says of files may take in memory, without the lines,
/// which stay in the patch: some ten thousand files, or a hundred thousand
/// hunks. What is found out about each file takes about as much again.
const PARTS_MAX: usize = 8 * 1024 * 1024;

/// The longest line with a name in it: two of the longest paths, every byte
/// quoted in octal.
const NAMES_MAX: usize = 32 * 1024;

/// What a patch does to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePatch {
    /// The names as they stand there; `None` is /dev/null.
    pub(crate) old: Option<Name>,
    pub(crate) new: Option<Name>,
    pub(crate) kind: PatchKind,
    pub(crate) old_mode: Option<u32>,
    pub(crate) new_mode: Option<u32>,
    /// What the blobs are called, in as many digits as there are.
    pub(crate) ids: Option<(Vec<u8>, Vec<u8>)>,
    pub(crate) body: Body,
    /// Both names after `diff --git` are the same: they have no `a/` and `b/`.
    pub(crate) is_unprefixed: bool,
    /// Where it begins.
    pub(crate) line: usize,
}

/// A name in a patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) path: Vec<u8>,
    /// It has no `a/` or `b/`: it stands after `rename` or `copy`.
    pub(crate) is_bare: bool,
    /// A time that means that there is no such file.
    pub(crate) is_epoch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchKind {
    Modify,
    Create,
    Delete,
    Rename,
    Copy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    Nothing,
    Hunks(Vec<Hunk>),
    Binary {
        forward: BinaryHunk,
        reverse: Option<BinaryHunk>,
    },
    /// It says that bytes differ and not how.
    WithoutContent,
}

/// Why a text is no patch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the patch: {why}")]
pub(crate) struct Malformed {
    pub(crate) line: usize,
    pub(crate) why: String,
}

impl Malformed {
    pub(super) fn new(line: usize, why: impl Into<String>) -> Self {
        Self { line, why: why.into() }
    }
}

/// How much of [`PARTS_MAX`] is left.
struct Room(usize);

impl Room {
    /// For one more of a vector, which may have as much room to spare.
    fn take_one<T>(&mut self, line: usize) -> Result<(), Malformed> {
        self.take(line, 2 * size_of::<T>())
    }

    fn take(&mut self, line: usize, bytes: usize) -> Result<(), Malformed> {
        self.0 = self.0.checked_sub(bytes).ok_or_else(|| {
            Malformed::new(line, "so many files and hunks are too much for one patch; split it")
        })?;
        Ok(())
    }
}

/// Takes a patch apart.
pub(crate) fn parse(text: &[u8]) -> Result<Vec<FilePatch>, Malformed> {
    let mut lines = Lines::new(text);
    let mut room = Room(PARTS_MAX);
    let mut files = Vec::new();
    while let Some(line) = lines.peek() {
        let file = if let Some(names) = line.strip_prefix(b"diff --git ") {
            let number = lines.number();
            lines.next();
            git_file(&mut lines, checked(names, number)?, number, &mut room)?
        } else if is_plain_start(&lines) {
            plain_file(&mut lines, &mut room)?
        } else {
            lines.next();
            continue;
        };
        room.take_one::<FilePatch>(file.line)?;
        let names = [&file.old, &file.new].into_iter().flatten();
        room.take(file.line, names.map(|name| name.path.len()).sum())?;
        files.push(file);
    }
    Ok(files)
}

/// A line with names, if it is not too long for any.
fn checked(names: &[u8], line: usize) -> Result<&[u8], Malformed> {
    match names.len() {
        ..=NAMES_MAX => Ok(names),
        _ => Err(Malformed::new(line, "a name that is longer than any path")),
    }
}

/// Whether here are the two names of a plain diff and its first hunk.
pub(super) fn is_plain_start(lines: &Lines<'_>) -> bool {
    let mut ahead = lines.clone();
    let begins = |line: Option<&[u8]>, with: &[u8]| line.is_some_and(|line| line.starts_with(with));
    begins(ahead.next(), b"--- ") && begins(ahead.next(), b"+++ ") && begins(ahead.next(), b"@@ -")
}

fn plain_file(lines: &mut Lines<'_>, room: &mut Room) -> Result<FilePatch, Malformed> {
    let line = lines.number();
    let mut name = || {
        let text = lines.next().and_then(|line| line.get(4..)).unwrap_or_default();
        checked(text, line).map(side_name)
    };
    let (old, new) = (name()?, name()?);
    let hunks = hunks(lines, room)?;
    let kind = match (&old, &new) {
        (None, None) => return Err(Malformed::new(line, "both names are /dev/null")),
        (None, Some(_)) => PatchKind::Create,
        (Some(_), None) => PatchKind::Delete,
        (Some(_), Some(_)) => PatchKind::Modify,
    };
    let body = Body::Hunks(hunks);
    Ok(FilePatch {
        old,
        new,
        kind,
        old_mode: None,
        new_mode: None,
        ids: None,
        body,
        is_unprefixed: false,
        line,
    })
}

fn git_file(
    lines: &mut Lines<'_>,
    names: &[u8],
    line: usize,
    room: &mut Room,
) -> Result<FilePatch, Malformed> {
    let names = git_names(without_cr(names));
    let is_unprefixed = names.as_ref().is_some_and(|(old, new)| old.path == new.path);
    let (mut old, mut new) = match names {
        Some((old, new)) => (Some(old), Some(new)),
        None => (None, None),
    };
    let (mut kind, mut old_mode, mut new_mode, mut ids) = (PatchKind::Modify, None, None, None);
    let mut body = Body::Nothing;
    let mut named = false;
    while let Some(text) = lines.peek() {
        let text = without_cr(text);
        let number = lines.number();
        let rest = |prefix: &str| text.strip_prefix(prefix.as_bytes());
        let mode =
            |digits| parse_mode(digits).ok_or_else(|| Malformed::new(number, "no file mode"));
        let bare = |name| {
            let name = bare_name(checked(name, number)?);
            name.ok_or_else(|| Malformed::new(number, "no name"))
        };
        if let Some(digits) = rest("old mode ") {
            old_mode = Some(mode(digits)?);
        } else if let Some(digits) = rest("new mode ") {
            new_mode = Some(mode(digits)?);
        } else if let Some(digits) = rest("deleted file mode ") {
            (kind, old_mode) = (PatchKind::Delete, Some(mode(digits)?));
        } else if let Some(digits) = rest("new file mode ") {
            (kind, new_mode) = (PatchKind::Create, Some(mode(digits)?));
        } else if let Some(name) = rest("rename from ").or(rest("rename old ")) {
            (kind, old) = (PatchKind::Rename, Some(bare(name)?));
        } else if let Some(name) = rest("rename to ").or(rest("rename new ")) {
            (kind, new) = (PatchKind::Rename, Some(bare(name)?));
        } else if let Some(name) = rest("copy from ") {
            (kind, old) = (PatchKind::Copy, Some(bare(name)?));
        } else if let Some(name) = rest("copy to ") {
            (kind, new) = (PatchKind::Copy, Some(bare(name)?));
        } else if let Some(line) = rest("index ") {
            let (range, mode) = split_once(line, b' ');
            ids = split_ids(range);
            if let (Some(digits), None, None) = (mode, old_mode, new_mode) {
                (old_mode, new_mode) = (parse_mode(digits), parse_mode(digits));
            }
        } else if text.starts_with(b"similarity index ")
            || text.starts_with(b"dissimilarity index ")
        {
        } else if text.starts_with(b"--- ") && !named {
            named = true;
            let is_move = matches!(kind, PatchKind::Rename | PatchKind::Copy);
            let before = side_name(checked(&text[4..], number)?);
            lines.next();
            let after = lines.peek().and_then(|line| line.strip_prefix(b"+++ "));
            let Some(after) = after else {
                return Err(Malformed::new(lines.number(), "`+++` should follow `---`"));
            };
            if !is_move {
                let after = side_name(checked(after, number)?);
                match (&before, &after) {
                    (None, None) => return Err(Malformed::new(number, "both names are /dev/null")),
                    (None, Some(_)) if kind == PatchKind::Modify => kind = PatchKind::Create,
                    (Some(_), None) if kind == PatchKind::Modify => kind = PatchKind::Delete,
                    (None | Some(_), None | Some(_)) => {}
                }
                old = before.or(old);
                new = after.or(new);
            }
        } else if text.starts_with(b"@@ -") {
            body = Body::Hunks(hunks(lines, room)?);
            break;
        } else if text == b"GIT binary patch" {
            lines.next();
            body = binary(lines)?;
            break;
        } else if text.starts_with(b"Binary files ") {
            lines.next();
            body = Body::WithoutContent;
            break;
        } else {
            break;
        }
        lines.next();
    }
    match kind {
        PatchKind::Create => old = None,
        PatchKind::Delete => new = None,
        PatchKind::Modify | PatchKind::Rename | PatchKind::Copy => {}
    }
    let complete = match kind {
        PatchKind::Create => new.is_some(),
        PatchKind::Delete => old.is_some(),
        PatchKind::Modify | PatchKind::Rename | PatchKind::Copy => old.is_some() && new.is_some(),
    };
    if !complete {
        return Err(Malformed::new(line, "it does not say which file it is about"));
    }
    Ok(FilePatch { old, new, kind, old_mode, new_mode, ids, body, is_unprefixed, line })
}

fn hunks(lines: &mut Lines<'_>, room: &mut Room) -> Result<Vec<Hunk>, Malformed> {
    let mut hunks = Vec::new();
    while lines.peek().is_some_and(|line| line.starts_with(b"@@ -")) {
        room.take_one::<Hunk>(lines.number())?;
        hunks.push(Hunk::parse(lines)?);
    }
    Ok(hunks)
}

fn binary(lines: &mut Lines<'_>) -> Result<Body, Malformed> {
    let number = lines.number();
    let forward = BinaryHunk::parse(lines)?
        .ok_or_else(|| Malformed::new(number, "`literal` or `delta` should follow"))?;
    let reverse = BinaryHunk::parse(lines)?;
    Ok(Body::Binary { forward, reverse })
}

/// Both names after `diff --git`, which count when nothing else says them:
/// quoted, or the same name twice.
fn git_names(text: &[u8]) -> Option<(Name, Name)> {
    let name = |path: Vec<u8>| Name { path, is_bare: false, is_epoch: false };
    if let Some((old, rest)) = unquoted(text) {
        let rest = rest.strip_prefix(b" ")?;
        let new = match unquoted(rest) {
            Some((new, b"")) => new,
            Some(_) => return None,
            None => rest.to_vec(),
        };
        return Some((name(old), name(new)));
    }
    if let Some(at) = text.windows(2).position(|two| two == b" \"")
        && let Some((new, b"")) = unquoted(&text[at + 1..])
    {
        return Some((name(text[..at].to_vec()), name(new)));
    }
    // What follows the first slash of the one does so of the other.
    let slash = |from: usize| memchr::memchr(b'/', &text[from..]).map(|at| from + at);
    let (first, mut second) = (slash(0), None);
    let same = |at: &usize| {
        let (old, new) = (&text[..*at], &text[*at + 1..]);
        if second.is_none_or(|second| second <= *at) {
            second = Some(slash(*at + 1).unwrap_or(text.len()));
        }
        let below = |slash: Option<usize>, end| text.get(slash? + 1..end);
        let old_below = below(first, *at);
        old == new || (old_below.is_some() && old_below == below(second, text.len()))
    };
    let at = memchr::memchr_iter(b' ', text).find(same)?;
    Some((name(text[..at].to_vec()), name(text[at + 1..].to_vec())))
}

fn bare_name(text: &[u8]) -> Option<Name> {
    let path = match unquoted(text) {
        Some((path, b"")) => path,
        Some(_) => return None,
        None => text.to_vec(),
    };
    (!path.is_empty()).then_some(Name { path, is_bare: true, is_epoch: false })
}

/// A name after `---` or `+++`, without what stands after a tab; `None` for
/// /dev/null.
fn side_name(text: &[u8]) -> Option<Name> {
    let text = without_cr(text);
    let (path, rest) = match unquoted(text) {
        Some((path, rest)) => (path, rest),
        None => {
            let (path, rest) = split_once(text, b'\t');
            (path.to_vec(), rest.unwrap_or(b""))
        }
    };
    let is_epoch = [b"1970-01-01 ".as_slice(), b"1969-12-31 "]
        .iter()
        .any(|epoch| rest.trim_ascii_start().starts_with(epoch));
    (path != b"/dev/null").then_some(Name { path, is_bare: false, is_epoch })
}

fn parse_mode(digits: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(digits).ok()?;
    u32::from_str_radix(digits.trim(), 8).ok().filter(|mode| *mode <= 0o177_777)
}

fn split_ids(range: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let at = range.windows(2).position(|two| two == b"..")?;
    let (old, new) = (&range[..at], &range[at + 2..]);
    let is_id = |id: &[u8]| !id.is_empty() && id.iter().all(u8::is_ascii_hexdigit);
    (is_id(old) && is_id(new)).then(|| (old.to_vec(), new.to_vec()))
}

fn split_once(text: &[u8], byte: u8) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|other| *other == byte) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}
