//! What of a guest is shared with others, and what it can reach.

use pyro_smoke::{Home, is_vmm, stdout};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

fn succeed(home: &Home, words: &[&str]) -> String {
    stdout(&home.pyro(words).output().expect("pyro starts"))
}

/// What a program says of the ways out that a guest of a cloud's machine would
/// have: its neighbours, its host's metadata, its hypervisor.
const WAYS_OUT: &str = r#"
import errno, socket
def attempt(family, address):
    try:
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.settimeout(5)
            s.connect(address)
        return "open"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
for address in ["169.254.169.254", "10.0.2.2", "192.168.0.1", "1.1.1.1"]:
    print(attempt(socket.AF_INET, (address, 80)))
print(attempt(socket.AF_INET6, ("2001:4860:4860::8888", 80)))
try:
    print(attempt(socket.AF_VSOCK, (2, 22)))
except OSError as error:
    print(errno.errorcode[error.errno])
"#;

#[test]
fn s7_a_workspace_reaches_no_network_and_not_the_host() {
    let home = Home::new();
    succeed(&home, &["workspace", "create", "debian:12", "--name", "w"]);
    let exec = ["workspace", "exec", "w", "--"];
    let interfaces = succeed(&home, &[&exec[..], &["ls", "/sys/class/net"]].concat());
    assert_eq!(interfaces.split_whitespace().collect::<Vec<_>>(), ["lo"]);
    let said = succeed(&home, &[&exec[..], &["python3", "-c", WAYS_OUT]].concat());
    assert!(!said.contains("open"), "{said}");
    assert_eq!(said.matches("ENETUNREACH").count(), 5, "{said}");
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}

#[test]
fn s11_a_user_of_a_guest_has_a_users_rights() {
    let home = Home::new();
    succeed(&home, &["workspace", "create", "debian:12", "--name", "w"]);
    let script = "id -u; id -G; grep CapEff /proc/self/status | cut -f 2
        cat /etc/shadow > /tmp/shadow || echo no shadow
        echo x > /usr/made || echo no /usr
        echo x > note || echo no /workspace
        kill 1 || echo no init
        for agent in $(pgrep pyro-agent); do kill $agent || echo no agent; done
        mount -t tmpfs none /tmp || echo no mount
        echo mine > /tmp/mine && cat /tmp/mine";
    let words = ["workspace", "exec", "w", "--user", "nobody", "--shell", script];
    let said = succeed(&home, &words);
    let lines: BTreeSet<_> = said.lines().collect();
    let expected = [
        "65534",
        "0000000000000000",
        "no shadow",
        "no /usr",
        "no /workspace",
        "no init",
        "no agent",
        "no mount",
        "mine",
    ];
    assert_eq!(lines, expected.into_iter().collect(), "{said}");
    // So has one of a service and of a shell.
    let start = ["workspace", "service", "start", "w", "web", "--user", "nobody"];
    let ready = ["--ready-file", "/tmp/told", "--shell", "id -u | tee /tmp/told; exec sleep 1000"];
    succeed(&home, &[&start[..], &ready].concat());
    assert_eq!(succeed(&home, &["workspace", "service", "logs", "w", "web"]), "65534\n");
    let open = ["workspace", "shell", "open", "w", "--user", "nobody", "--id-only"];
    let shell = succeed(&home, &open).trim().to_owned();
    let input = "id -u; exit";
    succeed(&home, &["workspace", "shell", "write", "w", &shell, "--input", input]);
    let read = ["workspace", "shell", "read", "w", &shell, "--plain", "--wait-for-idle-ms", "5000"];
    let seen = succeed(&home, &read);
    assert!(seen.contains("\n65534\n"), "{seen}");
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}

#[test]
fn p2_p8_guests_share_one_image_and_take_two_processes_each() {
    let home = Home::new();
    for name in ["one", "two"] {
        succeed(&home, &["workspace", "create", "debian:12", "--name", name, "--mem-mib", "256"]);
    }
    let processes = home.processes_of_guests(2);
    let image = home.image_directory("debian:12").join("root.erofs");
    let image = image.metadata().expect("it is there");
    let vmms: Vec<_> = processes.iter().filter(|(_, line)| is_vmm(line)).collect();
    assert_eq!(vmms.len(), 2, "{processes:?}");
    for (pid, _) in vmms {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").flatten();
        let mut shared = 0;
        for descriptor in open.map(|entry| entry.path()) {
            let Ok(meta) = descriptor.metadata() else { continue };
            if (meta.dev(), meta.ino()) != (image.dev(), image.ino()) {
                continue;
            }
            shared += 1;
            let number = descriptor.file_name().expect("a number").to_string_lossy().into_owned();
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).expect("open");
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).expect("flags");
            let flags = u32::from_str_radix(flags.trim(), 8).expect("octal");
            assert_eq!(flags & 3, 0, "{pid} may write the image");
        }
        assert!(shared > 0, "{pid} has another image");
    }
    for workspace in home.leftovers() {
        let disk = workspace.join("disk-0.ext4").metadata().expect("a disk");
        let bytes = disk.blocks() * 512;
        assert!(disk.len() >= 16 << 30 && bytes < 64 << 20, "{bytes} bytes for nothing");
    }
    for name in ["one", "two"] {
        succeed(&home, &["workspace", "delete", name]);
    }
    home.expect_clean_within(Duration::from_secs(5));
}

/// What a command is given is for it alone: not for what lives on.
#[test]
fn s6_the_callers_variables_stay_out_of_what_lives_on() {
    let home = Home::new();
    let secret = "hunter2-of-the-stories";
    let words = ["workspace", "create", "debian:12", "--name", "w"];
    let created = home.pyro(words).env("TOKEN", secret).output().expect("pyro starts");
    assert!(created.status.success(), "{created:?}");
    let words = ["workspace", "exec", "w", "--env", "TOKEN", "--shell", "echo ${#TOKEN}"];
    let said = home.pyro(words).env("TOKEN", secret).output().expect("pyro starts");
    assert_eq!(stdout(&said), format!("{}\n", secret.len()));
    let running = home.processes_of_guests(1);
    for (pid, line) in running {
        for file in ["environ", "cmdline"] {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).expect("it runs");
            assert!(!String::from_utf8_lossy(&bytes).contains(secret), "{file} of {line}");
        }
    }
    succeed(&home, &["workspace", "delete", "w"]);
    home.expect_clean_within(Duration::from_secs(5));
}
