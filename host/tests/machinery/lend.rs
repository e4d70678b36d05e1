//! A file that a confined program opens for writing and must not write. This
//! program plays the confined one's part itself.

use crate::confinement::{PLAYING, as_anybody, copy_of_this, run, skip};
use pyro::ErrorKind;
use pyro::confine::{Confined, Confinement, Jailer, spawn};
use pyro::id::WorkspaceId;
use rustix::fs::{Mode, OFlags, fchmod, fcntl_getfl, ftruncate, open, openat, statx};
use rustix::io::{Errno, FdFlags, fcntl_getfd, pread, write};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_long;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

/// Where the confined program sees what it is lent, and what else it may write.
const MEMORY: &str = "/memory";
const SCRATCH: &str = "/scratch";

/// Told to a copy of this program by a file, for it gets no environment.
const PART: &str = "/part";

const LIBRARIES: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];

const SIZE: usize = 8192;

/// Files of the host's, and what a copy of this program is to do with them.
struct Stage {
    place: tempfile::TempDir,
}

/// A copy of this program at work, and what it says.
struct Played {
    program: Confined,
    said: std::io::PipeReader,
}

impl Stage {
    fn new() -> Self {
        let stage = Self { place: tempfile::tempdir().unwrap() };
        fs::write(stage.path("memory"), vec![b'm'; SIZE]).unwrap();
        // It is not the file's mode that keeps it from being written.
        let for_all = fs::Permissions::from_mode(0o666);
        fs::set_permissions(stage.path("memory"), for_all).unwrap();
        fs::write(stage.path("scratch"), "old").unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// `None`, and why, where this host does not allow it.
    fn play(&self, test: &str, part: &str) -> Option<Played> {
        fs::write(self.path("part"), part).unwrap();
        let mut confinement = Confinement::new(&std::env::current_exe().unwrap());
        confinement.see(LIBRARIES.iter().map(Path::new));
        confinement.see_as(&self.path("part"), PART);
        confinement.see_writable(&self.path("scratch"), SCRATCH).unwrap();
        confinement.lend(&self.path("memory"), MEMORY).unwrap();
        let (said, stderr) = std::io::pipe().unwrap();
        confinement.stderr(stderr.into());
        let words = ["--exact", test, "--nocapture", "--test-threads=1"].map(str::to_owned);
        match spawn(confinement, &words) {
            Ok(program) => Some(Played { program, said }),
            Err(error) if error.kind() == ErrorKind::Unsupported => skip(error.chain()),
            Err(error) => panic!("{}", error.chain()),
        }
    }

    /// Has a part played to its end, and looks whether the file is what it was.
    async fn see_through(&self, test: &str, part: &str) {
        let Some(Played { mut program, mut said }) = self.play(test, part) else { return };
        let ended = program.wait().await;
        let mut all = String::new();
        said.read_to_string(&mut all).unwrap();
        assert_eq!(ended, "exited with status 0", "{part}: {all}");
        assert!(all.contains("played to its end"), "{part}: {all}");
        assert!(fs::read(self.path("memory")).unwrap() == vec![b'm'; SIZE], "it was written");
    }
}

/// The part that this is to play, if it is confined.
fn part() -> Option<String> {
    fs::read_to_string(PART).ok()
}

/// Plays it.
fn play(doing: impl FnOnce()) {
    doing();
    eprintln!("played to its end");
}

fn opened(path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    open(path, flags, Mode::empty())
}

/// By the older of the two system calls.
fn opened_as_of_old(path: &std::ffi::CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    // SAFETY: a path with its NUL; the descriptor is new.
    unsafe {
        let number: c_long = libc::syscall(libc::SYS_open, path.as_ptr(), flags.bits(), 0);
        match i32::try_from(number).unwrap() {
            0.. => Ok(OwnedFd::from_raw_fd(number.try_into().unwrap())),
            _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()),
        }
    }
}

/// What comes of having it mapped.
fn mapped(file: impl AsFd, protection: ProtFlags, flags: MapFlags) -> Result<*mut u8, Errno> {
    // SAFETY: a new mapping, anywhere.
    unsafe { mmap(null_mut(), SIZE, protection, flags, file, 0) }.map(|mapping| mapping.cast())
}

/// Whatever can be done to a lent file, nothing of it is changed.
fn write_in_vain(lent: &OwnedFd) {
    let access = fcntl_getfl(lent).unwrap() & OFlags::RWMODE;
    assert_eq!(access, OFlags::RDONLY);
    assert_eq!(fcntl_getfd(lent), Ok(FdFlags::empty()), "as the program asked for it");
    assert_eq!(write(lent, b"x"), Err(Errno::BADF));
    assert_eq!(ftruncate(lent, 1), Err(Errno::INVAL));
    // Not even the mode: as an ordinary user this is its owner.
    assert_eq!(fchmod(lent, Mode::RWXU), Err(Errno::ROFS));
    let writable = ProtFlags::READ | ProtFlags::WRITE;
    assert_eq!(mapped(lent, writable, MapFlags::SHARED), Err(Errno::ACCESS));
    let read_only = mapped(lent, ProtFlags::READ, MapFlags::SHARED).unwrap();
    let own = mapped(lent, writable, MapFlags::PRIVATE).unwrap();
    // SAFETY: mappings of as many bytes, and nobody else knows of them.
    unsafe {
        let made_writable = rustix::mm::mprotect(
            read_only.cast(),
            SIZE,
            rustix::mm::MprotectFlags::READ | rustix::mm::MprotectFlags::WRITE,
        );
        assert_eq!(made_writable, Err(Errno::ACCESS));
        let bytes = std::slice::from_raw_parts_mut(own, SIZE);
        assert!(bytes.iter().all(|byte| *byte == b'm'), "another file");
        bytes.fill(b'w');
        assert_eq!((*own, *read_only), (b'w', b'm'));
        munmap(own.cast(), SIZE).unwrap();
        munmap(read_only.cast(), SIZE).unwrap();
    }
    // There is no other way to it.
    let again = format!("/proc/self/fd/{}", lent.as_raw_fd());
    assert_eq!(opened(&again, OFlags::RDWR | OFlags::CLOEXEC).unwrap_err(), Errno::NOENT);
    let again = again.replace("/proc/self", "/dev");
    assert_eq!(opened(&again, OFlags::RDWR | OFlags::CLOEXEC).unwrap_err(), Errno::NOENT);
    let itself = openat(lent, "", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    assert_eq!(itself.unwrap_err(), Errno::NOENT);
    for flags in [OFlags::RDWR | OFlags::CLOEXEC, OFlags::WRONLY, OFlags::RDWR | OFlags::TRUNC] {
        assert_eq!(opened(MEMORY, flags).unwrap_err(), Errno::ROFS, "{flags:?}");
    }
}

#[test]
fn who_opens_for_writing_gets_a_file_that_it_cannot_write() {
    const NAME: &str = "lend::who_opens_for_writing_gets_a_file_that_it_cannot_write";
    if let Some(part) = part() {
        return play(|| {
            let lent = match part.as_str() {
                "openat" => opened(MEMORY, OFlags::RDWR),
                // As musl has it.
                "large" => opened(MEMORY, OFlags::RDWR | OFlags::LARGEFILE),
                _ => opened_as_of_old(c"/memory", OFlags::RDWR),
            };
            write_in_vain(&lent.unwrap());
        });
    }
    as_anybody(NAME, async {
        for part in ["openat", "large", "open"] {
            Stage::new().see_through(NAME, part).await;
        }
    });
}

#[test]
fn other_opens_are_as_before() {
    const NAME: &str = "lend::other_opens_are_as_before";
    if part().is_some() {
        return play(|| {
            let others = || {
                let memory = opened(MEMORY, OFlags::RDONLY).unwrap();
                let mut first = [0];
                assert_eq!((pread(&memory, &mut first, 0), first), (Ok(1), [b'm']));
                let refused = opened(MEMORY, OFlags::RDWR | OFlags::CLOEXEC);
                assert_eq!(refused.unwrap_err(), Errno::ROFS);
                assert_eq!(opened("/none", OFlags::RDONLY).unwrap_err(), Errno::NOENT);
                for flags in [OFlags::RDWR | OFlags::CLOEXEC, OFlags::WRONLY] {
                    let scratch = opened(SCRATCH, flags).unwrap();
                    assert_eq!(write(&scratch, b"new"), Ok(3), "{flags:?}");
                }
                let null = opened_as_of_old(c"/dev/null", OFlags::RDWR | OFlags::APPEND).unwrap();
                assert_eq!(write(null, b"x"), Ok(1));
            };
            others();
            // None of these was taken for the one.
            let lent = opened(MEMORY, OFlags::RDWR).unwrap();
            assert_eq!(write(lent, b"x"), Err(Errno::BADF));
            others();
        });
    }
    as_anybody(NAME, async {
        let stage = Stage::new();
        stage.see_through(NAME, "others").await;
        let scratch = fs::read_to_string(stage.path("scratch")).unwrap();
        assert!(["new", "old"].contains(&scratch.as_str()), "{scratch}");
    });
}

#[test]
fn it_is_lent_once_and_whatever_is_opened() {
    const NAME: &str = "lend::it_is_lent_once_and_whatever_is_opened";
    if part().is_some() {
        return play(|| {
            let lent = opened("/no/such/file", OFlags::RDWR).unwrap();
            let about = |what: &OwnedFd| {
                let stat =
                    statx(what, "", rustix::fs::AtFlags::EMPTY_PATH, rustix::fs::StatxFlags::INO);
                stat.unwrap().stx_ino
            };
            assert_eq!(about(&lent), about(&opened(MEMORY, OFlags::RDONLY).unwrap()));
            drop(lent);
            for path in [MEMORY, SCRATCH, "/dev/null", "/no/such/file"] {
                assert_eq!(opened(path, OFlags::RDWR).unwrap_err(), Errno::NOSYS, "{path}");
            }
            assert!(opened(SCRATCH, OFlags::RDWR | OFlags::CLOEXEC).is_ok());
        });
    }
    as_anybody(NAME, async { Stage::new().see_through(NAME, "twice").await });
}

/// Has another process open it so many times; the last one's error.
fn opened_by_another(times: usize) -> Errno {
    // SAFETY: the child makes system calls only.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            let mut errno = 0;
            for _ in 0..times {
                let flags = libc::O_RDWR;
                let opened =
                    libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/memory".as_ptr(), flags, 0);
                errno = if opened < 0 { *libc::__errno_location() } else { 0 };
            }
            libc::_exit(errno);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        Errno::from_raw_os_error(libc::WEXITSTATUS(status))
    }
}

#[test]
fn another_process_is_lent_nothing() {
    const NAME: &str = "lend::another_process_is_lent_nothing";
    if let Some(part) = part() {
        return play(|| {
            if part == "a few" {
                assert_eq!(opened_by_another(10), Errno::ACCESS);
                write_in_vain(&opened(MEMORY, OFlags::RDWR).unwrap());
            } else {
                // Nobody listens any more.
                assert_eq!(opened_by_another(1000), Errno::NOSYS);
                assert_eq!(opened(MEMORY, OFlags::RDWR).unwrap_err(), Errno::NOSYS);
            }
        });
    }
    as_anybody(NAME, async {
        Stage::new().see_through(NAME, "a few").await;
        Stage::new().see_through(NAME, "many").await;
    });
}

#[test]
fn a_program_that_waits_for_a_file_dies_with_its_owner() {
    const NAME: &str = "lend::a_program_that_waits_for_a_file_dies_with_its_owner";
    if part().is_some() {
        return play(|| {
            eprintln!("about to open");
            drop(opened(MEMORY, OFlags::RDWR));
        });
    }
    as_anybody(NAME, async {
        let Some(Played { program, mut said }) = Stage::new().play(NAME, "wait") else { return };
        let pid = program.pid();
        // Nothing is awaited, so nobody answers.
        let mut all = String::new();
        while !all.contains("about to open") {
            let mut byte = [0];
            said.read_exact(&mut byte).unwrap();
            all.push(byte[0].into());
        }
        drop(program);
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "it is still there");
        said.read_to_string(&mut all).unwrap();
        assert!(!all.contains("played to its end"), "it did not wait");
    });
}

#[test]
fn nothing_stays_open_for_it() {
    const NAME: &str = "lend::nothing_stays_open_for_it";
    if part().is_some() {
        return play(|| {
            drop(opened(MEMORY, OFlags::RDWR).unwrap());
            // No number above the standard three is taken.
            assert_eq!((3..1024).find(|number| is_open(*number)), None);
        });
    }
    as_anybody(NAME, async { Stage::new().see_through(NAME, "count").await });
}

fn is_open(number: i32) -> bool {
    // SAFETY: takes numbers only.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// As a container's profile does, or a kernel without.
fn forbid_filters() {
    let instruction =
        |code: u32, k: u32, jt, jf| libc::sock_filter { code: code as u16, jt, jf, k };
    let number = libc::SYS_seccomp as u32;
    let refused = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    let mut filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number, 0, 1),
        instruction(libc::BPF_RET | libc::BPF_K, refused, 0, 0),
        instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies as many instructions as there are.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let (set, mode) = (libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER);
        assert_eq!(libc::prctl(set, mode, &raw const program), 0);
    }
}

#[test]
fn a_host_that_cannot_lend_starts_nothing() {
    const NAME: &str = "lend::a_host_that_cannot_lend_starts_nothing";
    if std::env::var_os(PLAYING).is_none() {
        // The filter stays for good.
        let copy = copy_of_this(NAME, "host without").output().unwrap();
        let said = String::from_utf8_lossy(&copy.stderr).into_owned();
        assert!(copy.status.success(), "{said}");
        return eprint!("{said}");
    }
    run(async {
        forbid_filters();
        let program = std::env::current_exe().unwrap();
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("memory"), "").unwrap();
        let mut confinement = Confinement::new(&program);
        confinement.see(LIBRARIES.iter().map(Path::new));
        // All but this it can do, or it forbids namespaces too.
        if let Err(error) = spawn(confinement, &["--list".into()]) {
            skip::<()>(error.chain());
            return;
        }
        let mut confinement = Confinement::new(&program);
        confinement.lend(&place.path().join("memory"), MEMORY).unwrap();
        let error = spawn(confinement, &["--list".into()]).expect_err("there is no filter");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{}", error.chain());
        assert!(error.message().contains("lending a file failed"), "{}", error.chain());
        assert!(error.next_step().unwrap().contains("seccomp"), "{:?}", error.next_step());
    });
}

#[test]
fn what_cannot_be_lent_is_refused() {
    run(async {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("memory");
        File::create(&file).unwrap();
        let mut confinement = Confinement::new(Path::new("/bin/true"));
        let error = confinement.lend(place.path(), MEMORY).expect_err("a directory");
        assert_eq!(error.kind(), ErrorKind::HostRequirement, "{}", error.chain());
        let missing = confinement.lend(&place.path().join("none"), MEMORY).expect_err("none");
        assert!(missing.message().contains("none"), "{}", missing.chain());
        confinement.lend(&file, MEMORY).unwrap();
        let error = confinement.lend(&file, MEMORY).expect_err("another");
        assert_eq!(error.kind(), ErrorKind::Internal, "{}", error.chain());
        let (program, directory) = (place.path().join("jailer"), place.path().join("jail"));
        confinement.jailer(Jailer { program, directory, id: WorkspaceId::random() });
        let error = spawn(confinement, &[]).expect_err("it could not be lent there");
        assert_eq!(error.kind(), ErrorKind::Internal, "{}", error.chain());
    });
}
