//! Any diff, any patch.

use super::{byte_string, guest_path};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use pyro_protocol::diff::{
    ApplyPatch, Artifact, Diff, DiffContent, DiffDetail, DiffEntry, DiffRecord, DiffScope,
    DiffStatus, DiffSummary, PatchApplied, Patched,
};

pub fn diff() -> impl Strategy<Value = Diff> {
    let scope = prop_oneof![Just(DiffScope::Workspace), Just(DiffScope::System)];
    let detail =
        prop_oneof![Just(DiffDetail::Names), Just(DiffDetail::Counts), Just(DiffDetail::Patch)];
    (scope, vec(guest_path(), 0..4), detail).prop_map(|(scope, paths, detail)| Diff {
        scope,
        paths,
        detail,
    })
}

fn diff_status() -> impl Strategy<Value = DiffStatus> {
    prop_oneof![
        Just(DiffStatus::Added),
        Just(DiffStatus::Modified),
        Just(DiffStatus::Deleted),
        Just(DiffStatus::TypeChanged),
        Just(DiffStatus::Renamed),
    ]
}

fn diff_entry() -> impl Strategy<Value = DiffEntry> {
    let artifact = prop_oneof![
        Just(Artifact::File),
        Just(Artifact::Directory),
        Just(Artifact::Symlink),
        Just(Artifact::Other),
    ];
    let content = prop_oneof![
        Just(DiffContent::Unchanged),
        any::<(u32, u32)>()
            .prop_map(|(insertions, deletions)| DiffContent::Text { insertions, deletions }),
        Just(DiffContent::Binary),
        Just(DiffContent::Omitted),
    ];
    let modes = any::<(Option<u32>, Option<u32>)>();
    (guest_path(), option::of(guest_path()), diff_status(), artifact, modes, content).prop_map(
        |(path, old_path, status, artifact, (old_mode, new_mode), content)| DiffEntry {
            path,
            old_path,
            status,
            artifact,
            old_mode,
            new_mode,
            content,
        },
    )
}

pub fn diff_records() -> impl Strategy<Value = Vec<DiffRecord>> {
    let record = prop_oneof![
        diff_entry().prop_map(DiffRecord::Entry),
        byte_string().prop_map(DiffRecord::Patch),
    ];
    vec(record, 0..5)
}

pub fn diff_summary() -> impl Strategy<Value = DiffSummary> {
    (any::<[u64; 10]>(), any::<bool>()).prop_map(|(counts, renames_skipped)| {
        let [
            total,
            added,
            modified,
            deleted,
            type_changed,
            renamed,
            text_patched,
            non_text,
            omitted,
            too_deep,
        ] = counts;
        DiffSummary {
            total,
            added,
            modified,
            deleted,
            type_changed,
            renamed,
            text_patched,
            non_text,
            omitted,
            renames_skipped,
            too_deep,
        }
    })
}

pub fn apply_patch() -> impl Strategy<Value = ApplyPatch> {
    any::<(Option<u32>, bool, bool)>().prop_map(|(strip, dry_run, reverse)| ApplyPatch {
        strip,
        dry_run,
        reverse,
    })
}

pub fn patch_applied() -> impl Strategy<Value = PatchApplied> {
    let patched = (guest_path(), diff_status()).prop_map(|(path, status)| Patched { path, status });
    (vec(patched, 0..4), any::<[u64; 5]>()).prop_map(
        |(entries, [total, added, modified, deleted, renamed])| PatchApplied {
            entries,
            total,
            added,
            modified,
            deleted,
            renamed,
        },
    )
}
