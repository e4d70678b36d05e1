//! Which files of a repository go into a seed. What is not named here stays on
//! the host: hooks, credentials, what was fetched last, other work trees.

use crate::seed::entry::RelPath;

/// A work tree's own: what is checked out and what is half done.
const OWN: &[&str] = &[
    "HEAD",
    "index",
    "ORIG_HEAD",
    "MERGE_HEAD",
    "MERGE_MSG",
    "MERGE_MODE",
    "MERGE_AUTOSTASH",
    "AUTO_MERGE",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "REBASE_HEAD",
    "SQUASH_MSG",
    "BISECT_ANCESTORS_OK",
    "BISECT_EXPECTED_REV",
    "BISECT_FIRST_PARENT",
    "BISECT_LOG",
    "BISECT_NAMES",
    "BISECT_START",
    "BISECT_TERMS",
    "rebase-merge",
    "rebase-apply",
    "sequencer",
];

/// What a repository's work trees share, besides refs and objects.
const SHARED: &[&str] = &["packed-refs", "shallow", "reftable"];

/// Refs that are a work tree's own.
const OWN_REFS: &[&[u8]] = &[b"bisect", b"worktree", b"rewritten"];

/// The names of a path, as far as it matters.
fn heads(path: &RelPath) -> (&[u8], Option<&[u8]>) {
    let mut names = path.names();
    (names.next().unwrap_or_default(), names.next())
}

/// What another program is writing at this moment.
fn is_passing(path: &RelPath) -> bool {
    path.name().ends_with(b".lock")
}

/// What objects and packs are called while they are written.
fn is_made(name: &[u8]) -> bool {
    name.starts_with(b"tmp_") || name.starts_with(b".tmp")
}

/// Whether it is this work tree's own, apart from its log.
pub fn own(path: &RelPath) -> bool {
    let (first, second) = heads(path);
    let named = OWN.iter().any(|name| name.as_bytes() == first);
    let wanted = match first {
        b"refs" => second.is_none_or(|second| OWN_REFS.contains(&second)),
        b"info" => second.is_none_or(|second| second == b"sparse-checkout"),
        _ => named || first.starts_with(b"sharedindex."),
    };
    wanted && !is_passing(path)
}

/// Whether all work trees share it, apart from logs and objects.
pub fn shared(path: &RelPath) -> bool {
    let (first, second) = heads(path);
    let wanted = match first {
        b"refs" => second.is_none_or(|second| !OWN_REFS.contains(&second)),
        b"info" => {
            second.is_none_or(|second| matches!(second, b"exclude" | b"attributes" | b"grafts"))
        }
        _ => SHARED.iter().any(|name| name.as_bytes() == first),
    };
    wanted && !is_passing(path)
}

/// Whether it is a log of what this work tree's own refs were.
pub fn own_log(path: &RelPath) -> bool {
    let mut names = path.names();
    names.next() == Some(b"logs")
        && match (names.next(), names.next()) {
            (None, _) => true,
            (Some(b"refs"), third) => third.is_none_or(|third| OWN_REFS.contains(&third)),
            (Some(second), _) => second == b"HEAD",
        }
}

/// Whether it is a log of what shared refs were.
pub fn shared_log(path: &RelPath) -> bool {
    let mut names = path.names();
    names.next() == Some(b"logs")
        && match (names.next(), names.next()) {
            (None, _) => true,
            (Some(b"refs"), third) => third.is_none_or(|third| !OWN_REFS.contains(&third)),
            (Some(_), _) => false,
        }
}

/// Whether it is an object, a pack, or what helps to find them.
pub fn object(path: &RelPath) -> bool {
    let (first, second) = heads(path);
    let name = path.name();
    let passing = is_made(name) || is_passing(path);
    let alternates = second == Some(b"info") && matches!(name, b"alternates" | b"http-alternates");
    first == b"objects" && !passing && !alternates
}

/// Whether it is an object or a pack, in a directory of objects that others
/// borrow from.
pub fn lent(path: &RelPath) -> bool {
    let (first, _) = heads(path);
    let loose = first.len() == 2 && first.iter().all(u8::is_ascii_hexdigit);
    let name = path.name();
    // What lists several packs lists one repository's own.
    let list = name.starts_with(b"multi-pack-index");
    (loose || first == b"pack") && !is_made(name) && !is_passing(path) && !list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_place() {
        for (path, owned, common, object_, own_logged, common_logged) in [
            ("HEAD", true, false, false, false, false),
            ("index", true, false, false, false, false),
            ("index.lock", false, false, false, false, false),
            ("sharedindex.0123", true, false, false, false, false),
            ("rebase-merge/done", true, false, false, false, false),
            ("refs/heads/main", false, true, false, false, false),
            ("refs/bisect/bad", true, false, false, false, false),
            ("packed-refs", false, true, false, false, false),
            ("info/exclude", false, true, false, false, false),
            ("info/sparse-checkout", true, false, false, false, false),
            ("logs/HEAD", false, false, false, true, false),
            ("logs/refs/heads/main", false, false, false, false, true),
            ("objects/pack/pack-1.pack", false, false, true, false, false),
            ("objects/pack/tmp_pack_x", false, false, false, false, false),
            ("objects/info/alternates", false, false, false, false, false),
            ("config", false, false, false, false, false),
            ("hooks/pre-commit", false, false, false, false, false),
            ("FETCH_HEAD", false, false, false, false, false),
            ("worktrees/other/HEAD", false, false, false, false, false),
            ("modules/sub/config", false, false, false, false, false),
            ("lfs/objects/x", false, false, false, false, false),
        ] {
            let path = RelPath::new(path).expect("a path");
            let found =
                (own(&path), shared(&path), object(&path), own_log(&path), shared_log(&path));
            assert_eq!(found, (owned, common, object_, own_logged, common_logged), "{path}");
        }
    }
}
