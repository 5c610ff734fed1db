//! The checks of `fuzz/` on the vectors' requests and on random changes of them, with stable Rust.
//!
//! `VATN_ROUNDS` sets how many changes, `VATN_SEED` repeats a run.

use super::commands::vectors;

#[path = "../../fuzz/checks.rs"]
mod checks;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Changes, removes or doubles some bytes of `frame`, or replaces them by bytes of `other`.
fn change(random: &mut fastrand::Rng, frame: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..frame.len().max(1)).min(frame.len());
        match random.u8(..5) {
            0 => frame.truncate(at),
            1 => frame.insert(at, random.u8(..)),
            2 => frame.extend_from_within(at..),
            3 => frame.splice(at.., other.iter().copied().skip(at)).for_each(drop),
            _ => frame.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.u8(..8)),
        }
        // Repeated doubling must not add up.
        frame.truncate(64 * 1024);
    }
}

#[test]
fn no_bytes_break_the_decoder() {
    let frames: Vec<Vec<u8>> = vectors().into_iter().flat_map(|step| step.request).collect();
    frames.iter().for_each(|frame| checks::decode(frame));

    let seed = number("VATN_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rounds = number("VATN_ROUNDS").unwrap_or(20_000);
    println!("seed {seed} (VATN_SEED repeats it), {rounds} rounds (VATN_ROUNDS)");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..rounds {
        let [mut frame, other] = [0; 2].map(|_| frames[random.usize(..frames.len())].clone());
        change(&mut random, &mut frame, &other);
        checks::decode(&frame);
    }
}
