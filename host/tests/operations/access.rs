//! Who may speak to a guest.

use crate::fake_vmm::FakeVmm;
use crate::home::{ENVIRONMENT, Home};
use pyro::operation::{WorkspaceCreate, WorkspaceDelete};
use serde_json::json;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A user whom no host has.
const SOMEBODY: libc::c_long = 54_321;

/// What comes of a connection that somebody else makes.
fn connect_as_somebody(socket: &Path) -> io::Error {
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            // SAFETY: it changes the ids of this thread alone, which ends here;
            // no pointers are passed.
            let changed =
                unsafe { libc::syscall(libc::SYS_setresuid, SOMEBODY, SOMEBODY, SOMEBODY) };
            assert_eq!(changed, 0, "{}", io::Error::last_os_error());
            UnixStream::connect(socket).map(drop).expect_err("it is not theirs")
        });
        connecting.join().unwrap()
    })
}

#[tokio::test]
async fn s10_a_guest_is_spoken_to_by_its_user_alone() {
    let home = Home::new();
    let guest = home.path("guest");
    fs::create_dir_all(&guest).unwrap();
    let pyro = home.pyro(FakeVmm::honest(guest));
    let create = json!({ "environment": ENVIRONMENT, "mem_mib": 128, "name": "w" });
    let create: WorkspaceCreate = serde_json::from_value(create).unwrap();
    pyro.call(create).await.unwrap();
    let workspace = home.workspaces().remove(0);
    for directory in [&workspace, workspace.parent().unwrap(), &home.path("state")] {
        let mode = directory.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", directory.display());
    }
    for name in ["vmm/vsock.sock", "control.sock"] {
        let socket = workspace.join(name);
        UnixStream::connect(&socket).expect("it is ours");
        if rustix::process::geteuid().is_root() {
            let refused = connect_as_somebody(&socket);
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{name}");
        }
    }
    let delete: WorkspaceDelete = serde_json::from_value(json!({ "workspace_id": "w" })).unwrap();
    pyro.call(delete).await.unwrap();
}
