//! What was done, and what went wrong.

use crate::ground::Ground;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

#[derive(Default)]
pub struct Tally(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    /// Of each operation: those that were answered, and those that failed or were
    /// cut short while something was done to them.
    operations: BTreeMap<&'static str, (u64, u64)>,
    faults: BTreeMap<&'static str, u64>,
    /// Why something failed under a fault, without names and numbers.
    reasons: BTreeMap<String, u64>,
    violations: Vec<String>,
}

impl Tally {
    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn done(&self, operation: &'static str) {
        self.counts().operations.entry(operation).or_default().0 += 1;
    }

    pub fn disturbed(&self, operation: &'static str, why: &str) {
        let mut counts = self.counts();
        counts.operations.entry(operation).or_default().1 += 1;
        let why = format!("{operation}: {}", without_names(why));
        *counts.reasons.entry(why).or_default() += 1;
    }

    pub fn fault(&self, fault: &'static str) {
        *self.counts().faults.entry(fault).or_default() += 1;
    }

    pub fn violation(&self, what: String) {
        eprintln!("VIOLATION: {what}");
        self.counts().violations.push(what);
    }

    pub fn violations(&self) -> Vec<String> {
        self.counts().violations.clone()
    }

    pub fn to_text(&self) -> String {
        let counts = self.counts();
        let mut text = String::new();
        for (operation, (done, disturbed)) in &counts.operations {
            _ = writeln!(text, "{operation:<18} {done:>7} answered {disturbed:>6} disturbed");
        }
        for (fault, count) in &counts.faults {
            _ = writeln!(text, "{fault:<32} {count:>6} times");
        }
        let mut reasons: Vec<_> = counts.reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (reason, count) in reasons {
            _ = writeln!(text, "{count:>6} {reason}");
        }
        _ = writeln!(text, "violations: {}", counts.violations.len());
        text
    }

    pub fn to_markdown(&self, minutes: u64, workers: u64, seed: u64, ground: &Ground) -> String {
        let counts = self.counts();
        let done: u64 = counts.operations.values().map(|(done, _)| done).sum();
        let disturbed: u64 = counts.operations.values().map(|(_, disturbed)| disturbed).sum();
        let faults: u64 = counts.faults.values().sum();
        let mut page = format!(
            "# Reliability\n\n\
             Written by `make torture`; what it does is told in `smoke/torture/src/main.rs`.\n\n\
             {workers} callers worked on workspaces of their own for {minutes} minutes (seed \
             {seed}) while things were killed and disks failed. Whatever was answered had to \
             hold: what a program wrote and synced is there, what was cut short has happened once \
             or not at all, a snapshot has what it had when it was taken, and at the end nothing is \
             left.\n\n\
             **{done} operations answered, {disturbed} disturbed by one of {faults} faults, {} \
             violations.**\n\n",
            counts.violations.len()
        );
        page.push_str(
            "| operation | answered | failed or cut short under a fault |\n|---|---|---|\n",
        );
        for (operation, (done, disturbed)) in &counts.operations {
            _ = writeln!(page, "| {operation} | {done} | {disturbed} |");
        }
        page.push_str("\n| fault | times |\n|---|---|\n");
        for (fault, count) in &counts.faults {
            _ = writeln!(page, "| {fault} | {count} |");
        }
        for violation in &counts.violations {
            _ = writeln!(page, "\n- VIOLATION: {violation}");
        }
        if let Some(why) = ground.lacks() {
            _ = writeln!(page, "\nNo disk faults: {why}.");
        }
        page
    }
}

/// The line that says it, without what is different each time.
fn without_names(why: &str) -> String {
    let mut lines = why.split("\\n");
    let first = lines.clone().next().unwrap_or_default();
    let line = lines.find(|line| line.contains("pyro: ")).unwrap_or(first);
    let words = line.split(' ').map(|word| {
        let varies = word.chars().any(|c| c.is_ascii_digit()) || word.contains('/');
        if varies { "_" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}
