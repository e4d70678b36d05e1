//! What of the host's a VMM may write, and that it gets nothing else.

use crate::confinement::{as_anybody, shell};
use pyro::ErrorKind;
use pyro::confine::{Confinement, VMM_UID, give, spawn};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// Whose things are that were given to a VMM.
fn owner_for_vmm() -> u32 {
    let own = rustix::process::geteuid();
    if own.is_root() { VMM_UID } else { own.as_raw() }
}

#[test]
fn a_program_writes_what_it_was_given() {
    as_anybody("given::a_program_writes_what_it_was_given", async {
        let place = tempfile::tempdir().unwrap();
        let (file, shared) = (place.path().join("disk"), place.path().join("vmm"));
        fs::write(&file, "empty\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(&shared).unwrap();
        fs::write(shared.join("stale"), "").unwrap();
        let line = "read line </disk; echo $line >&2; echo full >/disk; \
                    echo /run/* >&2; echo made >/run/new; read line <&3";
        let Some(mut shell) = shell(line, |confinement| {
            confinement.see_writable(&file, "/disk").unwrap();
            confinement.share(&shared, "/run").unwrap();
        }) else {
            return;
        };
        assert_eq!(file.metadata().unwrap().uid(), owner_for_vmm());
        let made = shared.metadata().unwrap();
        assert_eq!((made.uid(), made.mode() & 0o7777), (owner_for_vmm(), 0o700));
        shell.input.write_all(b"\n").unwrap();
        let (_, said) = shell.finish().await;
        assert!(said.starts_with("empty\n/run/*\n"), "{said}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "full\n");
        assert_eq!(fs::read_to_string(shared.join("new")).unwrap(), "made\n");
    });
}

#[test]
fn s8_no_link_is_followed_to_give_something_away() {
    as_anybody("given::s8_no_link_is_followed_to_give_something_away", async {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        fs::write(path("precious"), "").unwrap();
        let own = path("precious").metadata().unwrap().uid();
        symlink("precious", path("link")).unwrap();
        let mut confinement = Confinement::new(Path::new("/bin/dash"));
        for bad in ["link", ".", "missing"] {
            assert!(confinement.see_writable(&path(bad), "/disk").is_err(), "{bad}");
        }
        give(&path("link")).unwrap();
        assert_eq!(path("precious").metadata().unwrap().uid(), own);
        assert_eq!(path("link").symlink_metadata().unwrap().uid(), owner_for_vmm());
        fs::create_dir(path("directory")).unwrap();
        fs::write(path("directory/inner"), "").unwrap();
        symlink("directory", path("vmm")).unwrap();
        confinement.share(&path("vmm"), "/run").unwrap();
        assert!(path("directory/inner").exists(), "a link was followed to empty a directory");
        assert!(path("vmm").symlink_metadata().unwrap().is_dir());
    });
}

#[test]
fn what_the_vmm_could_not_read_is_refused_by_name() {
    as_anybody("given::what_the_vmm_could_not_read_is_refused_by_name", async {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("image");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let mut confinement = Confinement::new(Path::new("/bin/dash"));
        confinement.see_as(&file, "/image");
        let refused = spawn(confinement, &["-c".into(), "exit".into()]);
        if !rustix::process::geteuid().is_root() {
            // The VMM is the same user.
            let kind = refused.err().map(|error| error.kind());
            return assert_ne!(kind, Some(ErrorKind::HostRequirement));
        }
        let error = refused.expect_err("it could not read it");
        assert!(error.message().contains("image is not for the user"), "{}", error.chain());
        assert!(error.next_step().unwrap().contains("chmod a+r"), "{error:?}");
    });
}
