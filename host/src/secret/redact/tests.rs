use super::*;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use proptest::prelude::*;

fn redactor(values: &[&str]) -> Redactor {
    Redactor::of(values.iter().map(|value| value.as_bytes()))
}

fn told(values: &[&str], text: &str) -> String {
    redactor(values).text(text).into_owned()
}

/// The text in pieces that end at these places.
fn in_pieces(redactor: &Redactor, text: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
    cuts.sort_unstable();
    let (mut stream, mut told, mut from) = (redactor.stream(), Vec::new(), 0);
    for to in cuts.into_iter().chain([text.len()]) {
        told.extend(stream.push(text[from..to].to_vec()));
        assert!(stream.held() as usize <= redactor.reach());
        from = to;
    }
    told.extend(stream.finish());
    told
}

#[test]
fn s6_a_value_is_left_out_with_and_without_its_line_end() {
    for value in ["hunter22", "hunter22\n", "hunter22\r\n"] {
        assert_eq!(told(&[value], "hunter22"), MARK);
        assert_eq!(told(&[value], "[hunter22]\n"), format!("[{MARK}]\n"));
        assert_eq!(told(&[value], "a hunter22\r\nb"), format!("a {MARK}\r\nb"));
    }
    assert_eq!(told(&["hunter22"], "hunter2 unter22"), "hunter2 unter22");
}

#[test]
fn s6_the_longest_is_left_out_and_what_overlaps_is_one() {
    assert_eq!(
        told(&["secret", "secret-key"], "a secret-key, a secret"),
        format!("a {MARK}, a {MARK}")
    );
    assert_eq!(told(&["abcdef", "defghi"], "abcdefghi"), MARK);
    assert_eq!(told(&["bcde", "abcdefg"], "abcdefg abcdef"), format!("{MARK} a{MARK}f"));
    assert_eq!(told(&["abcd"], "abcdabcd"), MARK.repeat(2));
    assert_eq!(told(&["aaaa"], "aaaaaaaaaa"), MARK);
}

#[test]
fn s6_base64_is_left_out_wherever_the_value_begins_in_it() {
    let value = "tok-4f9a/~?>7c";
    for alphabet in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
        assert_eq!(told(&[value], &alphabet.encode(value)), MARK);
        assert_eq!(told(&[value], &alphabet.encode(format!("{value}\n"))), MARK);
        for before in ["", "u", "us", "use", "user"] {
            for after in ["", ":", "ab", "abc"] {
                let text = alphabet.encode(format!("{before}{value}{after}"));
                let told = told(&[value], &text);
                assert!(told.contains(MARK), "{text}: {told}");
                // At most what a byte next to it shares with it is left.
                assert!(told.len() - MARK.len() <= 16, "{text}: {told}");
            }
        }
    }
}

#[test]
fn s6_base64_that_is_wrapped_is_left_out() {
    let value = "a key that is somewhat longer than a line of base64 can be, and then some";
    let text = STANDARD.encode(format!("password={value}\n"));
    for width in [1, 20, 64, 76] {
        for end in ["\n", "\r\n"] {
            let lines: Vec<_> =
                text.as_bytes().chunks(width).map(String::from_utf8_lossy).collect();
            let told = told(&[value], &lines.join(end));
            // What is before it: `password`.
            assert_eq!(told.matches(MARK).count(), 1, "{width}: {told}");
            assert!(told.replace(['\r', '\n'], "").len() < 40, "{width}: {told}");
        }
    }
}

#[test]
fn s6_percent_encoded_values_are_left_out() {
    let value = "pa55 word/&=é%41";
    let all: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
    for text in [
        all.clone(),
        all.to_uppercase(),
        "pa55%20word%2F%26%3D%C3%A9%2541".into(),
        "pa55+word%2f%26%3d%c3%a9%2541".into(),
        "pa55%20word/%26=%c3%A9%2541".into(),
        value.into(),
    ] {
        assert_eq!(told(&[value], &format!("?q={text}&x")), format!("?q={MARK}&x"));
    }
    assert_eq!(told(&["abcd"], "100% %zz %6 %"), "100% %zz %6 %");
    let encoded = STANDARD.encode("abcd~~~~").replace('=', "%3D");
    assert_eq!(told(&["abcd~~~~"], &encoded), MARK);
}

#[test]
fn s6_quoted_and_escaped_values_are_left_out() {
    let value = "it's \"1\"\\2\n\tand more";
    let json = serde_json::to_string(value).expect("a string");
    for text in [json, format!("{value:?}"), format!("'{}'", value.replace('\'', r"'\''"))] {
        let told = told(&[value], &text);
        assert!(told.contains(MARK) && !told.contains("more"), "{told}");
    }
}

#[test]
fn s6_values_are_left_out_as_shells_and_programs_print_them() {
    let value = r#"it's $HOME & `a` "b" \c"#;
    for (text, left) in [
        // `set` of dash, `export -p` of bash, its `printf %q`.
        (r##"'it'"'"'s $HOME & `a` "b" \c'"##, "''"),
        (r##""it's \$HOME & \`a\` \"b\" \\c""##, r#""""#),
        (r##"it\'s\ \$HOME\ \&\ \`a\`\ \"b\"\ \\c"##, ""),
    ] {
        assert_eq!(told(&[value], text).replace(MARK, ""), left, "{text}");
    }
    let value = "it's\u{7f}so";
    assert_eq!(told(&[value], &format!("{value:?}")), format!("\"{MARK}\""));
}

#[test]
fn s6_a_path_shows_no_secret_however_long_it_becomes() {
    let path = GuestPath::new("word/".repeat(800)).expect("a path");
    let told = redactor(&["word"]).path(&path).to_string();
    assert!(told.starts_with(&format!("{MARK}/{MARK}/")) && !told.contains("word"), "{told}");
}

#[test]
fn s6_lines_of_a_long_secret_are_left_out_alone() {
    let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----\n";
    let diff: String = key.lines().map(|line| format!("+{line}\n")).collect();
    let told = told(&[key], &diff);
    assert!(!told.contains("MII") && !told.contains("AQE"), "{told}");
    assert_eq!(told.matches('\n').count(), 4, "{told}");
}

#[test]
fn what_is_too_short_is_not_looked_for() {
    for short in ["", "a", "abc", "abc\n", "\n\n\n\n\n"] {
        assert!(redactor(&[short]).is_empty(), "{short:?}");
    }
    assert!(!redactor(&["abcd"]).is_empty());
}

#[test]
fn s6_nothing_is_held_back_that_begins_no_secret() {
    let mut stream = redactor(&["hunter22"]).stream();
    assert_eq!(stream.push(b"$ ".to_vec()), b"$ ");
    assert_eq!(stream.push(b"hunt".to_vec()), b"");
    assert_eq!(stream.push(b"s".to_vec()), b"hunts");
    assert_eq!(stream.push(b"with\n".to_vec()), b"with\n", "no line waits for one letter");
    assert_eq!(stream.push(b"hunter".to_vec()), b"");
    assert_eq!(stream.held(), 6);
    assert_eq!(stream.push(b"22".to_vec()), MARK.as_bytes());
    assert_eq!(stream.push(b"hunter".to_vec()), b"");
    assert_eq!(stream.finish(), b"hunter");
}

#[test]
fn r25_lengths_of_what_is_told_lead_back() {
    let redactor = redactor(&["hunter22-and-more"]);
    let text = b"a hunter22-and-more b";
    let told = redactor.window(text, 0..text.len(), false);
    assert_eq!(told.bytes, format!("a {MARK} b").as_bytes());
    assert_eq!(told.taken, text.len());
    for (shown, original) in [(0, 0), (2, 2), (5, 2), (2 + MARK.len(), 19), (4 + MARK.len(), 21)] {
        assert_eq!(told.marks.original(shown), original);
    }
}

#[test]
fn s6_a_part_shows_no_half_of_a_secret() {
    let redactor = redactor(&["hunter22"]);
    let text = b"ab hunter22 cd";
    for from in 0..text.len() {
        for to in from..=text.len() {
            let told = redactor.window(text, from..to, false);
            assert!(told.taken >= to - from);
            let shown = String::from_utf8(told.bytes).expect("text");
            assert!(!shown.contains(['h', 'u', '2']), "{from}..{to}: {shown}");
        }
    }
    let told = redactor.window(b"ab hunt", 0..7, true);
    assert_eq!((told.bytes.as_slice(), told.taken), (&b"ab "[..], 3));
}

fn alphabet() -> impl Strategy<Value = Vec<u8>> {
    // Few letters, so that much of it repeats, and what readings treat apart.
    let letter = prop::sample::select(b"aab%4162=\n\r".to_vec());
    prop::collection::vec(letter, 0..60)
}

proptest! {
    #[test]
    fn s6_any_cut_gives_what_the_whole_gives(
        values in prop::collection::vec("[ab4%]{4,9}", 1..4),
        text in alphabet(),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let redactor = Redactor::of(values.iter().map(String::as_bytes));
        let whole = redactor.bytes(text.clone());
        prop_assert_eq!(in_pieces(&redactor, &text, &cuts), whole.clone());
        let bytes: Vec<usize> = (0..text.len()).collect();
        prop_assert_eq!(in_pieces(&redactor, &text, &bytes), whole);
    }

    #[test]
    fn s6_no_value_survives(
        values in prop::collection::vec("[ab]{4,9}", 1..4),
        text in "[ab \n]{0,80}",
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let redactor = Redactor::of(values.iter().map(String::as_bytes));
        let told = String::from_utf8(in_pieces(&redactor, text.as_bytes(), &cuts)).expect("text");
        for value in &values {
            prop_assert!(!told.contains(value.as_str()), "{} in {}", value, told);
        }
    }

    #[test]
    fn r25_what_holds_no_secret_stays_as_it_is(
        value in "[0-9]{8,40}",
        bytes in prop::collection::vec(prop::sample::select(b"xyz%5\n\r \xff\0".to_vec()), 0..200),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        prop_assume!(value.bytes().any(|digit| digit != b'5'));
        let redactor = Redactor::of([value.as_bytes()]);
        prop_assert_eq!(in_pieces(&redactor, &bytes, &cuts), bytes);
    }

    /// A part with its surroundings is that part of the whole.
    #[test]
    fn s6_parts_put_together_show_what_the_whole_shows(
        values in prop::collection::vec("[ab4]{4,9}", 1..4),
        text in alphabet(),
        step in 1_usize..9,
    ) {
        let redactor = Redactor::of(values.iter().map(String::as_bytes));
        let reach = redactor.reach();
        let (mut parts, mut at) = (Vec::new(), 0);
        while at < text.len() {
            let from = at.saturating_sub(reach);
            let to = (at + step + reach).min(text.len());
            let part = at - from..(at - from + step).min(to - from);
            let told = redactor.window(&text[from..to], part, to < text.len());
            prop_assert!(told.taken > 0, "it goes on");
            parts.extend(told.bytes);
            at += told.taken;
        }
        prop_assert_eq!(parts, redactor.bytes(text));
    }

    /// One who goes on where another left off tells what one alone would.
    #[test]
    fn s6_a_stream_can_be_taken_up(
        values in prop::collection::vec("[ab4]{4,9}", 1..3),
        text in "[ab4 ]{0,60}",
        cut in any::<usize>(),
    ) {
        let redactor = Redactor::of(values.iter().map(String::as_bytes));
        let text = text.as_bytes();
        let cut = cut % (text.len() + 1);
        let mut first = redactor.stream();
        let mut told = first.push(text[..cut].to_vec());
        let heard = cut - first.held() as usize;
        let from = heard.saturating_sub(redactor.reach());
        let mut second = redactor.stream_after((heard - from) as u64);
        told.extend(second.push(text[from..].to_vec()));
        told.extend(second.finish());
        let told = String::from_utf8(told).expect("text");
        for value in &values {
            prop_assert!(!told.contains(value.as_str()), "{} in {}", value, told);
        }
        prop_assert_eq!(told.replace(MARK, ""), String::from_utf8(redactor.bytes(text.to_vec())).expect("text").replace(MARK, ""));
    }
}

/// Ten times as much takes ten times as many steps: no byte is looked at again
/// for what came before it.
#[test]
fn the_work_is_bounded_by_the_length() {
    let redactor = redactor(&[&"a".repeat(5000), &format!("{}b", "a".repeat(120))]);
    let text = b"a".repeat(1 << 20);
    let mut stream = redactor.stream();
    let mut told = Vec::new();
    for piece in text.chunks(4096) {
        told.extend(stream.push(piece.to_vec()));
        assert!(stream.held() as usize <= redactor.reach());
    }
    told.extend(stream.finish());
    assert_eq!(told, MARK.as_bytes());
}
