//! Tests of the quota, its accounts and reservations.

use super::*;
use crate::net::Reservation;
use std::task::Context;
use std::task::Waker;
use std::time::Duration;

const UNIT: usize = UNIT_BYTES;
const OUTGOING: Category = Category::Outgoing;
const FREE: usize = OUTGOING.free_bytes();

/// A quota of `units` for output.
fn quota(units: usize) -> Arc<MemoryQuota> {
    let max_outgoing_bytes = units * UNIT;
    MemoryQuota::new(&Limits { max_outgoing_bytes, ..Limits::default() })
}

/// The same for input.
fn incoming(units: usize) -> Arc<MemoryQuota> {
    let max_incoming_bytes = units * UNIT;
    MemoryQuota::new(&Limits { max_incoming_bytes, ..Limits::default() })
}

fn none(quota: &MemoryQuota) -> Reservation {
    quota.account(OUTGOING).reservation()
}

fn reserved(quota: &MemoryQuota) -> usize {
    quota.usage(OUTGOING).reserved / UNIT
}

fn has_its_turn(reservation: &mut Reservation) -> bool {
    reservation.poll_turn(&mut Context::from_waker(Waker::noop())).is_ready()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn small_amounts_are_free_and_the_rest_is_reserved_and_given_back() {
    let quota = quota(64);
    let (mut one, mut two) = (none(&quota), none(&quota));
    assert!(one.try_cover(FREE) && reserved(&quota) == 0);
    assert!(one.try_cover(FREE + 40 * UNIT - 1) && reserved(&quota) == 40);
    assert!(!two.try_cover(FREE + 9 * UNIT), "a quarter is kept for connections that hold little");
    assert!(two.try_cover(FREE + 4 * UNIT) && reserved(&quota) == 44);
    assert!(two.try_cover(FREE + 8 * UNIT), "together they hold three quarters");
    one.settle(FREE + 39 * UNIT);
    assert_eq!(reserved(&quota), 48, "a little slack stays");
    one.settle(FREE + 10 * UNIT);
    assert_eq!(reserved(&quota), 8 + 14);
    one.settle_exactly(FREE + 10 * UNIT);
    assert_eq!(reserved(&quota), 8 + 10);
    drop((one, two));
    assert_eq!(reserved(&quota), 0);
    assert!(none(&quota).try_cover(usize::MAX), "alone, more than there is passes");
    assert_eq!(quota.part(OUTGOING).much.available_permits(), 48);
}

#[test]
fn waiting_accounts_are_served_in_turn_and_one_that_leaves_takes_nothing() {
    let _runtime = runtime();
    let _entered = _runtime.enter();
    let quota = quota(64);
    let [mut one, mut two, mut three, mut four] = [(); 4].map(|()| none(&quota));
    assert!(one.cover(FREE + 48 * UNIT));
    assert!(!two.cover(FREE + 20 * UNIT) && !has_its_turn(&mut two));
    assert!(!three.cover(FREE + 5 * UNIT) && !has_its_turn(&mut three));
    assert!(!four.cover(FREE + 48 * UNIT) && !has_its_turn(&mut four));
    assert_eq!(quota.usage(OUTGOING).awaited, 73 * UNIT);
    one.settle_exactly(FREE + 40 * UNIT);
    assert!(!has_its_turn(&mut three), "the second comes first");
    two.leave_line();
    assert!(has_its_turn(&mut three) && three.covered() == FREE + 5 * UNIT);
    drop((one, three));
    assert!(has_its_turn(&mut four) && four.covered() == FREE + 48 * UNIT);
    assert_eq!(quota.usage(OUTGOING).awaited, 0);
}

#[test]
fn the_slowest_peers_are_cut_while_others_wait_and_only_as_many_as_needed() {
    let _runtime = runtime();
    let _entered = _runtime.enter();
    let quota = quota(64);
    let rate = Limits::default().min_transfer_rate as usize;
    let mut all: Vec<_> = (0..4).map(|_| none(&quota)).collect();
    for (one, moved) in all.iter_mut().zip([rate * 4, rate / 10, rate / 20, 0]) {
        assert!(one.try_cover(FREE + 12 * UNIT));
        one.account().observe(true);
        one.account().moved(moved);
    }
    // The fourth waits for something other than its peer.
    all[3].account().observe(false);
    let cut = |all: &[Reservation]| -> Vec<bool> {
        all.iter().map(|one| one.account().is_cut()).collect()
    };
    let at = |millis| Instant::now() + Duration::from_millis(millis);
    assert_eq!(quota.relieve(at(2_000)), 0, "no account waits");
    let mut waiting = none(&quota);
    assert!(!waiting.cover(FREE + 10 * UNIT) && !has_its_turn(&mut waiting));
    assert_eq!(quota.relieve(at(400)), 0, "too early to know");
    assert_eq!(quota.relieve(at(2_000)), 1);
    assert_eq!(cut(&all), [false, false, true, false]);
    assert_eq!(quota.relieve(at(4_000)), 0, "its memory is on its way back");
    let mut more = none(&quota);
    assert!(!more.cover(FREE + 20 * UNIT) && !has_its_turn(&mut more));
    assert_eq!(quota.relieve(at(6_000)), 2, "the first has not gone on either");
    assert_eq!(cut(&all), [true, true, true, false]);
    all.clear();
    assert!(has_its_turn(&mut waiting) && has_its_turn(&mut more));
    assert_eq!(quota.usage(OUTGOING).cut, 3);
}

#[test]
fn the_oldest_message_gives_way_where_all_messages_wait_for_more() {
    let _runtime = runtime();
    let _entered = _runtime.enter();
    let quota = incoming(64);
    let mut all: Vec<_> = (0..4).map(|_| quota.account(Category::Incoming).reservation()).collect();
    for one in &mut all {
        assert!(one.try_cover(4096 + 12 * UNIT));
        one.account().observe(true);
        std::thread::sleep(Duration::from_millis(2));
    }
    all.iter_mut().for_each(|one| assert!(!one.cover(4096 + 20 * UNIT)));
    let at = |millis| Instant::now() + Duration::from_millis(millis);
    assert_eq!((quota.relieve(at(1_000)), quota.relieve(at(2_000))), (1, 0));
    let cut: Vec<_> = all.iter().map(|one| one.account().is_cut()).collect();
    assert_eq!(cut, [true, false, false, false]);
    drop(all.remove(0));
    assert!(has_its_turn(&mut all[0]));
}

#[test]
fn a_waiting_account_looks_for_slow_peers_by_itself() {
    runtime().block_on(async {
        let limits = Limits { max_outgoing_bytes: 64 * UNIT, ..Limits::default() };
        let quota = MemoryQuota::new(&limits);
        let mut slow = none(&quota);
        assert!(slow.try_cover(FREE + 48 * UNIT));
        slow.account().observe(true);
        let account = Arc::clone(slow.account());
        let gone = tokio::spawn(async move {
            std::future::poll_fn(|context| account.poll_cut(context)).await;
            drop(slow);
        });
        let mut waiting = none(&quota);
        let turn = waiting.wait(FREE + 20 * UNIT);
        let patience = Duration::from_secs(20);
        tokio::time::timeout(patience, turn).await.expect("the slow one is cut");
        assert_eq!(waiting.covered(), FREE + 20 * UNIT);
        gone.await.unwrap();
    });
}
