//! A connection for tests with many requests in flight: requests in, outcomes by id out.

use bytes::BytesMut;
use rmpv::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use vatn::client::fast::{Dealer, frame_head};
use vatn::client::{ClientError, Request};

/// How long connecting may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A result, or the code and the message of a refusal.
pub type Outcome = Result<Value, (String, String)>;

/// A connection to a command edge.
pub struct Connection {
    dealer: Dealer,
    next_id: u64,
}

impl Connection {
    pub async fn connect(endpoint: &str) -> Result<Self, ClientError> {
        let dealer = Dealer::connect(&endpoint.parse()?, PATIENCE).await?;
        Ok(Self { dealer, next_id: 0 })
    }

    /// Sends one message; returns the id of each frame's request. Those of notifications are never
    /// answered.
    pub fn push(&mut self, requests: &[(Request, bool)]) -> Vec<u64> {
        let last = requests.len() - 1;
        let out: &mut BytesMut = self.dealer.outgoing();
        let ids = (self.next_id..).take(requests.len()).collect();
        for (index, (request, is_notification)) in requests.iter().enumerate() {
            let frame = match is_notification {
                true => request.encode_notification(),
                false => request.encode(self.next_id),
            };
            self.next_id += 1;
            let mut head = frame_head(frame.len());
            head[0] |= u8::from(index < last);
            out.extend_from_slice(&head);
            out.extend_from_slice(&frame);
        }
        ids
    }

    /// Waits for answers: at least one message.
    pub async fn outcomes(&mut self) -> Result<Vec<(u64, Outcome)>, ClientError> {
        let mut outcomes = Vec::new();
        self.dealer.exchange(|frame, _| outcomes.push(decode(frame))).await?;
        Ok(outcomes)
    }

    /// Sends requests in one message, and waits for all outcomes.
    pub async fn call(&mut self, requests: &[Request]) -> Result<Vec<Outcome>, ClientError> {
        let requests: Vec<_> = requests.iter().map(|request| (request.clone(), false)).collect();
        let ids = self.push(&requests);
        let mut arrived = BTreeMap::new();
        while arrived.len() < ids.len() {
            arrived.extend(self.outcomes().await?);
        }
        Ok(ids.iter().map(|id| arrived.remove(id).unwrap()).collect())
    }

    /// One request that is not refused.
    pub async fn result(&mut self, request: Request) -> Value {
        self.call(&[request]).await.unwrap().remove(0).unwrap()
    }
}

/// Decodes a response: the id, and the request's outcome.
pub fn decode(mut frame: &[u8]) -> (u64, Outcome) {
    let response = rmpv::decode::read_value(&mut frame).unwrap();
    let id = response[1].as_u64().unwrap();
    let outcome = match &response[2] {
        Value::Nil => Ok(response[3].clone()),
        error => {
            Err((error[0].as_str().unwrap().to_owned(), error[1].as_str().unwrap().to_owned()))
        }
    };
    (id, outcome)
}

/// The bytes of a key in a reply.
pub fn key_bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.as_bytes().to_vec(),
        Value::Binary(bytes) => bytes.clone(),
        other => panic!("not a key: {other}"),
    }
}
