//! Templates of a home's own: they are made anew in every story, and nobody else
//! restores them.

use crate::{Home, stderr, stdout, user_cache};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What of a cache belongs to its templates and to who makes them; all else can be
/// borrowed.
const OWN: &[&str] = &["templates", "staging", "host.json"];

/// Beside the template's files, once they were read.
const STAMPS: [&str; 2] = ["memory.verified", "state.verified"];

/// A template's files.
const FILES: [&str; 3] = ["memory", "state", "template.json"];

impl Home {
    /// A home that borrows the user's kernels and images, but not the templates.
    ///
    /// # Panics
    /// When there are none: `make test` makes them.
    #[must_use]
    pub fn with_templates_of_its_own() -> Self {
        let (home, lender) = (Self::bare(), user_cache());
        let lent = fs::read_dir(&lender)
            .unwrap_or_else(|_| panic!("{} is missing: run `make test`", lender.display()));
        fs::create_dir(home.cache()).expect("a new home is writable");
        for entry in lent.flatten().filter(|entry| !OWN.iter().any(|own| entry.file_name() == *own))
        {
            let to = home.cache().join(entry.file_name());
            symlink(entry.path(), to).expect("a new home is writable");
        }
        home
    }

    /// Where its cache is.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.path().join("cache")
    }

    /// Lets go of the user's kernels and images, lest they be pruned: which of them
    /// workspaces elsewhere need nobody knows here.
    ///
    /// # Panics
    /// When it cannot.
    pub fn return_what_is_borrowed(&self) {
        for entry in fs::read_dir(self.cache()).expect("it is there").flatten() {
            if entry.path().is_symlink() {
                fs::remove_file(entry.path()).expect("it is ours");
            }
        }
    }

    /// All finished templates.
    #[must_use]
    pub fn templates(&self) -> Vec<Template> {
        let Ok(entries) = fs::read_dir(self.cache().join("templates")) else { return Vec::new() };
        let paths = entries.flatten().map(|entry| entry.path());
        paths.filter(|path| path.is_dir()).map(Template).collect()
    }

    /// The one template.
    ///
    /// # Panics
    /// When there is none, or another one.
    #[must_use]
    pub fn template(&self) -> Template {
        let mut all = self.templates();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    /// What whoever made a template has left where that is done.
    #[must_use]
    pub fn staged(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.cache().join("staging")) else { return Vec::new() };
        entries.flatten().map(|entry| entry.path()).collect()
    }
}

/// A template's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(pub PathBuf);

/// All that may not change in a template.
#[derive(Debug, PartialEq, Eq)]
pub struct Content {
    name: PathBuf,
    files: Vec<(&'static str, String, u32)>,
    record: String,
}

impl Template {
    /// One of its files.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What is in it, by reading all of it.
    ///
    /// # Panics
    /// When it is not whole, or somebody may write it.
    #[must_use]
    pub fn content(&self) -> Content {
        let there: Vec<_> = fs::read_dir(&self.0).expect("it is there").flatten().collect();
        for file in there {
            let name = file.file_name().into_string().expect("UTF-8");
            let known = FILES.iter().chain(&STAMPS).any(|known| name == *known);
            assert!(known, "{name} is in {}", self.0.display());
        }
        let files = ["memory", "state"].map(|name| {
            let path = self.file(name);
            let mode = path.metadata().expect("it is whole").permissions().mode() & 0o7777;
            assert_eq!(mode, 0o444, "{name}");
            (name, digest(&path), mode)
        });
        Content {
            name: self.0.clone(),
            files: files.into(),
            record: fs::read_to_string(self.file("template.json")).expect("it is whole"),
        }
    }
}

fn digest(path: &Path) -> String {
    let summed = Command::new("sha256sum").arg(path).output().expect("sha256sum starts");
    let summed = stdout(&summed);
    summed.split(' ').next().expect("a digest").to_owned()
}

/// How a `pyro run --json` went.
#[derive(Debug)]
pub struct Ran {
    /// What its program wrote.
    pub said: String,
    /// Whether a template was restored for it.
    pub restored: bool,
    /// What it was warned of.
    pub warnings: String,
}

impl Ran {
    /// Reads the answer.
    ///
    /// # Panics
    /// When the run failed.
    #[must_use]
    pub fn of(output: &Output) -> Self {
        let warnings = stderr(output);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{:?}: {said}{warnings}", output.status);
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        Self {
            said: answer["stdout"].as_str().expect("UTF-8").to_owned(),
            restored: answer["restored"].as_bool().expect("yes or no"),
            warnings,
        }
    }
}

/// Where this is first; quick also where the program is not optimised.
#[must_use]
pub fn position(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    // SAFETY: both are slices, and given with their lengths.
    let at = unsafe {
        libc::memmem(bytes.as_ptr().cast(), bytes.len(), needle.as_ptr().cast(), needle.len())
    };
    (!at.is_null()).then(|| at as usize - bytes.as_ptr() as usize)
}
