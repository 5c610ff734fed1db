//! Changes from a past seq to the present and on: first the history, then the published changes,
//! and the history again wherever published changes were missed.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Change, ClientError, ClientOptions, Event, Replay, Subscriber};

/// How long the broker's command endpoint is tried, once its publisher sends again.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the broker may take to add published changes to the history.
const WAIT: Duration = Duration::from_secs(1);

/// A [`Subscriber`] whose gaps are filled from the history.
///
/// It returns every change under its prefix once and in order. An [`Event::Gap`] occurs only where
/// there is no [`Replay`] to fill the gap. `prev` of each change is the seq of the change before.
///
/// ```no_run
/// use vatn::client::{ClientError, ClientOptions, Event, Follower};
///
/// /// Every change after `seq`, those of the past first.
/// async fn follow(seq: u64) -> Result<(), ClientError> {
///     let (changes, commands) = ("tcp://127.0.0.1:7534", "tcp://127.0.0.1:7533");
///     let options = ClientOptions::default();
///     let mut all = Follower::connect(changes, Some(commands), b"", Some(seq), &options).await?;
///     loop {
///         if let Event::Change(change) = all.next().await? {
///             println!("{} {}", change.seq, change.key.escape_ascii());
///         }
///     }
/// }
/// ```
pub struct Follower {
    subscriber: Subscriber,
    replay: Option<Replay>,
    tracker: ContinuityTracker,
    /// The history must be read up to this seq before the subscriber's events are used again.
    missing: Option<Missing>,
    ready: VecDeque<Event>,
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    through: u64,
    since: Instant,
}

impl Follower {
    /// Follows the changes under `prefix`: those of writes later than `from`, or from now on.
    ///
    /// The history is read at `router`; without a router, gaps are events.
    pub async fn connect(
        publisher: &str,
        router: Option<&str>,
        prefix: &[u8],
        from: Option<u64>,
        options: &ClientOptions,
    ) -> Result<Self, ClientError> {
        // The subscription comes first: changes published while the history is read are kept.
        let subscriber = match from {
            Some(from) => Subscriber::connect_after(publisher, prefix, options, from).await?,
            None => Subscriber::connect(publisher, prefix, options).await?,
        };
        let start = from.unwrap_or_default();
        let mut replay = router.map(|router| Replay::new(router, prefix, start, options));
        if let (Some(replay), Some(_)) = (&mut replay, from) {
            // A broker that is unreachable, or has another history, is reported at once.
            replay.end().await?;
        }
        Ok(Follower {
            subscriber,
            replay,
            tracker: ContinuityTracker::new(from),
            missing: None,
            ready: VecDeque::new(),
        })
    }

    /// The endpoint whose publications are followed.
    pub fn endpoint(&self) -> &str {
        self.subscriber.endpoint()
    }

    /// Waits for the next event.
    ///
    /// After an error about the history, [`Follower::give_up`] continues without the missing
    /// changes.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if let Some(missing) = self.missing {
                self.fill(missing).await?;
                continue;
            }
            let event = self.subscriber.next().await?;
            if let Some(event) = self.hear(event) {
                return Ok(event);
            }
        }
    }

    /// Whether the follower is reading the history.
    pub fn is_missing(&self) -> bool {
        self.missing.is_some()
    }

    /// Gives up on the missing changes: the next event is the gap.
    pub fn give_up(&mut self) {
        if let Some(missing) = self.missing.take() {
            let (after, through) = (self.tracker.whole, missing.through);
            self.tracker = ContinuityTracker::new(Some(through));
            self.ready.push_front(Event::Gap { after, through });
        }
    }

    /// Processes an event of the subscriber; returns the event to report, if there is one.
    fn hear(&mut self, event: Event) -> Option<Event> {
        match event {
            Event::Change(change) => self.tracker.take(change).map(Event::Change),
            Event::Beat { seq } => {
                self.tracker.pass(seq);
                Some(Event::Beat { seq })
            }
            Event::Gap { after, through } if self.replay.is_none() || through < after => {
                self.tracker = ContinuityTracker::new(Some(through));
                Some(Event::Gap { after, through })
            }
            Event::Gap { through, .. } => {
                self.miss(through);
                None
            }
            Event::Disconnected | Event::Reconnected => Some(event),
        }
    }

    fn miss(&mut self, through: u64) {
        if through > self.tracker.whole {
            self.missing = Some(Missing { through, since: Instant::now() });
            if let Some(replay) = &mut self.replay {
                replay.rewind(self.tracker.whole);
            }
        }
    }

    /// Reads one page of the missing changes.
    async fn fill(&mut self, missing: Missing) -> Result<(), ClientError> {
        let Some(replay) = &mut self.replay else { return Ok(()) };
        let page = match replay.next(None, WAIT).await {
            Ok(page) => page,
            Err(error) if error.is_passing() && missing.since.elapsed() < PATIENCE => {
                sleep(PAUSE).await;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let is_all = replay.after() >= missing.through;
        for change in page {
            // Later changes come from the publisher.
            if change.seq <= missing.through {
                self.ready.extend(self.tracker.take(change).map(Event::Change));
            }
        }
        if is_all {
            self.missing = None;
            self.tracker.pass(missing.through);
        }
        Ok(())
    }
}

/// The end of the changes reported so far.
#[derive(Debug)]
struct ContinuityTracker {
    /// Everything up to this seq was reported.
    whole: u64,
    /// The position of the last reported change: its seq and its index.
    place: (u64, u64),
    /// The `prev` of the next change, once that is known.
    prev: Option<u64>,
}

impl ContinuityTracker {
    fn new(from: Option<u64>) -> Self {
        let start = from.unwrap_or_default();
        ContinuityTracker { whole: start, place: (start, u64::MAX), prev: from }
    }

    /// Returns the change if it was not reported yet.
    fn take(&mut self, mut change: Change) -> Option<Change> {
        let place = (change.seq, change.index);
        if place <= self.place {
            return None;
        }
        change.prev = self.prev.replace(change.seq).unwrap_or(change.prev);
        self.place = place;
        let is_last = change.index + 1 == change.count;
        self.whole = self.whole.max(if is_last { change.seq } else { change.seq - 1 });
        Some(change)
    }

    /// Marks everything up to `seq` as reported.
    fn pass(&mut self, seq: u64) {
        self.prev.get_or_insert(seq);
        if seq > self.whole {
            self.whole = seq;
            self.place = self.place.max((seq, u64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::change::tests::change;

    fn part(seq: u64, index: u64, count: u64) -> Change {
        Change { index, count, ..change(seq, 0) }
    }

    fn reported(tracker: &mut ContinuityTracker, changes: &[Change]) -> Vec<(u64, u64, u64)> {
        let reported = changes.iter().filter_map(|change| tracker.take(change.clone()));
        reported.map(|change| (change.seq, change.index, change.prev)).collect()
    }

    #[test]
    fn each_change_is_reported_once_and_names_the_one_before() {
        let mut tracker = ContinuityTracker::new(Some(4));
        let changes = [part(4, 0, 1), part(6, 0, 2), part(6, 1, 2), part(6, 0, 2), part(9, 0, 1)];
        assert_eq!(reported(&mut tracker, &changes), [(6, 0, 4), (6, 1, 6), (9, 0, 6)]);
        tracker.pass(20);
        assert_eq!(reported(&mut tracker, &[part(20, 0, 1), part(21, 0, 1)]), [(21, 0, 9)]);
    }

    #[test]
    fn a_write_is_complete_with_its_last_change_or_a_later_write() {
        let mut tracker = ContinuityTracker::new(None);
        reported(&mut tracker, &[part(7, 0, 3)]);
        assert_eq!(tracker.whole, 6);
        // The rest of the write, read again from the last complete write.
        assert_eq!(reported(&mut tracker, &[part(7, 0, 3), part(7, 2, 3)]), [(7, 2, 7)]);
        assert_eq!(tracker.whole, 7);
        reported(&mut tracker, &[part(8, 0, 2)]);
        tracker.pass(8);
        assert_eq!(tracker.whole, 8);
    }

    #[test]
    fn a_follower_without_a_seq_begins_at_the_first_beat() {
        let mut tracker = ContinuityTracker::new(None);
        tracker.pass(12);
        assert_eq!(reported(&mut tracker, &[part(15, 0, 1)]), [(15, 0, 12)]);
    }
}
