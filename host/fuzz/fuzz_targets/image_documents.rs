//! What a registry says before a byte of a layer: documents, references,
//! challenges.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyro::oci::document::{Document, LAYERS_MAX, choose};
use pyro::oci::registry::challenge;
use pyro::oci::{ImageConfig, Reference};

fuzz_target!(|text: &[u8]| {
    match Document::parse(text) {
        Ok(Document::Index(entries)) => drop(choose(&entries)),
        Ok(Document::Manifest(manifest)) => assert!(manifest.layers.len() <= LAYERS_MAX),
        Err(bad) => drop(bad.to_string()),
    }
    if let Ok(config) = ImageConfig::parse(text) {
        let words = config.entrypoint.iter().chain(&config.cmd);
        assert!(words.chain([&config.user, &config.working_dir]).all(|word| !word.contains('\0')));
    }
    let Ok(text) = str::from_utf8(text) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse(), Ok(reference));
    }
    assert!(challenge::parse(text).len() <= text.len());
});
