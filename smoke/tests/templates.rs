//! Guests that are restored from one template have nothing in common, and what
//! they do to themselves they do to nobody else.

#[path = "templates/canary.rs"]
mod canary;

use pyro_smoke::clock::{ANSWERING, CLOCK_TOLERANCE, clock_error};
use pyro_smoke::dice::Dice;
use pyro_smoke::templates::Ran;
use pyro_smoke::{Home, is_vmm, is_watcher, scaled, stderr, stdout};
use std::collections::{BTreeSet, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

const CROWD: u32 = 20;

/// The least that a guest can have: it is soon full.
const SMALL: [&str; 2] = ["--mem-mib", "128"];

/// A program of a guest's that keeps its canary in a variable, in memory, and on its
/// disk, tells who it is, and answers what the time is.
const KEEP: &str = "
read canary; echo $canary > /dev/shm/canary; echo $canary > /root/canary; sync
head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n'; echo
cat /etc/machine-id /proc/sys/kernel/random/boot_id; uname -n
echo $canary; cat /dev/shm/canary /root/canary
";

/// A guest that is asked.
struct Guest {
    child: Child,
    ask: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Guest {
    fn start(home: &Home, script: &str) -> Self {
        let words = ["run", "debian:12", "--", "bash", "-c", script];
        let mut child = home
            .pyro([&words[..1], &SMALL, &words[1..]].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("pyro starts");
        let ask = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, ask, answers }
    }

    fn tell(&mut self, line: &str) {
        self.ask.write_all(format!("{line}\n").as_bytes()).expect("the guest reads");
    }

    /// Its next line.
    fn answer(&mut self) -> String {
        match self.answers.next() {
            Some(line) => line.expect("UTF-8"),
            None => {
                let mut said = String::new();
                let mut errors = self.child.stderr.take().expect("piped");
                drop(std::io::Read::read_to_string(&mut errors, &mut said));
                panic!("the guest ended: {said}");
            }
        }
    }

    fn end(self) {
        let Self { child, ask, answers } = self;
        drop((ask, answers));
        let output = child.wait_with_output().expect("pyro ends");
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stderr(&output), "");
    }
}

/// All of them, which are different.
fn different<T: Eq + Hash + Debug>(all: impl IntoIterator<Item = T>) {
    let mut seen = HashSet::new();
    for one in all {
        assert!(!seen.contains(&one), "two guests have {one:?}");
        seen.insert(one);
    }
}

#[test]
fn many_at_once_make_one_template_and_are_different_machines() {
    let home = Home::with_templates_of_its_own();
    let mut dice = Dice::new();
    let canaries: Vec<_> = (0..scaled(CROWD, 4)).map(|_| canary::new(&mut dice)).collect();
    let script = KEEP.to_owned() + ANSWERING;
    let mut guests: Vec<_> = canaries.iter().map(|_| Guest::start(&home, &script)).collect();
    for (guest, canary) in guests.iter_mut().zip(&canaries) {
        guest.tell(canary);
    }
    let identities: Vec<[String; 4]> =
        guests.iter_mut().map(|guest| [(); 4].map(|()| guest.answer())).collect();
    for (kind, what) in ["random bytes", "machine id", "boot id", "host name"].iter().enumerate() {
        different(identities.iter().map(|identity| (what, &identity[kind])));
    }
    for (guest, canary) in guests.iter_mut().zip(&canaries) {
        for place in ["variable", "memory", "disk"] {
            assert_eq!(guest.answer(), *canary, "its own, in its {place}");
        }
    }
    let made = home.template();
    // All of them are up, and none has another's.
    nobody_has_anothers(&home, &canaries);
    let content = made.content();
    let errors: Vec<_> = guests.into_iter().map(|guest| thread::spawn(|| end(guest))).collect();
    for (number, error) in errors.into_iter().enumerate() {
        let error = error.join().expect("no panic");
        assert!(error < CLOCK_TOLERANCE, "guest {number}'s clock is at least {error} s off");
    }
    home.expect_clean_within(Duration::from_secs(2));
    assert_eq!(made.content(), content, "nobody wrote to it");
    for name in ["memory", "state"] {
        assert_eq!(canary::in_file(&made.file(name)), BTreeSet::new(), "{name} of the template");
    }
    assert_eq!(home.template(), made);
    // Had one been of no use to anybody, it would say so.
    let noted = made.0.with_extension("json");
    assert!(!noted.exists(), "{:?}", std::fs::read_to_string(&noted));
    assert_eq!(home.staged(), Vec::<PathBuf>::new());
}

/// Asks a guest for the time, and ends it.
fn end(mut guest: Guest) -> f64 {
    let Guest { ask, answers, .. } = &mut guest;
    let error = clock_error(ask, || answers.next().expect("a line").expect("UTF-8"));
    guest.end();
    error
}

/// Every VMM has one canary in its memory, every workspace one on its disk.
fn nobody_has_anothers(home: &Home, canaries: &[String]) {
    let all: BTreeSet<_> = canaries.iter().cloned().collect();
    let one_each = |what: &str, found: Vec<BTreeSet<String>>| {
        assert_eq!(found.len(), all.len(), "{what} of each");
        let more = found.iter().find(|found| found.len() != 1);
        assert!(more.is_none(), "{what} of one guest has {more:?}");
        assert_eq!(found.into_iter().flatten().collect::<BTreeSet<_>>(), all, "{what}");
    };
    let workspaces = home.leftovers();
    let disks = workspaces.iter().map(|it| canary::in_file(&it.join("disk.ext4"))).collect();
    one_each("the disk", disks);
    // Others' memory is root's to read.
    if rustix::process::geteuid().is_root() {
        let processes = home.processes();
        let vmms = processes.iter().filter(|(pid, line)| is_vmm(line) && !is_watcher(*pid));
        let search = |(pid, _): &(u32, String)| canary::in_process(*pid).expect("it is readable");
        one_each("the memory", vmms.map(search).collect());
    }
}

/// The scale at which these are a thousand is 2500.
const PRESSED: u32 = 40;

/// Guests at once that fill themselves.
const PRESSED_AT_ONCE: u32 = 2;

/// Fills most of the guest's memory, gives it back, forgets what was read, and
/// reads again what the template had in memory.
const PRESS: &str = "
set -e
mount -t tmpfs -o size=100% none /mnt
kib=$(awk '/MemAvailable/ { print int($2 * 8 / 10) }' /proc/meminfo)
yes pressed | head -c ${kib}k > /mnt/full
[ $(stat -c %s /mnt/full) -gt $((48 << 20)) ]
umount /mnt
echo 3 > /proc/sys/vm/drop_caches
cat /usr/bin/bash /usr/bin/git /usr/bin/perl /usr/lib/x86_64-linux-gnu/*.so | sha256sum
";

#[test]
fn guests_that_fill_their_memory_change_nothing_for_others() {
    let home = Home::with_templates_of_its_own();
    let run = || {
        let words = ["run", "--json", "debian:12", "--", "bash", "-c", PRESS];
        let words = [&words[..1], &SMALL, &words[1..]].concat();
        Ran::of(&home.pyro(words).output().expect("pyro starts"))
    };
    // What a guest says that has no template.
    let cold = ["run", "--cold", "debian:12", "--", "bash", "-c", PRESS];
    let cold = [&cold[..1], &SMALL, &cold[1..]].concat();
    let wanted = stdout(&home.pyro(cold).output().expect("pyro starts"));
    let first = run();
    assert!(first.restored, "{}", first.warnings);
    let (made, content) = (home.template(), home.template().content());
    let left = Mutex::new(scaled(PRESSED, PRESSED_AT_ONCE));
    let take = || {
        let mut left = left.lock().expect("no panic");
        *left = left.checked_sub(1)?;
        Some(())
    };
    thread::scope(|scope| {
        for _ in 0..PRESSED_AT_ONCE {
            scope.spawn(|| {
                while take().is_some() {
                    let ran = run();
                    assert_eq!((ran.said.as_str(), ran.warnings.as_str()), (wanted.as_str(), ""));
                    assert!(ran.restored);
                }
            });
        }
    });
    home.expect_clean_within(Duration::from_secs(2));
    assert_eq!(made.content(), content, "nobody wrote to it");
    assert_eq!(home.template(), made);
}
