//! The load of one connection: the messages that it keeps in flight, and its counts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::Bench;
use super::mix::{Mix, Operation};
use super::template::Template;
use crate::client::fast::{self, Dealer, Glance};
use crate::client::{ClientError, Endpoint};

/// One connection's share of the load.
pub(super) struct Load {
    endpoint: String,
    dealer: Dealer,
    templates: [Template; 3],
    mix: Mix,
    keys: u64,
    random: u64,
    pipeline: usize,
    per_message: u32,
    /// How many requests are still to be sent, if their number is limited.
    left: u64,
    next_id: u32,
    under_way: VecDeque<Message>,
    tally: Tally,
}

/// A message in flight.
struct Message {
    operation: Operation,
    sent: Instant,
    first_id: u32,
    requests: u32,
}

/// The counts.
#[derive(Default)]
pub(super) struct Tally {
    operations: BTreeMap<&'static str, Figures>,
    errors: BTreeMap<String, u64>,
    absent: u64,
}

/// The figures of one operation.
pub(super) struct Figures {
    pub(super) latency_ns: Histogram<u64>,
}

impl Load {
    /// Connects the connection number `index`.
    pub(super) async fn connect(
        bench: Bench,
        endpoint: Endpoint,
        index: u64,
    ) -> Result<Self, ClientError> {
        let patience = bench.connection.patience.options().connect_timeout;
        let level = bench.writing.durability;
        let template = |operation| Template::new(operation, bench.value_size, level);
        // The requests that do not divide evenly go to the first connections.
        let share = |requests: u64| {
            let connections = u64::from(bench.connections);
            requests / connections + u64::from(index < requests % connections)
        };
        Ok(Load {
            endpoint: endpoint.to_string(),
            dealer: Dealer::connect(&endpoint, patience).await?,
            templates: Operation::ALL.map(template),
            mix: bench.mix,
            keys: bench.keys,
            random: bench.seed ^ (index << 40),
            pipeline: bench.pipeline as usize,
            per_message: bench.per_message,
            left: bench.requests.map_or(u64::MAX, share),
            next_id: 0,
            under_way: VecDeque::new(),
            tally: Tally::default(),
        })
    }

    /// Sends and receives until the stop flag is set or nothing is left to send, and all requests
    /// are answered.
    pub(super) async fn run(mut self, stop: Arc<AtomicBool>) -> Result<Tally, ClientError> {
        loop {
            if stop.load(Ordering::Relaxed) {
                self.left = 0;
            }
            self.fill();
            if self.under_way.is_empty() {
                return Ok(self.tally);
            }
            self.settle().await?;
        }
    }

    fn fill(&mut self) {
        let sent = Instant::now();
        while self.under_way.len() < self.pipeline && self.left > 0 {
            let requests = self.left.min(u64::from(self.per_message)) as u32;
            self.left -= u64::from(requests);
            let choice = self.random();
            let operation = self.mix.choose(choice);
            let first_id = self.next_id;
            for place in 1..=requests {
                let key = self.random() % self.keys;
                let [get, set, incr] = &self.templates;
                let template = match operation {
                    Operation::Get => get,
                    Operation::Set => set,
                    Operation::Incr => incr,
                };
                template.append(self.dealer.outgoing(), self.next_id, key, place < requests);
                self.next_id = self.next_id.wrapping_add(1);
            }
            self.under_way.push_back(Message { operation, sent, first_id, requests });
        }
    }

    /// Waits for replies and counts them.
    async fn settle(&mut self) -> Result<(), ClientError> {
        let Load { dealer, under_way, tally, .. } = self;
        let mut fault = None;
        let mut now = None;
        let mut place = 0;
        dealer
            .exchange(|frame, last| {
                let Some(message) = under_way.front() else {
                    fault = Some("a reply without a request");
                    return;
                };
                let wanted = message.first_id.wrapping_add(place);
                place += 1;
                if let Err(reason) = tally.look_at(frame, wanted) {
                    fault = Some(reason);
                }
                if last {
                    if place != message.requests {
                        fault = Some("a message with fewer replies than there were requests");
                    }
                    let latency = *now.get_or_insert_with(Instant::now) - message.sent;
                    tally.count(message.operation, latency, message.requests);
                    under_way.pop_front();
                    place = 0;
                }
            })
            .await?;
        match fault {
            None => Ok(()),
            Some(reason) => Err(ClientError::Protocol {
                endpoint: self.endpoint.clone(),
                reason: reason.to_owned(),
            }),
        }
    }

    /// SplitMix64: every seed gives another sequence, always the same.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.random;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }
}

impl Tally {
    fn look_at(&mut self, frame: &[u8], wanted: u32) -> Result<(), &'static str> {
        let id = match fast::glance(frame).ok_or("it is not a response")? {
            Glance::Result { id, nil } => {
                self.absent += u64::from(nil);
                Some(id)
            }
            Glance::Error { id } => {
                let code = fast::error_code(frame).ok_or("it is an error without a code")?;
                *self.errors.entry(code).or_default() += 1;
                id
            }
        };
        if id == Some(u64::from(wanted)) { Ok(()) } else { Err("a reply out of order") }
    }

    fn count(&mut self, operation: Operation, latency: Duration, requests: u32) {
        let figures = self.operations.entry(operation.name()).or_default();
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        figures.latency_ns.saturating_record_n(nanoseconds, u64::from(requests));
    }

    /// Adds the counts of another connection.
    pub(super) fn add(&mut self, other: &Tally) {
        for (name, figures) in &other.operations {
            self.operations.entry(name).or_default().add(figures);
        }
        for (code, count) in &other.errors {
            *self.errors.entry(code.clone()).or_default() += count;
        }
        self.absent += other.absent;
    }

    /// The figures of each operation by its name.
    pub(super) fn operations(&self) -> impl Iterator<Item = (&'static str, &Figures)> {
        self.operations.iter().map(|(name, figures)| (*name, figures))
    }

    /// The figures of all operations together.
    pub(super) fn whole(&self) -> Figures {
        let mut whole = Figures::default();
        self.operations.values().for_each(|figures| whole.add(figures));
        whole
    }

    /// How many requests were refused, by code.
    pub(super) fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }

    /// How many results were nil: absent keys.
    pub(super) fn absent(&self) -> u64 {
        self.absent
    }

    /// A short summary of the refusals, if there were any.
    pub(super) fn refused(&self) -> Option<String> {
        let counts: Vec<_> =
            self.errors.iter().map(|(code, count)| format!("{count} {code}")).collect();
        (!counts.is_empty()).then(|| counts.join(", "))
    }
}

impl Default for Figures {
    #[expect(clippy::expect_used, reason = "the bounds are constants, and valid")]
    fn default() -> Self {
        // Up to an hour, which is longer than any reply takes, in three digits.
        const HOUR_NS: u64 = 3_600_000_000_000;
        let latency_ns = Histogram::new_with_bounds(100, HOUR_NS, 3).expect("valid bounds");
        Figures { latency_ns }
    }
}

impl Figures {
    fn add(&mut self, other: &Figures) {
        // Both have the same bounds.
        let _ = self.latency_ns.add(&other.latency_ns);
    }
}
