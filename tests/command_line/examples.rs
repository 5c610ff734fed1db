//! The programs in `examples/` run, and print what their first comment says.

use crate::support::broker::{Broker, broker};

// `main` is not called here.
#[allow(dead_code)]
#[path = "../../examples/embed.rs"]
mod embed;
#[allow(dead_code)]
#[path = "../../examples/follow.rs"]
mod follow;
#[allow(dead_code)]
#[path = "../../examples/quick_start.rs"]
mod quick_start;
#[allow(dead_code)]
#[path = "../../examples/transfer.rs"]
mod transfer;

/// The output that the comment of an example shows.
fn documented(source: &str) -> String {
    let comment = source.lines().map_while(|line| line.strip_prefix("//!"));
    let console = comment.skip_while(|line| line.trim() != "```console").skip(1);
    console
        .take_while(|line| line.trim() != "```")
        .map(str::trim_start)
        .filter(|line| !line.starts_with("$ "))
        .flat_map(|line| [line, "\n"])
        .collect()
}

fn assert_documented(source: &str, printed: &[u8]) {
    let expected = documented(source);
    assert!(!expected.is_empty(), "the example's comment shows no output");
    assert_eq!(String::from_utf8_lossy(printed), expected);
}

#[tokio::test]
async fn the_quick_start_prints_its_documented_output() {
    let (broker, mut out) = (broker(), Vec::new());
    quick_start::run(&broker.router, &mut out).await.unwrap();
    assert_documented(include_str!("../../examples/quick_start.rs"), &out);
}

#[tokio::test]
async fn the_transfer_retries_after_a_conflict_and_succeeds() {
    let (broker, mut out) = (Broker::start(&[]), Vec::new());
    transfer::run(&broker.router, &mut out).await.unwrap();
    assert_documented(include_str!("../../examples/transfer.rs"), &out);
}

#[tokio::test]
async fn the_copy_follows_the_past_and_the_present() {
    let (broker, mut out) = (broker(), Vec::new());
    follow::run(&broker.router, &broker.publisher, &mut out).await.unwrap();
    assert_documented(include_str!("../../examples/follow.rs"), &out);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_broker_keeps_its_store() {
    let (folder, mut out) = (tempfile::tempdir().unwrap(), Vec::new());
    embed::run(&folder.path().join("store"), &mut out).await.unwrap();
    assert_documented(include_str!("../../examples/embed.rs"), &out);
}
