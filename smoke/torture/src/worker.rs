//! One who works on workspaces of his own, and knows what they may hold.

use crate::caller::{self, Outcome, answered, ask, ask_calmly};
use crate::faults::{Faults, LASTING_MS};
use crate::ground::Ground;
use crate::model::{There, Workspace, World, Worlds};
use crate::tally::Tally;
use fastrand::Rng;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Workspaces of one worker at the same time.
const WORKSPACES_MAX: usize = 2;

/// Snapshots of one workspace.
const SNAPSHOTS_MAX: usize = 4;

/// Files that are written.
const FILES: u32 = 6;

/// How long a workspace may take to be as it should after something was done to
/// it.
const RECOVERY: Duration = Duration::from_secs(300);

/// How long what a killed caller has sent may be on its way: a supervisor may
/// stand still.
const LANDING: Duration = Duration::from_secs(5);
const _: () = assert!(LANDING.as_millis() > LASTING_MS.end as u128);

struct Worker<'a> {
    number: u64,
    ground: &'a Ground,
    faults: &'a Faults,
    tally: &'a Tally,
    random: Rng,
    /// For names and contents that never come again.
    count: u64,
    workspaces: Vec<Workspace>,
    /// Those that may be there.
    unseen: Vec<Workspace>,
}

pub fn work(
    number: u64,
    ground: &Ground,
    faults: &Faults,
    tally: &Tally,
    random: Rng,
    end: Instant,
) {
    let (workspaces, unseen) = (Vec::new(), Vec::new());
    let mut worker = Worker { number, ground, faults, tally, random, count: 0, workspaces, unseen };
    while Instant::now() < end && tally.violations().len() < 20 {
        worker.step();
    }
    for workspace in std::mem::take(&mut worker.workspaces) {
        worker.look_at(workspace).into_iter().for_each(|workspace| worker.end(&workspace));
    }
}

impl Worker<'_> {
    fn next(&mut self, prefix: &str) -> String {
        self.count += 1;
        format!("{prefix}{}-{}", self.number, self.count)
    }

    fn step(&mut self) {
        if self.workspaces.is_empty() {
            return self.create();
        }
        let at = self.random.usize(..self.workspaces.len());
        let mut workspace = self.workspaces.swap_remove(at);
        let undisturbed = {
            let _others = self.faults.gate.read().unwrap_or_else(PoisonError::into_inner);
            self.operate(&mut workspace)
        };
        for unseen in std::mem::take(&mut self.unseen) {
            let seen = self.look_at(unseen);
            self.workspaces.extend(seen);
        }
        let seen = match undisturbed && self.random.u32(..4) > 0 {
            true => Some(workspace),
            false => self.look_at(workspace),
        };
        if let Some(workspace) = seen {
            match self.random.u32(..60) {
                0 => self.end(&workspace),
                _ => self.workspaces.push(workspace),
            }
        }
    }

    /// Does something to a workspace. Says whether all of it is known.
    fn operate(&mut self, workspace: &mut Workspace) -> bool {
        match self.random.u32(..100) {
            0..30 => self.write(workspace),
            30..40 => self.append(workspace),
            40..45 => self.remove(workspace),
            45..57 => self.snapshot(workspace),
            57..62 => self.delete_snapshot(workspace),
            62..65 => self.rename_snapshot(workspace),
            65..75 => self.reset(workspace),
            75..79 => self.plain("stop", &["workspace", "stop", &workspace.name]),
            79..83 => {
                self.plain("stop --force", &["workspace", "stop", &workspace.name, "--force"])
            }
            83..88 => self.plain("start", &["workspace", "start", &workspace.name]),
            88..91 => {
                self.plain("update", &["workspace", "update", &workspace.name, "--label", "a=b"])
            }
            91..93 => self.kill_agent(workspace),
            93..96 => self.diff(workspace),
            _ if self.workspaces.len() + 1 < WORKSPACES_MAX => self.fork(workspace),
            _ => self.write(workspace),
        }
    }

    /// Asks, and says whether it was answered, for certain. What fails though
    /// nothing was done to it is a violation.
    fn asked(&mut self, what: &'static str, words: &[&str]) -> bool {
        let begun = Instant::now();
        let outcome = ask(self.ground, &mut self.random, words);
        let why = outcome.to_string();
        match outcome {
            Outcome::Done(_) => {
                self.tally.done(what);
                return true;
            }
            Outcome::Cut => {
                self.tally.fault("caller killed");
                // What it had sent before may still be on its way.
                std::thread::sleep(LANDING);
            }
            Outcome::Stuck => self.tally.violation(format!("{what} took for ever: {words:?}")),
            // A program in a guest that was stopped, say: what is not possible is
            // refused.
            Outcome::Failed(why) if why.contains("is stopped") || why.contains("is paused") => {
                self.tally.done("refused");
                return false;
            }
            Outcome::Failed(_) | Outcome::Program(_) => {
                if !self.faults.disturbed(begun) {
                    self.tally.violation(format!("{what} failed: {words:?}: {why}"));
                }
            }
        }
        self.tally.disturbed(what, &why);
        false
    }

    fn plain(&mut self, what: &'static str, words: &[&str]) -> bool {
        self.asked(what, words)
    }

    /// Runs a line that changes the workspace's files.
    fn change(
        &mut self,
        workspace: &mut Workspace,
        what: &'static str,
        line: &str,
        change: impl Fn(&mut World),
    ) -> bool {
        let words = ["workspace", "exec", &workspace.name, "--shell", line];
        let done = self.asked(what, &words);
        match done {
            true => workspace.now.change(change),
            false => workspace.now.may_change(change),
        }
        done
    }

    fn file(&mut self) -> String {
        format!("f{}", self.random.u32(..FILES))
    }

    fn write(&mut self, workspace: &mut Workspace) -> bool {
        let (file, content) = (self.file(), self.next("w"));
        let line =
            format!("printf {content} > .new && sync .new && mv .new {file} && sync . || exit 1");
        self.change(workspace, "exec, write", &line, |world| {
            world.insert(file.clone(), content.clone());
        })
    }

    fn append(&mut self, workspace: &mut Workspace) -> bool {
        let content = self.next(" a");
        let line = format!("printf '{content}' >> log && sync log || exit 1");
        self.change(workspace, "exec, append", &line, |world| {
            world.entry("log".to_owned()).or_default().push_str(&content);
        })
    }

    fn remove(&mut self, workspace: &mut Workspace) -> bool {
        let file = self.file();
        let line = format!("rm -f {file} && sync . || exit 1");
        self.change(workspace, "exec, remove", &line, |world| {
            world.remove(&file);
        })
    }

    /// The channel begins anew; a guest that loses its agent too often powers off.
    fn kill_agent(&mut self, workspace: &Workspace) -> bool {
        self.faults.strike();
        self.tally.fault("agent killed");
        let line = "kill -9 $(pgrep pyro-agent | tail -n 1)";
        drop(ask_calmly(self.ground, &["workspace", "exec", &workspace.name, "--shell", line]));
        self.faults.strike();
        false
    }

    fn diff(&mut self, workspace: &Workspace) -> bool {
        self.plain("diff", &["workspace", "diff", &workspace.name, "--stat"])
    }

    fn snapshot(&mut self, workspace: &mut Workspace) -> bool {
        if workspace.snapshots.len() >= SNAPSHOTS_MAX {
            return self.delete_snapshot(workspace);
        }
        let name = self.next("s");
        let words = ["workspace", "snapshot", "create", &workspace.name, &name];
        let done = self.asked("snapshot create", &words);
        let there = if done { There::Yes } else { There::Perhaps };
        workspace.snapshots.insert(name, (there, workspace.now.clone()));
        done
    }

    fn any_snapshot(&mut self, workspace: &Workspace) -> Option<String> {
        self.random.choice(workspace.snapshots.keys()).cloned()
    }

    fn delete_snapshot(&mut self, workspace: &mut Workspace) -> bool {
        let Some(name) = self.any_snapshot(workspace) else { return self.write(workspace) };
        let words = ["workspace", "snapshot", "delete", &workspace.name, &name, "--ignore-missing"];
        let done = self.asked("snapshot delete", &words);
        match workspace.snapshots.get_mut(&name) {
            Some((there, _)) if !done => *there = There::Perhaps,
            _ => drop(workspace.snapshots.remove(&name)),
        }
        done
    }

    fn rename_snapshot(&mut self, workspace: &mut Workspace) -> bool {
        let Some(name) = self.any_snapshot(workspace) else { return self.write(workspace) };
        if workspace.snapshots[&name].0 != There::Yes {
            return true;
        }
        let to = self.next("r");
        let words = ["workspace", "snapshot", "rename", &workspace.name, &name, &to];
        let done = self.asked("snapshot rename", &words);
        let Some((_, worlds)) = workspace.snapshots.remove(&name) else { return done };
        if !done {
            workspace.snapshots.insert(name, (There::Perhaps, worlds.clone()));
        }
        let there = if done { There::Yes } else { There::Perhaps };
        workspace.snapshots.insert(to, (there, worlds));
        done
    }

    fn reset(&mut self, workspace: &mut Workspace) -> bool {
        let to = self
            .any_snapshot(workspace)
            .filter(|name| workspace.snapshots[name].0 == There::Yes && self.random.bool());
        let (target, worlds) = match &to {
            Some(name) => (name.as_str(), workspace.snapshots[name].1.clone()),
            None => ("baseline", Worlds::of(workspace.baseline.clone())),
        };
        let words = ["workspace", "reset", &workspace.name, "--snapshot", target];
        let done = self.asked("reset", &words);
        match done {
            true => workspace.now = worlds,
            false => workspace.now.may_be(&worlds),
        }
        done
    }

    fn create(&mut self) {
        let name = self.next("w");
        let seed = self.ground.home.path().join(format!("seed-{name}"));
        drop(std::fs::create_dir(&seed));
        let baseline = World::from([("log".to_owned(), format!("{name}:"))]);
        drop(std::fs::write(seed.join("log"), &baseline["log"]));
        let path = seed.display().to_string();
        let words = [
            "workspace",
            "create",
            "debian:12-base",
            "--name",
            &name,
            "--seed-path",
            &path,
            "--mem-mib",
            "256",
            "--disk-mib",
            "256",
        ];
        let others = self.faults.gate.read().unwrap_or_else(PoisonError::into_inner);
        let done = self.asked("create", &words);
        drop(others);
        drop(std::fs::remove_dir_all(&seed));
        let there = if done { There::Yes } else { There::Perhaps };
        let now = Worlds::of(baseline.clone());
        let made = Workspace::new(name, there, now, baseline);
        if done {
            self.workspaces.push(made);
        } else {
            let seen = self.look_at(made);
            self.workspaces.extend(seen);
        }
    }

    fn fork(&mut self, workspace: &mut Workspace) -> bool {
        let name = self.next("k");
        let at = self
            .any_snapshot(workspace)
            .filter(|name| workspace.snapshots[name].0 == There::Yes && self.random.bool());
        let (from, now) = match &at {
            Some(snapshot) => {
                (format!("{}@{snapshot}", workspace.name), workspace.snapshots[snapshot].1.clone())
            }
            None => (workspace.name.clone(), workspace.now.clone()),
        };
        let words = ["workspace", "create", "--from", &from, "--name", &name];
        let done = self.asked("create --from", &words);
        let there = if done { There::Yes } else { There::Perhaps };
        let made = Workspace::new(name, there, now, workspace.baseline.clone());
        self.unseen.extend((!done).then(|| made.clone()));
        self.workspaces.extend(done.then_some(made));
        done
    }

    fn end(&mut self, workspace: &Workspace) {
        let begun = Instant::now();
        loop {
            let words = ["workspace", "delete", &workspace.name, "--ignore-missing"];
            match answered(ask_calmly(self.ground, &words)) {
                Ok(_) => return self.tally.done("delete"),
                Err(failed) if begun.elapsed() > RECOVERY => {
                    return self.tally.violation(format!("cannot delete: {failed}"));
                }
                Err(failed) => self.tally.disturbed("delete", &failed),
            }
        }
    }

    /// Brings a workspace up and compares what it holds with what it may hold.
    /// `None` when it is not there, and need not be.
    fn look_at(&mut self, mut workspace: Workspace) -> Option<Workspace> {
        let begun = Instant::now();
        let mut last = String::new();
        while begun.elapsed() < RECOVERY {
            match self.look(&mut workspace) {
                Ok(there) => return there.then_some(workspace),
                Err(why) => last = why,
            }
            self.tally.disturbed("look", &last);
        }
        self.tally.violation(format!("workspace {} does not come back: {last}", workspace.name));
        None
    }

    /// Says whether it is there; why that cannot be said.
    fn look(&mut self, workspace: &mut Workspace) -> Result<bool, String> {
        let _others = self.faults.gate.read().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        let listed = caller::list(self.ground)?;
        let state = listed.into_iter().find(|(name, _)| *name == workspace.name);
        let Some((_, state)) = state else {
            if workspace.there == There::Yes {
                self.tally.violation(format!("workspace {} is gone", workspace.name));
            }
            return Ok(false);
        };
        if state == "damaged" {
            if self.faults.disturbed(begun) {
                return Err("it is told to be damaged".to_owned());
            }
            self.tally.violation(format!("workspace {} is damaged", workspace.name));
            return Ok(false);
        }
        workspace.there = There::Yes;
        if state == "stopped" {
            self.answer(&["workspace", "start", &workspace.name], begun)?;
        }
        // What is seen is only what will be there once it is on the disk.
        self.try_disk(workspace, begun)?;
        let line = "for f in log f*; do [ -f $f ] && printf '%s=' $f && cat $f && echo; done; true";
        let said = self.answer(&["workspace", "exec", &workspace.name, "--shell", line], begun)?;
        let files = said.lines().filter_map(|line| line.split_once('='));
        let seen: World =
            files.map(|(name, content)| (name.to_owned(), content.to_owned())).collect();
        self.tally.done("look");
        if !workspace.now.see(&seen) {
            self.tally.violation(format!(
                "workspace {} has {seen:?} and should have {}",
                workspace.name,
                workspace.now.told()
            ));
            workspace.now = Worlds::of(seen);
        }
        self.look_at_snapshots(workspace, begun)?;
        Ok(true)
    }

    /// Which of the snapshots are there.
    fn look_at_snapshots(&self, workspace: &mut Workspace, begun: Instant) -> Result<(), String> {
        let words = ["workspace", "snapshot", "list", &workspace.name, "--json"];
        let listed = self.answer(&words, begun)?;
        let listed: serde_json::Value =
            serde_json::from_str(&listed).map_err(|error| error.to_string())?;
        let listed: Vec<&str> = listed["snapshots"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|snapshot| snapshot["snapshot_name"].as_str())
            .collect();
        for name in &listed {
            if *name != "baseline" && !workspace.snapshots.contains_key(*name) {
                self.tally.violation(format!("nobody took snapshot {name} of {}", workspace.name));
            }
        }
        let (name, tally) = (workspace.name.clone(), self.tally);
        workspace.snapshots.retain(|snapshot, (there, _)| {
            let is_there = listed.contains(&snapshot.as_str());
            if !is_there && *there == There::Yes {
                tally.violation(format!("snapshot {snapshot} of {name} is gone"));
            }
            *there = There::Yes;
            is_there
        });
        Ok(())
    }

    /// Has everything written out. A disk that cannot be written, as a full host
    /// leaves it, is started anew.
    fn try_disk(&self, workspace: &Workspace, begun: Instant) -> Result<(), String> {
        let line = "echo > .tried && sync .tried && rm .tried && sync .";
        let tried = self.answer(&["workspace", "exec", &workspace.name, "--shell", line], begun);
        if tried.is_err() {
            drop(ask_calmly(self.ground, &["workspace", "stop", &workspace.name, "--force"]));
        }
        tried.map(drop)
    }

    fn answer(&self, words: &[&str], begun: Instant) -> Result<String, String> {
        let answered = answered(ask_calmly(self.ground, words));
        if let Err(failed) = &answered
            && !self.faults.disturbed(begun)
        {
            self.tally.violation(format!("{words:?}: {failed}"));
        }
        answered
    }
}
