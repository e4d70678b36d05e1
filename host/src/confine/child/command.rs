//! A program and its arguments, as `execve` takes them.

use super::super::c_string;
use super::step::{Step, Stumble};
use crate::error::Result;
use std::ffi::{CString, OsStr, c_char};
use std::path::Path;
use std::ptr::null;

pub struct Command {
    program: CString,
    /// What `pointers` points into.
    _words: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl Command {
    pub fn new<'a>(program: &'a Path, arguments: impl Iterator<Item = &'a OsStr>) -> Result<Self> {
        let words = std::iter::once(program.as_os_str())
            .chain(arguments)
            .map(c_string)
            .collect::<Result<Vec<_>>>()?;
        let pointers = words.iter().map(|word| word.as_ptr()).chain([null()]).collect();
        Ok(Self { program: c_string(program)?, _words: words, pointers })
    }

    /// Becomes the program, with an empty environment; returns why not.
    ///
    /// # Safety
    /// In the child.
    pub unsafe fn exec(&self) -> Stumble {
        // SAFETY: all NUL-terminated, and alive as long as `self`.
        unsafe {
            libc::execve(self.program.as_ptr(), self.pointers.as_ptr(), [null()].as_ptr());
        }
        Stumble::now(Step::Exec)
    }
}
