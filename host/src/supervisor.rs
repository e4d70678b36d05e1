//! Stub: the per-workspace host process.

use std::ffi::OsString;
use std::process::ExitCode;

/// The whole life of a supervisor.
#[must_use]
pub fn main(_args: Vec<OsString>) -> ExitCode {
    ExitCode::FAILURE
}
