//! What to do when something in a guest is not there.

use crate::id::WorkspaceId;
use crate::workspace::history::quoted;
use crate::{Error, ErrorKind};
use pyro_protocol::GuestPath;

/// The longest path that is worth typing again.
const TYPED_MAX: usize = 200;

/// Says where to look, unless the error says it already.
pub(super) fn point_out(error: &mut Error, workspace: WorkspaceId, path: &GuestPath) {
    point_to(error, path, |directory| {
        format!(
            "`pyro workspace file list {workspace}{directory}`, or `ls` in the guest, shows what is \
             there"
        )
    });
}

/// The same for what is on the disk of a workspace that does not run.
pub(super) fn point_out_on_disk(error: &mut Error, workspace: WorkspaceId, path: &GuestPath) {
    point_to(error, path, |directory| {
        format!("`pyro workspace disk list {workspace}{directory}` shows what is there")
    });
}

fn point_to(error: &mut Error, path: &GuestPath, hint: impl FnOnce(String) -> String) {
    if error.kind() != ErrorKind::NotFound || error.next_step().is_some() {
        return;
    }
    let directory = parent(path).map(|parent| format!(" {parent}")).unwrap_or_default();
    error.set_hint(hint(directory));
}

/// The directory that a path is in, as it is typed; `None` when it is the
/// workspace itself or cannot be typed.
fn parent(path: &GuestPath) -> Option<String> {
    let path = std::str::from_utf8(path.as_bytes()).ok()?.trim_end_matches('/');
    let (parent, _) = path.rsplit_once('/')?;
    let can_be_typed = |char: char| char != '`' && !char.is_control();
    let is_typed = !parent.is_empty() && parent.len() <= TYPED_MAX;
    (is_typed && parent.chars().all(can_be_typed)).then(|| quoted([parent.as_bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_leads_to_the_directory_that_it_would_be_in() {
        for (path, expected) in [
            ("src/main.rs", Some("src")),
            ("/workspace/a/b/", Some("/workspace/a")),
            ("a b/c", Some("'a b'")),
            ("main.rs", None),
            ("/main.rs", None),
            ("a`b/c", None),
            ("a\nb/c", None),
        ] {
            let path = GuestPath::new(path).expect("a path");
            assert_eq!(parent(&path).as_deref(), expected, "{path}");
        }
        let path = GuestPath::new(b"\xff/c".as_slice()).expect("a path");
        assert_eq!(parent(&path), None);
    }

    #[test]
    fn other_errors_and_better_advice_stay() {
        let path = GuestPath::new("a/b").expect("a path");
        let mut other = Error::new(ErrorKind::Conflict, "x");
        point_out(&mut other, WorkspaceId::random(), &path);
        assert_eq!(other.next_step(), None);
        let mut advised = Error::new(ErrorKind::NotFound, "x").hint("better");
        point_out(&mut advised, WorkspaceId::random(), &path);
        assert_eq!(advised.next_step(), Some("better"));
    }
}
