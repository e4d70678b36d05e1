//! What an operation answers, for programs and for readers.

use crate::event::Stream;
use anstyle::Style;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::fmt::{self, Write};

/// What an operation answers.
pub trait Answer: Serialize + JsonSchema + Send + 'static {
    /// Writes the whole answer for a reader who has seen nothing of it yet.
    ///
    /// # Errors
    /// Those of the page.
    fn render(&self, page: &mut Page) -> fmt::Result;

    /// One line worth adding for a reader who has already seen what passed
    /// through; beside a guest's program only on a terminal.
    fn note(&self) -> Option<String> {
        None
    }

    /// What a reader who has seen what passed through is still to be told, person
    /// or script, and on which stream.
    fn after_streams(&self) -> Option<(Stream, String)> {
        None
    }

    /// The exit code of the command line.
    fn exit_code(&self) -> u8 {
        0
    }

    /// The id of what was made, when something was.
    fn id(&self) -> Option<String> {
        None
    }
}

/// An [`Answer`] with its type erased.
pub trait AnyAnswer: Send {
    /// The answer as one JSON document.
    ///
    /// # Errors
    /// When a map of it has keys that are no strings: a defect of the operation.
    fn to_json(&self) -> serde_json::Result<Value>;
    /// The answer as text.
    fn to_text(&self, ink: Ink) -> String;
    /// The same in about so many bytes, where an answer can be told in fewer.
    fn to_text_within(&self, room: usize) -> String;
    /// See [`Answer::note`].
    fn note(&self) -> Option<String>;
    /// See [`Answer::after_streams`].
    fn after_streams(&self) -> Option<(Stream, String)>;
    /// See [`Answer::exit_code`].
    fn exit_code(&self) -> u8;
    /// See [`Answer::id`].
    fn id(&self) -> Option<String>;
}

impl<A: Answer> AnyAnswer for A {
    fn to_json(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }

    fn to_text(&self, ink: Ink) -> String {
        rendered(self, ink, usize::MAX)
    }

    fn to_text_within(&self, room: usize) -> String {
        rendered(self, Ink::Plain, room)
    }

    fn note(&self) -> Option<String> {
        Answer::note(self)
    }

    fn after_streams(&self) -> Option<(Stream, String)> {
        Answer::after_streams(self)
    }

    fn exit_code(&self) -> u8 {
        Answer::exit_code(self)
    }

    fn id(&self) -> Option<String> {
        Answer::id(self)
    }
}

fn rendered(answer: &impl Answer, ink: Ink, size: usize) -> String {
    let mut page = Page { text: String::new(), ink, size };
    // A page is a string: writing to it cannot fail.
    let _ = answer.render(&mut page);
    page.text
}

/// Whether a page may have colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Text alone.
    Plain,
    /// Text with ANSI styles.
    Coloured,
}

/// What an answer is rendered on.
#[derive(Debug)]
pub struct Page {
    text: String,
    ink: Ink,
    size: usize,
}

impl Page {
    /// How many bytes more there is room for. What a guest wrote is told by its
    /// ends where it does not fit, and the answer says where the rest is: nobody
    /// cuts it a second time. All else is short, and may go beyond.
    #[must_use]
    pub fn room(&self) -> usize {
        self.size.saturating_sub(self.text.len())
    }

    /// A text in a style, when the page has colours.
    pub fn paint(&self, style: Style, text: impl fmt::Display) -> String {
        match self.ink {
            Ink::Plain => text.to_string(),
            Ink::Coloured => format!("{style}{text}{style:#}"),
        }
    }

    /// Rows of cells, each column as wide as its widest cell. A row may leave
    /// out cells at its end.
    ///
    /// # Errors
    /// Never; the signature lets it stand among `writeln!`s.
    pub fn table<const N: usize>(&mut self, rows: &[[String; N]]) -> fmt::Result {
        let mut widths = [0; N];
        for row in rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(visible_width(cell));
            }
        }
        for row in rows {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                let padding = width - visible_width(cell);
                write!(line, "{cell}{:padding$}  ", "")?;
            }
            writeln!(self, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn visible_width(cell: &str) -> usize {
    anstream::adapter::strip_str(cell).to_string().chars().count()
}

impl Write for Page {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text.push_str(text);
        Ok(())
    }
}
