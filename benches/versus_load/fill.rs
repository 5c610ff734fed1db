//! All keys, once each.

use crate::protocol::{Protocol, Shape, Template, zmtp_single};
use crate::wire::Wire;
use crate::{Fallible, Target};
use clap::Args;
use serde_json::{Value, json};
use std::time::Instant;

const BATCH: u64 = 1_000;
/// Prime, so that its multiples visit every key of any number that it does not divide.
const STRIDE: u64 = 2_654_435_761;

#[derive(Args)]
pub struct Fill {
    #[command(flatten)]
    target: Target,

    /// Put the keys into redis' sorted set `index` as well
    #[arg(long)]
    index: bool,
}

impl Fill {
    pub fn run(self) -> Fallible<Value> {
        let target = &self.target;
        let mut wire = Wire::connect(target.protocol, &target.address, "DEALER")?;
        let mut templates = vec![Template::set(target)];
        templates.extend(self.index.then(|| Template::index(target)));
        let begun = Instant::now();
        let mut out = Vec::new();
        for first in (0..target.keys).step_by(BATCH as usize) {
            out.clear();
            let batch = first..target.keys.min(first + BATCH);
            let mut replies = 0;
            for number in batch {
                for template in &templates {
                    template.append(&mut out, number.wrapping_mul(STRIDE) % target.keys);
                    replies += 1;
                }
            }
            wire.send(&out)?;
            for _ in 0..replies {
                if wire.reply()?.1 == Shape::Refused {
                    return Err("the write queue had no room".into());
                }
            }
        }
        if target.protocol == Protocol::Vatn {
            wire.send(&zmtp_single(b"\x94\0\x01\xa5flush\x90"))?;
            wire.reply()?;
        }
        Ok(json!({ "keys": target.keys, "seconds": begun.elapsed().as_secs_f64() }))
    }
}
