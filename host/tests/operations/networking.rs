//! Network policies, as far as a guest without a machine has any.

use crate::fake_vmm::FakeVmm;
use crate::home::{ENVIRONMENT, Home};
use pyro::egress::NetworkPolicy;
use pyro::egress::policy::Effect;
use pyro::operation::{
    NetworkAllow, NetworkDeny, NetworkExplain, NetworkStatus, Operation, WorkspaceCreate,
    WorkspaceStop,
};
use pyro::{ErrorKind, Pyro};
use serde_json::{Value, json};
use std::fs;

fn pyro(home: &Home) -> Pyro {
    fs::create_dir_all(home.path("guest")).unwrap();
    home.pyro(FakeVmm::honest(home.path("guest")))
}

async fn create(pyro: &Pyro, more: Value) -> pyro::Result<()> {
    let mut wanted = json!({ "environment": ENVIRONMENT, "mem_mib": 128, "name": "w" });
    wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let create: WorkspaceCreate = serde_json::from_value(wanted).unwrap();
    pyro.call(create).await.map(drop)
}

async fn ask<O: Operation>(pyro: &Pyro, more: Value) -> pyro::Result<O::Output> {
    let mut asked = json!({ "workspace_id": "w" });
    asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    pyro.call(serde_json::from_value::<O>(asked).unwrap()).await
}

#[tokio::test]
async fn s7_a_guest_that_cannot_have_its_network_is_not_made() {
    let home = Home::new();
    let pyro = pyro(&home);
    let error = create(&pyro, json!({ "network_policy": "egress" })).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    home.assert_nothing_left();
}

#[tokio::test]
async fn rules_need_a_network() {
    let home = Home::new();
    let pyro = pyro(&home);
    let error = create(&pyro, json!({ "allow": ["pypi.org"] })).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.next_step(), Some("add `--network-policy egress`"));
    create(&pyro, json!({})).await.unwrap();
    let error = ask::<NetworkAllow>(&pyro, json!({ "rule": "pypi.org" })).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let status = ask::<NetworkStatus>(&pyro, json!({})).await.unwrap();
    assert_eq!((status.network_policy, status.otherwise), (NetworkPolicy::Off, Effect::Deny));
    let why = ask::<NetworkExplain>(&pyro, json!({ "host": "pypi.org" })).await.unwrap();
    assert_eq!((why.effect, why.rule.as_str()), (Effect::Deny, "off"));
}

#[tokio::test]
async fn what_is_said_last_goes_first_and_is_explained() {
    let home = Home::new();
    let pyro = pyro(&home);
    create(&pyro, json!({})).await.unwrap();
    ask::<WorkspaceStop>(&pyro, json!({})).await.unwrap();
    // As one has it whose guest could have a network.
    let record = pyro::workspace::find::find(&pyro.config, "w").unwrap().path().join("record.json");
    let text = fs::read_to_string(&record).unwrap();
    let text = text.replace(r#""network_policy":"off""#, r#""network_policy":"egress""#);
    let text = text.replace(r#""network_policy": "off""#, r#""network_policy": "egress""#);
    fs::write(&record, text).unwrap();

    let explain = async |host: &str, port: u16| {
        let why = ask::<NetworkExplain>(&pyro, json!({ "host": host, "port": port })).await;
        let why = why.unwrap();
        (why.effect, why.rule)
    };
    assert_eq!(explain("pypi.org", 443).await, (Effect::Allow, "otherwise".into()));
    assert_eq!(explain("10.0.0.1", 443).await, (Effect::Deny, "built-in:private".into()));
    assert_eq!(explain("127.0.0.1", 443).await, (Effect::Deny, "built-in:host".into()));
    ask::<NetworkDeny>(&pyro, json!({ "rule": "*" })).await.unwrap();
    let added = ask::<NetworkAllow>(&pyro, json!({ "rule": "*.pypi.org:443" })).await.unwrap();
    assert_eq!(added.added.as_deref(), Some("r2"));
    assert_eq!(
        added.rules.iter().map(|rule| &*rule.rule).collect::<Vec<_>>(),
        ["*.pypi.org:443", "*"]
    );
    assert_eq!(explain("files.pypi.org", 443).await, (Effect::Allow, "r2".into()));
    assert_eq!(explain("files.pypi.org", 80).await, (Effect::Deny, "r1".into()));
    assert_eq!(explain("pypi.org", 443).await, (Effect::Deny, "r1".into()));
    let error = ask::<NetworkExplain>(&pyro, json!({ "host": "http://x" })).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
