//! What happens to templates: they are altered, taken away, or half made. None but
//! a whole one is ever run, and whoever wants one has one.

use pyro_smoke::dice::Dice;
use pyro_smoke::templates::{Ran, Template, position};
use pyro_smoke::{Home, patient, scaled, stderr, stdout};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, File, FileTimes, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The least that a guest can have: it is soon read.
const MEM_MIB: [&str; 2] = ["--mem-mib", "128"];

/// Which kernel runs, as its memory says.
const ASK: [&str; 3] = ["--", "uname", "-r"];

fn pyro(home: &Home, words: &[&[&str]]) -> Output {
    home.pyro(words.concat()).output().expect("pyro starts")
}

fn run(home: &Home, options: &[&str]) -> Ran {
    let words = [&["run", "--json"][..], &MEM_MIB, options, &["debian:12"], &ASK];
    Ran::of(&pyro(home, &words))
}

/// A workspace that is made and deleted: whether a template was restored for it, what
/// it was warned of, and which kernel it has.
fn create(home: &Home) -> Ran {
    let made = pyro(home, &[&["workspace", "create", "debian:12", "--name", "w"], &MEM_MIB]);
    assert!(made.status.success(), "{}", stderr(&made));
    let said = stdout(&pyro(home, &[&["workspace", "exec", "w"], &ASK]));
    let restored = restored(home);
    drop(stdout(&pyro(home, &[&["workspace", "delete", "w"]])));
    Ran { said, restored, warnings: stderr(&made) }
}

fn restored(home: &Home) -> bool {
    let status = stdout(&pyro(home, &[&["workspace", "status", "w", "--json"]]));
    let status: Value = serde_json::from_str(&status).expect("JSON");
    status["machine"]["restored"].as_bool().unwrap_or_else(|| panic!("{status}"))
}

/// A template that is proven, and what its guests say.
fn made(home: &Home) -> (Template, String) {
    let kernel = run(home, &["--cold"]);
    assert!(!kernel.restored && home.templates().is_empty());
    // The second one finds it on the shelf, and stamps it.
    for _ in 0..2 {
        let made = create(home);
        assert_eq!((made.restored, &made.said), (true, &kernel.said));
    }
    let template = home.template();
    for stamp in ["memory.verified", "state.verified"] {
        assert!(template.file(stamp).is_file(), "{stamp} is there to be deceived");
    }
    (template, kernel.said)
}

/// Which one has the name: when it was made, among others.
fn which(template: &Template) -> String {
    fs::read_to_string(template.file("template.json")).expect("it is there")
}

/// The template was harmed: that is told once, another one is made, and from it all
/// goes on.
fn expect_another(home: &Home, before: &str, kernel: &str, what: &str) {
    let next = create(home);
    assert_eq!(next.said, kernel, "{what}: it was run");
    assert!(next.warnings.contains("is not what it was"), "{what}: {:?}", next.warnings);
    assert!(next.restored, "{what}: from another one");
    expect_the_same_from_now_on(home, Some(before), kernel, what);
}

fn expect_the_same_from_now_on(home: &Home, before: Option<&str>, kernel: &str, what: &str) {
    let now = home.template();
    assert_ne!(Some(which(&now).as_str()), before, "{what}: it stayed");
    let made = which(&now);
    let after = create(home);
    assert!(!after.warnings.contains("warning"), "{what}: {}", after.warnings);
    assert_eq!((after.restored, after.said.as_str()), (true, kernel), "{what}");
    assert_eq!(which(&home.template()), made, "{what}: it is kept");
    drop(now.content());
    assert_eq!(home.staged(), Vec::<PathBuf>::new(), "{what}");
}

/// Changes a file in place as its owner can, and sets back what time it tells.
fn alter(file: &Path, change: impl FnOnce(&mut File)) {
    let before = file.metadata().expect("it is there");
    fs::set_permissions(file, Permissions::from_mode(0o644)).expect("it is ours");
    let mut open = File::options().read(true).write(true).open(file).expect("it is ours");
    change(&mut open);
    let times = FileTimes::new().set_modified(before.modified().expect("a time"));
    open.set_times(times).expect("it is ours");
    fs::set_permissions(file, before.permissions()).expect("it is ours");
    let after = file.metadata().expect("it is there");
    assert_eq!(after.modified().expect("a time"), before.modified().expect("a time"));
}

/// Changes one byte wherever this is.
fn alter_at_each(file: &mut File, needle: &[u8]) {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("it is readable");
    let text = needle.to_vec();
    let mut count = 0;
    let mut at = 0;
    while let Some(found) = position(&bytes[at..], &text) {
        let last = at + found + needle.len() - 1;
        file.seek(SeekFrom::Start(last as u64)).expect("it is a file");
        file.write_all(b"!").expect("it is writable");
        at = last + 1;
        count += 1;
    }
    assert!(count > 0, "the kernel knows its name");
}

fn alter_byte(file: &mut File, at: u64) {
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).expect("it is a file");
    file.read_exact(&mut byte).expect("it is there");
    file.seek(SeekFrom::Start(at)).expect("it is a file");
    file.write_all(&[byte[0] ^ 1]).expect("it is writable");
}

#[test]
fn one_that_is_altered_is_never_run() {
    let home = Home::with_templates_of_its_own();
    let (template, kernel) = made(&home);
    let harm = |what: &str, name: &str, change: &dyn Fn(&mut File)| {
        let before = which(&template);
        alter(&template.file(name), change);
        expect_another(&home, &before, &kernel, what);
    };
    // A guest that begins with it says so.
    let name = kernel.trim().as_bytes();
    harm("bytes of its memory", "memory", &|file| alter_at_each(file, name));
    harm("a byte of its state", "state", &|file| alter_byte(file, 4000));
    harm("its memory is cut", "memory", &|file| file.set_len(64 << 20).expect("ours"));
    harm("its memory is emptied", "memory", &|file| file.set_len(0).expect("ours"));
    harm("its state is cut", "state", &|file| file.set_len(4096).expect("ours"));
    harm("its state is emptied", "state", &|file| file.set_len(0).expect("ours"));
    harm("its record is emptied", "template.json", &|file| file.set_len(0).expect("ours"));
    home.expect_clean_within(Duration::from_secs(2));
}

/// Times and stamps are copied along; the kernel's own time of change is not.
#[test]
fn a_copy_is_believed_only_when_it_was_read() {
    let home = Home::with_templates_of_its_own();
    let (template, kernel) = made(&home);
    let copy = home.path().join("copy");
    let take_the_copy = |change: &dyn Fn(&Path)| {
        let from = format!("{}/.", template.0.display());
        let copied = Command::new("cp").args(["-a", "--sparse=always", &from]).arg(&copy).output();
        drop(stdout(&copied.expect("cp starts")));
        change(&copy);
        fs::remove_dir_all(&template.0).expect("it is ours");
        fs::rename(&copy, &template.0).expect("it is ours");
        which(&template)
    };
    let name = kernel.trim().as_bytes();
    let altered = take_the_copy(&|copy| {
        alter(&copy.join("memory"), |file| alter_at_each(file, name));
    });
    expect_another(&home, &altered, &kernel, "a copy that was altered");
    // One that was not is as good.
    let same = take_the_copy(&|_| {});
    let next = create(&home);
    assert!(!next.warnings.contains("warning"), "{}", next.warnings);
    assert_eq!((next.restored, next.said.as_str()), (true, kernel.as_str()));
    assert_eq!(which(&home.template()), same, "it is kept");
    home.expect_clean_within(Duration::from_secs(2));
}

#[test]
fn one_that_is_taken_away_is_made_again() {
    let home = Home::with_templates_of_its_own();
    let (template, kernel) = made(&home);
    for name in ["memory", "state", "template.json"] {
        let before = which(&template);
        fs::remove_file(template.file(name)).expect("it is ours");
        expect_another(&home, &before, &kernel, &format!("{name} is missing"));
    }
    let before = which(&template);
    for file in fs::read_dir(&template.0).expect("it is there").flatten() {
        fs::remove_file(file.path()).expect("it is ours");
    }
    expect_another(&home, &before, &kernel, "nothing is in it");
    // Whoever was restored from it goes on without it.
    let guest = pyro(&home, &[&["workspace", "create", "debian:12", "--name", "guest"], &MEM_MIB]);
    assert!(guest.status.success(), "{}", stderr(&guest));
    let read = "echo 3 > /proc/sys/vm/drop_caches; cat /usr/bin/git | sha256sum; uname -r";
    let read = || stdout(&pyro(&home, &[&["workspace", "exec", "guest", "--shell", read]]));
    let said = read();
    fs::remove_dir_all(&template.0).expect("it is ours");
    // It is not missed, and made without a word.
    let next = create(&home);
    assert!(!next.warnings.contains("warning"), "{}", next.warnings);
    assert_eq!((next.restored, next.said.as_str()), (true, kernel.as_str()));
    expect_the_same_from_now_on(&home, None, &kernel, "all of it was removed");
    assert_eq!(read(), said);
    assert!(said.ends_with(&kernel), "{said}");
    drop(stdout(&pyro(&home, &[&["workspace", "delete", "guest"]])));
    home.expect_clean_within(Duration::from_secs(2));
}

/// Whoever makes one is killed at any moment: the command, or a supervisor.
#[test]
fn r9_one_that_is_half_made_is_not_there() {
    let home = Home::with_templates_of_its_own();
    let mut dice = Dice::new();
    let started = Instant::now();
    let kernel = run(&home, &[]).said;
    let whole = started.elapsed();
    let words = [&["run"][..], &MEM_MIB, &["debian:12"], &ASK].concat();
    let mut half = 0;
    for number in 0..scaled(10, 4) {
        for template in home.templates() {
            fs::remove_dir_all(&template.0).expect("it is ours");
        }
        let mut command = home.pyro(&words);
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("pyro starts");
        sleep(dice.part_of(whole));
        if number % 2 == 0 {
            // It may have ended by itself, which is one of the moments.
            drop(child.kill());
        } else {
            let is_supervisor = |line: &str| line.contains("__supervise");
            for (pid, _) in home.processes().into_iter().filter(|(_, line)| is_supervisor(line)) {
                let pid = Pid::from_raw(pid.cast_signed()).expect("a process id");
                // This, too.
                let (Ok(()) | Err(_)) = kill_process(pid, Signal::KILL);
            }
        }
        child.wait().expect("it ends");
        // What runs of it has only to end.
        let deadline = Instant::now() + patient(Duration::from_secs(10));
        while !home.processes().is_empty() {
            assert!(Instant::now() < deadline, "{:?}", home.processes());
            sleep(Duration::from_millis(20));
        }
        half += home.staged().len();
        for template in home.templates() {
            // Whole, or not there.
            drop(template.content());
        }
        let next = run(&home, &[]);
        assert_eq!((next.restored, &next.said), (true, &kernel));
        drop(home.template().content());
        home.expect_clean_within(Duration::from_secs(5));
    }
    eprintln!("{half} were left half made");
    home.return_what_is_borrowed();
    drop(stdout(&pyro(&home, &[&["env", "prune"]])));
    assert_eq!(home.staged(), Vec::<PathBuf>::new(), "that is swept");
}
