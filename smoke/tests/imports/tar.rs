//! Archives as builders of images write them, byte by byte: whoever runs the
//! stories need not be root, nor have a file system that keeps attributes.

const BLOCK: usize = 512;

/// The largest owner that a header has digits for.
const OWNER_MAX: u32 = 0o7_777_777;

/// A member, root's unless it says otherwise.
pub struct Member {
    name: String,
    flag: u8,
    mode: u32,
    owner: (u32, u32),
    link: String,
    content: Vec<u8>,
    attributes: Vec<(String, Vec<u8>)>,
}

impl Member {
    fn new(name: &str, flag: u8, mode: u32) -> Self {
        Self {
            name: name.into(),
            flag,
            mode,
            owner: (0, 0),
            link: String::new(),
            content: Vec::new(),
            attributes: Vec::new(),
        }
    }

    pub fn file(name: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { content: content.into(), ..Self::new(name, b'0', 0o644) }
    }

    pub fn program(name: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { mode: 0o755, ..Self::file(name, content) }
    }

    pub fn directory(name: &str) -> Self {
        Self::new(name, b'5', 0o755)
    }

    pub fn hard_link(name: &str, target: &str) -> Self {
        Self { link: target.into(), ..Self::new(name, b'1', 0o644) }
    }

    pub fn symlink(name: &str, target: &str) -> Self {
        Self { link: target.into(), ..Self::new(name, b'2', 0o777) }
    }

    pub fn character_device(name: &str) -> Self {
        Self::new(name, b'3', 0o666)
    }

    pub fn block_device(name: &str) -> Self {
        Self::new(name, b'4', 0o666)
    }

    pub fn pipe(name: &str) -> Self {
        Self::new(name, b'6', 0o666)
    }

    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub fn owner(self, user: u32, group: u32) -> Self {
        Self { owner: (user, group), ..self }
    }

    pub fn attribute(mut self, name: &str, value: &[u8]) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }

    fn write(&self, tar: &mut Vec<u8>) {
        let mut records = Vec::new();
        if self.name.len() > 100 {
            record(&mut records, "path", self.name.as_bytes());
        }
        let (user, group) = self.owner;
        for (key, id) in [("uid", user), ("gid", group)] {
            if id > OWNER_MAX {
                record(&mut records, key, id.to_string().as_bytes());
            }
        }
        for (name, value) in &self.attributes {
            record(&mut records, &format!("SCHILY.xattr.{name}"), value);
        }
        if !records.is_empty() {
            block(tar, &Self::new("records", b'x', 0o644), &records);
        }
        block(tar, self, &self.content);
    }
}

pub fn tar_of(members: &[Member]) -> Vec<u8> {
    let mut tar = Vec::new();
    for member in members {
        member.write(&mut tar);
    }
    tar.resize(tar.len() + 2 * BLOCK, 0);
    tar
}

/// `LENGTH KEY=VALUE`, the length that of all of it.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let bare = key.len() + value.len() + " =\n".len();
    let all = (bare..).find(|all| *all == bare + all.to_string().len()).unwrap();
    records.extend_from_slice(format!("{all} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// A header, and content up to the end of its last block.
fn block(tar: &mut Vec<u8>, member: &Member, content: &[u8]) {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    let octal = |number: u32| format!("{:07o}", number.min(OWNER_MAX)).into_bytes();
    put(0, &member.name.as_bytes()[..member.name.len().min(100)]);
    put(100, &octal(member.mode));
    put(108, &octal(member.owner.0));
    put(116, &octal(member.owner.1));
    put(124, format!("{:011o}", content.len()).as_bytes());
    put(136, b"07346545000");
    put(148, b"        ");
    put(156, &[member.flag]);
    put(157, member.link.as_bytes());
    put(257, b"ustar\x0000");
    // Of what devices these are.
    put(329, &octal(1));
    put(337, &octal(3));
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    tar.extend_from_slice(&header);
    tar.extend_from_slice(content);
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
}
