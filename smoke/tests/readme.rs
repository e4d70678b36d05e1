//! The README's examples do what they say.

use pyro_smoke::{Home, document};

#[test]
fn every_example_prints_what_it_says() {
    document::follow(include_str!("../../README.md"), &Home::new());
}
