//! What a command declares before it runs, compared with what it then does.

use crate::support::commands::Generator;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use vatn::budget::Cost;
use vatn::commands::{Access, Check, Command, Keys, Right};
use vatn::protocol::change::{Change, ChangeReader};
use vatn::protocol::write_cost::ENTRY_OVERHEAD;
use vatn::protocol::{ChangeBuffer, Level, Op};
use vatn::state::{Context, Store};

fn context(now: u64) -> Context {
    Context {
        now,
        durability: Level::Synced,
        page_items: 1_000,
        page_bytes: 1 << 20,
        reply_bytes: 1 << 24,
        command_items: 1 << 14,
        walk: Cost::MAX,
        write_bytes: 1 << 24,
    }
}

fn accesses<'c>(command: &'c Command<'_>) -> Vec<Access<'c>> {
    let mut all = Vec::new();
    let walk = command.access(&mut |access| {
        all.push(access);
        ControlFlow::Continue(())
    });
    assert!(walk.is_continue());
    all
}

fn covers(access: &Access<'_>, key: &[u8]) -> bool {
    let is_within = match access.keys {
        Keys::One { prefix, key: rest } => [prefix, rest].concat() == key,
        Keys::Range { prefix, from, to } => {
            let is_above = from.is_none_or(|from| key >= from);
            key.starts_with(prefix) && is_above && to.is_none_or(|to| key < to)
        }
        Keys::Broker => false,
    };
    access.right == Right::Write && is_within
}

/// The bytes that the log keeps of a change, as [`vatn::protocol::WriteCost`] counts them.
fn logged(change: &Change<'_>) -> usize {
    change.key.len() + change.value.len() + ENTRY_OVERHEAD
}

#[test]
fn a_command_declares_the_keys_it_changes_and_their_cost() {
    let seed =
        std::env::var("VATN_SEED").map_or_else(|_| fastrand::u64(..), |s| s.parse().unwrap());
    println!("VATN_SEED={seed}");
    let mut generator = Generator::new(seed);
    let (mut store, mut kinds) = (Store::default(), BTreeSet::new());
    for now in 1..3_000 {
        let owned = generator.command();
        let Ok(command) = owned.decode().command else { continue };
        let (effects, named) = (command.effects(), accesses(&command));
        let cost = command.cost_on(&store, None);
        let admitted = command.admit(|key| store.hasher().hash(key), None::<&mut Check<'_, ()>>);
        let only = admitted.unwrap().hash;
        let mut changes = ChangeBuffer::default();
        let task = vatn::commands::Task { command: &command, hash: only };
        let applied = store.apply(task, &context(now), &mut changes);
        let done = applied.outcome.is_ok();
        let changes: Vec<_> = ChangeReader::new(changes.bytes()).map(Result::unwrap).collect();
        assert!(effects.writes || changes.is_empty(), "{command:?} is to change nothing");
        for change in &changes {
            let is_named = named.iter().any(|access| covers(access, change.key));
            assert!(is_named, "{command:?} does not name {:?}", change.key);
            assert!(effects.adds || !matches!(change.op, Op::Set | Op::Touch), "{command:?} adds");
        }
        // What a page finds, and what a batch finds of its own changes, is known only at run time.
        let is_known = !matches!(command, Command::Batch(_) | Command::DeleteRange(_));
        let written = changes.iter().filter(|change| change.op != Op::Expire);
        let bytes: usize = written.map(logged).sum();
        assert!(!is_known || bytes <= cost.write.bytes, "{command:?} wrote {bytes}: {cost:?}");
        if done {
            kinds.insert(command.method());
        }
    }
    assert!(kinds.len() >= 12, "{kinds:?}");
}
