use crate::guest_text;
use crate::id::WorkspaceId;
use crate::operation::output::{Captured, Encoding, HEADINGS};
use crate::operation::{Answer, Page};
use pyro_protocol::diff::{Artifact, DiffContent, DiffEntry, DiffStatus, DiffSummary};
use pyro_protocol::guest_path::PATH_MAX;
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt::{self, Write};

/// The most entries of an answer; a model reads no more, and a person has the
/// patch itself.
const ENTRIES_MAX: usize = 2000;

/// What has changed in a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WorkspaceDiffAnswer {
    /// The workspace.
    pub workspace_id: String,
    /// Whether anything has.
    pub changed: bool,
    /// How much.
    pub summary: ChangeSummary,
    /// The first 2000 things that changed, by path.
    pub entries: Vec<ChangedEntry>,
    /// How many entries are left out.
    pub entries_omitted: u64,
    /// The patch, or the first part of it.
    pub patch: String,
    /// How `patch` and `patch_tail` spell bytes.
    pub patch_encoding: Encoding,
    /// How many bytes are missing between `patch` and `patch_tail`.
    pub patch_omitted_bytes: u64,
    /// The last part, when bytes are missing before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub patch_tail: Option<String>,
    /// What is to be known of this answer.
    pub warnings: Vec<String>,
}

/// How much has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ChangeSummary {
    /// All entries.
    pub total: u64,
    /// Those that were not there.
    pub added: u64,
    /// Those with another content, mode, owner or other attributes.
    pub modified: u64,
    /// Those that are gone.
    pub deleted: u64,
    /// Those that are another type of thing.
    pub type_changed: u64,
    /// Those that were elsewhere.
    pub renamed: u64,
    /// Entries whose lines changed.
    pub text_patched: u64,
    /// All other entries.
    pub non_text: u64,
    /// Entries whose content is too large for the patch.
    pub omitted: u64,
}

/// One thing that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ChangedEntry {
    /// Where it is, or was.
    pub path: String,
    /// Where it was, if it was renamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub old_path: Option<String>,
    /// What happened to it.
    pub status: ChangeStatus,
    /// What it is, or was.
    pub artifact_type: ChangedType,
    /// Its permissions before, in octal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub old_mode: Option<String>,
    /// And after.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub new_mode: Option<String>,
    /// Whether its lines changed.
    pub text_patched: bool,
    /// How many lines are new, if its lines changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32")]
    pub insertions: Option<u32>,
    /// How many lines are gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u32")]
    pub deletions: Option<u32>,
    /// Whether its content is too large for the patch.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub omitted: bool,
}

/// What happened to something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeStatus {
    /// It was not there.
    Added,
    /// Its content, mode, owner or other attributes are others.
    Modified,
    /// It is gone.
    Deleted,
    /// It is another type of thing.
    TypeChanged,
    /// It was elsewhere.
    Renamed,
}

/// A type of thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangedType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A pipe, socket or device.
    Other,
}

/// The first entries, and how many there are.
#[derive(Debug, Default)]
pub(super) struct Entries {
    first: Vec<ChangedEntry>,
    omitted: u64,
}

impl Entries {
    pub(super) fn add(&mut self, entry: &DiffEntry) {
        if self.first.len() < ENTRIES_MAX {
            self.first.push(ChangedEntry::from(entry));
        } else {
            self.omitted += 1;
        }
    }
}

impl WorkspaceDiffAnswer {
    pub(super) fn new(
        id: WorkspaceId,
        summary: DiffSummary,
        entries: Entries,
        patch: Captured<String>,
    ) -> Self {
        let Entries { first, omitted } = entries;
        Self {
            workspace_id: id.to_string(),
            changed: !first.is_empty(),
            warnings: warnings(&summary),
            summary: summary.into(),
            entries: first,
            entries_omitted: omitted,
            patch: patch.text,
            patch_encoding: patch.encoding,
            patch_omitted_bytes: patch.omitted_bytes,
            patch_tail: patch.tail,
        }
    }
}

/// What is to be known of a diff, beside it.
pub(super) fn warnings(summary: &DiffSummary) -> Vec<String> {
    let mut warnings = Vec::new();
    match summary.omitted {
        0 => {}
        1 => warnings.push(
            "one file is too large for the patch, which is without it: export it instead".into(),
        ),
        count => warnings.push(format!(
            "{count} files are too large for the patch, which is without them: export them instead"
        )),
    }
    if summary.renames_skipped {
        warnings.push("so much has changed that renames are told as deleted and added".into());
    }
    if summary.too_deep > 0 {
        let count = summary.too_deep;
        warnings.push(format!("{count} paths are longer than Linux opens and were left out"));
    }
    warnings
}

impl From<DiffSummary> for ChangeSummary {
    fn from(summary: DiffSummary) -> Self {
        let DiffSummary {
            total,
            added,
            modified,
            deleted,
            type_changed,
            renamed,
            text_patched,
            non_text,
            omitted,
            renames_skipped: _,
            too_deep: _,
        } = summary;
        Self {
            total,
            added,
            modified,
            deleted,
            type_changed,
            renamed,
            text_patched,
            non_text,
            omitted,
        }
    }
}

impl From<&DiffEntry> for ChangedEntry {
    fn from(entry: &DiffEntry) -> Self {
        let counts = match entry.content {
            DiffContent::Text { insertions, deletions } => Some((insertions, deletions)),
            DiffContent::Unchanged | DiffContent::Binary | DiffContent::Omitted => None,
        };
        let mode = |mode: u32| format!("{mode:06o}");
        Self {
            path: entry.path.to_string(),
            old_path: entry.old_path.as_ref().map(ToString::to_string),
            status: entry.status.into(),
            artifact_type: match entry.artifact {
                Artifact::File => ChangedType::File,
                Artifact::Directory => ChangedType::Directory,
                Artifact::Symlink => ChangedType::Symlink,
                Artifact::Other => ChangedType::Other,
            },
            old_mode: entry.old_mode.map(mode),
            new_mode: entry.new_mode.map(mode),
            text_patched: counts.is_some(),
            insertions: counts.map(|(insertions, _)| insertions),
            deletions: counts.map(|(_, deletions)| deletions),
            omitted: entry.content == DiffContent::Omitted,
        }
    }
}

impl From<DiffStatus> for ChangeStatus {
    fn from(status: DiffStatus) -> Self {
        match status {
            DiffStatus::Added => Self::Added,
            DiffStatus::Modified => Self::Modified,
            DiffStatus::Deleted => Self::Deleted,
            DiffStatus::TypeChanged => Self::TypeChanged,
            DiffStatus::Renamed => Self::Renamed,
        }
    }
}

impl ChangeStatus {
    /// The letter that git has for it.
    pub(crate) const fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Modified => 'M',
            Self::Deleted => 'D',
            Self::TypeChanged => 'T',
            Self::Renamed => 'R',
        }
    }
}

impl ChangedEntry {
    /// In a line of its own.
    fn row(&self) -> String {
        let shown = |path: &str| guest_text::escaped(path, PATH_MAX);
        let old = self.old_path.as_deref().map(|old| format!("{} -> ", shown(old)));
        let counts = match (self.insertions, self.deletions) {
            (Some(insertions), Some(deletions)) => format!(" +{insertions} -{deletions}"),
            (_, _) => String::new(),
        };
        let (letter, old) = (self.status.letter(), old.unwrap_or_default());
        format!("{letter} {old}{}{counts}", shown(&self.path))
    }
}

impl Answer for WorkspaceDiffAnswer {
    fn render(&self, page: &mut Page) -> fmt::Result {
        if !self.changed {
            return writeln!(page, "No changes.");
        }
        // The names are the smaller part; the patch has the rest.
        let (names, mut told) = (page.room() / 2, 0);
        for entry in &self.entries {
            if page.room() <= names {
                break;
            }
            writeln!(page, "{}", entry.row())?;
            told += 1;
        }
        let untold = self.entries_omitted + (self.entries.len() - told) as u64;
        if untold > 0 {
            writeln!(page, "[{untold} entries left out]")?;
        }
        for warning in &self.warnings {
            writeln!(page, "{warning}")?;
        }
        let patch = Captured {
            text: self.patch.as_str(),
            encoding: self.patch_encoding,
            omitted_bytes: self.patch_omitted_bytes,
            tail: self.patch_tail.as_deref(),
        };
        let patch = patch.within(page.room().saturating_sub(HEADINGS));
        if !patch.text.is_empty() {
            writeln!(page, "\n{}", patch.text.trim_end_matches('\n'))?;
        }
        if let Some(tail) = patch.tail {
            writeln!(
                page,
                "[{} bytes left out; ask for single `paths`]\n{}",
                patch.omitted_bytes,
                tail.trim_end_matches('\n')
            )?;
        }
        Ok(())
    }
}
