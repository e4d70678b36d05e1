//! The stories that are told on the bare machine only.

use crate::story::Story;

/// A program, or a test of one, and why Firecracker in an emulated host is no
/// place for it. Whoever adds one raises [`ELSEWHERE_MAX`].
pub const ELSEWHERE: &[(&str, &str)] = &[
    ("mcp_clients", "needs clients from PyPI and npm, which an emulated host does not reach"),
    ("packages", "makes and installs packages, which takes no guest of another kind"),
    ("images::the_same_inputs_make_the_same_bytes", "builds images, which takes no guest"),
    (
        "registries::i8_a_pull_of_debian_that_is_killed_goes_on_where_it_was",
        "packs and fetches all of Debian, which takes an emulated host five minutes",
    ),
    (
        "snapshots::p2_p9_where_files_are_copied_by_reference_a_gigabyte_is_there_once",
        "needs mkfs.xfs, which the emulated host's Debian lacks",
    ),
    ("refusals::a_missing_qemu", "is about QEMU, whose place Firecracker takes"),
];

/// So few that each is a decision.
const ELSEWHERE_MAX: usize = 6;

const _: () = assert!(ELSEWHERE.len() <= ELSEWHERE_MAX);

/// Why this story is not told in an emulated host.
pub fn reason(story: &Story) -> Option<&'static str> {
    let name = story.to_string();
    let is = |words: &str| name == words || story.program == words;
    ELSEWHERE.iter().find(|(words, _)| is(words)).map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn what_is_told_elsewhere_exists_and_has_a_reason() {
        for (words, why) in ELSEWHERE {
            let (program, test) = words.split_once("::").unwrap_or((words, ""));
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
            let text = std::fs::read_to_string(path.join(format!("{program}.rs"))).unwrap();
            assert!(text.contains(&format!("fn {test}")), "{words}");
            assert!(why.len() > 10, "{words}");
        }
    }

    #[test]
    fn one_test_or_a_whole_program() {
        let reason = |program: &str, test: &str| {
            reason(&Story { program: program.to_owned(), test: test.to_owned() })
        };
        assert!(reason("mcp_clients", "any").is_some());
        assert!(reason("refusals", "a_missing_qemu").is_some());
        assert!(reason("refusals", "a_full_disk").is_none());
    }
}
