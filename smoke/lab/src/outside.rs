//! On the bare machine: makes the kit, starts emulated hosts, hands out stories.

use crate::elsewhere;
use crate::emulated_host::EmulatedHost;
use crate::kit::Kit;
use crate::stories;
use crate::story::{Ask, Ending, Story, Told};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Emulated hosts at once; each keeps one processor busy.
const HOSTS_MAX: usize = 2;

/// The longest that a story may take.
const STORY_LIMIT_S: u64 = 300;

/// The longest that a benchmark may take.
const MEASURE_LIMIT_S: u64 = 1200;

/// Hosts that one place starts in turn, should they be lost.
const STARTS_MAX: u32 = 4;

/// Hosts that may be lost in all; a story that was being told is told again by
/// the next. No program can do that to a host that has its kernel: it is the
/// emulation that fails, now and then.
const LOST_MAX: usize = 2;

/// Stories that take long, so that none of them begins last.
const LONG: &[&str] = &["killed", "workspaces", "interruption"];

/// What is to be told and what was.
struct Session {
    waiting: Mutex<VecDeque<Story>>,
    told: Mutex<Vec<(Story, Told)>>,
    /// What each lost host was at, with its last words.
    lost: Mutex<Vec<(Story, String)>>,
    logs: PathBuf,
}

/// Tells every story with this in its name, each so often; whether all went well.
pub fn tell_stories(part: &str, times: usize) -> io::Result<bool> {
    let started = Instant::now();
    let (work, _lock) = workplace()?;
    eprintln!("==> build the stories");
    let programs = stories::programs()?;
    let mut waiting = Vec::new();
    for (program, path) in &programs {
        waiting.extend(stories::stories_of(program, path)?);
    }
    waiting.retain(|story| story.to_string().contains(part));
    waiting.retain(|story| match elsewhere::reason(story) {
        Some(why) => {
            println!("elsewhere  {story}: {why}");
            false
        }
        None => true,
    });
    let is_long = |story: &Story| LONG.contains(&story.program.as_str());
    waiting.sort_by_key(|story| (!is_long(story), story.clone()));
    let waiting: VecDeque<_> = std::iter::repeat_n(waiting, times).flatten().collect();
    let count = waiting.len();
    if count == 0 {
        return Err(io::Error::other(format!("no story has {part:?} in its name")));
    }
    let kit = Kit::make(&programs, &work)?;
    let logs = work.join("failures");
    if logs.exists() {
        fs::remove_dir_all(&logs)?;
    }
    let session = Session {
        waiting: Mutex::new(waiting),
        told: Mutex::default(),
        lost: Mutex::default(),
        logs,
    };
    let ready = Instant::now();
    let hosts = count.min(HOSTS_MAX).min(thread::available_parallelism()?.get());
    eprintln!("==> {count} stories in {hosts} emulated hosts");
    let served: Vec<_> = thread::scope(|scope| {
        let places: Vec<_> = (0..hosts).map(|number| work.join(format!("host-{number}"))).collect();
        let session = &session;
        let kit = &kit;
        let serving: Vec<_> = places
            .into_iter()
            .map(|place| scope.spawn(move || session.serve(kit, &place)))
            .collect();
        serving
            .into_iter()
            .map(|host| host.join().unwrap_or_else(|_| Err(io::Error::other("a panic"))))
            .collect()
    });
    session.report(count, ready.duration_since(started), ready.elapsed());
    for served in served {
        served?;
    }
    Ok(session.is_well(count))
}

/// Runs a program in an emulated host that has nothing else to do, and prints
/// what it prints.
pub fn measure(program: &Path, what: &str) -> io::Result<()> {
    let (work, _lock) = workplace()?;
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let kit = Kit::make(&[(name.clone(), program.to_owned())], &work)?;
    let (mut host, _) = EmulatedHost::start(&kit, &work.join("host-0"))?;
    let story = Story { program: name, test: what.to_owned() };
    let told = host.tell(&Ask { story, limit_s: MEASURE_LIMIT_S })?;
    print!("{}", told.output);
    if told.ending.is_good() { Ok(()) } else { Err(io::Error::other(told.ending.to_string())) }
}

/// Where everything is made, which is for one at a time.
fn workplace() -> io::Result<(PathBuf, File)> {
    let work = std::env::current_exe()?.with_file_name("lab");
    fs::create_dir_all(&work)?;
    let lock = File::create(work.join("lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
        |_| io::Error::other(format!("stories are being told already, in {}", work.display())),
    )?;
    Ok((work, lock))
}

impl Session {
    /// Has one story after the other told until none waits.
    fn serve(&self, kit: &Kit, place: &Path) -> io::Result<()> {
        for start in 1..=STARTS_MAX {
            let (mut host, up) =
                EmulatedHost::start(kit, place).map_err(|error| self.lost(place, &error, ""))?;
            let name = place.file_name().unwrap_or_default().to_string_lossy();
            eprintln!("==> {name} is up, {} ms after its kernel", up.uptime_ms);
            loop {
                let Some(story) = lock(&self.waiting).pop_front() else { return Ok(()) };
                let ask = Ask { story, limit_s: STORY_LIMIT_S };
                match host.tell(&ask) {
                    Ok(told) => self.take(ask.story, told)?,
                    Err(error) => {
                        let error = self.lost(place, &error, &host.describe());
                        self.lose(ask.story, &error)?;
                        if start == STARTS_MAX {
                            return Err(error);
                        }
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// A story whose host was lost is told again, once.
    fn lose(&self, story: Story, error: &io::Error) -> io::Result<()> {
        println!("   lost    {story}: its host does not answer");
        let mut lost = lock(&self.lost);
        let is_first = lost.len() < LOST_MAX && lost.iter().all(|(before, _)| *before != story);
        lost.push((story.clone(), error.to_string()));
        drop(lost);
        if is_first {
            lock(&self.waiting).push_back(story);
            return Ok(());
        }
        self.take(story, Told { ending: Ending::Badly, took_ms: 0, output: error.to_string() })
    }

    /// The error with the last words of the host.
    fn lost(&self, place: &Path, error: &io::Error, state: &str) -> io::Error {
        let mut said = format!("{} is lost: {error}\n{state}", place.display());
        for name in ["qemu.log", "console.log"] {
            let log = fs::read(place.join(name)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log[log.len().saturating_sub(4096)..]).into_owned();
            said += &format!("\n--- {name}\n{log}");
        }
        io::Error::other(said)
    }

    fn take(&self, story: Story, told: Told) -> io::Result<()> {
        let took = Duration::from_millis(told.took_ms).as_secs_f32();
        println!("{took:8.1} s  {story}: {}", told.ending);
        if !told.ending.is_good() {
            fs::create_dir_all(&self.logs)?;
            fs::write(self.logs.join(format!("{story}.log")), &told.output)?;
        }
        lock(&self.told).push((story, told));
        Ok(())
    }

    fn report(&self, count: usize, preparing: Duration, telling: Duration) {
        let told = lock(&self.told);
        let failures: Vec<_> = told.iter().filter(|(_, told)| !told.ending.is_good()).collect();
        for (story, told) in &failures {
            println!("\n=== {story}: {}\n{}", told.ending, told.output);
        }
        for (story, said) in lock(&self.lost).iter() {
            println!("\n=== a host was lost at {story}, which was told again:\n{said}");
        }
        for (words, why) in elsewhere::ELSEWHERE {
            println!("told on the bare machine only: {words}: {why}");
        }
        println!(
            "{} of {count} stories went well on Firecracker; {:.0} s, and {:.0} s to prepare{}",
            told.len() - failures.len(),
            telling.as_secs_f32(),
            preparing.as_secs_f32(),
            if failures.is_empty() {
                String::new()
            } else {
                format!("; see {}", self.logs.display())
            },
        );
    }

    fn is_well(&self, count: usize) -> bool {
        let told = lock(&self.told);
        told.len() == count && told.iter().all(|(_, told)| told.ending.is_good())
    }
}

/// What was pushed is whole, whoever panicked meanwhile.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
