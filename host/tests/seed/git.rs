//! Git work trees as seeds: in the guest git shows what it showed on the host.

use crate::image::{Tree, What};
use crate::making::{Place, set_mode, set_mtime};
use pyro::context::Roots;
use pyro::seed::{Built, Source};
use pyro::{Config, Result};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs git as somebody with an empty home.
fn git(place: &Place, within: &Path, words: &[&str]) -> String {
    let mut git = Command::new("git");
    git.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", place.dir("home"));
    git.args(["-c", "protocol.file.allow=always", "-C"]).arg(within).args(words);
    let output = git.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {words:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn source(path: &Path) -> Source {
    Source::git(&Config::from_environment().unwrap(), path).unwrap()
}

fn refusal(place: &Place, path: &Path) -> String {
    let image = place.path("refused.erofs");
    drop(fs::remove_file(&image));
    let made: Result<Built> = crate::making::build(&source(path), &image);
    made.expect_err("no seed").chain()
}

/// Makes the tree again on the host.
fn unpack(tree: &Tree, to: &Path) {
    let at = |name: &[u8]| to.join(OsStr::from_bytes(name));
    for (name, seen) in tree {
        match &seen.what {
            What::Directory => fs::create_dir_all(at(name)).unwrap(),
            What::File(content) => fs::write(at(name), content).unwrap(),
            What::Symlink(target) => symlink(OsStr::from_bytes(target), at(name)).unwrap(),
        }
    }
    for (name, seen) in tree.iter().rev() {
        if !matches!(seen.what, What::Symlink(_)) {
            set_mode(&at(name), seen.mode | 0o200);
        }
        set_mtime(&at(name), seen.mtime.0, u32::try_from(seen.mtime.1).unwrap());
    }
}

/// Seeds from a work tree and gives what the guest would have.
fn seeded(place: &Place, path: &Path) -> PathBuf {
    let (built, tree) = place.seed(&source(path));
    assert_eq!(built.warnings, Vec::<String>::new());
    let guest = place.path("guest");
    drop(fs::remove_dir_all(&guest));
    unpack(&tree, &guest);
    guest
}

/// A repository with a remote, two commits, a stash, and work under way.
fn sample(place: &Place, name: &str) -> PathBuf {
    let top = place.dir(name);
    git(place, &top, &["init", "-q", "-b", "main"]);
    git(place, &top, &["config", "user.name", "Somebody"]);
    git(place, &top, &["config", "user.email", "somebody@example.invalid"]);
    place.file(&format!("{name}/.gitignore"), "ignored\n*.o\n");
    place.file(&format!("{name}/src/kept"), "kept\n");
    place.file(&format!("{name}/src/staged"), "before\n");
    place.file(&format!("{name}/changed"), "before\n");
    place.file(&format!("{name}/deleted"), "before\n");
    symlink("/nowhere", top.join("link")).unwrap();
    git(place, &top, &["add", "."]);
    git(place, &top, &["commit", "-qm", "one"]);
    place.file(&format!("{name}/src/kept"), "kept again\n");
    git(place, &top, &["commit", "-qam", "two"]);
    git(place, &top, &["branch", "other", "HEAD~1"]);
    place.file(&format!("{name}/changed"), "stashed\n");
    git(place, &top, &["stash", "-q"]);
    work(place, name);
    top
}

/// Leaves something staged, changed, deleted, new and ignored.
fn work(place: &Place, name: &str) {
    let top = place.path(name);
    place.file(&format!("{name}/src/staged"), "staged\n");
    git(place, &top, &["add", "src/staged"]);
    place.file(&format!("{name}/changed"), "changed\n");
    fs::remove_file(top.join("deleted")).unwrap();
    place.file(&format!("{name}/new/file"), "new\n");
    place.file(&format!("{name}/ignored/file"), "ignored\n");
    place.file(&format!("{name}/new/x.o"), "ignored\n");
}

/// What git shows of a work tree. The first look reads no file: its index
/// is as it was, and stays so.
fn shown(place: &Place, top: &Path) -> Vec<String> {
    let questions: &[&[&str]] = &[
        &["status", "--porcelain=v2", "--branch"],
        &["diff"],
        &["diff", "--cached"],
        &["log", "--oneline", "--stat"],
        &["branch", "-v"],
        &["stash", "list"],
        &["fsck", "--no-dangling"],
    ];
    questions.iter().map(|words| git(place, top, words)).collect()
}

/// The state of every file below a directory, to see that none is touched.
fn state(top: &Path) -> Tree {
    crate::image::tree_of(top)
}

#[test]
fn a_work_tree_is_shown_as_it_was() {
    let place = Place::new();
    let top = sample(&place, "top");
    let shown_there = shown(&place, &top);
    let before = state(&top);
    // A directory within stands for the whole.
    let guest = seeded(&place, &top.join("src"));
    assert!(state(&top) == before, "the host's repository was changed");
    assert!(!guest.join("ignored").exists() && !guest.join("new/x.o").exists());
    assert_eq!(fs::read(guest.join("new/file")).unwrap(), b"new\n");
    let index = fs::read(guest.join(".git/index")).unwrap();
    assert_eq!(shown(&place, &guest), shown_there);
    assert!(fs::read(guest.join(".git/index")).unwrap() == index, "`git status` read the files");
    git(&place, &guest, &["commit", "-qam", "three"]);
    git(&place, &guest, &["stash", "drop", "-q"]);
    assert_eq!(
        git(&place, &guest, &["log", "-1", "--format=%an %ae"]),
        "Somebody somebody@example.invalid\n"
    );
}

#[test]
fn a_linked_work_tree_stands_by_itself() {
    let place = Place::new();
    let main = sample(&place, "main");
    let linked = place.path("linked");
    git(
        &place,
        &main,
        &["worktree", "add", "-q", "-b", "feature", linked.to_str().unwrap(), "main"],
    );
    work(&place, "linked");
    let shown_there = shown(&place, &linked);
    let before = state(&main);
    let guest = seeded(&place, &linked);
    assert!(state(&main) == before, "the host's repository was changed");
    assert!(guest.join(".git").is_dir() && !guest.join(".git/worktrees").exists());
    // Branches that are checked out elsewhere have a mark there only.
    let unmarked = |shown: Vec<String>| shown.concat().replace("\n+ ", "\n  ");
    assert_eq!(unmarked(shown(&place, &guest)), unmarked(shown_there));
    git(&place, &guest, &["commit", "-qam", "three"]);
    git(&place, &guest, &["switch", "-q", "main"]);
}

#[test]
fn a_shallow_clone_stays_one() {
    let place = Place::new();
    let origin = sample(&place, "origin");
    let url = format!("file://{}", origin.display());
    git(&place, &place.path(""), &["clone", "-q", "--depth=1", &url, "clone"]);
    let clone = place.path("clone");
    let shown_there = shown(&place, &clone);
    let guest = seeded(&place, &clone);
    assert_eq!(git(&place, &guest, &["rev-list", "--count", "HEAD"]), "1\n");
    assert_eq!(shown(&place, &guest), shown_there);
    // The remote is a place of the host.
    let config = fs::read_to_string(guest.join(".git/config")).unwrap();
    assert!(
        !config.contains("origin\"]\n\turl") && config.contains("refs/remotes/origin"),
        "{config}"
    );
}

#[test]
fn submodules_and_nested_repositories_come_along() {
    let place = Place::new();
    let library = sample(&place, "library");
    let top = sample(&place, "top");
    let url = library.to_str().unwrap();
    git(&place, &top, &["submodule", "--quiet", "add", url, "deps/library"]);
    git(&place, &top, &["commit", "-qm", "submodule"]);
    place.file("top/deps/library/changed", "changed in the submodule\n");
    let nested = sample(&place, "top/nested");
    let there =
        (shown(&place, &top), shown(&place, &nested), shown(&place, &top.join("deps/library")));
    let guest = seeded(&place, &top);
    let here = (
        shown(&place, &guest),
        shown(&place, &guest.join("nested")),
        shown(&place, &guest.join("deps/library")),
    );
    assert_eq!(here, there);
    let alone = seeded(&place, &top.join("deps/library"));
    assert_eq!(shown(&place, &alone), there.2);
}

#[test]
fn borrowed_objects_come_along() {
    let place = Place::new();
    let origin = sample(&place, "origin");
    git(&place, &place.path(""), &["clone", "-q", "--shared", origin.to_str().unwrap(), "clone"]);
    let clone = place.path("clone");
    git(&place, &clone, &["config", "user.name", "Somebody"]);
    git(&place, &clone, &["config", "user.email", "somebody@example.invalid"]);
    place.file("clone/more", "more\n");
    git(&place, &clone, &["add", "more"]);
    let shown_there = shown(&place, &clone);
    let guest = seeded(&place, &clone);
    fs::remove_dir_all(&origin).unwrap();
    assert_eq!(shown(&place, &guest), shown_there);
    assert!(!guest.join(".git/objects/info/alternates").exists());
}

#[test]
fn a_work_under_way_is_still_under_way() {
    let place = Place::new();
    let top = sample(&place, "top");
    git(&place, &top, &["reset", "-q", "--hard"]);
    git(&place, &top, &["switch", "-q", "other"]);
    place.file("top/src/kept", "conflict\n");
    git(&place, &top, &["commit", "-qam", "other"]);
    let merge = Command::new("git").arg("-C").arg(&top).args(["merge", "-q", "main"]).output();
    assert!(!merge.unwrap().status.success(), "a conflict");
    let shown_there = shown(&place, &top);
    let guest = seeded(&place, &top);
    assert_eq!(shown(&place, &guest), shown_there);
    git(&place, &guest, &["merge", "--abort"]);
}

#[test]
fn unborn_and_detached_heads_are_taken() {
    let place = Place::new();
    let top = place.dir("unborn");
    git(&place, &top, &["init", "-q"]);
    place.file("unborn/file", "new\n");
    let guest = seeded(&place, &top);
    assert_eq!(git(&place, &guest, &["status", "--porcelain"]), "?? file\n");
    let top = sample(&place, "detached");
    git(&place, &top, &["checkout", "-q", "--detach"]);
    let shown_there = shown(&place, &top);
    let guest = seeded(&place, &top);
    assert_eq!(shown(&place, &guest), shown_there);
}

#[test]
fn secrets_and_places_of_the_host_stay_there() {
    let place = Place::new();
    let top = sample(&place, "top");
    for (key, value) in [
        ("remote.origin.url", "https://user:SECRET@example.invalid/x.git"),
        ("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"),
        ("credential.helper", "store --file=SECRET"),
        ("url.https://SECRET@example.invalid/.insteadOf", "x:"),
        ("http.https://example.invalid/.extraHeader", "Authorization: SECRET"),
        ("core.hooksPath", "/SECRET"),
        ("alias.x", "!SECRET"),
    ] {
        git(&place, &top, &["config", key, value]);
    }
    place.file("top/.git/hooks/post-checkout", "SECRET");
    place.file("top/.git/FETCH_HEAD", "SECRET");
    let line = format!(
        "{0} {0} S <s> 1 +0000\tpull https://SECRET@example.invalid/x main\n",
        "0".repeat(40)
    );
    let log = place.path("top/.git/logs/HEAD");
    let old = fs::read_to_string(&log).unwrap();
    fs::write(&log, old + &line).unwrap();
    let (_, tree) = place.seed(&source(&top));
    let here = place.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    for (name, seen) in &tree {
        if let What::File(content) = &seen.what {
            let name = String::from_utf8_lossy(name);
            let holds =
                |text: &str| content.windows(text.len()).any(|part| part == text.as_bytes());
            assert!(!holds("SECRET"), "{name}");
            assert!(!holds(&here), "{name}");
        }
    }
    let What::File(config) = &tree[&b".git/config"[..]].what else { panic!("no file") };
    let config = String::from_utf8_lossy(config);
    assert!(config.contains("https://example.invalid/x.git"), "{config}");
}

#[test]
fn nothing_that_a_repository_says_is_executed() {
    let place = Place::new();
    let top = sample(&place, "top");
    let mark = place.path("mark");
    let script = place.file("script", format!("#!/bin/sh\ntouch {}\ncat\n", mark.display()));
    set_mode(&script, 0o755);
    let script = script.to_str().unwrap();
    for key in [
        "core.fsmonitor",
        "core.pager",
        "core.editor",
        "core.sshCommand",
        "core.gitProxy",
        "credential.helper",
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "diff.external",
        "diff.evil.textconv",
        "uploadpack.packObjectsHook",
        "core.alternateRefsCommand",
    ] {
        git(&place, &top, &["config", key, script]);
    }
    git(&place, &top, &["config", "alias.ls-files", &format!("!{script}")]);
    git(&place, &top, &["config", "core.worktree", place.dir("elsewhere").to_str().unwrap()]);
    place.file("elsewhere/secret", "SECRET");
    place.file("top/.gitattributes", "* filter=evil diff=evil\n");
    for hook in ["post-index-change", "pre-auto-gc", "fsmonitor-watchman"] {
        fs::copy(script, top.join(".git/hooks").join(hook)).unwrap();
    }
    // Borrowed objects are packed, which is one more command.
    place.file("top/.git/objects/info/alternates", place.dir("borrowed").to_str().unwrap());
    drop(fs::remove_file(&mark));
    let (_, tree) = place.seed(&source(&top));
    assert!(!mark.exists(), "something was executed");
    assert!(tree.contains_key(&b"changed"[..]) && !tree.contains_key(&b"secret"[..]));
}

#[test]
fn a_file_that_leads_to_another_repository_is_refused() {
    let place = Place::new();
    let victim = sample(&place, "victim");
    let git_dir = victim.join(".git");
    let hostile = place.dir("hostile");
    let lead = |to: &Path| place.file("hostile/.git", format!("gitdir: {}\n", to.display()));
    lead(&git_dir);
    assert!(refusal(&place, &hostile).contains("does not point back"));
    // A part that claims to belong to it.
    let part = place.dir("hostile/worktrees/part");
    fs::write(part.join("commondir"), git_dir.to_str().unwrap()).unwrap();
    fs::write(part.join("gitdir"), hostile.join(".git").to_str().unwrap()).unwrap();
    fs::write(part.join("HEAD"), "ref: refs/heads/main\n").unwrap();
    lead(&part);
    assert!(refusal(&place, &hostile).contains("does not point back"));
    fs::remove_file(hostile.join(".git")).unwrap();
    symlink(&git_dir, hostile.join(".git")).unwrap();
    assert!(refusal(&place, &hostile).contains("symbolic link"));
    fs::remove_file(hostile.join(".git")).unwrap();
    git(&place, &hostile, &["init", "-q"]);
    fs::write(hostile.join(".git/commondir"), git_dir.to_str().unwrap()).unwrap();
    assert!(refusal(&place, &hostile).contains("only a part"));
    fs::remove_file(hostile.join(".git/commondir")).unwrap();
    fs::remove_dir_all(hostile.join(".git/objects")).unwrap();
    symlink(git_dir.join("objects"), hostile.join(".git/objects")).unwrap();
    assert!(refusal(&place, &hostile).contains("objects is no directory"));
}

#[test]
fn what_is_no_work_tree_is_refused() {
    let place = Place::new();
    let plain = place.dir("plain");
    assert!(refusal(&place, &plain).contains("in no git work tree"));
    assert!(refusal(&place, &place.path("missing")).contains("missing"));
    let config = Config { path: Vec::new(), ..Config::from_environment().unwrap() };
    let missing = Source::git(&config, &plain).expect_err("no git");
    assert_eq!(missing.kind(), pyro::ErrorKind::HostRequirement);
    assert!(missing.next_step().is_some_and(|hint| hint.contains("apt-get install git")));
    let damaged = sample(&place, "damaged");
    File::create(damaged.join(".git/index")).unwrap().set_len(50).unwrap();
    assert!(refusal(&place, &damaged).contains("git ls-files"));
}

#[test]
fn files_behind_a_link_are_not_followed() {
    let place = Place::new();
    let top = sample(&place, "top");
    git(&place, &top, &["reset", "-q", "--hard"]);
    fs::remove_dir_all(top.join("src")).unwrap();
    place.file("outside/kept", "SECRET");
    symlink(place.path("outside"), top.join("src")).unwrap();
    let (_, tree) = place.seed(&source(&top));
    assert!(matches!(tree[&b"src"[..]].what, What::Symlink(_)));
    assert!(!tree.contains_key(&b"src/kept"[..]));
}

/// Seeds as somebody who may use nothing but what lies below these.
fn bound(place: &Place, roots: &[PathBuf], path: &Path) -> Result<Built> {
    let roots = Roots::below(roots).unwrap();
    let source = Source::git(&Config::from_environment().unwrap(), roots.admit(path)?)?;
    let image = place.path("bound.erofs");
    drop(fs::remove_file(&image));
    crate::making::build(&source, &image)
}

#[test]
fn s9_no_repository_leads_out_of_the_roots() {
    let place = Place::new();
    let home = sample(&place, "home");
    let main = sample(&place, "main");
    let project = place.dir("home/project");
    place.file("home/project/file", "x");
    let linked = place.path("linked");
    git(&place, &main, &["worktree", "add", "-q", linked.to_str().unwrap(), "other"]);
    let lent = place.path("lent");
    let url = main.to_str().unwrap();
    git(&place, &place.path(""), &["clone", "-q", "--shared", url, lent.to_str().unwrap()]);
    for (root, outside) in [
        // The work tree, the repository, and whoever lends it objects.
        (&project, home.clone()),
        (&linked, main.join(".git/worktrees/linked")),
        (&lent, main.join(".git/objects")),
    ] {
        let error = bound(&place, std::slice::from_ref(root), root).expect_err("outside");
        let outside = outside.canonicalize().unwrap().display().to_string();
        assert!(error.message().contains(&outside), "{error}");
        let hint = error.next_step().unwrap();
        assert!(hint.contains(&format!("--root {outside}")), "{hint}");
        bound(&place, &[root.clone(), home.clone(), main.clone()], root).unwrap();
    }
}

#[test]
fn s9_what_is_borrowed_within_the_roots_comes_along() {
    let place = Place::new();
    let origin = sample(&place, "origin");
    let first = place.path("first");
    let url = origin.to_str().unwrap();
    git(&place, &place.path(""), &["clone", "-q", "--shared", url, "first"]);
    let url = first.to_str().unwrap();
    git(&place, &place.path(""), &["clone", "-q", "--shared", url, "clone"]);
    let clone = place.path("clone");
    let shown_there = shown(&place, &clone);
    let roots = Roots::below(&[place.path("")]).unwrap();
    let admitted = roots.admit(&clone).unwrap();
    let source = Source::git(&Config::from_environment().unwrap(), admitted).unwrap();
    let (_, tree) = place.seed(&source);
    let guest = place.path("guest");
    unpack(&tree, &guest);
    fs::remove_dir_all(&origin).unwrap();
    fs::remove_dir_all(&first).unwrap();
    assert_eq!(shown(&place, &guest), shown_there);
}

#[test]
fn s9_a_link_in_the_place_of_a_submodule_is_only_a_link() {
    let place = Place::new();
    let library = sample(&place, "library");
    let private = sample(&place, "private");
    let top = sample(&place, "top");
    let url = library.to_str().unwrap();
    git(&place, &top, &["submodule", "--quiet", "add", url, "library"]);
    git(&place, &top, &["commit", "-qm", "submodule"]);
    fs::remove_dir_all(top.join("library")).unwrap();
    symlink(&private, top.join("library")).unwrap();
    let guest = seeded(&place, &top);
    assert_eq!(fs::read_link(guest.join("library")).unwrap(), private);
}
