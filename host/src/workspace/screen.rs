//! What a person sees of what came out of a terminal.
//!
//! The bytes come from a guest. Whatever they are, they cost a bounded amount of
//! memory: one screen, one copy of it, and as much text as was asked for.

use pyro_protocol::shell::{COLS_MAX, ROWS_MAX, TerminalSize};
use std::num::NonZeroU16;
use vt100::capture::{
    BasicFormattedCaptureRange, BasicFormattedCaptureState, RowContents, basic_formatted_to_plain,
};
use vt100::{Callbacks, Parser, Screen};

/// After how many bytes at a time it is asked whether the text is long enough: so
/// few that even those which draw the most add little.
const STEP: usize = 512;

/// What there is to see anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// The text, its lines without blanks at their ends.
    pub text: String,
    /// How many bytes it took to draw it, of those after the mark.
    pub drawn: usize,
}

/// Draws what came out of a terminal from its beginning, and tells what a person
/// sees of it who looked away at the mark: the lines from the first that is not
/// as it was then. A program that uses the whole screen is seen as its screen,
/// if that has changed. Once the text is longer than `limit`, the rest is left
/// undrawn.
#[must_use]
pub fn look(bytes: &[u8], mark: usize, size: TerminalSize, limit: usize) -> Sight {
    let (seen, unseen) = bytes.split_at(mark.min(bytes.len()));
    let mut parser = Parser::new_with_callbacks(rows(size), cols(size), 0, Scroll::default());
    parser.process(seen);
    let alternate = parser.screen().alternate_screen().then(|| parser.screen().contents());
    let before = lines_of(primary(parser.screen()));
    parser.callbacks_mut().text = Some(String::new());
    let mut drawn = 0;
    for step in unseen.chunks(STEP) {
        parser.process(step);
        drawn += step.len();
        if parser.callbacks().length() > limit {
            break;
        }
    }
    if parser.screen().alternate_screen() {
        let now = parser.screen().contents();
        let text = if alternate.as_ref() == Some(&now) { String::new() } else { ended(now) };
        return Sight { text, drawn };
    }
    let Scroll { text, mut state } = parser.callbacks().clone();
    let mut now = text.unwrap_or_default();
    // A string takes all that is written to it.
    let range = BasicFormattedCaptureRange::Full(&mut state);
    let _ = parser.screen().write_contents_formatted_basic(&mut now, range);
    Sight { text: news(&before, &lines_of(now)), drawn }
}

/// What puts another terminal into the state that these bytes put one of this
/// size in: what is on the screen, the cursor, the modes of the keyboard.
#[must_use]
pub fn repaint(bytes: &[u8], size: TerminalSize) -> Vec<u8> {
    let mut parser = Parser::new(rows(size), cols(size), 0);
    parser.process(bytes);
    let enter = if parser.screen().alternate_screen() { "\x1b[?1049h" } else { "" };
    [enter, &parser.screen().state_formatted()].concat().into_bytes()
}

/// The modes that a program in a guest has put a terminal of ours in, so that
/// they can be undone.
pub struct Modes {
    parser: Parser,
    /// Nothing but text went to it.
    is_plain: bool,
}

/// Modes that the parser does not tell, as they usually are: all of the screen
/// scrolls, with the cursor where it is; lines wrap and nothing is inserted;
/// letters are letters; focus is not reported; keys are spelled as ever, in
/// xterm's and kitty's ways to spell them otherwise.
const USUAL: &str = "\x1b7\x1b[r\x1b8\x1b[?7h\x1b[4l\x1b(B\x0f\x1b[?1004l\x1b[>4m\x1b[=0u";

impl Modes {
    /// Of a terminal in its usual modes.
    #[must_use]
    pub fn new(size: TerminalSize) -> Self {
        Self { parser: Parser::new(rows(size), cols(size), 0), is_plain: true }
    }

    /// These bytes went to it.
    pub fn pass(&mut self, bytes: &[u8]) {
        const SHIFT_OUT: u8 = 0x0e;
        const ESCAPE: u8 = 0x1b;
        self.is_plain &= !bytes.iter().any(|byte| matches!(*byte, SHIFT_OUT | ESCAPE));
        self.parser.process(bytes);
    }

    /// What puts it back into its usual modes, on a line of its own.
    #[must_use]
    pub fn undo(&self) -> Vec<u8> {
        let screen = self.parser.screen();
        let usual = Parser::default();
        let mut undo = String::from("\x18");
        if screen.alternate_screen() {
            undo.push_str("\x1b[?1049l");
        }
        if screen.hide_cursor() {
            undo.push_str("\x1b[?25h");
        }
        undo.push_str(&usual.screen().input_mode_diff(screen));
        if !self.is_plain {
            undo.push_str(USUAL);
        }
        // Last, for leaving a screen brings its colours back.
        undo.push_str("\x1b[0m");
        if screen.cursor_position().1 > 0 {
            undo.push_str("\r\n");
        }
        undo.into_bytes()
    }
}

/// Collects what leaves the screen at its top.
#[derive(Debug, Clone, Default)]
struct Scroll {
    /// Once it is wanted.
    text: Option<String>,
    state: BasicFormattedCaptureState,
}

impl Scroll {
    fn length(&self) -> usize {
        self.text.as_ref().map_or(0, String::len)
    }
}

impl Callbacks for Scroll {
    fn on_scroll(&mut self, row: RowContents<'_>, alternate_screen: bool) {
        // Programs that use the whole screen leave nothing behind.
        if let (Some(text), false) = (&mut self.text, alternate_screen) {
            // A string takes all that is written to it.
            let _ = row.write_formatted_basic(text, &mut self.state);
        }
    }
}

/// The screen that is there again once a program leaves that uses all of it.
fn primary(screen: &Screen) -> String {
    if !screen.alternate_screen() {
        return screen.contents_formatted_basic();
    }
    let (rows, cols) = screen.size();
    let mut other = Parser::new(rows, cols, 0);
    *other.screen_mut() = screen.clone();
    other.process(b"\x1b[?47l");
    other.screen().contents_formatted_basic()
}

/// Without colours and without blanks at the ends.
fn lines_of(formatted: String) -> Vec<String> {
    let plain: String = basic_formatted_to_plain(&formatted).collect();
    let mut lines: Vec<String> = plain.split('\n').map(|line| line.trim_end().into()).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// The lines from the first that is not as it was.
fn news(before: &[String], now: &[String]) -> String {
    let same = before.iter().zip(now).take_while(|(before, now)| before == now).count();
    now.get(same..).map(|lines| ended(lines.join("\n"))).unwrap_or_default()
}

/// A text that is not empty ends with a newline.
fn ended(mut text: String) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// A guest's word for it is not taken.
fn rows(size: TerminalSize) -> NonZeroU16 {
    NonZeroU16::new(size.rows.min(ROWS_MAX)).unwrap_or(NonZeroU16::MIN)
}

fn cols(size: TerminalSize) -> NonZeroU16 {
    NonZeroU16::new(size.cols.min(COLS_MAX)).unwrap_or(NonZeroU16::MIN)
}

#[cfg(test)]
mod tests;
