//! Patches as people, git and models write them.

mod accepted;
mod refused;
mod total;

use super::{Spool, apply};
use crate::guest::{Guest, Phase};
use crate::work::{Cancel, Stop};
use pyro_protocol::diff::{ApplyPatch, PatchApplied};
use pyro_protocol::{AgentError, AgentErrorKind};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

pub const FORWARD: ApplyPatch = ApplyPatch { strip: None, dry_run: false, reverse: false };
pub const BACKWARD: ApplyPatch = ApplyPatch { reverse: true, ..FORWARD };

/// Applies a patch to a tree.
pub fn apply_to(tree: &Path, patch: &[u8], call: ApplyPatch) -> Result<PatchApplied, AgentError> {
    let guest = Guest::in_process(tree, Phase::Activated);
    let commits = guest.commits().unwrap();
    let mut spool = Spool::new(&commits).unwrap();
    spool.take(patch).unwrap();
    match apply(&commits, spool, call, &Cancel::default()) {
        Err(Stop::Refused(error)) => Err(error),
        Err(Stop::CutOff) => panic!("nobody cancelled it"),
        Ok(applied) => Ok(applied),
    }
}

/// A workspace of a few files.
struct Place(TempDir);

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for (path, content) in files {
            let path = place.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        place
    }

    fn apply(&self, patch: &str) -> Result<PatchApplied, AgentError> {
        apply_to(self.0.path(), patch.as_bytes(), FORWARD)
    }

    /// What is refused changes nothing.
    fn refusal(&self, patch: &str) -> (AgentErrorKind, String) {
        let before = self.all();
        let error = self.apply(patch).expect_err("it does not apply");
        assert_eq!(self.all(), before, "something was changed");
        (error.kind, error.message)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.path().join(path)).unwrap()
    }

    /// Every path, with the content of files.
    fn all(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        let mut pending = vec![self.0.path().to_owned()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                let path = entry.path();
                let shown = path.strip_prefix(self.0.path()).unwrap().display().to_string();
                let kind = entry.file_type().unwrap();
                if kind.is_dir() {
                    pending.push(path);
                    all.push((shown, "directory".to_owned()));
                } else if kind.is_symlink() {
                    all.push((shown, fs::read_link(path).unwrap().display().to_string()));
                } else {
                    all.push((shown, fs::read_to_string(path).unwrap()));
                }
            }
        }
        all.sort();
        all
    }
}
