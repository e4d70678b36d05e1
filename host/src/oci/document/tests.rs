use super::*;
use proptest::prelude::*;

fn entry(platform: &str, tail: char) -> String {
    let digest = tail.to_string().repeat(64);
    format!(r#"{{"mediaType":"","digest":"sha256:{digest}","size":7{platform}}}"#)
}

fn platform(os: &str, architecture: &str, variant: &str) -> String {
    format!(r#","platform":{{"os":"{os}","architecture":"{architecture}","variant":"{variant}"}}"#)
}

fn chosen(entries: &[String]) -> Result<String, BadDocument> {
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    let Document::Index(entries) = Document::parse(index.as_bytes())? else {
        panic!("it is an index");
    };
    choose(&entries).map(|chosen| chosen.digest.to_string())
}

#[test]
fn the_image_for_the_guests_is_chosen() {
    let entries = [
        entry(&platform("linux", "arm64", "v8"), '1'),
        entry(&platform("unknown", "unknown", ""), '2'),
        entry(&platform("linux", "amd64", "v3"), '3'),
        entry(&platform("linux", "amd64", ""), '4'),
    ];
    assert_eq!(chosen(&entries).expect("there"), format!("sha256:{}", "4".repeat(64)));
    assert_eq!(chosen(&entries[..3]).expect("there"), format!("sha256:{}", "3".repeat(64)));
    let error = chosen(&entries[..2]).expect_err("for others").to_string();
    assert_eq!(error, "it has no image for linux/amd64, only for linux/arm64, unknown/unknown");
    let silent = [entry("", '5')];
    assert_eq!(chosen(&silent).expect("there"), format!("sha256:{}", "5".repeat(64)));
}

#[test]
fn a_document_that_is_two_things_is_neither() {
    let one = entry("", '1');
    let both = format!(r#"{{"manifests":[{one}],"config":{one},"layers":[{one}]}}"#);
    assert!(matches!(Document::parse(both.as_bytes()), Err(BadDocument::Neither)));
    assert!(matches!(Document::parse(b"{}"), Err(BadDocument::Neither)));
    let old = br#"{"schemaVersion":1,"fsLayers":[]}"#;
    assert!(matches!(Document::parse(old), Err(BadDocument::FirstSchema)));
    let layers = vec![one.clone(); LAYERS_MAX + 1].join(",");
    let deep = format!(r#"{{"config":{one},"layers":[{layers}]}}"#);
    assert!(matches!(Document::parse(deep.as_bytes()), Err(BadDocument::Layers(_))));
}

#[test]
fn a_configuration_says_what_programs_get() {
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"diff_ids":null},
        "config":{"Env":["PATH=/bin","A=b=c","odd","=x"],"Entrypoint":null,"Cmd":"/hello",
        "User":"app:app","WorkingDir":"/srv","Labels":{"a":"b"}}}"#;
    let config = ImageConfig::parse(config).expect("it is one");
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(config.env, [variable("PATH", "/bin"), variable("A", "b=c")]);
    assert_eq!((config.entrypoint.len(), config.cmd), (0, vec!["/hello".to_owned()]));
    assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("app:app", "/srv"));
}

#[test]
fn what_no_program_can_be_given_is_refused() {
    let parse = |text: String| ImageConfig::parse(text.as_bytes());
    let arm = r#"{"architecture":"arm64","os":"linux"}"#;
    assert!(matches!(parse(arm.into()), Err(BadDocument::OtherPlatform(_))));
    let nul = r#"{"config":{"Cmd":["a\u0000b"]}}"#;
    assert!(matches!(parse(nul.into()), Err(BadDocument::Word("command"))));
    let long = format!(r#"{{"config":{{"Env":["A={}"]}}}}"#, "x".repeat(WORDS_BYTES_MAX));
    assert!(matches!(parse(long), Err(BadDocument::LongWords)));
}

#[test]
fn what_is_wrong_is_told_without_what_is_in_it() {
    let error = ImageConfig::parse(br#"{"config":{"Env":"hunter2"}}"#).expect_err("no list");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

proptest! {
    #[test]
    fn no_document_panics(text in "\\PC{0,60}", json in arbitrary_json()) {
        for bytes in [text.as_bytes(), json.as_bytes()] {
            drop(Document::parse(bytes));
            drop(ImageConfig::parse(bytes));
        }
    }
}

/// JSON with the names that matter, of any form.
fn arbitrary_json() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "schemaVersion",
        "manifests",
        "config",
        "layers",
        "digest",
        "size",
        "platform",
        "os",
        "architecture",
        "rootfs",
        "diff_ids",
        "Env",
        "Cmd",
        "Entrypoint",
        "User",
        "mediaType",
    ]);
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<i32>().prop_map(|number| number.to_string()),
        "[a-z:=/]{0,9}".prop_map(|text| format!("{text:?}")),
        Just(format!("\"sha256:{}\"", "a".repeat(64))),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        let fields = prop::collection::vec((word.clone(), inner.clone()), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|all| format!("[{}]", all.join(","))),
            fields.prop_map(|fields| {
                let fields: Vec<_> =
                    fields.into_iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}
