//! Who may know whom. The text of the files is enough to tell.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/sources.rs"]
mod sources;

use sources::sources_of_workspace;

/// The layers of `host/src`, the upper first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    /// How you ask: the command line, MCP, the library's front page.
    Surface,
    /// What can be asked.
    Operation,
    /// What it means, and how it is done.
    Below,
}

fn layer_of(path: &str) -> Option<Layer> {
    let path = path.strip_prefix("host/src/")?;
    let head = path.split('/').next()?.trim_end_matches(".rs");
    Some(match head {
        "main" | "lib" | "cli" | "mcp" => Layer::Surface,
        "operation" => Layer::Operation,
        _ => Layer::Below,
    })
}

/// The lines that ship, without comments and what is for tests only.
fn code(text: &str) -> Vec<(usize, &str)> {
    let mut shipped = Vec::new();
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            pass_over_item(line, &mut lines);
        } else if !line.trim().starts_with("//") {
            shipped.push((number, line.trim()));
        }
    }
    shipped
}

/// Passes over what an attribute is for. As it is formatted it ends where it is
/// indented like that, with a bracket or a semicolon.
fn pass_over_item<'a>(attribute: &str, lines: &mut impl Iterator<Item = (usize, &'a str)>) {
    let indent = attribute.len() - attribute.trim_start().len();
    for (_, line) in lines {
        let is_level = line.len() - line.trim_start().len() == indent;
        let closes = line.trim().starts_with('}') || line.ends_with([';', ',', '}']);
        if is_level && closes {
            return;
        }
    }
}

/// Lines of `host/src` that hold one of the words where they must not.
fn offences(words: &[&str], allowed: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let sources = sources_of_workspace();
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| layer_of(&source.path).is_some()) {
        for (number, line) in code(&source.text) {
            let offends = words.iter().any(|word| line.contains(word));
            if offends && !allowed(&source.path, line) {
                found.push(format!("{}:{number}: {line}", source.path));
            }
        }
    }
    found
}

#[test]
fn what_stands_after_a_test_ships_too() {
    let text = "\
// No code.
mod one;
#[cfg(test)]
mod tests;
mod two;
impl Two {
    #[cfg(test)]
    fn of_tests(
        &self,
    ) {
        hidden();
    }

    fn three(&self) {}
}
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod more {
    fn hidden() {}
}
fn four() {}
";
    let lines: Vec<_> = code(text).into_iter().filter(|(_, line)| !line.is_empty()).collect();
    let shipped = [
        (2, "mod one;"),
        (5, "mod two;"),
        (6, "impl Two {"),
        (14, "fn three(&self) {}"),
        (15, "}"),
        (21, "fn four() {}"),
    ];
    assert_eq!(lines, shipped);
}

#[test]
fn nothing_below_operations_knows_how_it_is_asked() {
    let words = ["clap", "rmcp", "crate::cli", "crate::mcp", "crate::operation", "operation::"];
    let found = offences(&words, |path, _| layer_of(path) != Some(Layer::Below));
    assert!(found.is_empty(), "{found:#?}");
}

/// Types that an answer carries as they are describe themselves by a derive;
/// that is all the lower layers have to do with schemas.
#[test]
fn below_operations_schemas_are_derived_only() {
    let words = ["schemars::", "JsonSchema", "json_schema"];
    let found = offences(&words, |path, line| {
        let derived = !line.starts_with("impl") && !line.contains("json_schema");
        let items = line.matches("schemars::").count();
        let derives = line.matches("schemars::JsonSchema").count();
        layer_of(path) != Some(Layer::Below) || (derived && items == derives)
    });
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn operations_know_no_surface() {
    let words = ["rmcp", "crate::cli", "crate::mcp"];
    let found = offences(&words, |path, _| layer_of(path) != Some(Layer::Operation));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn surfaces_know_no_operation_by_name() {
    let words =
        ["Run", "vm_run", "Doctor", "EnvList", "EnvBuild", "EnvInspect", "EnvPrune", "Setup"];
    let names = |line: &str| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| words.contains(&word))
    };
    // A profile is a list of names.
    let data = |path: &str| path.ends_with("mcp/profile.rs");
    let found = offences(&words, |path, line| {
        layer_of(path) != Some(Layer::Surface) || data(path) || !names(line)
    });
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn only_the_command_line_touches_the_terminal() {
    let words =
        ["println!", "print!", "io::stdout", "io::stderr", "io::stdin", "stdio::std", "stderr()"];
    // What a supervisor has for standard input is its lease.
    let lease = |path: &str, line: &str| path.ends_with("/supervisor.rs") && line.contains("lease");
    let found =
        offences(&words, |path, line| path.starts_with("host/src/cli") || lease(path, line));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn only_the_configuration_reads_the_environment() {
    let words = [
        "env::var",
        "env::vars",
        "env::current_dir",
        "env::current_exe",
        "env::home_dir",
        "env::temp_dir",
        "env::set_var",
    ];
    let found = offences(&words, |path, _| path == "host/src/config.rs");
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn nothing_leaves_the_process_from_the_middle() {
    let found = offences(&["process::exit(", "process::abort("], |_, _| false);
    assert!(found.is_empty(), "{found:#?}");
}

/// I3: a guest is reached by what its VMM hands out, a Unix socket on every
/// host; a socket of the host's own AF_VSOCK would need a module and rights.
#[test]
fn i3_guests_are_reached_without_the_hosts_vsock() {
    let found =
        offences(&["AF_VSOCK", "VMADDR", "sockaddr_vm", "AddressFamily::VSOCK"], |_, _| false);
    assert!(found.is_empty(), "{found:#?}");
}

/// What differs between VMMs is known where they are. All others know rungs of a
/// ladder; doctor, which of them need what; and options, which words they take.
#[test]
fn only_vmms_know_which_one_it_is() {
    let words = ["qemu", "Qemu", "QEMU", "firecracker", "Firecracker"];
    let at_home = [
        "host/src/vmm/",
        "host/src/vmm.rs",
        // Where the user says where they are.
        "host/src/config.rs",
        // The jailer takes no program of another name.
        "host/src/confine/jail.rs",
        // What it fetches.
        "host/src/operation/setup.rs",
    ];
    let found = offences(&words, |path, line| {
        let doctor = path == "host/src/doctor/checks.rs" && line.contains("Rung::");
        let option = line.contains("value_name");
        doctor
            || option
            || path.ends_with("/tests.rs")
            || at_home.iter().any(|home| path.starts_with(home))
    });
    assert!(found.is_empty(), "{found:#?}");
}

/// P1, P10: who waits is woken by what it waits for. These are the places that
/// let time pass, each for the sake of time itself.
const SLEEPS: &[(&str, &str)] = &[
    // A rate is measured over a while.
    ("host/src/facts.rs", "MEASURE"),
    // Deadlines, beside what is waited for.
    ("host/src/workspace/exec.rs", "timeout_grace"),
    ("host/src/workspace/exec.rs", "patience"),
    ("host/src/workspace/program.rs", "limit"),
    ("host/src/environment/script.rs", "self.deadline"),
    ("host/src/cli/session.rs", "LAST_WORDS"),
    // A guest's own timers, and how fast it may send.
    ("host/src/egress/gateway.rs", "delay"),
    ("host/src/egress/gateway.rs", "wait"),
    // Between bind and listen; nobody tells.
    ("host/src/vmm/firecracker/api/arrival.rs", "NAMED"),
    // Out of descriptors; nobody tells when there are some.
    ("host/src/supervisor/keep.rs", "UNTOLD"),
    ("host/src/supervisor/alarm.rs", "UNWATCHED"),
    ("host/src/supervisor/control.rs", "from_millis(10)"),
    ("host/src/supervisor/ports.rs", "EXHAUSTED"),
    ("host/src/vsock/endpoint.rs", "from_millis(10)"),
    // How long a guest may take to let go of a caller that has gone.
    ("host/src/vsock/endpoint.rs", "LEAVING_DEADLINE"),
    // A guest that breaks its network again and again is to wait.
    ("host/src/supervisor/network.rs", "pause"),
    // A guest that answers at once what it was to wait for is not asked at once.
    ("host/src/workspace/process.rs", "pace"),
];

#[test]
fn p1_p10_nobody_sleeps_until_something_may_have_happened() {
    let allowed = |path: &str, line: &str| {
        SLEEPS.iter().any(|(place, what)| path == *place && line.contains(what))
    };
    let found = offences(&["sleep(", "sleep_until(", "interval("], |path, line| {
        // Of a program that is no Rust.
        let shell = path == "host/src/environment/script.rs" && line.starts_with("read ");
        allowed(path, line) || shell || path.contains("/tests/") || path.ends_with("/tests.rs")
    });
    assert!(found.is_empty(), "{found:#?}");
}
