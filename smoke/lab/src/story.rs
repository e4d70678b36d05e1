//! What the two sides say to each other: a line of JSON each.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The first line from inside: the host is up.
#[derive(Debug, Serialize, Deserialize)]
pub struct Up {
    /// Since its kernel began.
    pub uptime_ms: u64,
}

/// A test of one of the story programs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Story {
    /// The program, which is the file's name in `smoke/tests`.
    pub program: String,
    /// The test in it.
    pub test: String,
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.program, self.test)
    }
}

/// Outside asks for one story at a time.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ask {
    /// Which.
    pub story: Story,
    /// It is killed when it takes longer.
    pub limit_s: u64,
}

/// How it went.
#[derive(Debug, Serialize, Deserialize)]
pub struct Told {
    /// How it ended.
    pub ending: Ending,
    /// How long it took.
    pub took_ms: u64,
    /// The end of what it said.
    pub output: String,
}

/// How a story ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// As it should.
    Well,
    /// It said why it was not told.
    Skipped(String),
    /// It did not.
    Badly,
    /// It was killed.
    TooLong,
    /// It ended well but for the processes that it left.
    LeftBehind(Vec<String>),
}

impl Ending {
    /// Whether there is nothing to complain of.
    pub const fn is_good(&self) -> bool {
        match self {
            Self::Well | Self::Skipped(_) => true,
            Self::Badly | Self::TooLong | Self::LeftBehind(_) => false,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Well => f.write_str("ok"),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
            Self::Badly => f.write_str("FAILED"),
            Self::TooLong => f.write_str("TOOK TOO LONG"),
            Self::LeftBehind(processes) => write!(f, "LEFT BEHIND {}", processes.join(", ")),
        }
    }
}
