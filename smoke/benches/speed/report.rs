//! The figures as a table for the terminal and a page for the documentation.

use crate::host::Conditions;
use crate::sample::Series;
use std::fmt::Write;

/// Some measurements that a goal was set for.
pub struct Figure {
    pub title: &'static str,
    pub goal: Goal,
    pub rows: Vec<Row>,
    pub notes: Vec<String>,
}

/// One thing, measured several times.
pub struct Row {
    what: String,
    unit: &'static str,
    series: Series,
}

/// What was wanted, and what came of it.
pub struct Goal {
    value: f64,
    bound: f64,
    wanted: Wanted,
    unit: &'static str,
}

enum Wanted {
    AtMost,
    AtLeast,
}

/// All there is to say.
pub struct Report {
    pub conditions: Conditions,
    pub load_after: f64,
    pub figures: Vec<Figure>,
}

impl Row {
    pub fn new(what: &str, unit: &'static str, series: Series) -> Self {
        Self { what: what.to_owned(), unit, series }
    }
}

impl Goal {
    pub fn at_most(value: f64, bound: f64, unit: &'static str) -> Self {
        Self { value, bound, wanted: Wanted::AtMost, unit }
    }

    pub fn at_least(value: f64, bound: f64, unit: &'static str) -> Self {
        Self { value, bound, wanted: Wanted::AtLeast, unit }
    }

    fn met(&self) -> bool {
        match self.wanted {
            Wanted::AtMost => self.value <= self.bound,
            Wanted::AtLeast => self.value >= self.bound,
        }
    }

    fn value(&self) -> String {
        format!("{:.2} {}", self.value, self.unit).trim_end().to_owned()
    }

    fn wanted(&self) -> String {
        let words = match self.wanted {
            Wanted::AtMost => "at most",
            Wanted::AtLeast => "at least",
        };
        format!("{words} {} {}", self.bound, self.unit).trim_end().to_owned()
    }

    fn verdict(&self) -> &'static str {
        if self.met() { "met" } else { "NOT MET" }
    }
}

impl Report {
    /// For the terminal.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for Figure { title, goal, rows, notes } in &self.figures {
            let line =
                format!("{title}: {}, wanted {}: {}", goal.value(), goal.wanted(), goal.verdict());
            text.push_str(&line);
            text.push('\n');
            for Row { what, unit, series } in rows {
                let (min, median, max) = (series.min(), series.median(), series.max());
                let _ = writeln!(text, "  {min:>8.2} {median:>8.2} {max:>8.2} {unit:<6} {what}");
            }
            notes.iter().for_each(|note| {
                let _ = writeln!(text, "  {note}");
            });
        }
        let _ = writeln!(text, "(minimum, median, maximum) {}", self.doubts().join(" "));
        text
    }

    /// For docs/performance.md.
    pub fn to_markdown(&self) -> String {
        let mut page = String::from(INTRODUCTION);
        page.push_str("\n## Goals\n\n| figure | measured | goal | |\n|---|---|---|---|\n");
        for Figure { title, goal, .. } in &self.figures {
            let (value, wanted, verdict) = (goal.value(), goal.wanted(), goal.verdict());
            let _ = writeln!(page, "| {title} | {value} | {wanted} | {verdict} |");
        }
        page.push_str("\n## Measurements\n");
        for Figure { title, rows, notes, .. } in &self.figures {
            let _ = writeln!(
                page,
                "\n### {title}\n\n| | min | median | max | runs |\n|---|--:|--:|--:|--:|"
            );
            for Row { what, unit, series } in rows {
                let (min, median, max) = (series.min(), series.median(), series.max());
                let runs = series.len();
                let _ = writeln!(
                    page,
                    "| {what}, {unit} | {min:.2} | {median:.2} | {max:.2} | {runs} |"
                );
            }
            if !notes.is_empty() {
                let _ = writeln!(page, "\nAlso: {}.", notes.join("; "));
            }
        }
        page.push_str(&self.conditions());
        page.push_str(READING);
        page
    }

    fn conditions(&self) -> String {
        let Conditions {
            date,
            pyro,
            processor,
            cores,
            kernel,
            qemu,
            guest_kernel,
            load_before,
            ..
        } = &self.conditions;
        let load_after = self.load_after;
        let doubts: String = self.doubts().iter().map(|doubt| format!("\n{doubt}\n")).collect();
        format!(
            "\n## Conditions\n\n| | |\n|---|---|\n| date | {date} |\n| pyro | {pyro} |\n\
             | host's processor | {processor}, {cores} cores |\n| host's kernel | {kernel} |\n\
             | QEMU | {qemu}, without KVM (TCG) |\n| guest's kernel | {guest_kernel} |\n\
             | load before and after | {load_before:.2}, {load_after:.2} |\n{doubts}"
        )
    }

    /// Why to take the figures with a grain of salt.
    fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if !self.conditions.tuned {
            doubts.push("The goals are for the tuned kernel, and this was another one.".to_owned());
        }
        if self.conditions.load_before > BUSY * self.conditions.cores as f64 {
            doubts.push(
                "The host was busy with other things: times are too long, and ratios rough."
                    .to_owned(),
            );
        }
        doubts
    }
}

/// The load per core above which a host is not idle.
const BUSY: f64 = 0.5;

const INTRODUCTION: &str = "# Performance

Written by `make bench`; do not edit. What is measured and how is told in the
files of smoke/benches/speed/, one for each figure.
";

const READING: &str = "
## How to read this

- Ratios compare two things measured in turn, in one process on one host, and
  are of their medians. They carry over to other hosts; milliseconds do not.
- The floor of the boot is the same QEMU with the same arguments, kernel, root
  image and a copy of the same disk, unconfined, started by a program that does
  nothing else: it reads the agent's announcement and kills QEMU, as pyro ends
  a one-shot guest too. pyro's time has in it what the floor's does not: the
  confinement, making the disk and mounting it in the guest, greeting, running
  the program, removing everything. No ratio of 1 is to be had.
- The processor time is pyro's own: the command's, the supervisor's, and the
  VMM's process until it executes QEMU. It is read from the processes' own
  clocks while they are traced, which costs some tens of microseconds more.
- Throughput compares a program's output or input, with `pyro` at the host's
  end, with a stream that begins and ends in the agent. So it charges pyro with
  the pipes at both ends as well as with frames and calls.
- Without KVM every instruction of the guest is translated. With it the guest is
  faster, and what pyro adds weighs more.
";
