//! The driver of the model-based tests: random steps against a core and a simple model of it, repeatable by seed.
//!
//! A test calls [`lives`]. Each life (test case) is a new core and its model, driven by the [`Random`] of one seed. When
//! one fails its seed is printed, and the environment overrides the test's own seeds and steps:
//!
//!     OTTLA_SEED=17 cargo test -p ottla-broker producers          that case alone, again
//!     OTTLA_STEPS=5000000 cargo test --profile sim -p ottla-broker --lib model -- --nocapture --test-threads 1
//!                                                                 so many steps in each test, and how many a minute
//!
//! May not know: what is tested.

use std::time::Duration;

/// SplitMix64: the same numbers for the same seed, on every machine and in every release.
#[derive(Debug, Clone)]
pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// The numbers of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// What it was made from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, 0 if there is none.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.any() % bound.max(1)
    }

    /// A number from `first` to `last`, both included.
    pub fn between(&mut self, first: i64, last: i64) -> i64 {
        first + self.below(last.abs_diff(first) + 1).cast_signed()
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// An index into something of this length.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// One of these, `None` if there are none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.index(of.len()))
    }
}

/// Prints how to repeat a case that fails.
struct Witness(u64);

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this life failed; to run it again: OTTLA_SEED={}", self.0);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    match value.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{name}={value} is not a number"),
    }
}

/// True if only one case is run again: assertions about many cases together do not apply to it.
#[must_use]
pub fn is_one_life() -> bool {
    number("OTTLA_SEED").is_some()
}

/// Runs cases of `per_life` steps, of seeds from 0 on, until `steps` are done; `OTTLA_SEED` and `OTTLA_STEPS` override.
pub fn lives(steps: u64, per_life: u64, life: impl FnMut(&mut Random, u64)) {
    lives_from(0, steps, per_life, life);
}

/// The same, of seeds from `first_seed` on.
pub fn lives_from(first_seed: u64, steps: u64, per_life: u64, mut life: impl FnMut(&mut Random, u64)) {
    let mut run = |seed| {
        let witness = Witness(seed);
        life(&mut Random::new(seed), per_life);
        drop(witness);
    };
    if let Some(seed) = number("OTTLA_SEED") {
        return run(seed);
    }
    let asked = number("OTTLA_STEPS");
    let count = asked.unwrap_or(steps).div_ceil(per_life.max(1));
    #[expect(clippy::disallowed_methods, reason = "a speed to read, on which nothing depends")]
    let started = std::time::Instant::now();
    (first_seed..first_seed + count).for_each(run);
    if asked.is_some() {
        println!("{}", speed(count * per_life, started.elapsed()));
    }
}

fn speed(steps: u64, took: Duration) -> String {
    let a_minute = u128::from(steps) * 60_000 / took.as_millis().max(1);
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a test");
    format!("{name}: {steps} steps in {:.1} s, {:.2} million a minute", took.as_secs_f64(), a_minute as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_numbers_and_another_gives_others() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            (0..100).map(|_| random.below(1_000)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
    }

    #[test]
    fn bounds_hold_and_are_reached() {
        let mut random = Random::new(1);
        let seen: std::collections::BTreeSet<i64> = (0..1_000).map(|_| random.between(-2, 2)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [-2, -1, 0, 1, 2]);
        assert_eq!(random.below(0), 0);
        assert_eq!(random.pick::<u8>(&[]), None);
    }

    #[test]
    fn a_speed_is_told_by_the_minute() {
        let told = speed(5_000_000, Duration::from_secs(30));
        assert!(told.ends_with("5000000 steps in 30.0 s, 10.00 million a minute"), "{told}");
    }

    #[test]
    fn every_life_has_its_seed_and_its_steps() {
        if is_one_life() || number("OTTLA_STEPS").is_some() {
            return;
        }
        let mut seeds = Vec::new();
        lives_from(5, 25, 10, |random, steps| {
            assert_eq!(steps, 10);
            seeds.push(random.seed());
        });
        assert_eq!(seeds, [5, 6, 7]);
    }
}
