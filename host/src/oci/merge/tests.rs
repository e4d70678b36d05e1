use super::*;
use crate::seed::entry::BadPath;
use proptest::prelude::*;

fn member(name: &str, kind: MemberKind) -> Member {
    let (mode, mtime) = (0o644, Mtime::default());
    Member { name: name.into(), mode, mtime, owner: (0, 0), xattrs: Vec::new(), kind }
}

fn file(name: &str, size: u64) -> Member {
    member(name, MemberKind::File(size))
}

fn symlink(name: &str, target: &str) -> Member {
    member(name, MemberKind::Symlink(target.into()))
}

fn link(name: &str, target: &str) -> Member {
    member(name, MemberKind::HardLink(target.into()))
}

fn directory(name: &str) -> Member {
    member(name, MemberKind::Directory)
}

fn merged(layers: &[&[Member]]) -> Result<Merged, Misfit> {
    let mut merged = Merged::new();
    for layer in layers {
        merged.begin_layer();
        for (ordinal, member) in (0..).zip(*layer) {
            merged.apply(member, ordinal)?;
        }
    }
    Ok(merged)
}

/// What is in a tree, a line each.
fn lines(merged: &Merged) -> Vec<String> {
    let mut lines = Vec::new();
    let told = merged.visit(|visit| {
        let what = match (&visit.node.body, visit.first) {
            (_, Some(first)) => format!("is {first}"),
            (Body::Directory(_), None) => "/".into(),
            (Body::File { size, .. }, None) => size.to_string(),
            (Body::Symlink(target), None) => format!("-> {}", String::from_utf8_lossy(target)),
        };
        lines.push(format!("{} {what}", visit.path));
        Ok::<_, BadPath>(())
    });
    told.expect("short paths");
    lines.sort();
    lines
}

fn told(layers: &[&[Member]]) -> Vec<String> {
    lines(&merged(layers).expect("they fit"))
}

#[test]
fn whiteouts_take_away_what_is_lower() {
    let lower = [directory("d"), file("d/a", 1), file("d/b", 2), file("e", 3)];
    let one = [file("d/.wh.a", 0), file(".wh.e", 0), file(".wh.nothing", 0), file("no/.wh.x", 0)];
    assert_eq!(told(&[&lower, &one]), ["d /", "d/b 2"]);
    // What the same layer has stays, before the marker or behind it.
    let all = [file("d/c", 4), file("d/.wh..wh..opq", 0), file("d/e/f", 5)];
    assert_eq!(told(&[&lower, &all]), ["d /", "d/c 4", "d/e /", "d/e/f 5", "e 3"]);
    let again = [file("d/g/h", 6), file(".wh.d", 0)];
    assert_eq!(told(&[&lower, &again]), ["d /", "d/g /", "d/g/h 6", "e 3"]);
    let notes = [file(".wh..wh.aufs", 0), directory(".wh..wh.plnk")];
    assert_eq!(told(&[&lower, &notes]).len(), 4);
}

#[test]
fn the_last_of_a_name_counts() {
    let lower = [directory("d"), file("d/a", 1), file("f", 2)];
    assert_eq!(told(&[&lower, &[file("d", 3)]]), ["d 3", "f 2"]);
    assert_eq!(told(&[&lower, &[file("f/", 0)]]), ["d /", "d/a 1", "f 0"]);
    assert_eq!(told(&[&[file("x", 1), file("x", 2), file("./x", 3)]]), ["x 3"]);
    assert_eq!(told(&[&lower, &[directory("d")]]), ["d /", "d/a 1", "f 2"]);
}

#[test]
fn links_on_the_way_lead_within() {
    let lower = [directory("usr/lib"), symlink("lib", "usr/lib"), symlink("up", "../../../usr")];
    let upper = [file("lib/x", 1), file("up/y", 2), file("/abs", 3)];
    let all = ["abs 3", "lib -> usr/lib", "up -> ../../../usr", "usr /", "usr/lib /"];
    let lines = told(&[&lower, &upper]);
    assert_eq!(lines, [&all[..], &["usr/lib/x 1", "usr/y 2"]].concat());
    let nowhere = [symlink("l", "/a/b"), file("l/c", 1)];
    assert_eq!(told(&[&nowhere]), ["a /", "a/b /", "a/b/c 1", "l -> /a/b"]);
    let loops = [symlink("a", "b"), symlink("b", "a"), file("a/x", 1)];
    assert_eq!(merged(&[&loops]).expect_err("a loop"), Misfit::Links);
    // A link that takes a directory's place is not written through.
    let swapped = [directory("d"), symlink("d", "/etc"), file("d/passwd", 7)];
    assert_eq!(told(&[&swapped]), ["d -> /etc", "etc /", "etc/passwd 7"]);
}

#[test]
fn hard_links_reach_across_layers() {
    let lower = [file("a", 1), directory("d")];
    assert_eq!(told(&[&lower, &[link("d/b", "/a")]]), ["a 1", "d /", "d/b is a"]);
    // Another file under one of the names leaves the other as it was.
    let upper = [link("b", "a"), file("a", 2)];
    assert_eq!(told(&[&lower, &upper]), ["a 2", "b 1", "d /"]);
    assert_eq!(told(&[&lower, &[link("a", "./a")]]), ["a 1", "d /"]);
    for bad in [link("b", "d"), link("b", "no"), link("b", "no/a"), link("b", "")] {
        assert_eq!(merged(&[&lower, &[bad]]).expect_err("no file"), Misfit::HardLink);
    }
}

#[test]
fn what_fits_no_tree_is_refused() {
    let long = "n".repeat(256);
    let deep = "d/".repeat(DEPTH_MAX);
    for (bad, why) in [
        (file("a/../b", 1), Misfit::Dots),
        (link("b", "../x"), Misfit::Dots),
        (file(&long, 1), Misfit::Name),
        (symlink("s", ""), Misfit::Name),
        (file(&deep, 1), Misfit::Deep),
        (file("/", 1), Misfit::Root),
        (file("x/y", 1), Misfit::BelowFile),
        (file(".wh.", 0), Misfit::Whiteout),
        (file(".wh...", 0), Misfit::Whiteout),
    ] {
        let name = String::from_utf8_lossy(&bad.name).into_owned();
        assert_eq!(merged(&[&[file("x", 1), bad]]).expect_err(&name), why, "{name}");
    }
    let skipped = merged(&[&[member("dev/null", MemberKind::Other("it is a device"))]]);
    assert!(lines(&skipped.expect("it is left out")).is_empty());
}

#[test]
fn work_that_a_few_bytes_ask_for_is_bounded() {
    let mut merged = Merged::new();
    merged.begin_layer();
    for index in 0..10_000 {
        merged.apply(&file(&format!("d/{index}"), 1), index).expect("it fits");
    }
    merged.steps_left = 1_000_000;
    let opaque = file("d/.wh..wh..opq", 0);
    let ended = (0..1000).find_map(|index| merged.apply(&opaque, index).err());
    assert_eq!(ended, Some(Misfit::Tangled));
}

#[test]
fn only_what_a_base_may_have_is_kept_of_attributes() {
    let mut odd = file("f", 1);
    let attribute = |name: &str| (name.as_bytes().to_vec(), b"v".to_vec());
    odd.xattrs = ["user.a", "security.capability", "trusted.overlay.redirect", "security.selinux"]
        .map(attribute)
        .to_vec();
    let kept = attributes_of(&odd).expect("they fit").xattrs;
    let kept: Vec<_> = kept.iter().map(|kept| (kept.space, &*kept.name)).collect();
    let capability = (XattrSpace::Security, &b"capability"[..]);
    assert_eq!(kept, [(XattrSpace::User, &b"a"[..]), capability]);
    odd.xattrs.push((b"user.b".to_vec(), vec![0; XATTRS_MAX]));
    assert_eq!(attributes_of(&odd), Err(Misfit::Xattrs));
}

#[test]
fn attributes_count_for_the_memory_that_they_take() {
    let mut merged = Merged::new();
    merged.names_left = 1000;
    let mut odd = file("f", 1);
    odd.xattrs = (0..10).map(|index| (format!("user.{index}").into_bytes(), vec![0])).collect();
    assert_eq!(merged.apply(&odd, 0), Err(Misfit::TooMany));
    odd.xattrs.truncate(9);
    assert_eq!(merged.apply(&odd, 0), Ok(Applied::Taken));
}

/// The same by another way: paths as text, and what each is.
#[derive(Default)]
struct Model(BTreeMap<String, (u32, Option<u64>)>);

impl Model {
    fn apply(&mut self, member: &Member, layer: u32) -> Result<(), ()> {
        let name = String::from_utf8(member.name.clone()).expect("text");
        let (parent, last) = name.rsplit_once('/').unwrap_or(("", &name));
        let ancestors: Vec<String> = (0..=parent.matches('/').count())
            .map(|depth| parent.split('/').take(depth + 1).collect::<Vec<_>>().join("/"))
            .filter(|path| !path.is_empty())
            .collect();
        let is_file = |path: &String| self.0.get(path).is_some_and(|(_, size)| size.is_some());
        // A file on the way blocks, unless something before it is not there.
        let there = ancestors.iter().take_while(|path| self.0.contains_key(*path));
        if there.clone().any(is_file) {
            return Err(());
        }
        if let Some(hidden) = last.strip_prefix(".wh.") {
            let below = if hidden == ".wh..opq" {
                if parent.is_empty() { String::new() } else { format!("{parent}/") }
            } else if parent.is_empty() {
                hidden.to_owned()
            } else {
                format!("{parent}/{hidden}")
            };
            let is_hit = |path: &str| {
                hidden == ".wh..opq" && path.starts_with(&below)
                    || path == below
                    || path.starts_with(&format!("{below}/"))
            };
            let stays: Vec<String> = self
                .0
                .iter()
                .filter(|(path, (its, _))| !is_hit(path) || *its == layer)
                .map(|(path, _)| path.clone())
                .collect();
            self.0.retain(|path, _| {
                let has = |kept: &String| kept.starts_with(&format!("{path}/"));
                stays.contains(path) || stays.iter().any(has)
            });
            return Ok(());
        }
        for path in ancestors {
            self.0.entry(path).or_insert((layer, None));
        }
        let size = if let MemberKind::File(size) = member.kind { Some(size) } else { None };
        let is_directory =
            |known: Option<&(u32, Option<u64>)>| known.is_some_and(|(_, s)| s.is_none());
        if size.is_some() || !is_directory(self.0.get(&name)) {
            let below = format!("{name}/");
            self.0.retain(|path, _| !path.starts_with(&below));
        }
        self.0.insert(name, (layer, size));
        Ok(())
    }

    fn lines(&self) -> Vec<String> {
        let told = |size: &Option<u64>| size.map_or("/".to_owned(), |size| size.to_string());
        let mut lines: Vec<_> =
            self.0.iter().map(|(path, (_, size))| format!("{path} {}", told(size))).collect();
        lines.sort();
        lines
    }
}

fn any_member() -> impl Strategy<Value = Member> {
    let path = prop::collection::vec("[abc]", 1..4).prop_map(|names| names.join("/"));
    (path, 0..5_u8, 1..100_u64).prop_map(|(path, kind, size)| {
        let (parent, last) = path.rsplit_once('/').unwrap_or(("", &path));
        let beside =
            |name: String| if parent.is_empty() { name } else { format!("{parent}/{name}") };
        match kind {
            0 => directory(&path),
            1 => file(&beside(format!(".wh.{last}")), 0),
            2 => file(&beside(".wh..wh..opq".into()), 0),
            _ => file(&path, size),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]
    #[test]
    fn layers_come_to_what_a_plain_model_says(
        layers in prop::collection::vec(prop::collection::vec(any_member(), 0..10), 0..5),
    ) {
        let (mut merged, mut model) = (Merged::new(), Model::default());
        for (number, layer) in (1..).zip(&layers) {
            merged.begin_layer();
            for (ordinal, member) in (0..).zip(layer) {
                let applied = merged.apply(member, ordinal).map(drop);
                prop_assert_eq!(applied.is_ok(), model.apply(member, number).is_ok(), "{:?}", member);
            }
        }
        prop_assert_eq!(lines(&merged), model.lines());
    }

    #[test]
    fn no_member_panics_or_leads_out(
        members in prop::collection::vec(("[ab./]{0,9}|\\PC{0,9}", "[ab./]{0,9}", 0..4_u8), 0..24),
    ) {
        let mut merged = Merged::new();
        merged.begin_layer();
        for (ordinal, (name, target, kind)) in (0..).zip(members) {
            drop(merged.apply(&match kind {
                0 => directory(&name),
                1 => symlink(&name, &target),
                2 => link(&name, &target),
                _ => file(&name, 1),
            }, ordinal));
        }
        // Every path is one of plain names below the root.
        drop(lines(&merged));
    }
}
