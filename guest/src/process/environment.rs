//! The variables that a program starts with.

use super::user::User;
use pyro_protocol::ByteString;
use std::ffi::CString;

/// Where programs are looked for unless the caller says otherwise.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The most directories of a path that are looked at.
pub const PATH_ENTRIES_MAX: usize = 1024;

/// Variables, in the order in which the program will see them, each name once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment(Vec<(Vec<u8>, Vec<u8>)>);

/// A name that cannot be a variable's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be a variable")]
pub struct BadVariable(pub ByteString);

impl Environment {
    /// What every program gets: its user's own, and a locale that takes UTF-8.
    #[must_use]
    pub fn defaults(user: &User) -> Self {
        let variable = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
        Self(vec![
            variable("PATH", PATH.as_bytes()),
            variable("HOME", &user.home),
            variable("USER", &user.name),
            variable("LOGNAME", &user.name),
            variable("SHELL", &user.shell),
            variable("LANG", b"C.UTF-8"),
        ])
    }

    /// Adds the caller's, the last of a name wins.
    pub fn merge(&mut self, variables: Vec<(ByteString, ByteString)>) -> Result<(), BadVariable> {
        for (ByteString(name), ByteString(value)) in variables {
            if name.is_empty() || name.contains(&b'=') || name.contains(&0) || value.contains(&0) {
                return Err(BadVariable(ByteString(name)));
            }
            match self.0.iter_mut().find(|(old, _)| *old == name) {
                Some((_, old)) => *old = value,
                None => self.0.push((name, value)),
            }
        }
        Ok(())
    }

    /// A variable's value.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_slice())
    }

    /// As exec wants them. Those with a NUL, which [`Environment::merge`] lets
    /// nobody add, are left out.
    #[must_use]
    pub fn to_strings(&self) -> Vec<CString> {
        let line = |(name, value): &(Vec<u8>, Vec<u8>)| {
            CString::new([name.as_slice(), b"=", value].concat()).ok()
        };
        self.0.iter().filter_map(line).collect()
    }
}
