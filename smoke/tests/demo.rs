//! The demonstration shows what it says.

use pyro_smoke::{Home, stdout};
use serde_json::Value;
use std::time::Duration;

#[test]
fn i10_the_demonstration_passes_and_leaves_nothing() {
    let home = Home::new();
    let said = stdout(&home.pyro(["demo"]).output().expect("pyro starts"));
    for words in ["Its check fails", "the check passes", "+fixed", "--output fixed.txt", "reset"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let told = home.pyro(["demo", "debian:12-base", "--json"]).output().expect("pyro starts");
    let told: Value = serde_json::from_str(&stdout(&told)).expect("JSON");
    let steps = told["steps"].as_array().expect("steps");
    assert_eq!(steps.len(), 11, "{told}");
    let commands = steps.iter().map(|step| step["command"].as_str().expect("a command"));
    assert!(commands.into_iter().all(|command| command.starts_with("pyro workspace ")));
    home.expect_clean_within(Duration::from_secs(5));
}
