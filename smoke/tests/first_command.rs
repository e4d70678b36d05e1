//! A newcomer runs one command and gets its output from another kernel.

use pyro_smoke::{Home, stdout};

#[test]
fn git_answers_from_inside_a_microvm() {
    let home = Home::new();
    let said = stdout(&home.run(&["git", "--version"]));
    assert!(said.starts_with("git version 2."), "{said}");
    assert!(home.leftovers().is_empty());
    assert!(home.processes().is_empty());
}

#[test]
fn the_kernel_is_not_the_hosts() {
    let home = Home::new();
    let guest = stdout(&home.run(&["uname", "-r"]));
    let host = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a host kernel");
    assert_ne!(guest.trim(), host.trim());
}

#[test]
fn the_computer_is_a_whole_one() {
    let home = Home::new();
    let script = "set -e
        cd /workspace && git init -q . && echo hello > file && git add file
        git -c user.name=a -c user.email=a@b commit -qm one && git log --oneline | wc -l
        python3 -c 'import ssl, sqlite3, json; print(json.dumps([1]))'
        test -c /dev/null && test -e /dev/fd/0 && echo x | tee /dev/stderr >/dev/null
        cat /proc/1/comm; hostname; id -u; mount | grep -c overlay; df / | wc -l
        script -qc 'tty' /dev/null </dev/null | tr -d '\\r' | head -1";
    let said = stdout(&home.run(&["bash", "-c", script]));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["1", "[1]"], "{said}");
    assert!(lines[3].starts_with("pyro-"), "{said}");
    assert_eq!(lines[4], "0", "{said}");
    assert!(lines.last().is_some_and(|line| line.starts_with("/dev/pts/")), "{said}");
}

#[test]
fn s7_a_run_has_no_network() {
    let home = Home::new();
    let said = stdout(&home.run(&["ls", "/sys/class/net"]));
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["lo"]);
}
