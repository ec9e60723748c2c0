//! The fuzz targets of `tests/fuzz` without a fuzzer: the checked-in corpora, and a seeded loop that mutates them.
//!
//! `RINGMQ_FUZZ_SEEDS=100000 cargo test --release --test fuzzing` runs that many inputs of each target. A failure
//! prints the target, the seed and the input; `RINGMQ_FUZZ_INPUT=FILE` runs one file on the target that its folder
//! names. README says how to run them under libFuzzer.
#![allow(clippy::unwrap_used, missing_docs, reason = "this is a test")]

#[path = "fuzz/bodies/mod.rs"]
mod bodies;

use bodies::TARGETS;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Inputs of each target in the seeded loop, without `RINGMQ_FUZZ_SEEDS`.
const SEEDS: u64 = 20_000;
/// Bytes of an input at most.
const INPUT_BYTES_MAX: usize = 2_048;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target)
}

/// The inputs of a target that are checked in, by name.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let files = std::fs::read_dir(folder(target)).unwrap_or_else(|e| panic!("the corpus of {target}: {e}"));
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// SplitMix64: a seed gives the same input each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// An input made of others, with a few changes.
fn mutated(seed: u64, corpus: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = corpus[random.below(corpus.len())].1.clone();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() + 1);
        match random.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = random.next() as u8,
            2 if at < bytes.len() => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF, b'+', b'#', b'/'][random.below(8)],
            3 if at < bytes.len() => drop(bytes.remove(at)),
            4 => bytes.insert(at, random.next() as u8),
            5 => bytes.truncate(at),
            // A part of itself, once more.
            6 => {
                let part = bytes[at..(at + random.below(32)).min(bytes.len())].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, part);
            }
            // The end of another.
            7 => {
                let other = &corpus[random.below(corpus.len())].1;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
            _ => bytes.extend((0..random.below(24)).map(|_| random.next() as u8)),
        }
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

/// Runs one input; `from` says where it came from.
fn attempt(target: &str, from: &str, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| bodies::run(target, input))).is_err() {
        let text: String =
            input.iter().flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect();
        panic!("the target {target} failed on {from}, whose {} bytes are\n\"{text}\"", input.len());
    }
}

fn fuzz(target: &str) {
    let corpus = corpus(target);
    if let Some(path) = std::env::var_os("RINGMQ_FUZZ_INPUT") {
        if Path::new(&path).parent().is_some_and(|parent| parent.ends_with(target)) {
            attempt(target, "the file", &std::fs::read(&path).unwrap());
        }
        return;
    }
    for (path, input) in &corpus {
        attempt(target, &path.display().to_string(), input);
    }
    let seeds =
        std::env::var("RINGMQ_FUZZ_SEEDS").map_or(SEEDS, |text| text.parse().expect("a number of seeds"));
    for seed in 0..seeds {
        attempt(target, &format!("seed {seed}"), &mutated(seed, &corpus));
    }
}

/// One test for each target, so that they run side by side; the names are those of the table.
macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { fuzz(stringify!($name)); })*

        #[test]
        fn each_target_has_a_test_an_entry_for_the_fuzzer_and_a_corpus() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
            let manifest = include_str!("fuzz/Cargo.toml");
            for name in names {
                assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} in tests/fuzz/Cargo.toml");
                let bytes: usize = corpus(name).iter().map(|(_, input)| input.len()).sum();
                assert!((1..=32_768).contains(&bytes), "the corpus of {name} is small: {bytes} bytes");
            }
        }
    };
}

targets!(
    decode_v5,
    decode_v311,
    decode_v31,
    properties,
    topic,
    trie,
    shard,
    config,
    proxy,
    upgrade,
    websocket,
    tls,
    passwords,
    acl,
    jwt,
    scram,
    request
);
