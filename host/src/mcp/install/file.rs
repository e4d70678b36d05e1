//! The file of another program, read and replaced as a whole.

use crate::{Error, ErrorKind, Result};
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// No configuration is longer; one client keeps its history in it.
const FILE_MAX: u64 = 64 * 1024 * 1024;

/// How many copies of a file are kept.
const COPIES_MAX: u32 = 99;

/// The lines around a change that show where it is.
const CONTEXT_LINES: usize = 3;

/// What is to become of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The file.
    pub path: PathBuf,
    /// What is in it, if it is there.
    pub before: Option<String>,
    /// What is to be in it.
    pub after: String,
}

impl Change {
    /// Whether there is anything to change.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.before.as_ref() != Some(&self.after)
    }

    /// Makes it: keeps a copy of what was there beside it, then replaces the file in
    /// one step. Says where the copy is.
    ///
    /// # Errors
    /// When the file cannot be written, or was changed meanwhile.
    pub fn make(&self) -> Result<Option<PathBuf>> {
        if read(&self.path)? != self.before {
            let message = format!("{} was changed meanwhile", self.path.display());
            return Err(Error::new(ErrorKind::Conflict, message).hint("try again"));
        }
        let kept = match &self.before {
            Some(before) => Some(self.keep(before)?),
            None => None,
        };
        replace(&self.path, &self.after)?;
        Ok(kept)
    }

    /// Keeps what was there under a name that is free: an earlier copy may be all
    /// that is left of what a person wrote.
    fn keep(&self, before: &str) -> Result<PathBuf> {
        for number in 1..=COPIES_MAX {
            let mut name: OsString = self.path.clone().into();
            name.push(".before-pyro");
            if number > 1 {
                name.push(format!("-{number}"));
            }
            let path = PathBuf::from(name);
            if path.symlink_metadata().is_err() {
                replace(&path, before)?;
                return Ok(path);
            }
        }
        let message = format!("there are {COPIES_MAX} copies of {}", self.path.display());
        Err(Error::new(ErrorKind::Conflict, message).hint("remove those you need no more"))
    }

    /// The lines that change and some around them, as a unified diff.
    #[must_use]
    pub fn diff(&self) -> String {
        let old: Vec<_> = self.before.iter().flat_map(|text| text.lines()).collect();
        let new: Vec<_> = self.after.lines().collect();
        let pairs = old.iter().zip(&new);
        let same_before = pairs.take_while(|(old, new)| old == new).count();
        let rest = old.len().min(new.len()) - same_before;
        let pairs = old.iter().rev().zip(new.iter().rev());
        let same_after = pairs.take(rest).take_while(|(old, new)| old == new).count();
        let start = same_before.saturating_sub(CONTEXT_LINES);
        let context_after = same_after.min(CONTEXT_LINES);
        let (old_end, new_end) = (old.len() - same_after, new.len() - same_after);
        let length = |end: usize| end + context_after - start;
        let first = |lines: &[&str]| if lines.is_empty() { 0 } else { start + 1 };
        let mut diff = format!(
            "--- {path}\n+++ {path}\n@@ -{},{} +{},{} @@\n",
            first(&old),
            length(old_end),
            first(&new),
            length(new_end),
            path = self.path.display(),
        );
        let groups = [
            (' ', &old[start..same_before]),
            ('-', &old[same_before..old_end]),
            ('+', &new[same_before..new_end]),
            (' ', &new[new_end..new_end + context_after]),
        ];
        for (mark, lines) in groups {
            diff.extend(lines.iter().map(|line| format!("{mark}{line}\n")));
        }
        diff
    }
}

/// What is in the file; `None` when it is not there.
pub(super) fn read(path: &Path) -> Result<Option<String>> {
    let refused = |error| Error::io(format!("cannot read {}", path.display()), error);
    let file = match File::open(path) {
        Err(error) if error.kind() == IoErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(refused)?,
    };
    let mut text = String::new();
    file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(refused)?;
    if text.len() as u64 > FILE_MAX {
        let message = format!("{} is too large for a configuration", path.display());
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    Ok(Some(text))
}

/// Replaces a file in one step, through a link if it is one; it keeps its
/// permissions, and is its owner's alone when it is new.
fn replace(path: &Path, text: &str) -> Result<()> {
    let refused = |error| Error::io(format!("cannot write {}", path.display()), error);
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let directory = path.parent().unwrap_or(&path);
    fs::create_dir_all(directory).map_err(refused)?;
    let permissions = match path.metadata() {
        Ok(there) => there.permissions(),
        Err(_) => Permissions::from_mode(0o600),
    };
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(refused)?;
    file.write_all(text.as_bytes()).map_err(refused)?;
    file.as_file().set_permissions(permissions).map_err(refused)?;
    file.as_file().sync_all().map_err(refused)?;
    file.persist(&path).map_err(|error| refused(error.error))?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(before: &str, after: &str) -> Change {
        Change { path: "/f".into(), before: Some(before.into()), after: after.into() }
    }

    #[test]
    fn a_diff_shows_what_is_new_and_where() {
        let before = "1\n2\n3\n4\n5\n6\n7\n";
        let diff = change(before, "1\n2\n3\n4\nx\ny\n5\n6\n7\n").diff();
        assert_eq!(diff, "--- /f\n+++ /f\n@@ -2,6 +2,8 @@\n 2\n 3\n 4\n+x\n+y\n 5\n 6\n 7\n");
        let diff = change(before, "1\n2\n3\nx\n5\n6\n7\n").diff();
        assert_eq!(diff, "--- /f\n+++ /f\n@@ -1,7 +1,7 @@\n 1\n 2\n 3\n-4\n+x\n 5\n 6\n 7\n");
        let new = Change { before: None, ..change("", "a\n") };
        assert_eq!(new.diff(), "--- /f\n+++ /f\n@@ -0,0 +1,1 @@\n+a\n");
    }

    #[test]
    fn repeated_lines_do_not_confuse_it() {
        assert_eq!(
            change("a\na\n", "a\na\na\n").diff(),
            "--- /f\n+++ /f\n@@ -1,2 +1,3 @@\n a\n a\n+a\n"
        );
    }
}
