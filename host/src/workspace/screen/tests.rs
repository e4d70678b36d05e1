use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

const SIZE: TerminalSize = TerminalSize { cols: 20, rows: 4 };

fn all(bytes: &[u8]) -> String {
    look(bytes, 0, SIZE, usize::MAX).text
}

/// What is seen after the first part.
fn then(first: &[u8], second: &[u8]) -> String {
    look(&[first, second].concat(), first.len(), SIZE, usize::MAX).text
}

#[test]
fn r22_progress_and_movement_are_seen_as_a_person_sees_them() {
    assert_eq!(all(b"10%\r50%\r100% done\r\nnext\r\n"), "100% done\nnext\n");
    assert_eq!(all(b"abc\x08\x08X\r\n"), "aXc\n");
    assert_eq!(all(b"one\r\ntwo\x1b[A\rONE"), "ONE\ntwo\n");
    assert_eq!(all(b"\x1b[31mred\x1b[0m \x1b]0;a title\x07plain"), "red plain\n");
    assert_eq!(all(b"old\x1b[2J\x1b[Hnew"), "new\n");
    assert_eq!(all("größe 大小\r\n".as_bytes()), "größe 大小\n");
    assert_eq!(all(b""), "");
}

#[test]
fn r22_what_left_the_screen_is_still_told() {
    let lines: String = (0..100).map(|line| format!("line {line}\r\n")).collect();
    assert_eq!(all(lines.as_bytes()), lines.replace('\r', ""));
    // A line that is longer than the screen is wide is one line.
    let long = "0123456789".repeat(9);
    assert_eq!(all(format!("{long}\r\nend").as_bytes()), format!("{long}\nend\n"));
}

#[test]
fn r22_a_program_that_uses_the_whole_screen_is_seen_and_goes() {
    let enter = b"$ editor\r\n\x1b[?1049h\x1b[2J\x1b[Htext\r\n~\r\n~".as_slice();
    assert_eq!(all(enter), "text\n~\n~\n");
    assert_eq!(then(enter, b"\x1b[H"), "");
    assert_eq!(then(enter, b"\x1b[Hnext"), "next\n~\n~\n");
    assert_eq!(then(enter, b"\x1b[?1049l$ "), "$\n");
    assert_eq!(then(b"$ editor\r\n", b"\x1b[?1049hx\x1b[?1049l$ done"), "$ done\n");
}

#[test]
fn r22_only_what_has_changed_is_told_again() {
    assert_eq!(then(b"$ ls\r\na\r\n$ ", b"cat a\r\nhello\r\n$ "), "$ cat a\nhello\n$\n");
    assert_eq!(then(b"one\r\n 5%", b"\r10%"), "10%\n");
    assert_eq!(then(b"one\r\ntwo", b""), "");
    // Also when the mark is inside a sequence, or a character.
    assert_eq!(then(b"one\r\n\x1b[3", b"1mred"), "red\n");
    assert_eq!(then(b"one\r\n\xc3", b"\xa9!"), "é!\n");
}

#[test]
fn r22_what_does_not_fit_waits_for_the_next_look() {
    let bytes: Vec<u8> =
        (0..2000).flat_map(|line| format!("line {line}\r\n").into_bytes()).collect();
    let (mut mark, mut seen) = (0, Vec::<String>::new());
    while mark < bytes.len() {
        let sight = look(&bytes, mark, SIZE, 1000);
        assert!(sight.drawn > 0 && sight.text.len() < 3000, "{sight:?}");
        mark += sight.drawn;
        let mut lines = sight.text.lines().peekable();
        // A line that was unfinished is told again, whole.
        let again = |last: &String| lines.peek().is_some_and(|line| line.starts_with(&**last));
        if seen.last().is_some_and(again) {
            seen.pop();
        }
        seen.extend(lines.map(str::to_owned));
    }
    let lines: Vec<_> = (0..2000).map(|line| format!("line {line}")).collect();
    assert_eq!(seen, lines);
}

#[test]
fn a_repaint_shows_the_same() {
    for bytes in [
        b"one\r\n\x1b[31mtwo\x1b[0m\r\nthree".as_slice(),
        b"$ \x1b[?1049h\x1b[H\x1b[7mstatus\x1b[0m\x1b[3;3H",
        b"",
    ] {
        let again = repaint(bytes, SIZE);
        let mut first = Parser::new(rows(SIZE), cols(SIZE), 0);
        first.process(bytes);
        let mut second = Parser::new(rows(SIZE), cols(SIZE), 0);
        second.process(&again);
        assert_eq!(first.screen().contents_formatted(), second.screen().contents_formatted());
        assert_eq!(first.screen().alternate_screen(), second.screen().alternate_screen());
    }
}

const MODES: &[&[u8]] = &[
    b"\x1b[?1049h",
    b"\x1b[?1049l",
    b"\x1b[?47h",
    b"\x1b[?47l",
    b"\x1b[?6h",
    b"\x1b[?6l",
    b"\x1b[?7l",
    b"\x1bc",
    b"\x1b7",
    b"\x1b8",
    b"\x1bM",
    b"\x1bD",
    b"\x1bE",
    b"\x1b]0;",
    b"\x1bP",
    b"\x07",
    b"\r\n",
    b"\t",
    b"\x08",
];

#[test]
fn modes_are_undone() {
    let mut modes = Modes::new(SIZE);
    modes.pass(b"\x1b[?1049h\x1b[?25l\x1b[?1h\x1b=\x1b[?2004h\x1b[?1000h\x1b[31mx");
    let undo = modes.undo();
    modes.pass(&undo);
    let screen = modes.parser.screen();
    assert!(!screen.alternate_screen() && !screen.hide_cursor() && !screen.bracketed_paste());
    assert!(!screen.application_cursor() && !screen.application_keypad());
    assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
    assert_eq!(Modes::new(SIZE).undo(), b"\x18\x1b[0m");
}

/// As a progress bar at the bottom of the screen sets it, and an editor.
#[test]
fn all_of_the_screen_scrolls_again() {
    for program in [b"\x1b[1;3r\x1b[Hone".as_slice(), b"\x1b[?1049h\x1b[2;3r\x1b[2;1Htwo"] {
        let mut modes = Modes::new(SIZE);
        modes.pass(program);
        let undo = modes.undo();
        modes.pass(&undo);
        modes.pass(b"\x1b[H1\r\n2\r\n3\r\n4\r\n5");
        assert_eq!(modes.parser.screen().contents(), "2\n3\n4\n5");
    }
}

/// A guest may begin a title and never end it.
#[test]
fn s4_a_sequence_that_does_not_end_takes_no_memory() {
    let mut modes = Modes::new(SIZE);
    for start in [b"\x1b]0;".as_slice(), b"\x1bP1;", b"\x1b[1;", b"\x1b_"] {
        modes.pass(start);
        let before = peak_kib();
        for _ in 0..16 {
            modes.pass(&[b'1'; 1 << 20]);
        }
        assert!(peak_kib() < before + 8 * 1024, "{}", start.escape_ascii());
        modes.pass(b"\x18");
    }
}

/// The most memory that this process has had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a list");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it is there");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Bytes that do what terminals are made to do.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let sequence = ("[?>]{0,1}", vec(0..70_000_u32, 0..5), proptest::char::range('@', '~'))
        .prop_map(|(private, numbers, last)| {
            let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
            format!("\x1b[{private}{}{last}", numbers.join(";")).into_bytes()
        });
    let small =
        (vec(0..12_u32, 0..4), proptest::char::range('@', '~')).prop_map(|(numbers, last)| {
            let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
            format!("\x1b[{}{last}", numbers.join(";")).into_bytes()
        });
    let modes = proptest::sample::select(MODES).prop_map(<[u8]>::to_vec);
    let text = "[a-z大한é\u{301}\u{200d}👩 ]{0,30}".prop_map(String::into_bytes);
    vec(prop_oneof![sequence, small, modes, text, vec(any::<u8>(), 0..20)], 0..60)
        .prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..Default::default() })]

    /// Whatever comes: it is drawn, in bounded memory, and nobody panics.
    #[test]
    fn s1_r22_hostile_bytes_are_only_drawn(
        bytes in hostile(),
        mark: proptest::sample::Index,
        cols in 0..=u16::MAX,
        rows in 0..40_u16,
        narrow in 0..6_u16,
        limit in 0..2000_usize,
    ) {
        let mark = mark.index(bytes.len() + 1);
        for size in [TerminalSize { cols, rows }, TerminalSize { cols: narrow, rows: narrow }, SIZE] {
            let sight = look(&bytes, mark, size, limit);
            prop_assert!(sight.drawn <= bytes.len() - mark);
            prop_assert!(mark == bytes.len() || sight.drawn > 0);
            let no_control = |char: char| !char.is_control() || char == '\n';
            prop_assert!(sight.text.chars().all(no_control), "{:?}", sight.text);
            let screen = usize::from(COLS_MAX) * usize::from(ROWS_MAX) * 22;
            prop_assert!(sight.text.len() <= limit + STEP * usize::from(COLS_MAX) * 22 + screen);
            drop(repaint(&bytes, size));
        }
    }

    /// Text without sequences arrives whole, wherever one looked away.
    #[test]
    fn r22_no_text_is_dropped(lines in vec("[a-z]{1,15}", 1..30), mark: proptest::sample::Index) {
        let bytes: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\r\n").into_bytes()).collect();
        let mark = mark.index(bytes.len() + 1);
        let first = look(&bytes[..mark], 0, SIZE, usize::MAX).text;
        let second = look(&bytes, mark, SIZE, usize::MAX).text;
        let before = std::str::from_utf8(&bytes[..mark])?;
        let finished = before.matches('\n').count();
        let begun = before.rsplit('\n').next().unwrap_or_default().trim_end();
        // A line is told again if there is more of it; one that only ends is not.
        let told = finished + usize::from(lines.get(finished).is_some_and(|line| line == begun));
        let firsts: Vec<_> = first.lines().take(told).collect();
        let all: Vec<_> = firsts.into_iter().chain(second.lines()).map(str::to_owned).collect();
        prop_assert_eq!(all, lines);
    }
}
