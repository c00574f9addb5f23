//! What a request may make the decoder allocate: a multiple of its frame, whatever its lengths claim.
//! An own process, because the allocator counts for all threads.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use ottla_protocol::request::Request;
use ottla_protocol::versions::SUPPORTED;

/// The smallest element that takes the most: three bytes of a group in OffsetFetch v8 become 120 in memory.
const MULTIPLE_MAX: usize = 64;
/// For what every request may take: a few hundred unknown tags, each in a tree node.
const FREE_BYTES: usize = 256 * 1024;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; the counters touch no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Most bytes that were allocated at once while `work` ran.
fn peak_of<T>(work: impl FnOnce() -> T) -> usize {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    drop(work());
    PEAK.load(Ordering::Relaxed) - before
}

/// A small generator with a fixed seed: the same bytes in every run.
fn noise(seed: u64, length: usize, alphabet: &[u8]) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    (0..length).map(|_| alphabet[next() % alphabet.len()]).collect()
}

/// Bodies that announce much and hold little.
fn hostile_bodies() -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let counts: [&[u8]; 6] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0, 0, 0x20, 0],
        &[0x81, 0x80, 0x01],
        &[0x81, 0x40],
        &[0, 0, 0x40, 0],
    ];
    for fill in [0u8, 1, 2, 3] {
        for count in counts {
            for lead in 0..24 {
                let body = [&vec![fill.min(1); lead], count, &vec![fill; 32 * 1024]].concat();
                bodies.push(body);
            }
        }
    }
    for seed in 0..60 {
        bodies.push(noise(seed, 8 * 1024, &[0, 0, 1, 1, 2, 3, 0x80, 0xff]));
    }
    bodies
}

#[test]
fn no_request_allocates_more_than_a_multiple_of_its_frame() {
    // SAFETY: this process has one test, and no other thread reads the environment.
    unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") };
    let bodies: Vec<Bytes> = hostile_bodies().into_iter().map(Bytes::from).collect();
    let mut decoded = 0;
    for row in SUPPORTED {
        for version in (row.min..=row.max).filter(|version| row.serves(*version)) {
            for body in &bodies {
                let allowed = MULTIPLE_MAX * body.len() + FREE_BYTES;
                let peak = peak_of(|| {
                    let outcome = Request::decode_body(row.key, version, body.clone());
                    decoded += usize::from(outcome.is_ok());
                    outcome
                });
                assert!(peak <= allowed, "{} v{version}: {peak} bytes for a body of {}", row.name, body.len());
            }
        }
    }
    assert!(decoded > 1_000, "only {decoded} bodies were requests: the test has lost its teeth");
}
