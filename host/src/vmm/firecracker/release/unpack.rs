//! Takes the two programs out of a release's archive. No name in it is ever a
//! name on the host, and nothing but these two is written.

use super::{Program, Release};
use crate::context;
use crate::digest::Sha256;
use crate::error::{Error, ErrorKind, Result};
use crate::seed::archive::compression;
use crate::seed::archive::limited::Limited;
use crate::seed::archive::tar::{Member, MemberKind, Reader, TarError};
use crate::store::private_dir;
use sha2::Digest as _;
use std::fs::{File, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// How large a program may be: ten times what those of the release are.
const PROGRAM_BYTES_MAX: u64 = 64 << 20;

/// How much is unpacked in order to find them, at most.
const UNPACKED_BYTES_MAX: u64 = 2 << 30;

const BUFFER: usize = 64 << 10;

/// Why an archive is not taken.
#[derive(Debug, thiserror::Error)]
enum Bad {
    #[error(transparent)]
    Tar(TarError),
    #[error("it unpacks to more than {max} MiB", max = UNPACKED_BYTES_MAX >> 20)]
    Bomb,
    #[error("there is no {0} in it")]
    Missing(String),
    #[error("{0} in it is no file")]
    NoFile(String),
    #[error("{0} is in it twice")]
    Twice(String),
    #[error("{0} in it has more than {max} MiB", max = PROGRAM_BYTES_MAX >> 20)]
    Large(String),
    #[error("{name} in it has the digest {found}, and {wanted} is what is known of the release")]
    Content { name: String, found: String, wanted: String },
}

/// Why it came to an end.
enum Stop {
    Bad(Bad),
    Host(Error),
}

impl From<Bad> for Stop {
    fn from(bad: Bad) -> Self {
        Self::Bad(bad)
    }
}

impl From<TarError> for Stop {
    fn from(error: TarError) -> Self {
        Self::Bad(Bad::Tar(error))
    }
}

/// Makes a directory with the programs, executable, and with the digests that
/// they should have. What follows the second is not looked at.
///
/// # Errors
/// `Untrusted` when the archive is no such archive, is damaged, or has other
/// programs; `Cancelled`.
pub fn unpack(
    name: &str,
    archive: impl Read,
    release: &Release,
    into: &Path,
    cancel: &CancellationToken,
) -> Result<()> {
    private_dir(into)?;
    let input = compression::gzip(BufReader::with_capacity(BUFFER, archive));
    let limited = Limited { input, left: UNPACKED_BYTES_MAX, cancel };
    let mut reader = Reader::new(limited);
    let unpacked = programs(&mut reader, release, into);
    if cancel.is_cancelled() {
        return Err(context::cancelled());
    }
    let bad = match unpacked {
        Ok(()) => return Ok(()),
        Err(Stop::Host(error)) => return Err(error),
        Err(Stop::Bad(_)) if reader.input().left == 0 => Bad::Bomb,
        Err(Stop::Bad(bad)) => bad,
    };
    let message = format!("{name} is not the release of {}", release.title());
    Err(Error::new(ErrorKind::Untrusted, message)
        .because(bad)
        .hint(format!("the official archive is {}", release.url())))
}

fn programs<R: Read>(reader: &mut Reader<R>, release: &Release, into: &Path) -> Result<(), Stop> {
    let mut found: Vec<Program> = Vec::new();
    while found.len() < Program::ALL.len() {
        let Some(member) = reader.next()? else {
            let missing = Program::ALL.into_iter().find(|program| !found.contains(program));
            let missing = missing.map(|program| release.member(program));
            return Err(Bad::Missing(missing.unwrap_or_default()).into());
        };
        let name = member.name.strip_prefix(b"./").unwrap_or(&member.name);
        let named = |program: &Program| release.member(*program).as_bytes() == name;
        let Some(program) = Program::ALL.into_iter().find(named) else { continue };
        if found.contains(&program) {
            return Err(Bad::Twice(release.member(program)).into());
        }
        keep(reader, &member, program, release, into)?;
        found.push(program);
    }
    Ok(())
}

/// Writes a program under the name that it has here.
fn keep<R: Read>(
    reader: &mut Reader<R>,
    member: &Member,
    program: Program,
    release: &Release,
    into: &Path,
) -> Result<(), Stop> {
    let name = release.member(program);
    match member.kind {
        MemberKind::File(size) if size <= PROGRAM_BYTES_MAX => {}
        MemberKind::File(_) => return Err(Bad::Large(name).into()),
        MemberKind::Directory
        | MemberKind::Symlink(_)
        | MemberKind::HardLink(_)
        | MemberKind::Other(_) => return Err(Bad::NoFile(name).into()),
    }
    let path = into.join(program.name());
    let refused = |error| Stop::Host(Error::io(format!("cannot write {}", path.display()), error));
    let mut file = File::create_new(&path).map_err(refused)?;
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(reader.failed.take().unwrap_or(TarError::Io(error)).into());
            }
        };
        hasher.update(&buffer[..count]);
        file.write_all(&buffer[..count]).map_err(refused)?;
    }
    file.set_permissions(Permissions::from_mode(0o755)).map_err(refused)?;
    let (found, wanted) = (Sha256::from(hasher), release.digest(program));
    if found == wanted {
        return Ok(());
    }
    let (found, wanted) = (found.to_string(), wanted.to_string());
    Err(Bad::Content { name, found, wanted }.into())
}
