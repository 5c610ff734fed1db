//! Random keys, got or set, on many connections: in a closed loop, or at a rate, answered or not.

use crate::protocol::{Shape, Template};
use crate::wire::Wire;
use crate::{Fallible, Target};
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Args, Clone)]
pub struct Drive {
    #[command(flatten)]
    target: Target,

    /// What is done
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

    /// So many requests a second in all, sent when they are due whether earlier ones are answered
    /// or not; the latency counts from when they were due
    #[arg(long)]
    rate: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Operation {
    Get,
    Set,
}

/// What one connection, or all, counted.
struct Tally {
    latency: Histogram<u64>,
    absent: u64,
    /// When the last answer came.
    ended: Instant,
}

impl Tally {
    fn new() -> Fallible<Self> {
        let latency = Histogram::new_with_bounds(100, 600_000_000_000, 3)?;
        Ok(Tally { latency, absent: 0, ended: Instant::now() })
    }

    /// Takes the answers to `requests` requests that were due at `since`.
    fn take(&mut self, wire: &mut Wire, requests: u64, since: Instant) -> Fallible<()> {
        let mut left = requests;
        while left > 0 {
            let taken = wire.replies(left, |_, shape| {
                self.absent += u64::from(shape == Shape::Absent);
                Ok(())
            })?;
            self.ended = Instant::now();
            let nanoseconds = self.ended.saturating_duration_since(since).as_nanos() as u64;
            self.latency.saturating_record_n(nanoseconds, taken);
            left -= taken;
        }
        Ok(())
    }
}

impl Drive {
    pub fn run(self) -> Fallible<Value> {
        let wires = (0..self.connections)
            .map(|_| Wire::connect(self.target.protocol, &self.target.address, "DEALER"))
            .collect::<Fallible<Vec<_>>>()?;
        // All begin together, a moment from now.
        let begin = Instant::now() + Duration::from_millis(50);
        let threads = wires.into_iter().zip(0..).map(|(wire, index)| {
            let drive = self.clone();
            thread::spawn(move || match drive.rate {
                Some(rate) => drive.at_rate(wire, index, begin, rate),
                None => drive.closed(wire, index, begin),
            })
        });
        let threads: Vec<_> = threads.collect();
        let mut total = Tally::new()?;
        for thread in threads {
            let tally = thread.join().map_err(|_| "a connection's thread panicked")??;
            total.latency.add(&tally.latency)?;
            total.absent += tally.absent;
            total.ended = total.ended.max(tally.ended);
        }
        Ok(self.figures(&total, total.ended - begin))
    }

    fn closed(&self, mut wire: Wire, index: u64, begin: Instant) -> Fallible<Tally> {
        let (mut keys, template) = (Keys::new(index, self.target.keys), self.template());
        let (mut tally, mut out) = (Tally::new()?, Vec::new());
        let end = begin + Duration::from_secs_f64(self.seconds);
        thread::sleep(begin - Instant::now());
        let mut sent = Instant::now();
        while sent < end {
            out.clear();
            (0..self.pipeline).for_each(|_| template.append(&mut out, keys.next()));
            wire.send(&out)?;
            tally.take(&mut wire, self.pipeline, sent)?;
            sent = Instant::now();
        }
        Ok(tally)
    }

    /// Sends `pipeline` requests together, so often that all connections make up the rate; another
    /// thread reads.
    fn at_rate(&self, wire: Wire, index: u64, begin: Instant, rate: f64) -> Fallible<Tally> {
        let (writer, (due_to, due_from)) = (wire.writer()?, channel());
        let drive = self.clone();
        let sender =
            thread::spawn(move || drive.send_when_due(writer, index, begin, rate, &due_to));
        let tally = self.read_all(wire, &due_from)?;
        sender.join().map_err(|_| "a sending thread panicked")??;
        Ok(tally)
    }

    fn send_when_due(
        &self,
        mut writer: TcpStream,
        index: u64,
        begin: Instant,
        rate: f64,
        due_to: &Sender<Instant>,
    ) -> Fallible<()> {
        let (mut keys, template) = (Keys::new(index, self.target.keys), self.template());
        let interval = self.pipeline as f64 * self.connections as f64 / rate;
        let stagger = interval * index as f64 / self.connections as f64;
        let mut out = Vec::new();
        for turn in 0.. {
            let at = stagger + interval * f64::from(turn);
            if at > self.seconds {
                break;
            }
            let due = begin + Duration::from_secs_f64(at);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            out.clear();
            (0..self.pipeline).for_each(|_| template.append(&mut out, keys.next()));
            due_to.send(due)?;
            writer.write_all(&out)?;
        }
        Ok(())
    }

    fn read_all(&self, mut wire: Wire, due_from: &Receiver<Instant>) -> Fallible<Tally> {
        let mut tally = Tally::new()?;
        for due in due_from {
            tally.take(&mut wire, self.pipeline, due)?;
        }
        Ok(tally)
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
