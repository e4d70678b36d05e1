//! The documents of docs/use-cases, followed word for word: what a person types
//! there is what is run here, and what they are told they see is what is seen.

use pyro_smoke::{Home, document};
use std::time::Duration;

fn follow(document: &str) {
    let home = Home::new();
    document::follow(document, &home);
    home.expect_clean_within(Duration::from_secs(10));
}

#[test]
fn cold_start_validation() {
    follow(include_str!("../../docs/use-cases/cold-start-validation.md"));
}

#[test]
fn repro_fix_loop() {
    follow(include_str!("../../docs/use-cases/repro-fix-loop.md"));
}

#[test]
fn parallel_workspaces() {
    follow(include_str!("../../docs/use-cases/parallel-workspaces.md"));
}

#[test]
fn untrusted_inspection() {
    follow(include_str!("../../docs/use-cases/untrusted-inspection.md"));
}

#[test]
fn review_eval() {
    follow(include_str!("../../docs/use-cases/review-eval.md"));
}
