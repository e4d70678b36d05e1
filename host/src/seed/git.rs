//! A git work tree as a source: its tracked files as they are, what is new and
//! not ignored, and a repository that stands by itself.
//!
//! The repository is copied file by file, not cloned: the guest sees the same
//! index, stashes, branches, logs and half-done merges. What it does not see is
//! in `parts` and `config`: nothing that runs, no secret, no path of the host.
//! A linked work tree and a submodule, whose repositories are elsewhere, get a
//! `.git` of their own. Nothing of the host's repository is changed.

mod config;
mod parts;
mod program;
mod repository;

use super::directory::Top;
use super::entry::{Bytes, Entry, Kind, Nothing, RelPath};
use super::source::Surroundings;
use super::walk::{ENTRIES_MAX, NAME_BYTES_MAX, Walk};
use crate::context::Admitted;
use crate::error::{Error, Result};
use config::Setting;
use program::Question;
use repository::{Repository, refused};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

pub use program::Git;

/// How deep repositories may lie in one another.
const NESTED_MAX: usize = 16;

/// Shows a work tree. Large answers of git go to a file in the scratch
/// directory meanwhile.
///
/// # Errors
/// When it is no work tree, git fails, or something cannot be read.
pub fn walk(
    git: &Git,
    place: &Admitted,
    walk: &mut Walk<'_>,
    around: Surroundings<'_>,
) -> Result<()> {
    let repository = Repository::find(place)?;
    let (mode, mtime) = Top::open(&repository.top, around.avoid)?.stat()?;
    walk.root(mode, mtime)?;
    let mut waiting = vec![(repository, None, 0)];
    while let Some((repository, prefix, depth)) = waiting.pop() {
        let mut shown = Shown { git, repository, prefix, around };
        for nested in shown.show(walk)? {
            if depth == NESTED_MAX {
                let what = format!("more than {NESTED_MAX} repositories lie in one another");
                return Err(refused(shown.repository.top.path(), &what));
            }
            let top = shown.repository.top.join(OsStr::from_bytes(nested.as_bytes()));
            waiting.push((Repository::at(&top)?, Some(shown.outer(nested.as_bytes())?), depth + 1));
        }
    }
    Ok(())
}

/// What a work tree holds.
#[derive(Default)]
struct Listing {
    /// Files that are there, or were.
    files: BTreeSet<RelPath>,
    /// Other repositories in it.
    nested: BTreeSet<RelPath>,
}

/// A work tree that is being shown.
struct Shown<'a> {
    git: &'a Git,
    repository: Repository,
    /// Where it goes in the seed.
    prefix: Option<RelPath>,
    around: Surroundings<'a>,
}

impl Shown<'_> {
    /// Shows files and repository; gives the repositories within.
    fn show(&mut self, walk: &mut Walk<'_>) -> Result<Vec<RelPath>> {
        let settings = self.settings(walk)?;
        let listing = self.list(walk)?;
        let mut top = self.open(&self.repository.top, b"")?;
        let mut nested = Vec::new();
        for path in &listing.files {
            top.pick(path, walk)?;
        }
        for path in listing.nested {
            // In its place may be anything, such as a link that leads elsewhere.
            let is_directory = top.pick(&path, walk)?;
            let within = self.repository.top.join(OsStr::from_bytes(path.as_bytes()));
            // A submodule that nobody asked for is an empty directory.
            if is_directory && within.join(".git").is_there() {
                nested.push(path);
            }
        }
        self.show_repository(&settings, walk)?;
        Ok(nested)
    }

    /// Asks git what there is. What is listed may be gone already.
    fn list(&self, walk: &mut Walk<'_>) -> Result<Listing> {
        let mut listing = Listing::default();
        let mut name_bytes = 0;
        let mut note = |path: &[u8], nested: bool| {
            let path = RelPath::new(path).map_err(|bad| {
                let name = super::entry::readable(path);
                refused(self.repository.top.path(), &format!("it holds `{name}`")).because(bad)
            })?;
            // Nothing that a repository is made of comes in as a file.
            if path.names().any(|name| name.eq_ignore_ascii_case(b".git")) {
                return Ok(());
            }
            let set = if nested { &mut listing.nested } else { &mut listing.files };
            name_bytes += path.as_bytes().len() as u64;
            set.insert(path);
            if set.len() as u64 > ENTRIES_MAX || name_bytes > NAME_BYTES_MAX {
                let mib = NAME_BYTES_MAX >> 20;
                let what = format!("it has more than {ENTRIES_MAX} files, or {mib} MiB of names");
                return Err(refused(self.repository.top.path(), &what));
            }
            Ok(())
        };
        let tracked = ["ls-files", "-z", "--stage"];
        self.ask(&tracked, walk, |record| {
            // Mode, object, stage; a tab; the path.
            let tab = record.iter().position(|byte| *byte == b'\t');
            let path = tab.map_or(record, |tab| &record[tab + 1..]);
            note(path, record.starts_with(b"160000 "))
        })?;
        let new = ["ls-files", "-z", "--others", "--exclude-standard"];
        self.ask(&new, walk, |record| match record.strip_suffix(b"/") {
            Some(nested) => note(nested, true),
            None => note(record, false),
        })?;
        Ok(listing)
    }

    fn ask(
        &self,
        words: &[&str],
        walk: &Walk<'_>,
        each: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let question = Question {
            words,
            git_dir: Some(self.repository.git_dir.path()),
            work_tree: Some(self.repository.top.path()),
            ..Question::default()
        };
        self.git.ask(&question, walk.cancel(), each)
    }

    /// What the repository's configuration says, without what that includes
    /// from elsewhere, and the name and address that the caller commits with.
    fn settings(&self, walk: &Walk<'_>) -> Result<Vec<Setting>> {
        let mut settings = Vec::new();
        let files = [
            (&self.repository.common_dir, "config"),
            (&self.repository.git_dir, "config.worktree"),
        ];
        for (dir, name) in files {
            let Some((bytes, _)) = self.repository.small_file(dir, name)? else { continue };
            let words = ["config", "--file", "-", "--no-includes", "--list", "-z"];
            let question = Question { words: &words, input: Some(&bytes), ..Question::default() };
            self.git.ask(&question, walk.cancel(), |record| {
                settings.extend(Setting::parse(record));
                Ok(())
            })?;
        }
        let work_tree =
            settings.iter().rev().find_map(|setting| setting.value_of("core", "worktree"));
        if self.repository.is_apart() && !self.repository.is_work_tree(work_tree) {
            let there = self.repository.git_dir.path().display();
            let what = format!("its repository {there} does not point back to it");
            return Err(refused(self.repository.top.path(), &what));
        }
        let reftable = |setting: &Setting| {
            setting.value_of("extensions", "refstorage").is_some_and(|value| value != b"files")
        };
        if self.repository.is_linked() && settings.iter().any(reftable) {
            let what = "it is a linked work tree, and its refs are not stored as files";
            return Err(refused(self.repository.top.path(), what).hint("seed from a clone of it"));
        }
        for key in ["name", "email"] {
            if settings.iter().any(|setting| setting.value_of("user", key).is_some()) {
                continue;
            }
            let name = format!("user.{key}");
            let words = ["config", "-z", "--get", &name];
            let question = Question {
                words: &words,
                git_dir: Some(self.repository.git_dir.path()),
                may_be_none: true,
                ..Question::default()
            };
            self.git.ask(&question, walk.cancel(), |value| {
                settings.push(Setting::plain("user", key, value));
                Ok(())
            })?;
        }
        Ok(settings)
    }

    /// Shows `.git`: refs before the objects that they lead to, so that what is
    /// committed meanwhile is there in full or not at all.
    fn show_repository(&self, settings: &[Setting], walk: &mut Walk<'_>) -> Result<()> {
        let Repository { git_dir, common_dir, .. } = &self.repository;
        let path = self.outer(b".git")?;
        let (mode, mtime) = Top::open(common_dir, self.around.avoid)?.stat()?;
        walk.entry(&Entry { path, mode, mtime, kind: Kind::Directory }, &mut Nothing)?;
        self.show_config(settings, walk)?;
        self.open(git_dir, b".git")?.only(&parts::own).walk(walk)?;
        self.open(git_dir, b".git")?
            .only(&parts::own_log)
            .rewriting(&|log| config::without_passwords(&log))
            .walk(walk)?;
        self.open(common_dir, b".git")?.only(&parts::shared).walk(walk)?;
        self.open(common_dir, b".git")?
            .only(&parts::shared_log)
            .rewriting(&|log| config::without_passwords(&log))
            .walk(walk)?;
        let info = common_dir.join("objects/info");
        let borrows = self.repository.small_file(&info, "alternates")?;
        if borrows.is_some_and(|(list, _)| !list.trim_ascii().is_empty()) {
            return self.show_borrowed(settings, walk);
        }
        self.open(common_dir, b".git")?.only(&parts::object).walk(walk)
    }

    /// Shows the objects of a repository that borrows from others. `git` goes
    /// by paths, and follows them wherever they lead at that moment: so it packs
    /// for those only who may go anywhere. Who is bound to roots gets all that
    /// there is to borrow, which is below the roots.
    fn show_borrowed(&self, settings: &[Setting], walk: &mut Walk<'_>) -> Result<()> {
        if !self.repository.top.is_bound() {
            return self.show_packed(settings, walk);
        }
        let lenders = self.repository.lenders()?;
        self.open(&self.repository.common_dir, b".git")?.only(&parts::object).walk(walk)?;
        for lender in lenders {
            self.open(&lender, b".git/objects")?.only(&parts::lent).walk(walk)?;
        }
        Ok(())
    }

    fn show_config(&self, settings: &[Setting], walk: &mut Walk<'_>) -> Result<()> {
        let there = self.repository.small_file(&self.repository.common_dir, "config")?;
        let file = config::file(settings);
        let entry = Entry {
            path: self.outer(b".git/config")?,
            mode: 0o644,
            mtime: there.map(|(_, mtime)| mtime).unwrap_or_default(),
            kind: Kind::File { size: file.len() as u64 },
        };
        walk.entry(&entry, &mut Bytes(&file))
    }

    /// Shows one pack of everything that is in use. Objects that the repository
    /// borrows from others are in it, but only those that it leads to itself.
    fn show_packed(&self, settings: &[Setting], walk: &mut Walk<'_>) -> Result<()> {
        let made =
            |error| Error::io(format!("cannot write to {}", self.around.scratch.display()), error);
        let scratch = tempfile::tempdir_in(self.around.scratch).map_err(made)?;
        let base = scratch.path().join("pack");
        let mut words = vec![
            "pack-objects",
            "-q",
            "--all",
            "--reflog",
            "--indexed-objects",
            "--delta-base-offset",
        ];
        if settings.iter().any(|setting| setting.value_of("extensions", "partialclone").is_some()) {
            words.push("--exclude-promisor-objects");
        }
        let question = Question {
            words: &words,
            path: Some(&base),
            git_dir: Some(self.repository.git_dir.path()),
            ..Question::default()
        };
        self.git.ask(&question, walk.cancel(), |_| Ok(()))?;
        for directory in [&b".git/objects"[..], b".git/objects/pack"] {
            let path = self.outer(directory)?;
            let (mode, mtime) = Top::open(&self.repository.common_dir, None)?.stat()?;
            walk.entry(&Entry { path, mode, mtime, kind: Kind::Directory }, &mut Nothing)?;
        }
        self.open(&Admitted::from(scratch.path()), b".git/objects/pack")?.walk(walk)
    }

    /// A directory of the host whose content goes below this one of the work
    /// tree.
    fn open<'a>(&self, path: &Admitted, below: &[u8]) -> Result<Top<'a>> {
        let top = Top::open(path, self.around.avoid)?;
        match (below, &self.prefix) {
            (b"", None) => Ok(top),
            (b"", Some(prefix)) => Ok(top.at(prefix.clone())),
            _ => Ok(top.at(self.outer(below)?)),
        }
    }

    /// A path of the work tree as one of the seed.
    fn outer(&self, path: &[u8]) -> Result<RelPath> {
        let whole = match &self.prefix {
            Some(prefix) => [prefix.as_bytes(), b"/", path].concat(),
            None => path.to_vec(),
        };
        RelPath::new(whole).map_err(|bad| {
            let name = super::entry::readable(path);
            refused(self.repository.top.path(), &format!("it holds `{name}`")).because(bad)
        })
    }
}
