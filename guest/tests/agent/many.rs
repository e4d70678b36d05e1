//! Many at once.

use crate::host::{Host, sh};
use pyro_protocol::frame::STREAM_CHUNK;
use std::sync::Arc;
use tokio::task::JoinSet;

const CONCURRENT: usize = 32;

#[tokio::test]
async fn calls_run_side_by_side() {
    let host = Arc::new(Host::new());
    let mut calls = JoinSet::new();
    for number in 0..CONCURRENT {
        let host = host.clone();
        calls.spawn(async move {
            let mut call = sh("cat; echo $NUMBER >&2; exit $NUMBER");
            call.stdin = true;
            call.env = vec![("NUMBER".into(), number.to_string().as_str().into())];
            let mut running = host.start(call).await.expect("it starts");
            let input = vec![u8::try_from(number).expect("small"); 4 * STREAM_CHUNK];
            running.write(&input).await.expect("it reads");
            running.end_input().await;
            let ended = running.finish().await;
            assert_eq!(usize::from(ended.code()), number);
            assert_eq!(ended.stderr, format!("{number}\n").as_bytes());
            assert!(ended.stdout == input, "another's output");
        });
    }
    calls.join_all().await;
}

#[tokio::test]
async fn p3_all_of_them_live_at_the_same_time() {
    let host = Arc::new(Host::new());
    let mut calls = JoinSet::new();
    let all_started = Arc::new(tokio::sync::Barrier::new(CONCURRENT));
    for _ in 0..CONCURRENT {
        let (host, all_started) = (host.clone(), all_started.clone());
        calls.spawn(async move {
            let mut call = sh("echo up; read line; echo $line");
            call.stdin = true;
            let mut running = host.start(call).await.expect("it starts");
            assert_eq!(running.line().await, "up");
            crate::host::soon("the others", all_started.wait()).await;
            running.write(b"down\n").await.expect("it reads");
            assert_eq!(running.finish().await.text(), "up\ndown\n");
        });
    }
    calls.join_all().await;
}
