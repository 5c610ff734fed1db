//! Connections to the change edge that end silently, or in the middle of a write: missed changes
//! are reported, or fetched.

use crate::support::broker::broker;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use vatn::client::{Change, Client, ClientOptions, Event, Follower, RawValue, WriteOptions};
use zeromq::{Socket, SocketRecv, SocketSend, XPubSocket, ZmqMessage};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A test that waits in vain is to fail, not to hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// A proxy to a broker that can make connections go dead: no byte passes any more, and neither end
/// is notified.
struct Way {
    endpoint: String,
    /// Connections made before this counter's last step are dead.
    deaths: watch::Sender<u32>,
    way: tokio::task::JoinHandle<()>,
}

impl Way {
    async fn to(endpoint: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let here = format!("tcp://{}", listener.local_addr()?);
        let there = endpoint.strip_prefix("tcp://").unwrap().to_owned();
        let (deaths, death) = watch::channel(0);
        let dead = Arc::new(Mutex::new(Vec::new()));
        let way = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut far = TcpStream::connect(&there).await.unwrap();
                let (mut death, dead) = (death.clone(), Arc::clone(&dead));
                death.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = death.changed() => dead.lock().unwrap().push((near, far)),
                    }
                });
            }
        });
        Ok(Self { endpoint: here, deaths, way })
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.way.abort();
    }
}

fn impatient() -> ClientOptions {
    ClientOptions { beat_timeout: Duration::from_secs(2), ..ClientOptions::default() }
}

/// The events of `follower` until the first change.
async fn until_change(follower: &mut Follower) -> Result<(Vec<Event>, Change)> {
    let mut before = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, follower.next()).await?? {
            Event::Change(change) => return Ok((before, change)),
            Event::Beat { .. } => {}
            event => before.push(event),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_connection_is_replaced_and_missed_changes_are_fetched() -> Result {
    let broker = broker();
    let way = Way::to(&broker.publisher).await?;
    let options = impatient();
    let router = Some(broker.router.as_str());
    let mut follower = Follower::connect(&way.endpoint, router, b"", None, &options).await?;
    while !matches!(follower.next().await?, Event::Beat { .. }) {}
    way.deaths.send_modify(|deaths| *deaths += 1);
    let mut client = Client::connect(&broker.router, &options).await?;
    client.set(b"missed", &RawValue::from(1), &WriteOptions::default()).await?;
    let (before, change) = until_change(&mut follower).await?;
    assert_eq!(change.key.as_ref(), b"missed");
    assert_eq!(before[..2], [Event::Disconnected, Event::Reconnected]);
    Ok(())
}

/// A publisher that sends the messages of a test.
async fn publish_at(endpoint: &str) -> Result<XPubSocket> {
    // An earlier one may have left its file.
    let _ = std::fs::remove_file(endpoint.strip_prefix("ipc://").unwrap());
    let mut publisher = XPubSocket::new();
    publisher.bind(endpoint).await?;
    Ok(publisher)
}

/// A publication without a value.
fn publication(topic: &[u8], op: &str, numbers: [u64; 4]) -> Result<ZmqMessage> {
    let [seq, index, count, prev] = numbers.map(rmpv::Value::from);
    let header = vec![seq, op.into(), index, count, prev, rmpv::Value::Nil, "stored".into()];
    let mut frame = Vec::new();
    rmpv::encode::write_value(&mut frame, &rmpv::Value::Array(header))?;
    let mut message = ZmqMessage::from(topic.to_vec());
    message.push_back(frame.into());
    message.push_back(Vec::new().into());
    Ok(message)
}

/// The rest of a write is lost with the connection; later messages look as if nothing was missed.
#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_a_write_is_a_gap_where_it_cannot_be_fetched() -> Result {
    let folder = tempfile::tempdir()?;
    let endpoint = format!("ipc://{}", folder.path().join("publisher").display());
    let mut publisher = publish_at(&endpoint).await?;
    let options = ClientOptions { beat_timeout: PATIENCE, ..ClientOptions::default() };
    let mut follower = Follower::connect(&endpoint, None, b"", None, &options).await?;
    for _ in 0..2 {
        publisher.recv().await?;
    }
    publisher.send(publication(b"first of three", "delete", [5, 0, 3, 4])?).await?;
    assert!(matches!(follower.next().await?, Event::Change(change) if change.seq == 5));
    drop(publisher);
    assert_eq!(follower.next().await?, Event::Disconnected);
    let mut publisher = publish_at(&endpoint).await?;
    assert_eq!(follower.next().await?, Event::Reconnected);
    for _ in 0..2 {
        publisher.recv().await?;
    }
    publisher.send(publication(b"\xffbeat", "beat", [5, 0, 0, 5])?).await?;
    assert_eq!(follower.next().await?, Event::Gap { after: 4, through: 5 });
    assert_eq!(follower.next().await?, Event::Beat { seq: 5 });
    Ok(())
}
