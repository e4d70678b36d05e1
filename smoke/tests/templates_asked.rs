//! Who asks for a boot gets one, everybody is told which it was, and a template is
//! only for what it was made of.

use pyro_smoke::templates::{Ran, Template};
use pyro_smoke::{Home, on_path, stdout};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The least that a guest can have.
const SMALL: &str = "128";

fn command(home: &Home, options: &[&str]) -> Command {
    home.pyro([&["run", "--json"], options, &["debian:12", "--", "echo", "well"]].concat())
}

fn ran(command: &mut Command) -> bool {
    let ran = Ran::of(&command.output().expect("pyro starts"));
    assert_eq!((ran.said.as_str(), ran.warnings.as_str()), ("well\n", ""));
    ran.restored
}

#[test]
fn who_asks_for_a_boot_gets_one() {
    let home = Home::with_templates_of_its_own();
    let off = |word: &str| {
        let mut command = command(&home, &["--mem-mib", SMALL]);
        command.env("PYRO_TEMPLATES", word);
        command
    };
    assert!(!ran(&mut command(&home, &["--mem-mib", SMALL, "--cold"])));
    assert!(!ran(&mut off("off")));
    assert_eq!(home.templates(), [], "neither made one");
    assert!(ran(&mut command(&home, &["--mem-mib", SMALL])));
    let made = home.template();
    // Though there is one.
    assert!(!ran(&mut command(&home, &["--mem-mib", SMALL, "--cold"])));
    assert!(!ran(&mut off("off")));
    assert!(ran(&mut off("on")));
    let refused = off("nonsense").output().expect("pyro starts");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let told = String::from_utf8_lossy(&refused.stdout);
    assert!(told.contains("PYRO_TEMPLATES"), "{told}");
    assert_eq!(home.templates(), [made]);
    home.expect_clean_within(Duration::from_secs(2));
}

#[test]
fn a_workspace_says_each_time_whether_it_was_restored() {
    let home = Home::with_templates_of_its_own();
    let pyro = |words: &[&str]| {
        stdout(&home.pyro([&["workspace"], words].concat()).output().expect("pyro starts"))
    };
    let restored = || {
        let status: Value = serde_json::from_str(&pyro(&["status", "w", "--json"])).expect("JSON");
        status["machine"]["restored"].as_bool().unwrap_or_else(|| panic!("{status}"))
    };
    pyro(&["create", "debian:12", "--name", "w", "--mem-mib", SMALL]);
    assert!(restored());
    let mut wanted = vec![true];
    // A start is of one that is stopped.
    let mut again = |words: &[&str], is_restored: bool| {
        pyro(&["exec", "w", "--shell", "echo kept > /root/kept; sync"]);
        if words[0] == "start" {
            pyro(&["stop", "w"]);
        }
        pyro(words);
        assert_eq!(restored(), is_restored, "{words:?}");
        let kept = if words[0] == "start" { "kept\n" } else { "" };
        assert_eq!(pyro(&["exec", "w", "--shell", "cat /root/kept 2> /dev/null || true"]), kept);
        wanted.push(is_restored);
    };
    again(&["start", "w"], true);
    again(&["start", "w", "--cold"], false);
    again(&["reset", "w"], true);
    again(&["reset", "w", "--cold"], false);
    again(&["start", "w"], true);
    let events = pyro(&["events", "w"]);
    let starts = events.lines().filter(|line| line.contains("started within"));
    let told: Vec<_> = starts.map(|line| line.ends_with("from a template")).collect();
    assert_eq!(told, wanted, "{events}");
    pyro(&["delete", "w"]);
    pyro(&["create", "debian:12", "--name", "w", "--mem-mib", SMALL, "--cold"]);
    assert!(!restored());
    pyro(&["delete", "w"]);
    drop(home.template());
    home.expect_clean_within(Duration::from_secs(2));
}

/// Another machine, kernel, environment or VMM has another template; each keeps its
/// own.
#[test]
fn a_template_is_only_for_what_it_was_made_of() {
    let home = Home::with_templates_of_its_own();
    let mut known: Vec<Template> = Vec::new();
    let mut new_one = |command: &mut Command, what: &str| {
        for _ in 0..2 {
            assert!(ran(command), "{what}");
        }
        let all = home.templates();
        assert_eq!(all.len(), known.len() + 1, "{what} has one of its own, and only one");
        assert!(known.iter().all(|one| all.contains(one)), "{what} takes nobody's away");
        known = all;
    };
    new_one(&mut command(&home, &["--mem-mib", SMALL]), "the first");
    new_one(&mut command(&home, &["--mem-mib", "192"]), "another size");
    new_one(&mut command(&home, &["--mem-mib", SMALL, "--vcpu-count", "2"]), "two processors");
    let mut stock = command(&home, &["--mem-mib", SMALL]);
    new_one(stock.env("PYRO_KERNEL", "stock"), "another kernel");
    let mut base = home.pyro(["run", "--json", "--mem-mib", SMALL, "debian:12-base", "--"]);
    new_one(base.args(["echo", "well"]), "another environment");
    // Whichever VMM it is that this host has, by another name.
    let mut elsewhere = command(&home, &["--mem-mib", SMALL]);
    for (name, program) in
        [("PYRO_QEMU", "qemu-system-x86_64"), ("PYRO_FIRECRACKER", "firecracker")]
    {
        let given = std::env::var_os(name).map(PathBuf::from);
        if let Some(program) = given.or_else(|| on_path(program)) {
            // Still beside what it needs.
            let directory = program.parent().expect("it is in a directory");
            let again = Path::new("..").join(directory.file_name().expect("a name"));
            let other = directory.join(again).join(program.file_name().expect("a file"));
            elsewhere.env(name, other);
        }
    }
    new_one(&mut elsewhere, "another VMM");
    // What came first is as good as ever.
    assert!(ran(&mut command(&home, &["--mem-mib", SMALL])));
    let mut kept = home.templates();
    kept.retain(|one| !known.contains(one));
    assert_eq!(kept, [], "nothing was made again");
    home.expect_clean_within(Duration::from_secs(2));
}
