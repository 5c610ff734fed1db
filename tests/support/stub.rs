//! A broker that gives the answers of a test.

use zeromq::{RouterSocket, Socket, SocketRecv, SocketSend};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// `answer` makes the answer to each request.
pub struct Stub {
    /// Its endpoint.
    pub endpoint: String,
    broker: tokio::task::JoinHandle<Result>,
}

/// A result, or an error.
pub type Answer = std::result::Result<rmpv::Value, rmpv::Value>;

impl Stub {
    /// Listens on a port of its own.
    pub async fn start(answer: fn(&str, &rmpv::Value) -> Answer) -> Result<Self> {
        let mut router = RouterSocket::new();
        let endpoint = router.bind("tcp://127.0.0.1:0").await?.to_string();
        let broker = tokio::spawn(async move {
            loop {
                let message = router.recv().await?;
                let mut reply = zeromq::ZmqMessage::from(message.get(0).unwrap().clone());
                for frame in message.iter().skip(1) {
                    let request = rmpv::decode::read_value(&mut &frame[..])?;
                    let (error, result) = match answer(request[2].as_str().unwrap(), &request[3]) {
                        Ok(result) => (rmpv::Value::Nil, result),
                        Err(error) => (error, rmpv::Value::Nil),
                    };
                    let response = vec![1.into(), request[1].clone(), error, result];
                    let mut frame = Vec::new();
                    rmpv::encode::write_value(&mut frame, &rmpv::Value::Array(response))?;
                    reply.push_back(frame.into());
                }
                router.send(reply).await?;
            }
        });
        Ok(Self { endpoint, broker })
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.broker.abort();
    }
}

/// An array.
pub fn list(elements: Vec<rmpv::Value>) -> rmpv::Value {
    rmpv::Value::Array(elements)
}

/// The answer to `hello` of a broker at `seq`.
pub fn hello(seq: u64) -> rmpv::Value {
    let store_id = ("store_id".into(), "0".repeat(32).into());
    rmpv::Value::Map(vec![("seq".into(), seq.into()), store_id])
}
