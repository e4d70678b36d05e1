//! Who a program runs as, by the guest's own /etc/passwd and /etc/group.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The most of either table that is looked at.
const TABLE_MAX: u64 = 1024 * 1024;

/// The most supplementary groups that Linux takes is 65536; nobody has more
/// than a handful.
const GROUPS_MAX: usize = 1024;

/// A user and the groups to run with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's id.
    pub uid: u32,
    /// The primary group's id.
    pub gid: u32,
    /// The other groups', without the primary one.
    pub groups: Vec<u32>,
    /// The name, or the number where there is none.
    pub name: Vec<u8>,
    /// The home directory; `/` where none is known.
    pub home: Vec<u8>,
    /// The shell; `/bin/sh` where none is known.
    pub shell: Vec<u8>,
}

/// Why nobody can be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoUser {
    /// Neither a name in the table nor a number.
    #[error("there is no user {0:?}")]
    User(String),
    /// Neither a name in the table nor a number.
    #[error("there is no group {0:?}")]
    Group(String),
}

/// The two tables' bytes.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    passwd: Vec<u8>,
    group: Vec<u8>,
}

struct Account<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
    shell: &'a [u8],
}

impl Tables {
    /// The machine's. A table that is not there is empty.
    pub fn read() -> io::Result<Self> {
        let [passwd, group] = ["/etc/passwd", "/etc/group"].map(|path| read(Path::new(path)));
        Ok(Self { passwd: passwd?, group: group? })
    }

    /// Tables of these contents.
    #[must_use]
    pub fn new(passwd: impl Into<Vec<u8>>, group: impl Into<Vec<u8>>) -> Self {
        Self { passwd: passwd.into(), group: group.into() }
    }

    /// Finds `name`, `name:group`, `uid` or `uid:group`; a name wins over the
    /// number it looks like. A number need not be in the tables. With a group
    /// there are no supplementary ones.
    pub fn find(&self, who: &str) -> Result<User, NoUser> {
        let (user, group) = match who.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (who, None),
        };
        let user = self.user(user)?;
        let Some(group) = group else { return Ok(user) };
        let gid = self
            .group_named(group)
            .or_else(|| number(group.as_bytes()))
            .ok_or_else(|| NoUser::Group(group.to_owned()))?;
        Ok(User { gid, groups: Vec::new(), ..user })
    }

    /// The user of this id, known or not.
    #[must_use]
    pub fn by_id(&self, uid: u32) -> User {
        match self.accounts().find(|account| account.uid == uid) {
            Some(account) => self.user_of(&account),
            None => User {
                uid,
                gid: uid,
                groups: Vec::new(),
                name: uid.to_string().into_bytes(),
                home: b"/".to_vec(),
                shell: b"/bin/sh".to_vec(),
            },
        }
    }

    fn user(&self, user: &str) -> Result<User, NoUser> {
        if let Some(account) = self.accounts().find(|account| account.name == user.as_bytes()) {
            return Ok(self.user_of(&account));
        }
        let uid = number(user.as_bytes()).ok_or_else(|| NoUser::User(user.to_owned()))?;
        Ok(self.by_id(uid))
    }

    fn user_of(&self, account: &Account<'_>) -> User {
        let or = |value: &[u8], default: &[u8]| {
            if value.is_empty() { default.to_vec() } else { value.to_vec() }
        };
        User {
            uid: account.uid,
            gid: account.gid,
            groups: self.groups_of(account),
            name: account.name.to_vec(),
            home: or(account.home, b"/"),
            shell: or(account.shell, b"/bin/sh"),
        }
    }

    fn accounts(&self) -> impl Iterator<Item = Account<'_>> {
        lines(&self.passwd).filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            let (name, _password) = (fields.next()?, fields.next()?);
            let (uid, gid) = (number(fields.next()?)?, number(fields.next()?)?);
            let (_gecos, home, shell) = (fields.next()?, fields.next()?, fields.next()?);
            (!name.is_empty()).then_some(Account { name, uid, gid, home, shell })
        })
    }

    /// Name, id, members.
    fn groups(&self) -> impl Iterator<Item = (&[u8], u32, &[u8])> {
        lines(&self.group).filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            let (name, _password) = (fields.next()?, fields.next()?);
            Some((name, number(fields.next()?)?, fields.next()?))
        })
    }

    fn groups_of(&self, account: &Account<'_>) -> Vec<u32> {
        let has_member =
            |members: &[u8]| members.split(|byte| *byte == b',').any(|name| name == account.name);
        let mut ids: Vec<u32> = self
            .groups()
            .filter(|(_, gid, members)| *gid != account.gid && has_member(members))
            .map(|(_, gid, _)| gid)
            .take(GROUPS_MAX)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn group_named(&self, wanted: &str) -> Option<u32> {
        self.groups().find(|(name, ..)| *name == wanted.as_bytes()).map(|(_, gid, _)| gid)
    }
}

fn lines(table: &[u8]) -> impl Iterator<Item = &[u8]> {
    table.split(|byte| *byte == b'\n')
}

/// A decimal number, and not the one that means "leave it" to the kernel.
fn number(digits: &[u8]) -> Option<u32> {
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let text = all_digits.then(|| std::str::from_utf8(digits).ok()).flatten()?;
    text.parse().ok().filter(|number| *number != u32::MAX)
}

/// What is no regular file is no table: a FIFO would keep the agent waiting.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    if file.metadata()?.is_file() {
        file.take(TABLE_MAX).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, mknodat};

    #[test]
    fn p3_what_is_no_file_is_no_table_and_keeps_nobody_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passwd");
        assert_eq!(read(&path).unwrap(), b"");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(read(&path).unwrap(), b"");
        assert_eq!(read(directory.path()).unwrap(), b"");
    }
}
