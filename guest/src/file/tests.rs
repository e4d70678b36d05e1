//! Changes of files while a commit is stuck.

use super::root::{Root, Top, TreePath};
use super::{delete, edit, move_, write};
use crate::commit::Commits;
use crate::work::{Cancel, Stop};
use pyro_protocol::file::{
    Disposition, Edit, FileDelete, FileEdit, FileMove, FileWrite, Occurrences,
};
use pyro_protocol::{ByteString, GuestPath};
use std::fs::{self, File};

/// A change that came first would be undone by completing the other later.
#[test]
fn r2_no_file_is_changed_before_what_was_interrupted_is_completed() {
    let (tree, private) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(tree.path().join("file"), "x").unwrap();
    fs::write(private.path().join("0123456789abcdef.journal"), "not ours at all").unwrap();
    let open = |directory: &tempfile::TempDir| File::open(directory.path()).unwrap().into();
    let commits = Commits::new(open(&tree), open(&private));
    commits.recover().unwrap();
    let root = Root::open(Top::Workspace, tree.path(), commits).unwrap();
    let cancel = Cancel::default();
    let path = || GuestPath::new("file").unwrap();
    let text = |text: &str| ByteString(text.as_bytes().to_vec());
    let edit = Edit { old: text("x"), new: text("y"), occurrences: Occurrences::All };
    let target = TreePath::new(&path()).unwrap();
    let append = FileWrite { path: path(), disposition: Disposition::Append, mode: None };
    let draft = super::draft::Draft::new(&root, &target).unwrap();
    let outcomes = [
        delete::run(&root, &FileDelete { path: path(), recursive: true }, &cancel).map(drop),
        move_::run(
            &root,
            &FileMove { from: path(), to: GuestPath::new("to").unwrap(), replace: true },
            &cancel,
        )
        .map(drop),
        edit::run(&root, &FileEdit { path: path(), edits: vec![edit] }, &cancel).map(drop),
        write::publish(&root, &append, &target, draft).map(drop).map_err(Stop::from),
    ];
    for outcome in outcomes {
        let Err(Stop::Refused(error)) = outcome else { panic!("{outcome:?}") };
        assert!(error.message.contains("completing a change that was interrupted"), "{error}");
    }
    assert_eq!(fs::read(tree.path().join("file")).unwrap(), b"x");
}
