//! The report of a benchmark, as text or as JSON.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::Bench;
use super::load::{Figures, Tally};
use crate::cli::Failure;
use crate::cli::output::Output;

/// The reported quantiles, with their names in JSON.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99_9", 0.999)];

/// Prints the measurements.
pub(super) fn print(
    bench: &Bench,
    tally: &Tally,
    elapsed: Duration,
    out: &mut Output,
) -> Result<(), Failure> {
    if out.json {
        return out.json(&described(bench, tally, elapsed));
    }
    out.line(format!(
        "{} connections, {} messages under way on each, {} requests a message",
        bench.connections, bench.pipeline, bench.per_message
    ))?;
    out.line(format!(
        "{} over {} keys, values of {} bytes, durability {}",
        bench.mix,
        bench.keys,
        bench.value_size,
        durability(bench)
    ))?;
    let columns = ["requests", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms"];
    out.line(format!("      {}", columns.map(|name| format!("{name:>12}")).concat()))?;
    for (name, figures) in tally.operations() {
        out.line(row(name, figures, elapsed))?;
    }
    if tally.operations().count() > 1 {
        out.line(row("all", &tally.whole(), elapsed))?;
    }
    if tally.absent() > 0 {
        out.line(format!("{} of the keys read were not there", tally.absent()))?;
    }
    Ok(())
}

fn durability(bench: &Bench) -> &'static str {
    bench.writing.durability.map_or("as the broker has it", |level| level.name())
}

fn row(name: &str, figures: &Figures, elapsed: Duration) -> String {
    let histogram = &figures.latency_ns;
    let milliseconds = |nanoseconds: u64| format!("{:>12.3}", nanoseconds as f64 / 1e6);
    let quantiles = QUANTILES.map(|(_, q)| milliseconds(histogram.value_at_quantile(q))).concat();
    let rate = histogram.len() as f64 / elapsed.as_secs_f64();
    let max = milliseconds(histogram.max());
    format!("{name:<6}{:>12}{rate:>12.0}{quantiles}{max}", histogram.len())
}

fn described(bench: &Bench, tally: &Tally, elapsed: Duration) -> Json {
    let seconds = elapsed.as_secs_f64();
    let operations = tally.operations().map(|(name, figures)| {
        let figures = described_figures(figures, seconds);
        (name.to_owned(), figures)
    });
    json!({
        "connections": bench.connections,
        "pipeline": bench.pipeline,
        "per_message": bench.per_message,
        "mix": bench.mix.to_string(),
        "keys": bench.keys,
        "value_size": bench.value_size,
        "durability": bench.writing.durability.map(|level| level.name()),
        "seconds": seconds,
        "operations": operations.collect::<serde_json::Map<_, _>>(),
        "all": described_figures(&tally.whole(), seconds),
        "absent": tally.absent(),
        "errors": tally.errors(),
    })
}

fn described_figures(figures: &Figures, seconds: f64) -> Json {
    let histogram = &figures.latency_ns;
    let mut described = json!({
        "requests": histogram.len(),
        "requests_per_second": (histogram.len() as f64 / seconds).round(),
    });
    let microseconds = |nanoseconds: u64| Json::from(nanoseconds as f64 / 1e3);
    if let Some(members) = described.as_object_mut() {
        for (name, quantile) in QUANTILES {
            let value = histogram.value_at_quantile(quantile);
            members.insert(format!("{name}_us"), microseconds(value));
        }
        members.insert("max_us".to_owned(), microseconds(histogram.max()));
    }
    described
}
