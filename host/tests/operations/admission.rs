//! How much memory is given to how many.

use crate::fake_vmm::FakeVmm;
use crate::home::{ENVIRONMENT, Home};
use pyro::operation::workspace::WorkspaceSummary;
use pyro::operation::{WorkspaceCreate, WorkspaceList, WorkspaceStart, WorkspaceStop};
use pyro::{ErrorKind, Pyro, Result, facts};
use serde_json::json;

async fn create(pyro: &Pyro, mem_mib: u64) -> Result<WorkspaceSummary> {
    let create = json!({ "environment": ENVIRONMENT, "mem_mib": mem_mib });
    pyro.call(serde_json::from_value::<WorkspaceCreate>(create).unwrap()).await
}

/// No guest here ever touches its memory: what is free tells nothing.
#[tokio::test]
async fn r24_of_many_who_come_together_no_more_get_memory_than_there_is() {
    let home = Home::new();
    std::fs::create_dir_all(home.path("guest")).unwrap();
    let vmm = FakeVmm::honest(home.path("guest"));
    let pyro = home.pyro(vmm.clone());
    // One fits and two do not, though others on this host come and go.
    let large = facts::available_mem_mib().unwrap() * 6 / 10;
    let made = futures::future::join_all((0..6).map(|_| create(&pyro, large))).await;
    let (made, refused): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len(), vmm.started()), (1, 5, 1));
    for refused in refused {
        let error = refused.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error:?}");
        assert!(error.message().contains(&large.to_string()), "{error:?}");
        assert!(error.next_step().is_some_and(|hint| hint.contains("--mem-mib")), "{error:?}");
    }
    assert_eq!(home.workspaces().len(), 1, "nothing is left of the others");
    create(&pyro, 128).await.expect("there is room for a small one");
    // What is stopped gives back what it had, and is refused when that is gone.
    let first = json!({ "workspace_id": made[0].as_ref().unwrap().workspace_id });
    let stop = serde_json::from_value::<WorkspaceStop>(first.clone()).unwrap();
    pyro.call(stop).await.unwrap();
    create(&pyro, large).await.expect("there is room again");
    let start = serde_json::from_value::<WorkspaceStart>(first).unwrap();
    let error = pyro.call(start).await.expect_err("it comes too late");
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert_eq!(pyro.call(WorkspaceList::default()).await.unwrap().count, 3);
}
