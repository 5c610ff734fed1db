//! One writer and many subscribers. redis: `PUBLISH` to a channel that all have subscribed to.
//! vatn: `set` of a key that all have subscribed to, so each delivery is a change of the map too.
//!
//! The writer stays less than --ahead messages before the slowest subscriber, so that no server has
//! to drop anything or to grow; every subscriber must get every message.

use crate::protocol::{Protocol, Template, resp_command, zmtp_content, zmtp_single};
use crate::wire::Wire;
use crate::{Fallible, Target};
use clap::Args;
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

const BATCH: u64 = 100;
const BEAT: &[u8] = b"\xffbeat";
const LOST: &[u8] = b"\xfflost";

#[derive(Args, Clone)]
pub struct Fan {
    #[command(flatten)]
    target: Target,

    /// Where the changes are published; redis has one endpoint
    #[arg(long)]
    publisher: Option<String>,

    /// How many subscribers
    #[arg(long, default_value_t = 10)]
    subscribers: usize,

    /// For how long
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,

    /// How far the writer may be ahead of the slowest subscriber
    #[arg(long, default_value_t = 10_000)]
    ahead: u64,
}

/// How many messages each subscriber has received; only its own thread writes its number.
type Received = Arc<Vec<AtomicU64>>;

impl Fan {
    pub fn run(self) -> Fallible<Value> {
        let received: Received = Arc::new((0..self.subscribers).map(|_| 0.into()).collect());
        let total = Arc::new(AtomicU64::new(u64::MAX));
        let wires =
            (0..self.subscribers).map(|_| self.subscribe()).collect::<Fallible<Vec<_>>>()?;
        let mut threads = Vec::new();
        for (index, mut wire) in wires.into_iter().enumerate() {
            self.await_subscription(&mut wire)?;
            let (fan, received, total) = (self.clone(), Arc::clone(&received), Arc::clone(&total));
            threads.push(thread::spawn(move || fan.receive(wire, index, &received, &total)));
        }
        let begun = Instant::now();
        let sent = self.write(&received, &total)?;
        for thread in threads {
            thread.join().map_err(|_| "a subscriber's thread panicked")??;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let delivered = sent * self.subscribers as u64;
        let per_second = delivered as f64 / seconds;
        Ok(json!({
            "sent": sent, "delivered": delivered, "per_second": per_second, "seconds": seconds
        }))
    }

    fn subscribe(&self) -> Fallible<Wire> {
        let target = &self.target;
        let address = self.publisher.as_ref().unwrap_or(&target.address);
        if target.protocol == Protocol::Redis {
            let mut wire = Wire::connect(Protocol::Redis, address, "")?;
            let words = ["SUBSCRIBE".to_owned(), self.channel()];
            wire.send(&resp_command(words.iter()))?;
            return Ok(wire);
        }
        // Changes are three frames; taken as an echo they are any message.
        let mut wire = Wire::connect(Protocol::Echo, address, "SUB")?;
        for prefix in [self.channel().as_bytes(), BEAT] {
            wire.send(&zmtp_single(&[&[1], prefix].concat()))?;
        }
        Ok(wire)
    }

    /// redis answers a subscription; vatn sends a beat when all before it are in effect.
    fn await_subscription(&self, wire: &mut Wire) -> Fallible<()> {
        let is_redis = self.target.protocol == Protocol::Redis;
        while zmtp_content(wire.reply()?.0) != BEAT && !is_redis {}
        Ok(())
    }

    fn channel(&self) -> String {
        format!("{}{:0width$}", self.target.prefix, 0, width = self.target.digits)
    }

    fn receive(
        &self,
        mut wire: Wire,
        index: usize,
        received: &Received,
        total: &AtomicU64,
    ) -> Fallible<()> {
        let mut count = 0;
        let number = received.get(index).ok_or("no such subscriber")?;
        while count < total.load(Ordering::Acquire) {
            let is_redis = self.target.protocol == Protocol::Redis;
            wire.replies(u64::MAX, |message, _| {
                match zmtp_content(message) {
                    _ if is_redis => count += 1,
                    BEAT => {}
                    LOST => return Err("a subscriber received `lost`".into()),
                    _ => count += 1,
                }
                Ok(())
            })?;
            number.store(count, Ordering::Release);
        }
        if count == total.load(Ordering::Acquire) {
            return Ok(());
        }
        Err("a subscriber got more messages than were sent".into())
    }

    /// Publishes until the time is over; returns how much.
    fn write(&self, received: &Received, total: &AtomicU64) -> Fallible<u64> {
        let mut wire = Wire::connect(self.target.protocol, &self.target.address, "DEALER")?;
        let mut writer = wire.writer()?;
        let mut batch = Vec::new();
        let template = self.template();
        (0..BATCH).for_each(|_| template.append(&mut batch, 0));
        let (written, batches) = channel::<()>();
        let answers = thread::spawn(move || -> Fallible<()> {
            for () in batches {
                let mut left = BATCH;
                while left > 0 {
                    left -= wire.replies(left, |_, _| Ok(()))?;
                }
            }
            Ok(())
        });
        let end = Instant::now() + Duration::from_secs_f64(self.seconds);
        let mut sent = 0;
        while sent < total.load(Ordering::Acquire) {
            let slowest = received.iter().map(|count| count.load(Ordering::Acquire)).min();
            if sent + BATCH > slowest.unwrap_or(0) + self.ahead {
                thread::sleep(Duration::from_micros(20));
                continue;
            }
            if Instant::now() >= end {
                // Published before the last batch, so that no subscriber waits for more.
                total.store(sent + BATCH, Ordering::Release);
            }
            writer.write_all(&batch)?;
            written.send(())?;
            sent += BATCH;
        }
        drop(written);
        answers.join().map_err(|_| "the thread that reads answers panicked")??;
        Ok(sent)
    }

    fn template(&self) -> Template {
        let target = &self.target;
        match target.protocol {
            Protocol::Redis => {
                Template::before_value(target, "PUBLISH", &vec![b'x'; target.value_size])
            }
            Protocol::Vatn | Protocol::Echo => Template::set(target),
        }
    }
}
