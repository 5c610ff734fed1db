//! A thousand neighbours with their values. vatn: `range`. redis: `ZRANGE … BYLEX`, then `MGET`.

use crate::drive::Keys;
use crate::protocol::{Protocol, resp_command, resp_strings, str, zmtp_content, zmtp_single};
use crate::wire::Wire;
use crate::{Fallible, Target};
use clap::Args;
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Args, Clone)]
pub struct Range {
    #[command(flatten)]
    target: Target,

    /// How many connections, each with one range under way
    #[arg(long, default_value_t = 8)]
    connections: u64,

    /// For how long
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,

    /// How many neighbours; at least 256
    #[arg(long, default_value_t = 1_000)]
    items: u16,
}

impl Range {
    pub fn run(self) -> Fallible<Value> {
        let begun = Instant::now();
        let threads: Vec<_> = (0..self.connections)
            .map(|index| {
                let range = self.clone();
                thread::spawn(move || range.turn(index))
            })
            .collect();
        let mut ranges = 0;
        for thread in threads {
            ranges += thread.join().map_err(|_| "a connection's thread panicked")??;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let per_second = ranges as f64 / seconds;
        Ok(json!({ "ranges": ranges, "per_second": per_second, "seconds": seconds }))
    }

    fn turn(&self, index: u64) -> Fallible<u64> {
        let target = &self.target;
        let mut wire = Wire::connect(target.protocol, &target.address, "DEALER")?;
        // So that no range meets the end of the keys.
        let mut keys = Keys::new(index, target.keys - u64::from(self.items));
        let end = Instant::now() + Duration::from_secs_f64(self.seconds);
        let mut ranges = 0;
        while Instant::now() < end {
            let from = format!("{}{:0width$}", target.prefix, keys.next(), width = target.digits);
            match target.protocol {
                Protocol::Redis => self.ask_redis(&mut wire, &from)?,
                Protocol::Vatn | Protocol::Echo => self.ask_vatn(&mut wire, &from)?,
            }
            ranges += 1;
        }
        Ok(ranges)
    }

    fn ask_redis(&self, wire: &mut Wire, from: &str) -> Fallible<()> {
        let (least, items) = (format!("[{from}"), self.items.to_string());
        let words = ["ZRANGE", "index", &least, "+", "BYLEX", "LIMIT", "0", &items];
        wire.send(&resp_command(words.into_iter()))?;
        let (reply, _) = wire.reply()?;
        let mut words: Vec<&[u8]> = vec![b"MGET"];
        words.extend(resp_strings(reply)?);
        self.check(words.len() - 1)?;
        let request = resp_command(words.into_iter());
        wire.send(&request)?;
        let (reply, _) = wire.reply()?;
        self.check(resp_strings(reply)?.len())
    }

    fn ask_vatn(&self, wire: &mut Wire, from: &str) -> Fallible<()> {
        let mut request = b"\x94\0\x01\xa5range\x91\x82".to_vec();
        request.extend(str(b"from"));
        request.extend(str(from.as_bytes()));
        request.extend(str(b"limit"));
        request.push(0xcd);
        request.extend(self.items.to_be_bytes());
        wire.send(&zmtp_single(&request))?;
        let (reply, _) = wire.reply()?;
        // [1, 1, nil, [[…], next]]; the inner array is of 16 bits.
        match zmtp_content(reply) {
            [0x94, 1, 1, 0xc0, 0x92, 0xdc, high, low, ..] => {
                self.check(usize::from(u16::from_be_bytes([*high, *low])))
            }
            _ => Err("the reply is no page of 256 items or more".into()),
        }
    }

    fn check(&self, items: usize) -> Fallible<()> {
        match items == usize::from(self.items) {
            true => Ok(()),
            false => Err(format!("{items} items came, not {}", self.items).into()),
        }
    }
}
