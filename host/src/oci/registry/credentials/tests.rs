use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

/// A home with Docker's file in it.
fn home(text: &str) -> (TempDir, Config) {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("config.json");
    fs::write(&file, text).expect("written");
    let mut config = Config::within(home.path());
    config.network.docker_config = Some(file);
    config.path = vec![home.path().to_owned()];
    (home, config)
}

fn helper(home: &TempDir, name: &str, script: &str) {
    let path = home.path().join(format!("docker-credential-{name}"));
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
}

async fn told(config: &Config, registry: &str) -> String {
    match find(config, registry).await.expect("readable") {
        None => "nothing".into(),
        Some(Credentials::Login { user, password }) => format!("{user} {}", password.as_str()),
        Some(Credentials::Identity(token)) => format!("identity {}", token.as_str()),
        Some(Credentials::Token(token)) => format!("token {}", token.as_str()),
    }
}

#[tokio::test]
async fn logins_are_found_as_docker_keeps_them() {
    let text = r#"{"auths":{
        "https://index.docker.io/v1/": {"auth":"bWU6YTpi"},
        "localhost:5000": {"username":"you","password":"pw"},
        "https://ghcr.io/v2/": {"auth":"","identitytoken":"id"},
        "quay.io": {"registrytoken":"reg"},
        "empty.io": {}}}"#;
    let (_home, config) = home(text);
    for (registry, login) in [
        ("docker.io", "me a:b"),
        ("localhost:5000", "you pw"),
        ("ghcr.io", "identity id"),
        ("quay.io", "token reg"),
        ("empty.io", "nothing"),
        ("localhost", "nothing"),
        ("evil-ghcr.io", "nothing"),
    ] {
        assert_eq!(told(&config, registry).await, login, "{registry}");
    }
}

#[tokio::test]
async fn programs_that_keep_logins_are_asked() {
    let text = r#"{"credsStore":"all","credHelpers":{"b.io":"one"},
        "auths":{"c.io":{"auth":"bWU6cHc="}}}"#;
    let (home, config) = home(text);
    let one =
        r#"read -r for; echo "{\"ServerURL\":\"$for\",\"Username\":\"<token>\",\"Secret\":\"t\"}""#;
    helper(&home, "one", one);
    let all = r#"read -r for; [ "$for" = a.io ] || { echo credentials not found in native keychain; exit 1; }
        echo '{"Username":"u","Secret":"s"}'"#;
    helper(&home, "all", all);
    for (registry, login) in [("a.io", "u s"), ("b.io", "identity t"), ("c.io", "me pw")] {
        assert_eq!(told(&config, registry).await, login, "{registry}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_told_without_secrets() {
    for (text, says) in [
        (r#"{"auths":{"a.io":{"auth":["hunter2"]}}}"#, "is not what Docker writes"),
        (r#"{"auths":{"a.io":{"auth":"aHVudGVyMg=="}}}"#, "is not what Docker writes"),
        (r#"{"credsStore":"../hunter2"}"#, "names a program that cannot be"),
        (r#"{"credsStore":"hunter"}"#, "is not on PATH"),
        (r#"{"credsStore":"loud"}"#, "docker-credential-loud fails"),
    ] {
        let (home, config) = home(text);
        helper(&home, "loud", "echo hunter2; echo hunter2 >&2; exit 3");
        let error = find(&config, "a.io").await.expect_err(text);
        assert!(error.chain().contains(says), "{}", error.chain());
        assert!(!error.chain().contains("hunter2"), "{}", error.chain());
    }
    let login = Credentials::Login { user: "me".into(), password: "hunter2".to_owned().into() };
    assert_eq!(format!("{login:?}"), "a login");
}

#[tokio::test]
async fn without_a_file_there_is_nothing() {
    let (home, config) = home("{}");
    assert_eq!(told(&config, "a.io").await, "nothing");
    fs::remove_file(home.path().join("config.json")).expect("removed");
    assert_eq!(told(&config, "a.io").await, "nothing");
}
