//! Changes as `git diff --stat` and `--name-only` show them.

use pyro_protocol::diff::{DiffContent, DiffEntry};
use pyro_protocol::quote::quoted;
use std::fmt::Write;

/// The most lines of a table.
const LINES_MAX: usize = 10_000;

/// The most columns that the bars take.
const BAR_MAX: u64 = 50;

/// The table of how many lines changed.
#[derive(Debug, Default)]
pub(super) struct Stat {
    lines: Vec<(String, DiffContent)>,
    files: u64,
    insertions: u64,
    deletions: u64,
}

impl Stat {
    pub(super) fn add(&mut self, entry: &DiffEntry) {
        self.files += 1;
        if let DiffContent::Text { insertions, deletions } = entry.content {
            self.insertions += u64::from(insertions);
            self.deletions += u64::from(deletions);
        }
        if self.lines.len() < LINES_MAX {
            let new = shown(entry.path.as_bytes());
            let old = entry.old_path.as_ref().map(|old| format!("{} => ", shown(old.as_bytes())));
            self.lines.push((format!("{}{new}", old.unwrap_or_default()), entry.content));
        }
    }

    /// Nothing when there is nothing.
    pub(super) fn table(&self) -> String {
        let mut table = String::new();
        let total = |content: &DiffContent| match content {
            DiffContent::Text { insertions, deletions } => {
                u64::from(*insertions) + u64::from(*deletions)
            }
            DiffContent::Unchanged | DiffContent::Binary | DiffContent::Omitted => 0,
        };
        let names = self.lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let most = self.lines.iter().map(|(_, content)| total(content)).max().unwrap_or(0);
        let digits = most.to_string().len().max(3);
        let scale = |lines: u32| match most {
            most if most <= BAR_MAX => u64::from(lines),
            // Whatever changed at all is seen.
            most => (u64::from(lines) * BAR_MAX).div_ceil(most),
        };
        for (name, content) in &self.lines {
            let padding = names - name.chars().count();
            let what = match content {
                DiffContent::Text { insertions, deletions } => {
                    let bar = |mark: &str, lines: &u32| {
                        mark.repeat(usize::try_from(scale(*lines)).unwrap_or(0))
                    };
                    let bars = format!("{}{}", bar("+", insertions), bar("-", deletions));
                    format!("{:>digits$} {bars}", total(content))
                }
                DiffContent::Binary => format!("{:>digits$}", "Bin"),
                DiffContent::Omitted => format!("{:>digits$}", "too large"),
                DiffContent::Unchanged => format!("{:>digits$}", 0),
            };
            // A String takes whatever is written to it.
            let _ = writeln!(table, " {name}{:padding$} | {what}", "");
        }
        if self.files > 0 {
            let left_out = self.files - self.lines.len() as u64;
            if left_out > 0 {
                let _ = writeln!(table, " ... and {left_out} more");
            }
            let plural = |count: u64| if count == 1 { "" } else { "s" };
            let _ = writeln!(
                table,
                " {} file{} changed, {} insertion{}(+), {} deletion{}(-)",
                self.files,
                plural(self.files),
                self.insertions,
                plural(self.insertions),
                self.deletions,
                plural(self.deletions),
            );
        }
        table
    }
}

/// An entry's name on a line of its own, or before a NUL as it is.
pub(super) fn name(entry: &DiffEntry, null: bool) -> Vec<u8> {
    let mut name = match null {
        true => entry.path.as_bytes().to_vec(),
        false => quoted(entry.path.as_bytes()),
    };
    name.push(if null { 0 } else { b'\n' });
    name
}

/// What git quotes does not drive a terminal either.
fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(&quoted(path)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pyro_protocol::GuestPath;
    use pyro_protocol::diff::{Artifact, DiffStatus};

    fn entry(path: &str, content: DiffContent) -> DiffEntry {
        DiffEntry {
            path: GuestPath::new(path).unwrap(),
            old_path: None,
            status: DiffStatus::Modified,
            artifact: Artifact::File,
            old_mode: None,
            new_mode: None,
            content,
        }
    }

    #[test]
    fn a_table_like_gits() {
        let mut stat = Stat::default();
        assert_eq!(stat.table(), "");
        stat.add(&entry("src/main.rs", DiffContent::Text { insertions: 3, deletions: 1 }));
        stat.add(&entry("b\n", DiffContent::Binary));
        let expected = " src/main.rs |   4 +++-\n \"b\\n\"       | Bin\n \
                        2 files changed, 3 insertions(+), 1 deletion(-)\n";
        assert_eq!(stat.table(), expected);
        stat.add(&entry("x", DiffContent::Text { insertions: 100_000, deletions: 1 }));
        assert!(stat.table().lines().all(|line| line.len() < 100), "{}", stat.table());
    }

    #[test]
    fn names_are_quoted_unless_a_nul_ends_them() {
        let entry = entry("a\nb", DiffContent::Unchanged);
        assert_eq!(name(&entry, false), b"\"a\\nb\"\n");
        assert_eq!(name(&entry, true), b"a\nb\0");
    }
}
