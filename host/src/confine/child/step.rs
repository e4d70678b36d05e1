//! What a child can fail at, and how its supervisor hears of it.

use rustix::io::Errno;
use std::ffi::c_int;

/// A step on the way to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    Waiting,
    Session,
    Mounting,
    MakingRoot,
    Showing,
    PivotRoot,
    Capabilities,
    User,
    Limits,
    Passing,
    Exec,
    Watcher,
    Lending,
}

impl Step {
    const ALL: [Self; 13] = [
        Self::Waiting,
        Self::Session,
        Self::Mounting,
        Self::MakingRoot,
        Self::Showing,
        Self::PivotRoot,
        Self::Capabilities,
        Self::User,
        Self::Limits,
        Self::Passing,
        Self::Exec,
        Self::Watcher,
        Self::Lending,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting for the supervisor",
            Self::Session => "making a session",
            Self::Mounting => "mounting",
            Self::MakingRoot => "making the private root",
            Self::Showing => "showing a file",
            Self::PivotRoot => "pivot_root",
            Self::Capabilities => "dropping capabilities",
            Self::User => "changing the user",
            Self::Limits => "setting limits",
            Self::Passing => "passing descriptors",
            Self::Exec => "exec",
            Self::Watcher => "starting the watcher",
            Self::Lending => "lending a file",
        }
    }

    /// What the host needs for it, if that is not what all the others need.
    fn hint(self) -> Option<&'static str> {
        match self {
            Self::Lending => Some(
                "the host needs Linux 5.14 or newer, and must allow seccomp filters that ask: a \
                 container may forbid them, or have one of its own",
            ),
            Self::Waiting
            | Self::Session
            | Self::Mounting
            | Self::MakingRoot
            | Self::Showing
            | Self::PivotRoot
            | Self::Capabilities
            | Self::User
            | Self::Limits
            | Self::Passing
            | Self::Exec
            | Self::Watcher => None,
        }
    }
}

/// A step that failed, in the child.
#[derive(Debug, Clone, Copy)]
pub struct Stumble {
    pub step: Step,
    pub errno: c_int,
}

pub type Outcome = Result<(), Stumble>;

impl Stumble {
    pub fn now(step: Step) -> Self {
        Self { step, errno: errno() }
    }

    /// As it is told.
    pub fn report(self) -> [u8; 5] {
        let mut report = [self.step as u8; 5];
        report[1..].copy_from_slice(&self.errno.to_ne_bytes());
        report
    }
}

pub fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

pub fn step(step: Step, returned: impl Into<i64>) -> Outcome {
    if returned.into() < 0 { Err(Stumble::now(step)) } else { Ok(()) }
}

pub fn existing(step: Step, returned: c_int) -> Outcome {
    if returned < 0 && errno() != libc::EEXIST { Err(Stumble::now(step)) } else { Ok(()) }
}

/// One thing that a child tells.
#[derive(Debug)]
pub enum Told {
    /// Whoever says this is about to become the VMM; the kernel tells who it is.
    Here,
    /// It is about to become the VMM, and hands over the listener and what is lent.
    Lends,
    /// It will not be.
    Failed(Failure),
}

/// What [`Told::Here`] is by itself.
pub const HERE: [u8; 1] = [u8::MAX];

/// What [`Told::Lends`] is by itself.
pub const LENDS: [u8; 1] = [u8::MAX - 1];

/// A step that failed, as its supervisor hears of it.
#[derive(Debug)]
pub struct Failure {
    pub step: &'static str,
    pub hint: Option<&'static str>,
    pub errno: Errno,
}

impl Told {
    /// `None` is the end: the program executes, or nobody is there any more.
    pub fn parse(report: &[u8]) -> Option<Self> {
        if report == HERE {
            return Some(Self::Here);
        }
        if report == LENDS {
            return Some(Self::Lends);
        }
        let (&step, errno) = report.split_first()?;
        let errno = errno.try_into().map_or(libc::EIO, i32::from_ne_bytes);
        let step = Step::ALL.get(usize::from(step));
        Some(Self::Failed(Failure {
            step: step.map_or("starting it", |step| step.as_str()),
            hint: step.and_then(|step| step.hint()),
            errno: Errno::from_raw_os_error(errno),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_names_its_step() {
        assert!(Told::parse(&[]).is_none());
        let parse = |bytes: &[u8]| match Told::parse(bytes) {
            Some(Told::Failed(failure)) => failure.step,
            other => panic!("{other:?}"),
        };
        assert_eq!(parse(&[10, 2, 0, 0, 0]), "exec");
        assert_eq!(parse(&[3]), "making the private root");
        assert_eq!(parse(&[254, 1, 0, 0, 0]), "starting it");
        for step in Step::ALL {
            let report = Stumble { step, errno: libc::EPERM }.report();
            assert_eq!(parse(&report), step.as_str());
        }
    }
}
