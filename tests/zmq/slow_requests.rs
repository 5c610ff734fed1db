//! Where the time of a late reply went, as the broker notes it. The tests move its clock.

use crate::support::edges::{Edges, until};
use crate::support::gated::GatedDisk;
use crate::support::peer::{Peer, Response, message};
use crate::support::requests::{ping, set};
use std::sync::Arc;
use vatn::clock::{Clock, ManualHands};
use vatn::config::WriteQueueConfig;
use vatn::engine::spans::{SlowRequest, Stage};
use vatn::limits::Limits;
use vatn::storage::Storage;

struct Slow {
    disk: Arc<GatedDisk>,
    hands: Arc<ManualHands>,
    edges: Edges,
}

impl Slow {
    fn start() -> Self {
        let (disk, hands) = (Arc::<GatedDisk>::default(), Arc::<ManualHands>::default());
        let (clock, limits) = (Clock::reading(&hands), Limits::default());
        let as_disk = Arc::clone(&disk) as Arc<dyn Storage>;
        let edges = Edges::over(as_disk, clock, limits, WriteQueueConfig::default());
        Self { disk, hands, edges }
    }

    fn noted(&self) -> Vec<SlowRequest> {
        let slow = self.edges.engine.slow_requests();
        until("noted", || !slow.recent().is_empty());
        slow.recent()
    }
}

fn answered(peer: &mut Peer, id: u64) {
    let frames = peer.receive().unwrap();
    assert_eq!(Response::decode(&frames[0]).id, Some(id));
}

#[test]
fn a_write_that_waits_for_the_medium_is_noted_with_its_fsync() {
    let mut slow = Slow::start();
    let held = slow.disk.hold();
    slow.edges.commit();
    let mut peer = Peer::connect(&slow.edges.router, "DEALER");
    peer.send(&message(&[&ping(1)])).unwrap();
    answered(&mut peer, 1);
    peer.send(&message(&[&set(2, "k", "synced")])).unwrap();
    until("syncing", || slow.disk.waiting() == 1);
    slow.hands.pass(180);
    drop(held);
    answered(&mut peer, 2);
    let noted = slow.noted();
    let [one] = noted.as_slice() else { panic!("{noted:?}") };
    let of_stage = |stage| one.spans.micros(stage);
    assert_eq!((one.method, one.barrier.synced, one.others), ("set", 1, 0));
    assert_eq!((one.spans.longest(), of_stage(Stage::Fsync)), (Stage::Fsync, 180_000), "{one}");
    assert!(one.to_string().contains(" ms set seq 1 synced from 127.0.0.1:"), "{one}");
}

#[test]
fn writes_that_wait_for_their_commit_are_noted_as_one_with_that_stage() {
    let mut slow = Slow::start();
    let mut peer = Peer::connect(&slow.edges.router, "DEALER");
    for id in 1..=3 {
        peer.send(&message(&[&set(id, "k", "synced")])).unwrap();
    }
    until("executed", || slow.edges.engine.seq() == 3);
    slow.hands.pass(150);
    slow.edges.commit();
    (1..=3).for_each(|id| answered(&mut peer, id));
    let noted = slow.noted();
    assert_eq!((noted[0].spans.longest(), noted[0].others), (Stage::CommitWait, 2), "{noted:?}");
    assert_eq!(noted[0].spans.micros(Stage::CommitWait), 150_000);
}
