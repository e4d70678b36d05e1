//! Which files of the host a caller may name.

use crate::error::{Error, ErrorKind, Result};
use std::path::{Component, Path, PathBuf};

/// Which files of the host a caller may name. A person may name any that the
/// system lets them; a model only those below the directories it was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roots(Option<Vec<PathBuf>>);

impl Roots {
    /// All there is.
    pub const UNLIMITED: Self = Self(None);

    /// Nothing.
    pub const NONE: Self = Self(Some(Vec::new()));

    /// What lies below these directories; relative paths count from the first.
    ///
    /// # Errors
    /// When one is not there, or no directory.
    pub fn below(directories: &[PathBuf]) -> Result<Self> {
        let mut roots = Vec::new();
        for directory in directories {
            let root = directory
                .canonicalize()
                .and_then(|root| {
                    let there = root.metadata()?.is_dir();
                    there.then_some(root).ok_or(std::io::ErrorKind::NotADirectory.into())
                })
                .map_err(|error| {
                    Error::new(
                        ErrorKind::InvalidInput,
                        format!("{} cannot be a root", directory.display()),
                    )
                    .because(error)
                })?;
            roots.push(root);
        }
        Ok(Self(Some(roots)))
    }

    /// The path, if it may be named. Links on the way are followed first: one
    /// that leads out of the roots leads nowhere. What need not be there yet,
    /// such as where a file is to be written, is judged by the nearest
    /// directory that is.
    ///
    /// # Errors
    /// `InvalidInput` when it lies outside.
    pub fn admit(&self, path: &Path) -> Result<PathBuf> {
        let Some(roots) = &self.0 else { return Ok(path.to_owned()) };
        let path = match roots.first() {
            Some(first) => first.join(path),
            None => path.to_owned(),
        };
        let real = real(&path);
        match real.filter(|real| roots.iter().any(|root| real.starts_with(root))) {
            Some(real) => Ok(real),
            None => {
                let message = format!("{} is outside the roots", path.display());
                Err(Error::new(ErrorKind::InvalidInput, message).hint(way_in(roots)))
            }
        }
    }

    /// Whether there is anything that may not be named.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        self.0.is_some()
    }
}

fn way_in(roots: &[PathBuf]) -> String {
    let more = "`pyro mcp serve --root DIR` lets more be used";
    let roots: Vec<_> = roots.iter().map(|root| root.display().to_string()).collect();
    match roots.as_slice() {
        [] => format!("there are no roots; {more}"),
        roots => format!("use a path below {}; {more}", roots.join(" or ")),
    }
}

/// Where a path really leads; what is missing at its end is taken as it is,
/// unless it climbs.
fn real(path: &Path) -> Option<PathBuf> {
    let mut missing = Vec::new();
    let mut there = path;
    loop {
        if let Ok(real) = there.canonicalize() {
            return Some(missing.iter().rev().fold(real, |real, name| real.join(name)));
        }
        // A link that leads nowhere would be followed once something is there.
        if there.symlink_metadata().is_ok() {
            return None;
        }
        match there.components().next_back()? {
            Component::Normal(name) => missing.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
        there = there.parent()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn s9_nothing_outside_the_roots_can_be_named() {
        let home = tempfile::tempdir().expect("a directory");
        let (inside, outside) = (home.path().join("in"), home.path().join("out"));
        for directory in [&inside, &outside] {
            fs::create_dir(directory).expect("made");
            fs::write(directory.join("file"), "").expect("written");
        }
        symlink(&outside, inside.join("way-out")).expect("linked");
        symlink(home.path().join("nowhere"), inside.join("dangling")).expect("linked");
        symlink("file", inside.join("alias")).expect("linked");
        let roots = Roots::below(std::slice::from_ref(&inside)).expect("it is there");
        let real = inside.canonicalize().expect("there");
        for good in ["file", "./file", "new", "new/deep", "alias", "."] {
            let admitted = roots.admit(Path::new(good)).expect(good);
            assert!(admitted.starts_with(&real), "{good}: {}", admitted.display());
        }
        assert!(roots.admit(&inside.join("file")).is_ok());
        let outer = outside.join("file");
        for bad in [
            outer.to_str().expect("UTF-8"),
            "/etc/passwd",
            "..",
            "../out/file",
            "way-out/file",
            "way-out/new",
            "dangling",
            "dangling/new",
            "new/../../out/file",
        ] {
            let error = roots.admit(Path::new(bad)).expect_err(bad);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad}");
        }
        let error = roots.admit(&outer).expect_err("outside");
        assert!(error.next_step().is_some_and(|hint| hint.contains(&real.display().to_string())));
        assert!(Roots::UNLIMITED.admit(&outer).is_ok());
        assert!(Roots::NONE.admit(&outer).is_err() && Roots::NONE.admit(Path::new(".")).is_err());
        assert!(Roots::below(&[outer]).is_err(), "a file is no root");
    }
}
