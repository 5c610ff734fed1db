//! An honest client of another ZeroMQ implementation; the broker must answer it whatever other
//! clients do.

use super::commands::request;
use super::peer::Response;
use rmpv::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use zeromq::{DealerSocket, Socket, SocketRecv, SocketSend};

/// No answer may take longer, even on a busy machine.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The least number of rounds, however short a trial is.
const ROUNDS_MIN: u64 = 10;

/// Its measurements.
#[derive(Debug, Default)]
pub struct Account {
    pub answered: u64,
    pub worst: Duration,
}

/// A client in a thread of its own.
pub struct Honest {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Account>,
}

impl Honest {
    /// Begins to write and read back; returns once the first round is answered.
    pub fn start(router: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (endpoint, stopping) = (router.to_owned(), Arc::clone(&stop));
        let (begun, begins) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(work(&endpoint, &stopping, &begun))
        });
        begins.recv().expect("the honest client was served at all");
        Self { stop, thread }
    }

    /// Ends; fails when a request was not answered in time, or with a wrong value.
    pub fn finish(self) -> Account {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the honest client was served")
    }
}

async fn work(endpoint: &str, stop: &AtomicBool, begun: &mpsc::Sender<()>) -> Account {
    let key = format!("honest {}", fastrand::u64(..));
    let mut socket = DealerSocket::new();
    socket.connect(endpoint).await.unwrap();
    let mut account = Account::default();
    while !stop.load(Ordering::Relaxed) || account.answered < ROUNDS_MIN {
        let id = account.answered;
        let queued = Value::Map(vec![("durability".into(), "queued".into())]);
        let set = request(id, "set", vec![key.as_str().into(), id.into(), queued]);
        let get = request(id, "get", vec![key.as_str().into()]);
        for (request, is_get) in [(set, false), (get, true)] {
            let began = Instant::now();
            socket.send(request.0.into()).await.unwrap();
            let answer = tokio::time::timeout(ANSWER_MAX, socket.recv()).await;
            let answer = answer.expect("an answer in time").unwrap();
            let response = Response::decode(answer.get(0).unwrap());
            assert_eq!(response.id, Some(id));
            let result = response.result.unwrap();
            assert!(!is_get || result == Value::from(id), "{result} is not {id}");
            account.worst = account.worst.max(began.elapsed());
        }
        account.answered += 1;
        let _ = begun.send(());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    account
}
