//! What a registry says it wants to see: the header `WWW-Authenticate`.

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// A user's name and password.
    Basic,
    /// A token, which somebody else gives.
    Bearer {
        /// Who.
        realm: String,
        /// For which service.
        service: Option<String>,
    },
}

/// Reads a header's challenges; those of other kinds are left out.
#[must_use]
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',']);
    while let Some((scheme, parameters)) = take_word(rest) {
        let (parameters, after) = take_parameters(parameters);
        let value = |name: &str| {
            let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            challenges.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = value("realm")
        {
            challenges.push(Challenge::Bearer { realm, service: value("service") });
        }
        rest = after;
    }
    challenges
}

fn take_word(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| c.is_ascii_whitespace() || matches!(c, ',' | '=' | '"'));
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    (!word.is_empty()).then_some((word, rest))
}

/// `name=value` or `name="value"`, with commas between, until something else comes.
fn take_parameters(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut parameters = Vec::new();
    loop {
        let here = rest.trim_start_matches([' ', '\t', ',']);
        let Some((name, after)) = take_word(here) else {
            // A stray sign would keep the reader here for ever.
            let mut signs = here.chars();
            signs.next();
            return (parameters, if here.is_empty() { here } else { signs.as_str() });
        };
        let Some(value) = after.trim_start().strip_prefix('=') else {
            return (parameters, here);
        };
        let (value, after) = match value.trim_start().strip_prefix('"') {
            Some(quoted) => take_quoted(quoted),
            None => {
                let (word, after) = take_word(value.trim_start()).unwrap_or(("", ""));
                (word.to_owned(), after)
            }
        };
        parameters.push((name.to_owned(), value));
        rest = after;
    }
}

fn take_quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, character)| character)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.map(str::to_owned) }
    }

    #[test]
    fn challenges_are_read() {
        for (header, challenges) in [
            (
                r#"Bearer realm="https://a/t",service="s, x",scope="repository:x:pull,push""#,
                vec![bearer("https://a/t", Some("s, x"))],
            ),
            (
                r#"basic realm="x", bearer Realm=https://b/t"#,
                vec![Challenge::Basic, bearer("https://b/t", None)],
            ),
            (r#"Negotiate, Basic"#, vec![Challenge::Basic]),
            (r#"Bearer service="x""#, vec![]),
            (r#"Bearer realm="a\"b"#, vec![bearer("a\"b", None)]),
            ("", vec![]),
        ] {
            assert_eq!(parse(header), challenges, "{header}");
        }
    }

    proptest! {
        #[test]
        fn no_header_keeps_anybody(header in "\\PC{0,60}|[Bbearsic =,\"\\\\]{0,40}") {
            drop(parse(&header));
        }
    }
}
