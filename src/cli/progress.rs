//! The progress of long work, shown on a terminal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value as Json, json};

/// The progress of a transfer of items: a bar on a terminal, a summary at the end.
pub(super) struct Progress {
    bar: ProgressBar,
    start: Instant,
    items: Arc<AtomicU64>,
}

impl Progress {
    /// Begins; `length` is the total in the bar's own unit (bytes or items), where it is known.
    pub(super) fn begin(length: Option<u64>) -> Self {
        // Drawn on stderr, and only if stderr is a terminal.
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
        let template = match length {
            Some(_) => "{wide_bar} {percent:>3}%  {msg}  {eta} left",
            None => "{spinner} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Progress { bar, start: Instant::now(), items: Arc::default() }
    }

    /// Counts items; `position` is the position of the bar.
    pub(super) fn advance(&mut self, items: u64, position: u64) {
        self.items.fetch_add(items, Ordering::Relaxed);
        self.bar.set_position(position);
        self.bar.set_message(self.sentence());
    }

    /// Names the current work, where there is nothing to count.
    pub(super) fn say(&self, what: String) {
        self.bar.set_message(what);
    }

    /// How many items there were.
    pub(super) fn items(&self) -> u64 {
        self.items.load(Ordering::Relaxed)
    }

    /// The counter, for another thread.
    pub(super) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.items)
    }

    /// Ends the bar and returns a summary: `63000 items, 75000 items/s`.
    pub(super) fn finish(&self) -> String {
        self.bar.finish_and_clear();
        self.sentence()
    }

    /// The summary as JSON.
    pub(super) fn described(&self) -> Json {
        let seconds = self.start.elapsed().as_secs_f64();
        json!({ "items": self.items(), "seconds": seconds, "items_per_second": self.rate(seconds) })
    }

    fn sentence(&self) -> String {
        let seconds = self.start.elapsed().as_secs_f64();
        format!("{} items, {:.0} items/s", self.items(), self.rate(seconds))
    }

    fn rate(&self, seconds: f64) -> f64 {
        self.items() as f64 / seconds.max(1e-9)
    }
}
