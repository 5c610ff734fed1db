//! The parts of the hot path, each by itself: nanoseconds for an operation.
//!
//!     cargo bench --bench hot_path                        all cases
//!     cargo bench --bench hot_path -- store               those with `store` in their names
//!
//! Wall time moves with the machine; `benches/instructions` runs the same cases and counts the
//! instructions instead.

mod cases;
mod edge;

use cases::{CASES, Case};
use clap::Parser;
use std::hint::black_box;
use std::time::Instant;

/// Operations in a sample, and how many samples.
const OPERATIONS: u64 = 50_000;
const SAMPLES: usize = 11;

/// Time the parts of the hot path
#[derive(Parser)]
struct Arguments {
    /// Only the cases with this in their names
    filter: Option<String>,

    /// Print the names
    #[arg(long)]
    list: bool,

    /// Execute this many operations of each case once, for an instruction counter
    #[arg(long, value_name = "OPERATIONS")]
    once: Option<u64>,

    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    let is_wanted = |name: &str| arguments.filter.as_deref().is_none_or(|part| name.contains(part));
    for case in CASES.iter().filter(|case| is_wanted(case.name)) {
        match arguments.once {
            _ if arguments.list => println!("{}", case.name),
            Some(operations) => counted(&mut *(case.prepare)(operations)),
            None => time(case),
        }
    }
}

/// All that `benches/instructions` counts happens in here: it knows this function by its name.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
    black_box(());
}

fn time(case: &Case) {
    let mut samples: Vec<f64> = (0..SAMPLES)
        .map(|_| {
            let mut work = (case.prepare)(OPERATIONS);
            let begun = Instant::now();
            counted(&mut *work);
            begun.elapsed().as_nanos() as f64 / OPERATIONS as f64
        })
        .collect();
    samples.sort_by(f64::total_cmp);
    let (least, median) = (samples[0], samples[SAMPLES / 2]);
    println!("{:<40} {median:>9.1} ns   (least {least:.1})", case.name);
}
