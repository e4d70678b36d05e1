//! Removes what nothing refers to.
//!
//! Each finished directory is claimed first and judged then: whoever wants to
//! use it meanwhile waits, and whoever wrote down before that he needs it is
//! seen. So a workspace that is being created loses nothing.

use super::blobs::{hex, partials};
use super::{Environments, MANIFEST};
use crate::digest::Digest;
use crate::error::Result;
use crate::store::record::{self, RecordError};
use crate::store::staging::{self, Staging};
use crate::store::{disk_usage, private_dir, shelf};
use crate::template::Templates;
use crate::vmm::KernelFlavor;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What to remove.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Only says what would be removed.
    pub dry_run: bool,
    /// Also what environments would boot next, if no workspace needs it.
    pub all: bool,
}

/// A file or directory that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Removed {
    /// What it was, in a few words.
    pub what: String,
    /// Where it was.
    pub path: PathBuf,
    /// The disk space that it took.
    pub bytes: u64,
}

/// What pruning came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Pruned {
    /// What is gone, or would be.
    pub removed: Vec<Removed>,
    /// The disk space gained in bytes.
    pub bytes: u64,
    /// What could not be removed or judged, one sentence each.
    pub problems: Vec<String>,
}

/// The images that workspaces need.
#[derive(Debug, Default)]
pub struct Pins {
    /// Their digests.
    pub digests: BTreeSet<Digest>,
    /// Workspaces that do not say what they need: then any image may be.
    pub unreadable: Vec<RecordError>,
}

/// Reads what the workspaces below a state directory pin, whatever version of
/// pyro wrote their records.
#[must_use]
pub fn pinned_digests(state_dir: &Path) -> Pins {
    let mut pins = Pins::default();
    let workspaces = match list(&state_dir.join("workspaces")) {
        Ok(workspaces) => workspaces,
        Err(error) => {
            pins.unreadable.push(error);
            return pins;
        }
    };
    for workspace in workspaces {
        match record::read_field(&workspace.join("record.json"), "root_digest") {
            Ok(digest) => {
                pins.digests.extend(digest.and_then(|digest| digest.parse::<Digest>().ok()))
            }
            // Not created yet, or no workspace.
            Err(RecordError::Missing { .. }) => {}
            Err(error) => pins.unreadable.push(error),
        }
    }
    pins
}

/// What is in a directory. That it is not there is no failure.
fn list(directory: &Path) -> Result<Vec<PathBuf>, RecordError> {
    let unreadable = |source| RecordError::Unreadable { path: directory.to_owned(), source };
    match fs::read_dir(directory) {
        Ok(entries) => {
            entries.map(|entry| entry.map(|entry| entry.path()).map_err(unreadable)).collect()
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(unreadable(error)),
    }
}

impl Environments {
    /// Removes what nothing refers to: images that no environment boots and no
    /// workspace pins, trees of other recipes, kernels that were replaced, templates
    /// that fit nothing any more, what crashed builders left. Never what a live process holds.
    ///
    /// # Errors
    /// When the cache is not ours to change. What cannot be removed is reported
    /// and does not keep the rest.
    pub fn prune(&self, options: PruneOptions) -> Result<Pruned> {
        private_dir(&self.config.cache_dir)?;
        let mut prune = Prune {
            environments: self,
            options,
            staging: Staging::new(&self.staging_dir())?,
            pruned: Pruned::default(),
        };
        prune.leftovers();
        let images_kept = prune.images();
        prune.trees();
        prune.blobs();
        prune.partials();
        prune.kernels(images_kept);
        prune.templates();
        Ok(prune.pruned)
    }

    /// Removes what crashes left, without a word.
    pub(super) fn sweep(&self) {
        record::sweep(&self.environment_dir());
        record::sweep(self.kernels.dir());
        for left in staging::abandoned(&self.staging_dir()) {
            // Prune reports it.
            drop(self.remove_left(left));
        }
    }

    /// Files of subordinate users, which rootless builds make, only their own
    /// user namespace can remove.
    fn remove_left(&self, left: staging::Abandoned) -> std::io::Result<()> {
        let path = left.path().to_owned();
        let Err(error) = left.remove() else { return Ok(()) };
        let Some(unshare) = self.find_program("unshare") else { return Err(error) };
        let status = std::process::Command::new(unshare)
            .args(["--map-root-user", "--map-auto", "--", "rm", "-rf", "--one-file-system", "--"])
            .arg(&path)
            .env("PATH", self.program_path())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()?;
        if status.success() { Ok(()) } else { Err(error) }
    }

    /// Which images environments boot now, whatever version of pyro says so;
    /// each with the record.
    fn current_images(&self) -> Result<Vec<(PathBuf, Digest)>, RecordError> {
        let mut current = Vec::new();
        for path in list(&self.environment_dir())? {
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match record::read_field(&path, "root_digest") {
                Ok(digest) => {
                    let digest = digest.and_then(|digest| digest.parse().ok());
                    current.extend(digest.map(|digest| (path, digest)));
                }
                // It refers to nothing any more.
                Err(RecordError::Missing { .. } | RecordError::Damaged { .. }) => {}
                Err(
                    error @ (RecordError::Unreadable { .. } | RecordError::OtherVersion { .. }),
                ) => {
                    return Err(error);
                }
            }
        }
        Ok(current)
    }
}

/// One pruning under way.
struct Prune<'a> {
    environments: &'a Environments,
    options: PruneOptions,
    staging: Staging,
    pruned: Pruned,
}

impl Prune<'_> {
    fn leftovers(&mut self) {
        for left in staging::abandoned(&self.environments.staging_dir()) {
            let path = left.path().to_owned();
            let bytes = disk_usage(&path);
            let removed =
                if self.options.dry_run { Ok(()) } else { self.environments.remove_left(left) };
            match removed {
                Ok(()) => self.tell("what a build left behind".into(), path, bytes),
                Err(error) => self.regret(&path, &error.to_string()),
            }
        }
    }

    /// Returns whether an image was kept.
    fn images(&mut self) -> bool {
        let environments = self.environments;
        let all = self.options.all;
        self.shelf(
            &environments.images_dir(),
            |dir| match record::read_field(&dir.join(MANIFEST), "environment") {
                Ok(Some(name)) => format!("image of {name}"),
                Ok(None) | Err(_) => "image".into(),
            },
            |dir| {
                let Some(digest) = digest_of(dir) else { return Ok(Judgement::Needed) };
                let pins = pinned_digests(&environments.config.state_dir);
                if let Some(error) = pins.unreadable.into_iter().next() {
                    return Err(format!("a workspace may need it: {error}"));
                }
                if pins.digests.contains(&digest) {
                    return Ok(Judgement::Needed);
                }
                let current = environments.current_images().map_err(|error| error.to_string())?;
                let named: Vec<_> = current
                    .into_iter()
                    .filter_map(|(path, current)| (current == digest).then_some(path))
                    .collect();
                if named.is_empty() || all {
                    Ok(Judgement::Unneeded { records: named })
                } else {
                    Ok(Judgement::Needed)
                }
            },
        )
    }

    fn trees(&mut self) {
        let environments = self.environments;
        let needed: BTreeSet<_> = if self.options.all {
            BTreeSet::new()
        } else {
            environments.recipes.iter().map(|recipe| environments.tree_key(recipe)).collect()
        };
        self.shelf(
            &environments.trees_dir(),
            |dir| match record::read_field(&dir.join("tree.json"), "environment") {
                Ok(Some(name)) => format!("packages of {name}"),
                Ok(None) | Err(_) => "packages".into(),
            },
            |dir| {
                Ok(match digest_of(dir) {
                    Some(key) if !needed.contains(&key) => Judgement::UNNEEDED,
                    Some(_) | None => Judgement::Needed,
                })
            },
        );
    }

    /// Layers stay as long as an environment is made of them.
    fn blobs(&mut self) {
        let environments = self.environments;
        self.shelf(
            &environments.blobs_dir(),
            |_| "layer".into(),
            |dir| {
                let name = dir.file_name().unwrap_or_default();
                let current = environments.adopted();
                let is_needed = current.iter().flat_map(|current| &current.blobs);
                let is_needed = is_needed.map(|blob| hex(*blob)).any(|hex| *name == *hex);
                Ok(match digest_of(dir) {
                    Some(_) if !is_needed => Judgement::UNNEEDED,
                    Some(_) | None => Judgement::Needed,
                })
            },
        );
    }

    fn partials(&mut self) {
        for (path, _lock) in partials(&self.environments.partial_dir()) {
            let bytes = disk_usage(&path);
            let removed = if self.options.dry_run { Ok(()) } else { fs::remove_file(&path) };
            match removed {
                Ok(()) => self.tell("a layer that broke off".into(), path, bytes),
                Err(error) => self.regret(&path, &error.to_string()),
            }
        }
    }

    /// Kernels stay as long as there is an image to boot with them.
    fn kernels(&mut self, images_kept: bool) {
        let kernels = &self.environments.kernels;
        let drop_current = self.options.all && !images_kept;
        for flavor in KernelFlavor::ALL {
            self.shelf(
                &kernels.shelf(flavor),
                |_| format!("{flavor} kernel"),
                |dir| {
                    let record = kernels.record(flavor);
                    let current = match kernels.read(flavor) {
                        Ok(current) => Some(current.digest),
                        Err(RecordError::Missing { .. } | RecordError::Damaged { .. }) => None,
                        Err(error) => return Err(error.to_string()),
                    };
                    Ok(match digest_of(dir) {
                        None => Judgement::Needed,
                        digest if digest != current => Judgement::UNNEEDED,
                        Some(_) if drop_current => Judgement::Unneeded { records: vec![record] },
                        Some(_) => Judgement::Needed,
                    })
                },
            );
        }
        self.shelf(
            &kernels.initrds(),
            |_| "initrd".into(),
            |dir| {
                let current = match kernels.read(KernelFlavor::Stock) {
                    Ok(current) => current.initrd.map(|initrd| initrd.digest),
                    Err(RecordError::Missing { .. } | RecordError::Damaged { .. }) => None,
                    Err(error) => return Err(error.to_string()),
                };
                Ok(match digest_of(dir) {
                    None => Judgement::Needed,
                    digest if digest != current || drop_current => Judgement::UNNEEDED,
                    Some(_) => Judgement::Needed,
                })
            },
        );
    }

    /// Templates stay as long as there is the image that they boot, and the VMM that
    /// they were saved by.
    fn templates(&mut self) {
        let environments = self.environments;
        let templates = Templates::new(&environments.config);
        let gone: Vec<_> = self.pruned.removed.iter().map(|one| one.path.clone()).collect();
        let all = self.options.all;
        self.shelf(templates.directory(), Templates::describe, |dir| {
            if digest_of(dir).is_none() {
                return Ok(Judgement::Needed);
            }
            let has_image = |image| {
                let image = environments.image_dir(image);
                image.exists() && !gone.contains(&image)
            };
            let fits = templates
                .fits(&environments.config, dir, has_image)
                .map_err(|error| error.chain())?;
            Ok(if fits && !all { Judgement::Needed } else { Judgement::UNNEEDED })
        });
        if !self.options.dry_run {
            templates.forget_failures();
        }
    }

    /// Claims, judges and removes what lies in a directory. Returns whether
    /// anything stays.
    fn shelf(
        &mut self,
        shelf: &Path,
        what: impl Fn(&Path) -> String,
        judge: impl Fn(&Path) -> Result<Judgement, String>,
    ) -> bool {
        let dirs = match list(shelf) {
            Ok(dirs) => dirs,
            Err(error) => {
                self.regret(shelf, &error.to_string());
                return true;
            }
        };
        let mut kept = false;
        for dir in dirs {
            let removed = self.judged(&dir, &what, &judge).unwrap_or_else(|problem| {
                self.regret(&dir, &problem);
                false
            });
            kept |= !removed;
        }
        kept
    }

    fn judged(
        &mut self,
        dir: &Path,
        what: impl Fn(&Path) -> String,
        judge: impl Fn(&Path) -> Result<Judgement, String>,
    ) -> Result<bool, String> {
        let claimed = shelf::claim(dir).map_err(|error| error.chain())?;
        let Some(claimed) = claimed else { return Ok(false) };
        let Judgement::Unneeded { records } = judge(dir)? else { return Ok(false) };
        let (what, bytes) = (what(dir), disk_usage(dir));
        if !self.options.dry_run {
            // The records first: none may name what is not there.
            for record in records {
                fs::remove_file(&record).map_err(|error| error.to_string())?;
            }
            claimed.remove(&self.staging).map_err(|error| error.chain())?;
        }
        self.tell(what, dir.to_owned(), bytes);
        Ok(true)
    }

    fn tell(&mut self, what: String, path: PathBuf, bytes: u64) {
        self.pruned.bytes += bytes;
        self.pruned.removed.push(Removed { what, path, bytes });
    }

    fn regret(&mut self, path: &Path, problem: &str) {
        self.pruned.problems.push(format!("kept {}: {problem}", path.display()));
    }
}

/// Whether something may go.
enum Judgement {
    Needed,
    Unneeded {
        /// What names it and goes with it.
        records: Vec<PathBuf>,
    },
}

impl Judgement {
    const UNNEEDED: Self = Self::Unneeded { records: Vec::new() };
}

/// What a directory is named by; `None` when it is not ours.
fn digest_of(dir: &Path) -> Option<Digest> {
    Digest::from_hex(dir.file_name()?.to_str()?)
}
