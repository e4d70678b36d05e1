//! `pyro doctor` tells what is, having tried it.

use pyro_smoke::Home;
use serde_json::Value;

fn report(home: &Home) -> (Option<i32>, Value) {
    let output = home.pyro(["doctor", "--json"]).output().expect("pyro starts");
    (output.status.code(), serde_json::from_slice(&output.stdout).expect("one JSON document"))
}

fn way<'a>(report: &'a Value, name: &str) -> &'a Value {
    let all = report["vmms"].as_array().expect("a list");
    all.iter().find(|one| one["name"] == name).expect("it was looked at")
}

#[test]
fn i5_doctor_boots_a_guest_on_every_vmm_and_says_how_long_it_took() {
    let home = Home::new();
    let (code, report) = report(&home);
    assert_eq!(code, Some(0), "{report}");
    // The best on which a guest answered is chosen; a device that merely opens
    // proves nothing.
    let ladder = ["firecracker", "qemu-kvm", "qemu-tcg"].map(|name| way(&report, name));
    let best = ladder.iter().find(|way| way["state"] == "proven").expect("one of them works");
    assert_eq!(report["chosen"], best["name"]);
    for way in ladder {
        match way["state"].as_str() {
            Some("proven") => assert!(way["boot_ms"].as_u64().is_some_and(|ms| ms > 0), "{way}"),
            Some("failed") => {
                assert!(way["reason"].as_str().is_some_and(|why| !why.is_empty()), "{way}");
            }
            other => panic!("{other:?} in {report}"),
        }
    }
    assert!(home.leftovers().is_empty());
}

#[test]
fn i5_doctor_works_where_nothing_else_does() {
    let home = Home::bare();
    let output =
        home.pyro(["doctor", "--json"]).env("PATH", "/nonexistent").output().expect("pyro starts");
    assert_ne!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(report["chosen"], Value::Null);
    let failed = report["checks"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|check| check["state"] == "failed");
    let failed = failed.expect("something is missing");
    assert!(
        failed["next_step"].as_str().is_some_and(|step| step.contains("apt-get install")),
        "{report}"
    );
}
