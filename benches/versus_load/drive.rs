//! Random keys, got or set, on many connections: in a closed loop (see `closed`), or at a
//! rate (see `paced`).

use crate::closed::{self, Looped, Plan};
use crate::paced::{self, Pace};
use crate::protocol::{Shape, Template};
use crate::wire::Wire;
use crate::{Fallible, Target};
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

#[derive(Args, Clone)]
pub struct Drive {
    #[command(flatten)]
    target: Target,

    /// The operation
    #[arg(long)]
    operation: Operation,

    /// How many connections
    #[arg(long, default_value_t = 50)]
    connections: u64,

    /// How many requests are sent together, and awaited together
    #[arg(long, default_value_t = 16)]
    pipeline: u64,

    /// For how long
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,

    /// Requests a second in all, sent when they are due whether earlier ones are answered or not;
    /// the latency counts from the due time
    #[arg(long)]
    rate: Option<f64>,

    /// Print a line of figures for each interval of this many seconds
    #[arg(long, value_name = "SECONDS")]
    interval: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Operation {
    Get,
    Set,
}

/// Threads at work, and where each counts.
type Started = (Vec<JoinHandle<Fallible<()>>>, Vec<Shared>);

/// The counts of one connection, or of all.
pub struct Tally {
    latency: Histogram<u64>,
    absent: u64,
    /// Writes that the queue had no room for; they are in the latencies too.
    refused: u64,
    /// The time of the last answer.
    ended: Instant,
}

impl Tally {
    fn new() -> Fallible<Self> {
        let latency = Histogram::new_with_bounds(100, 600_000_000_000, 3)?;
        Ok(Tally { latency, absent: 0, refused: 0, ended: Instant::now() })
    }

    fn add(&mut self, other: &Tally) -> Fallible<()> {
        self.latency.add(&other.latency)?;
        self.absent += other.absent;
        self.refused += other.refused;
        self.ended = self.ended.max(other.ended);
        Ok(())
    }

    /// Counts one answer, whose latency is counted with [`Tally::took`].
    pub fn saw(&mut self, shape: Shape) {
        self.absent += u64::from(shape == Shape::Absent);
        self.refused += u64::from(shape == Shape::Refused);
    }

    /// `count` answers that came now to requests that were due at `since`.
    pub fn took(&mut self, count: u64, since: Instant) {
        self.ended = Instant::now();
        let nanoseconds = self.ended.saturating_duration_since(since).as_nanos() as u64;
        self.latency.saturating_record_n(nanoseconds, count);
    }

    /// Moves everything into `other`.
    fn pour_into(&mut self, other: &mut Tally) -> Fallible<()> {
        other.add(self)?;
        self.latency.reset();
        (self.absent, self.refused) = (0, 0);
        Ok(())
    }
}

/// A tally that the reporter reads too.
pub type Shared = Arc<Mutex<Tally>>;

pub fn lock(tally: &Shared) -> Fallible<MutexGuard<'_, Tally>> {
    Ok(tally.lock().map_err(|_| "another thread panicked")?)
}

impl Drive {
    pub fn run(self) -> Fallible<Value> {
        let wires = (0..self.connections)
            .map(|_| Wire::connect(self.target.protocol, &self.target.address, "DEALER"))
            .collect::<Fallible<Vec<_>>>()?;
        // All begin together, a moment from now.
        let begin = Instant::now() + Duration::from_millis(50);
        let (threads, tallies) = match self.rate {
            Some(rate) => {
                let tally: Shared = Arc::new(Mutex::new(Tally::new()?));
                let pace = Pace { rate, pipeline: self.pipeline, seconds: self.seconds, begin };
                let keys = Keys::new(0, self.target.keys);
                let template = self.template();
                (paced::start(wires, pace, keys, template, Arc::clone(&tally))?, vec![tally])
            }
            None => self.start_closed(wires, begin)?,
        };
        let mut total = Tally::new()?;
        if let Some(seconds) = self.interval {
            let interval = Duration::from_secs_f64(seconds);
            let is_over = || threads.iter().all(JoinHandle::is_finished);
            self.report(begin, interval, &tallies, &mut total, is_over)?;
        }
        for thread in threads {
            thread.join().map_err(|_| "a connection's thread panicked")??;
        }
        for tally in tallies {
            total.add(&*lock(&tally)?)?;
        }
        Ok(self.figures(&total, total.ended - begin))
    }

    /// As many threads as there are cores, and no more than connections.
    fn start_closed(&self, wires: Vec<Wire>, begin: Instant) -> Fallible<Started> {
        let plan = Plan {
            template: self.template(),
            pipeline: self.pipeline,
            begin,
            end: begin + Duration::from_secs_f64(self.seconds),
        };
        let cores = thread::available_parallelism()?.get();
        let mut shares: Vec<Vec<Looped>> =
            (0..cores.min(wires.len())).map(|_| Vec::new()).collect();
        let count = shares.len();
        for (place, wire) in wires.into_iter().enumerate() {
            let keys = Keys::new(place as u64, self.target.keys);
            if let Some(share) = shares.get_mut(place % count) {
                share.push(Looped::new(wire, keys)?);
            }
        }
        let (mut threads, mut tallies) = (Vec::new(), Vec::new());
        for share in shares {
            let (tally, plan): (Shared, _) = (Arc::new(Mutex::new(Tally::new()?)), plan.clone());
            tallies.push(Arc::clone(&tally));
            threads.push(thread::spawn(move || closed::run(share, &plan, &tally)));
        }
        Ok((threads, tallies))
    }

    /// Prints the counts of each interval, and moves them into `total`.
    fn report(
        &self,
        begin: Instant,
        interval: Duration,
        tallies: &[Shared],
        total: &mut Tally,
        is_over: impl Fn() -> bool,
    ) -> Fallible<()> {
        let (mut since, mut part) = (begin, Tally::new()?);
        while !is_over() {
            thread::sleep((since + interval).saturating_duration_since(Instant::now()));
            let now = Instant::now();
            for tally in tallies {
                lock(tally)?.pour_into(&mut part)?;
            }
            println!("{}", self.figures(&part, now - since));
            part.pour_into(total)?;
            since = now;
        }
        Ok(())
    }

    fn template(&self) -> Template {
        match self.operation {
            Operation::Get => Template::get(&self.target),
            Operation::Set => Template::set(&self.target),
        }
    }

    fn figures(&self, tally: &Tally, elapsed: Duration) -> Value {
        let microseconds = |quantile| tally.latency.value_at_quantile(quantile) as f64 / 1e3;
        json!({
            "requests": tally.latency.len(),
            "per_second": tally.latency.len() as f64 / elapsed.as_secs_f64(),
            "p50_us": microseconds(0.5),
            "p99_us": microseconds(0.99),
            "p99_9_us": microseconds(0.999),
            "max_us": microseconds(1.0),
            "absent": tally.absent,
            "refused": tally.refused,
            "seconds": elapsed.as_secs_f64(),
        })
    }
}

/// SplitMix64.
pub struct Keys {
    state: u64,
    count: u64,
}

impl Keys {
    pub fn new(seed: u64, count: u64) -> Self {
        Keys { state: seed << 40, count }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.state;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (number ^ (number >> 31)) % self.count
    }
}
