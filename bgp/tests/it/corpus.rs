//! The fuzz target's corpus, replayed with seeded mutations.

use std::path::Path;
use std::time::Instant;

#[path = "../../fuzz/fuzz_targets/bytes.rs"]
mod bytes;

/// Mutations of each file.
const MUTATIONS: usize = 2000;

/// xorshift: the same mutations for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

#[test]
fn the_corpus_and_its_mutations_break_nothing() {
    let seed = std::env::var("MARGAY_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(0x6d61_7267_6179_u64);
    println!("seed {seed} (MARGAY_SEED replays it)");
    let mut random = Random(seed | 1);
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/bytes");
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(files.len() >= 8, "the corpus is missing");
    let (mut executions, started, mut accepted) = (0, Instant::now(), 0);
    for file in &files {
        let original = std::fs::read(file).expect("a corpus file");
        accepted += usize::from(bytes::run(&original));
        executions += 1;
        for _ in 0..MUTATIONS {
            let mut data = original.clone();
            for _ in 0..=random.below(4) {
                mutate(&mut data, &mut random);
            }
            bytes::run(&data);
            executions += 1;
        }
    }
    println!(
        "{executions} executions of {} files in {:?}",
        files.len(),
        started.elapsed()
    );
    assert!(
        accepted >= files.len() / 2,
        "most of the corpus must reach an established session: {accepted}"
    );
}

fn mutate(data: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(data.len());
    match random.below(5) {
        0 if !data.is_empty() => data[at] ^= 1 << random.below(8),
        1 if !data.is_empty() => data[at] = random.below(256) as u8,
        2 => data.insert(at.min(data.len()), random.below(256) as u8),
        3 if !data.is_empty() => {
            data.remove(at);
        }
        _ => {
            let to = (at + random.below(64)).min(data.len());
            let piece = data[at.min(to)..to].to_vec();
            data.extend(piece);
        }
    }
}
