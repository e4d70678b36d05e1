//! Which path of the workspace a name in a patch means.

use super::parse::{FilePatch, Name};
use crate::beneath;
use pyro_protocol::{AgentError, AgentErrorKind};

/// What a file's two names come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) old: Option<Vec<u8>>,
    pub(super) new: Option<Vec<u8>>,
}

/// The workspace by its own name, which a patch may say too.
const WORKSPACE: &[u8] = b"/workspace/";

/// Drops what is no part of the workspace's paths from a patch's names: so many
/// leading names if the caller says so. Otherwise `a/` and `b/` go where git
/// puts them; other names stay whole, unless the file is only there, or both
/// names are only the same, without the first part.
pub(super) fn resolve(
    file: &FilePatch,
    strip: Option<u32>,
    exists: &dyn Fn(&[u8]) -> bool,
) -> Result<Resolved, AgentError> {
    let (old, new) = (file.old.as_ref(), file.new.as_ref());
    let count = match strip {
        Some(count) => count,
        None => u32::from(has_prefix(file, exists)),
    };
    let one = |name: Option<&Name>| name.map(|name| path(name, count)).transpose();
    Ok(Resolved { old: one(old)?, new: one(new)? })
}

/// Whether the first part of the names is not the workspace's.
fn has_prefix(file: &FilePatch, exists: &dyn Fn(&[u8]) -> bool) -> bool {
    // A name after `rename` has no prefix, whatever the others have.
    let plain = |name: Option<&Name>| {
        name.filter(|name| !name.is_bare && !name.path.starts_with(b"/"))
            .map(|name| tidy(&name.path))
    };
    let is_only_below =
        |name: &[u8]| after_first(name).is_some_and(|rest| !exists(name) && exists(rest));
    match (plain(file.old.as_ref()), plain(file.new.as_ref())) {
        (Some(old), Some(new)) if old == new => is_only_below(&old),
        (Some(old), Some(new)) => {
            let rest = after_first(&old);
            rest.is_some() && rest == after_first(&new)
        }
        (Some(name), None) if file.is_unprefixed => is_only_below(&name),
        (None, Some(_)) if file.is_unprefixed => false,
        (Some(name), None) => starts_with_letter(&name, b"acio"),
        (None, Some(name)) => starts_with_letter(&name, b"bwio"),
        (None, None) => false,
    }
}

fn starts_with_letter(name: &[u8], letters: &[u8]) -> bool {
    matches!(name, [letter, b'/', _, ..] if letters.contains(letter))
}

fn path(name: &Name, strip: u32) -> Result<Vec<u8>, AgentError> {
    let shown = String::from_utf8_lossy(&name.path);
    if let Some(rest) = name.path.strip_prefix(WORKSPACE) {
        return checked(tidy(rest), &shown);
    }
    if name.path.starts_with(b"/") {
        return Err(outside(&shown));
    }
    let path = tidy(&name.path);
    let mut rest = path.as_slice();
    for _ in 0..if name.is_bare { strip.saturating_sub(1) } else { strip } {
        rest = after_first(rest).ok_or_else(|| {
            let text = format!("{shown:?} has fewer than {strip} leading names to drop");
            AgentError::new(AgentErrorKind::InvalidArgument, text)
        })?;
    }
    checked(rest.to_vec(), &shown)
}

fn checked(path: Vec<u8>, shown: &str) -> Result<Vec<u8>, AgentError> {
    beneath::check(&path).map(|()| path).map_err(|_| outside(shown))
}

fn outside(shown: &str) -> AgentError {
    let text = format!("the patch is about {shown:?}, which is not a path in /workspace");
    AgentError::new(AgentErrorKind::OutOfTree, text)
}

/// Without `.` and doubled slashes; `..` stays, to be refused.
fn tidy(path: &[u8]) -> Vec<u8> {
    let names = path.split(|byte| *byte == b'/');
    names.filter(|name| !matches!(*name, b"" | b".")).collect::<Vec<_>>().join(&b'/')
}

fn after_first(path: &[u8]) -> Option<&[u8]> {
    path.iter().position(|byte| *byte == b'/').map(|at| &path[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::parse::parse;

    fn names(
        patch: &str,
        strip: Option<u32>,
        there: &[&str],
    ) -> Result<(String, String), AgentErrorKind> {
        let file = parse(patch.as_bytes()).unwrap().remove(0);
        let exists = |path: &[u8]| there.iter().any(|there| there.as_bytes() == path);
        let resolved = resolve(&file, strip, &exists).map_err(|error| error.kind)?;
        let text = |path: Option<Vec<u8>>| String::from_utf8(path.unwrap_or_default()).unwrap();
        Ok((text(resolved.old), text(resolved.new)))
    }

    fn plain(old: &str, new: &str) -> String {
        format!("--- {old}\n+++ {new}\n@@ -1 +1 @@\n-a\n+b\n")
    }

    #[test]
    fn r7_names_mean_what_git_and_patch_take_them_for() {
        let both = |path: &str| Ok((path.to_owned(), path.to_owned()));
        let of = |old, new, there: &[&str]| names(&plain(old, new), None, there);
        assert_eq!(of("a/src/x", "b/src/x", &[]), both("src/x"));
        assert_eq!(of("old/src/x", "new/src/x", &["src/x"]), both("src/x"));
        assert_eq!(of("src/x", "src/x", &["src/x"]), both("src/x"));
        assert_eq!(of("src/x", "src/x", &[]), both("src/x"));
        assert_eq!(of("project/src/x", "project/src/x", &["src/x"]), both("src/x"));
        assert_eq!(of("a/x", "a/x", &["a/x"]), both("a/x"));
        assert_eq!(of("./x", "./x", &["x"]), both("x"));
        assert_eq!(of("/workspace/x", "/workspace/x", &[]), both("x"));
        assert_eq!(of("/dev/null", "b/x", &[]), Ok((String::new(), "x".to_owned())));
        assert_eq!(of("/dev/null", "src/x", &[]), Ok((String::new(), "src/x".to_owned())));
        assert_eq!(of("a/x", "/dev/null", &[]), Ok(("x".to_owned(), String::new())));
        assert_eq!(names(&plain("p/q/x", "p/q/x"), Some(2), &[]), both("x"));
    }

    #[test]
    fn r7_git_says_in_its_own_line_when_names_have_no_prefix() {
        let of = |patch: &str, there: &[&str]| names(patch, None, there);
        let new = "new file mode 100644\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+a\n";
        let gone = "deleted file mode 100644\n--- a/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n";
        let made = |path: &str| Ok((String::new(), path.to_owned()));
        let removed = |path: &str| Ok((path.to_owned(), String::new()));
        assert_eq!(of(&format!("diff --git a/x b/x\n{new}"), &[]), made("x"));
        assert_eq!(of(&format!("diff --git b/x b/x\n{new}"), &["x"]), made("b/x"));
        assert_eq!(of(&format!("diff --git a/x b/x\n{gone}"), &["a/x"]), removed("x"));
        assert_eq!(of(&format!("diff --git a/x a/x\n{gone}"), &["x", "a/x"]), removed("a/x"));
    }

    #[test]
    fn s8_no_name_leads_out_of_the_workspace() {
        for name in ["/etc/passwd", "../x", "a/../../x", "a/..", "/workspace/../x", "/workspaces/x"]
        {
            let refused = names(&plain(name, name), None, &[]);
            assert_eq!(refused, Err(AgentErrorKind::OutOfTree), "{name}");
        }
        let refused = names(&plain("x", "x"), Some(1), &[]);
        assert_eq!(refused, Err(AgentErrorKind::InvalidArgument));
    }
}
