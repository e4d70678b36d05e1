//! Asking pyro as a user does, by its command line.

use crate::ground::Ground;
use fastrand::Rng;
use pyro_smoke::ends_within;
use serde_json::Value;
use std::fmt;
use std::process::Stdio;
use std::time::Duration;

/// One in so many callers is killed before its time.
const KILLED_ONE_IN: u32 = 12;

/// What a killed caller may have lived.
const LIFE_MAX_MS: u64 = 1500;

/// Longer than this nothing may take, whatever is done to it.
const PATIENCE: Duration = Duration::from_secs(240);

/// What came of a call.
pub enum Outcome {
    /// It was answered.
    Done(String),
    /// pyro said that it failed: in these words.
    Failed(String),
    /// The program in the guest failed.
    Program(String),
    /// The caller was killed.
    Cut,
    /// It took for ever.
    Stuck,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(said) => write!(f, "it answered {said:?}"),
            Self::Failed(why) => write!(f, "it failed: {why:?}"),
            Self::Program(how) => write!(f, "the program failed: {how:?}"),
            Self::Cut => write!(f, "its caller was killed"),
            Self::Stuck => write!(f, "it took for ever"),
        }
    }
}

/// Asks, and is perhaps killed.
pub fn ask(ground: &Ground, random: &mut Rng, words: &[&str]) -> Outcome {
    let life = (random.u32(..KILLED_ONE_IN) == 0)
        .then(|| Duration::from_millis(random.u64(..LIFE_MAX_MS)));
    ask_for(ground, words, life)
}

/// Asks, and lives.
pub fn ask_calmly(ground: &Ground, words: &[&str]) -> Outcome {
    ask_for(ground, words, None)
}

fn ask_for(ground: &Ground, words: &[&str], life: Option<Duration>) -> Outcome {
    let mut command = ground.home.pyro(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let read = |from: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(mut from) = from {
                drop(from.read_to_end(&mut text));
            }
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let stdout = read(child.stdout.take().map(|from| Box::new(from) as _));
    let stderr = read(child.stderr.take().map(|from| Box::new(from) as _));
    let ended = ends_within(child.id(), life.unwrap_or(PATIENCE));
    if !ended {
        drop(child.kill());
    }
    let status = match child.wait() {
        Ok(status) => status.code(),
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    match status {
        _ if !ended && life.is_none() => Outcome::Stuck,
        None => Outcome::Cut,
        Some(0) => Outcome::Done(stdout),
        Some(125 | 124) => Outcome::Failed(stderr),
        Some(code) => Outcome::Program(format!("{code}: {stderr}")),
    }
}

/// What was said, or how it failed.
pub fn answered(outcome: Outcome) -> Result<String, String> {
    match outcome {
        Outcome::Done(said) => Ok(said),
        failed @ (Outcome::Failed(_) | Outcome::Program(_) | Outcome::Cut | Outcome::Stuck) => {
            Err(failed.to_string())
        }
    }
}

/// Every workspace that there is, by its name, and its state.
pub fn list(ground: &Ground) -> Result<Vec<(String, String)>, String> {
    let said = answered(ask_calmly(ground, &["workspace", "list", "--json"]))?;
    let listed: Value = serde_json::from_str(&said).map_err(|error| error.to_string())?;
    let each = listed["workspaces"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(each.map(|one| (text(&one["name"]), text(&one["state"]))).collect())
}
