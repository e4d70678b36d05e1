//! A program and its arguments as one line that a shell would take.

/// Joins words, each quoted if it must be; what is not UTF-8 is replaced.
pub fn quoted<'a>(argv: impl IntoIterator<Item = &'a [u8]>) -> String {
    let words = argv.into_iter().map(|word| quote(&String::from_utf8_lossy(word)));
    words.collect::<Vec<_>>().join(" ")
}

fn quote(word: &str) -> String {
    let is_plain = |char: char| char.is_alphanumeric() || "-_=+.,/:@%^".contains(char);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(argv: &[&str]) -> String {
        quoted(argv.iter().map(|word| word.as_bytes()))
    }

    #[test]
    fn plain_words_stay_plain() {
        assert_eq!(line(&["git", "log", "--format=%h", "a/b.c"]), "git log --format=%h a/b.c");
        assert_eq!(line(&["echo", "", "it's", "$HOME *"]), r"echo '' 'it'\''s' '$HOME *'");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn a_shell_reads_the_same_words(argv in proptest::collection::vec("[^\0]{0,8}", 1..5)) {
            let words: Vec<&str> = argv.iter().map(String::as_str).collect();
            let script = format!("printf '%s\\0' {}", line(&words));
            let output = std::process::Command::new("sh").args(["-c", &script]).output();
            let expected: String = argv.iter().map(|word| format!("{word}\0")).collect();
            let output = output.expect("sh").stdout;
            prop_assert_eq!(String::from_utf8_lossy(&output), expected);
        }
    }
}
