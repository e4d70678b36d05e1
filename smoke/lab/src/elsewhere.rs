//! The stories that are told on the bare machine only.

use crate::story::Story;

/// A program, or a test of one, and why Firecracker in an emulated host is no
/// place for it. Whoever adds one raises [`ELSEWHERE_MAX`].
pub const ELSEWHERE: &[(&str, &str)] = &[
    ("mcp_clients", "needs clients from PyPI and npm, which an emulated host does not reach"),
    ("images::the_same_inputs_make_the_same_bytes", "builds images, which takes no guest"),
    ("refusals::a_missing_qemu", "is about QEMU, whose place Firecracker takes"),
];

/// So few that each is a decision.
const ELSEWHERE_MAX: usize = 4;

const _: () = assert!(ELSEWHERE.len() <= ELSEWHERE_MAX);

/// Why this story is not told in an emulated host.
pub fn reason(story: &Story) -> Option<&'static str> {
    let name = story.to_string();
    let is = |words: &str| name == words || story.program == words;
    ELSEWHERE.iter().find(|(words, _)| is(words)).map(|(_, why)| *why)
}
