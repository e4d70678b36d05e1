use super::*;
use pyro_protocol::transfer::outgoing;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

fn copied(from: &Path, to: &Path) -> CopyEnd {
    let (mut outgoing, _outlet) = outgoing(4);
    let open = |path: &Path| rustix::fs::open(path, DIRECTORY, Mode::empty()).expect("opened");
    let (source, top, cancel) = (open(from), open(to), Cancel::default());
    let target = Target::new(top.as_fd(), &mut outgoing, &cancel).expect("begun");
    target.take(source.as_fd()).expect("copied")
}

/// What can be told apart: type and mode, owner, times, length or target, content.
fn seen(top: &Path) -> BTreeMap<PathBuf, (u32, u32, i64, i64, Vec<u8>)> {
    let mut seen = BTreeMap::new();
    let mut left = vec![top.to_owned()];
    while let Some(path) = left.pop() {
        let meta = path.symlink_metadata().expect("there");
        let content = if meta.is_dir() {
            left.extend(fs::read_dir(&path).expect("listed").map(|e| e.expect("read").path()));
            Vec::new()
        } else if meta.is_symlink() {
            fs::read_link(&path).expect("read").as_os_str().as_bytes().to_vec()
        } else if meta.is_file() {
            [&meta.len().to_le_bytes()[..], &head(&path)].concat()
        } else {
            Vec::new()
        };
        let below = path.strip_prefix(top).expect("below").to_owned();
        let what = (meta.mode(), meta.uid(), meta.mtime(), meta.mtime_nsec(), content);
        seen.insert(below, what);
    }
    seen
}

fn head(path: &Path) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 16];
    let length = File::open(path).and_then(|file| file.read_at(&mut bytes, 0)).expect("read");
    bytes.truncate(length);
    bytes
}

#[test]
fn r5_a_copy_has_every_name_type_hole_link_mode_and_time() {
    let home = tempfile::tempdir().expect("a directory");
    let (from, to) = (home.path().join("from"), home.path().join("to"));
    fs::create_dir_all(from.join("deep/er")).expect("made");
    fs::create_dir_all(to.join("lost+found")).expect("as a new file system has it");
    let odd = from.join(OsStr::from_bytes(b"a b\n\xff*"));
    fs::write(&odd, "odd").expect("written");
    fs::set_permissions(&odd, fs::Permissions::from_mode(0o4751)).expect("set");
    symlink("x/".repeat(1500), from.join("deep/long")).expect("linked");
    symlink("/nowhere", from.join("deep/dangling")).expect("linked");
    let hole = File::create(from.join("deep/hole")).expect("made");
    hole.write_all_at(b"middle", 5 << 20).expect("written");
    hole.set_len(1 << 33).expect("long");
    fs::write(from.join("one"), "linked").expect("written");
    fs::hard_link(from.join("one"), from.join("deep/er/two")).expect("linked");
    let pipe = rustix::fs::FileType::Fifo;
    mknodat(rustix::fs::CWD, from.join("deep/pipe"), pipe, Mode::RUSR, 0).expect("made");
    fs::set_permissions(from.join("deep/er"), fs::Permissions::from_mode(0o1500)).expect("set");
    let old = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + Duration::new(7, 9));
    for name in ["one", "deep", "."] {
        File::open(from.join(name)).and_then(|file| file.set_times(old)).expect("set");
    }

    let end = copied(&from, &to);
    assert_eq!((end.entries, end.too_deep), (10, 0));
    let mut there = seen(&to);
    there.remove(Path::new("lost+found"));
    assert_eq!(there, seen(&from));
    let inode = |name: &str| to.join(name).metadata().expect("there").ino();
    assert_eq!(inode("one"), inode("deep/er/two"));
    assert_eq!(to.join("one").metadata().expect("there").nlink(), 2);
    let blocks = to.join("deep/hole").metadata().expect("there").blocks();
    assert!(blocks < 4096, "{blocks}");
    let mut middle = [0; 6];
    let copy = File::open(to.join("deep/hole")).expect("there");
    copy.read_exact_at(&mut middle, 5 << 20).expect("read");
    assert_eq!(&middle, b"middle");
}

#[test]
fn r5_extended_attributes_go_along() {
    let home = tempfile::tempdir().expect("a directory");
    let (from, to) = (home.path().join("from"), home.path().join("to"));
    for directory in [&from, &to] {
        fs::create_dir(directory).expect("made");
    }
    fs::write(from.join("file"), "x").expect("written");
    let flags = rustix::fs::XattrFlags::empty();
    let set = |path: &Path| rustix::fs::setxattr(path, "user.odd", b"\0\xff", flags);
    if set(&from.join("file")).is_err() {
        eprintln!("skipped: this file system has no extended attributes");
        return;
    }
    set(&from).expect("as for the file");
    copied(&from, &to);
    for path in [to.join("file"), to] {
        let path = path.as_os_str().as_bytes();
        assert_eq!(xattr::value(path, b"user.odd"), Ok(Some(b"\0\xff".to_vec())));
    }
}

#[test]
fn what_is_there_already_is_not_written_over() {
    let home = tempfile::tempdir().expect("a directory");
    let (from, to) = (home.path().join("from"), home.path().join("to"));
    for directory in [&from, &to] {
        fs::create_dir(directory).expect("made");
        fs::write(directory.join("file"), directory.as_os_str().as_bytes()).expect("written");
    }
    let (mut outgoing, _outlet) = outgoing(4);
    let open = |path: &Path| rustix::fs::open(path, DIRECTORY, Mode::empty()).expect("opened");
    let (source, top, cancel) = (open(&from), open(&to), Cancel::default());
    let target = Target::new(top.as_fd(), &mut outgoing, &cancel).expect("begun");
    assert!(target.take(source.as_fd()).is_err());
}
