//! The configuration that a repository has in the guest: only what its history
//! and its files need, with no secret and no path of the host.

/// Keys that are kept as they are, with `*` for any name in between.
const KEPT: &[&str] = &[
    "core.repositoryformatversion",
    "core.filemode",
    "core.symlinks",
    "core.ignorecase",
    "core.autocrlf",
    "core.eol",
    "core.safecrlf",
    "core.sparsecheckout",
    "core.sparsecheckoutcone",
    "core.logallrefupdates",
    "extensions.objectformat",
    "extensions.compatobjectformat",
    "extensions.refstorage",
    "extensions.partialclone",
    "extensions.preciousobjects",
    "index.sparse",
    "user.name",
    "user.email",
    "branch.*.remote",
    "branch.*.pushremote",
    "branch.*.merge",
    "branch.*.rebase",
    "remote.*.url",
    "remote.*.pushurl",
    "remote.*.fetch",
    "remote.*.tagopt",
    "remote.*.promisor",
    "remote.*.partialclonefilter",
    "submodule.*.url",
    "submodule.*.active",
    "submodule.*.branch",
    "submodule.active",
];

/// Set whatever the repository says.
///
/// The index remembers of each file what only the host knows, such as its inode
/// number. Looked at in the least way, size and time are enough, and those
/// survive: so the first `git status` in the guest reads no file.
const SET: &str = "[core]\n\tbare = false\n\tcheckStat = minimal\n\ttrustCtime = false\n";

/// A configured value. Its key is `section.key` or `section.name.key`; section
/// and key in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    section: Vec<u8>,
    name: Option<Vec<u8>>,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Setting {
    /// Reads a record of `git config --list -z`.
    #[must_use]
    pub fn parse(record: &[u8]) -> Option<Self> {
        let newline = record.iter().position(|byte| *byte == b'\n');
        // A key alone is true.
        let (path, value) = match newline {
            Some(at) => (&record[..at], &record[at + 1..]),
            None => (record, &b"true"[..]),
        };
        let first = path.iter().position(|byte| *byte == b'.')?;
        let last = path.iter().rposition(|byte| *byte == b'.')?;
        let name = (first < last).then(|| path[first + 1..last].to_vec());
        Some(Self {
            section: path[..first].to_vec(),
            name,
            key: path[last + 1..].to_vec(),
            value: value.to_vec(),
        })
    }

    /// A value without a name in its key.
    #[must_use]
    pub fn plain(section: &str, key: &str, value: &[u8]) -> Self {
        Self { section: section.into(), name: None, key: key.into(), value: value.to_vec() }
    }

    /// Its value, if this is its key.
    #[must_use]
    pub fn value_of(&self, section: &str, key: &str) -> Option<&[u8]> {
        let own =
            self.name.is_none() && self.section == section.as_bytes() && self.key == key.as_bytes();
        own.then_some(&self.value)
    }

    fn is_kept(&self) -> bool {
        let star = if self.name.is_some() { &b".*."[..] } else { b"." };
        let path = [&self.section, star, &self.key].concat();
        KEPT.iter().any(|kept| kept.as_bytes() == path)
            && !(matches!(&*self.key, b"url" | b"pushurl") && is_local(&self.value))
    }

    fn write(&self, to: &mut Vec<u8>) {
        to.push(b'[');
        to.extend_from_slice(&self.section);
        if let Some(name) = &self.name {
            to.push(b' ');
            quote(&without_passwords(name), to);
        }
        to.extend_from_slice(b"]\n\t");
        to.extend_from_slice(&self.key);
        to.extend_from_slice(b" = ");
        quote(&without_passwords(&self.value), to);
        to.push(b'\n');
    }
}

/// The file for the guest.
#[must_use]
pub fn file(settings: &[Setting]) -> Vec<u8> {
    let mut file = Vec::new();
    settings
        .iter()
        .filter(|setting| setting.is_kept())
        .for_each(|setting| setting.write(&mut file));
    file.extend_from_slice(SET.as_bytes());
    file
}

fn quote(text: &[u8], to: &mut Vec<u8>) {
    to.push(b'"');
    for byte in text {
        match byte {
            b'\n' => to.extend_from_slice(b"\\n"),
            b'"' | b'\\' => to.extend_from_slice(&[b'\\', *byte]),
            _ => to.push(*byte),
        }
    }
    to.push(b'"');
}

/// Whether a remote is a directory of the host. A colon before the first slash
/// makes it `host:path`.
fn is_local(url: &[u8]) -> bool {
    if url.starts_with(b"file:") {
        return true;
    }
    let head = url.split(|byte| *byte == b'/').next().unwrap_or_default();
    !head.contains(&b':')
}

/// Takes user names and passwords out of every URL in a text. Of SSH the user
/// stays: it is part of the address there, and no secret.
#[must_use]
pub fn without_passwords(text: &[u8]) -> Vec<u8> {
    const MARK: &[u8] = b"://";
    let mut clean = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(MARK.len()).position(|window| window == MARK) {
        let (before, after) = rest.split_at(at + MARK.len());
        clean.extend_from_slice(before);
        let ends = |byte: &u8| {
            matches!(byte, b'/' | b'?' | b'#' | b'"' | b'\'') || byte.is_ascii_whitespace()
        };
        let authority = &after[..after.iter().position(ends).unwrap_or(after.len())];
        let mut skipped = 0;
        if let Some(at) = authority.iter().rposition(|byte| *byte == b'@') {
            skipped = at + 1;
            if before[..at_scheme_end(before)].ends_with(b"ssh") {
                let user = authority[..at].split(|byte| *byte == b':').next().unwrap_or_default();
                clean.extend_from_slice(user);
                clean.push(b'@');
            }
        }
        rest = &after[skipped..];
    }
    clean.extend_from_slice(rest);
    clean
}

fn at_scheme_end(before: &[u8]) -> usize {
    before.len().saturating_sub(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(record: &str) -> Setting {
        Setting::parse(record.as_bytes()).expect("a setting")
    }

    #[test]
    fn passwords_go_and_addresses_stay() {
        for (url, clean) in [
            ("https://user:secret@host/path", "https://host/path"),
            ("https://token@host/path", "https://host/path"),
            ("https://a:b@c@host", "https://host"),
            ("ssh://git:secret@host/path", "ssh://git@host/path"),
            ("ssh://git@host/path", "ssh://git@host/path"),
            ("git@host:path", "git@host:path"),
            ("https://host/a@b", "https://host/a@b"),
            (
                "pull https://t@h/x main\nfetch http://u:p@h",
                "pull https://h/x main\nfetch http://h",
            ),
            ("no url", "no url"),
            ("://", "://"),
        ] {
            let found = without_passwords(url.as_bytes());
            assert_eq!(String::from_utf8(found).expect("text"), clean);
        }
    }

    #[test]
    fn only_what_is_needed_is_kept() {
        let settings = [
            "core.repositoryformatversion\n0",
            "core.hookspath\n/home/somebody/hooks",
            "core.worktree\n/home/somebody/work",
            "core.fsmonitor\nevil",
            "core.bare\ntrue",
            "credential.helper\nstore",
            "url.https://token@host/.insteadof\ngh:",
            "remote.origin.url\nhttps://user:secret@host/x.git",
            "remote.origin.fetch\n+refs/heads/*:refs/remotes/origin/*",
            "remote.local.url\n/home/somebody/x.git",
            "remote.file.url\nfile:///home/somebody/x.git",
            "remote.short.url\nhost:x.git",
            "branch.a.b\"c.merge\nrefs/heads/a.b\"c",
            "filter.lfs.process\nevil",
            "http.https://host/.extraheader\nAuthorization: secret",
            "include.path\n../evil",
            "alias.status\n!evil",
            "submodule.s.update\n!evil",
        ]
        .map(parse);
        let text = String::from_utf8(file(&settings)).expect("text");
        assert_eq!(
            text,
            "[core]\n\trepositoryformatversion = \"0\"\n\
             [remote \"origin\"]\n\turl = \"https://host/x.git\"\n\
             [remote \"origin\"]\n\tfetch = \"+refs/heads/*:refs/remotes/origin/*\"\n\
             [remote \"short\"]\n\turl = \"host:x.git\"\n\
             [branch \"a.b\\\"c\"]\n\tmerge = \"refs/heads/a.b\\\"c\"\n\
             [core]\n\tbare = false\n\tcheckStat = minimal\n\ttrustCtime = false\n"
        );
    }

    #[test]
    fn a_key_alone_is_true() {
        assert_eq!(parse("core.filemode").value_of("core", "filemode"), Some(&b"true"[..]));
        assert_eq!(Setting::parse(b"nothing"), None);
    }
}
