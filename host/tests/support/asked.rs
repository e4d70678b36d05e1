//! Words for every operation: they parse, and there is nothing they are about.

use pyro::operation::{Entry, OPERATIONS};

/// Words for an operation of each path, in the order of the table. What they
/// name is not there.
const ASKED: &[(&str, &str)] = &[
    ("run", "nothing:1 -- true"),
    ("workspace create", "nothing:1"),
    ("workspace list", ""),
    ("workspace status", "nobody"),
    ("workspace update", "nobody --name somebody"),
    ("workspace start", "nobody"),
    ("workspace stop", "nobody"),
    ("workspace pause", "nobody"),
    ("workspace resume", "nobody"),
    ("workspace exec", "nobody -- true"),
    ("workspace logs", "nobody"),
    ("workspace process list", "nobody"),
    ("workspace process poll", "nobody 0123456789ab"),
    ("workspace process write", "nobody 0123456789ab --text x"),
    ("workspace process signal", "nobody 0123456789ab"),
    ("workspace process wait", "nobody 0123456789ab"),
    ("workspace service start", "nobody web -- true"),
    ("workspace service list", "nobody"),
    ("workspace service status", "nobody web"),
    ("workspace service logs", "nobody web"),
    ("workspace service stop", "nobody web"),
    ("workspace service restart", "nobody web"),
    ("workspace service remove", "nobody web"),
    ("workspace port publish", "nobody 80"),
    ("workspace port list", "nobody"),
    ("workspace port unpublish", "nobody 80"),
    ("workspace shell open", "nobody"),
    ("workspace shell list", "nobody"),
    ("workspace shell read", "nobody 0123456789ab"),
    ("workspace shell write", "nobody 0123456789ab --input x"),
    ("workspace shell signal", "nobody 0123456789ab"),
    ("workspace shell resize", "nobody 0123456789ab --cols 80 --rows 24"),
    ("workspace shell close", "nobody 0123456789ab"),
    ("workspace file list", "nobody"),
    ("workspace file read", "nobody file"),
    ("workspace file write", "nobody file --text x"),
    ("workspace file edit", "nobody file --old a --new b"),
    ("workspace file delete", "nobody file"),
    ("workspace file move", "nobody file other"),
    ("workspace file search", "nobody pattern"),
    ("workspace file stat", "nobody file"),
    ("workspace sync push", "nobody ."),
    ("workspace export", "nobody file --output /nonexistent/output"),
    ("workspace diff", "nobody file"),
    ("workspace patch apply", "nobody --patch x"),
    ("workspace disk list", "nobody"),
    ("workspace disk read", "nobody file"),
    ("workspace disk export", "nobody --output /nonexistent/output"),
    ("workspace network status", "nobody"),
    ("workspace network allow", "nobody example.org"),
    ("workspace network deny", "nobody example.org"),
    ("workspace network remove", "nobody r1"),
    ("workspace network explain", "nobody example.org"),
    ("workspace secret set", "nobody NAME --file /nonexistent/file"),
    ("workspace secret list", "nobody"),
    ("workspace secret delete", "nobody NAME"),
    ("workspace snapshot create", "nobody tested"),
    ("workspace snapshot list", "nobody"),
    ("workspace snapshot rename", "nobody tested good"),
    ("workspace snapshot delete", "nobody tested"),
    ("workspace reset", "nobody"),
    ("workspace delete", "nobody"),
    ("workspace events", "nobody"),
    ("setup", "--from /nonexistent/archive"),
    ("doctor", ""),
    ("demo", "nothing:1"),
    ("env list", ""),
    ("env inspect", "nothing:1"),
    ("env build", "nothing:1"),
    ("env pull", "127.0.0.1:1/nothing:1"),
    ("env import", "/nonexistent/archive --name x"),
    ("env prune", ""),
];

/// A row of the table, and words for it after those of its path.
pub struct Asked {
    pub entry: &'static Entry,
    pub path: &'static str,
    pub words: Vec<&'static str>,
}

/// Every operation once. Who adds one is told here that it needs words.
pub fn every_operation() -> Vec<Asked> {
    let paths: Vec<_> = OPERATIONS.iter().map(|entry| entry.path.join(" ")).collect();
    assert_eq!(paths, ASKED.iter().map(|(path, _)| *path).collect::<Vec<_>>());
    let rows = OPERATIONS.iter().zip(ASKED);
    rows.map(|(entry, (path, words))| Asked { entry, path, words: split(words) }).collect()
}

impl Asked {
    /// All words, with more put in before word `at` of those after the path.
    pub fn with<'a>(&'a self, more: &[&'a str], at: usize) -> Vec<&'a str> {
        let (before, after) = self.words.split_at(at);
        [self.entry.path, before, more, after].concat()
    }

    /// The first thing that is named and not there.
    pub fn subject(&self) -> &'static str {
        self.words.iter().find(|word| !word.starts_with("--")).unwrap()
    }

    /// Before which words options may stand: all, up to a `--`, but for those
    /// that belong to the option before them.
    pub fn gaps(&self) -> Vec<usize> {
        let end = self.words.iter().position(|word| *word == "--").unwrap_or(self.words.len());
        let owned = |at: &usize| *at > 0 && self.words[at - 1].starts_with("--");
        (0..=end).filter(|at| !owned(at)).collect()
    }
}

fn split(words: &'static str) -> Vec<&'static str> {
    words.split_whitespace().collect()
}
