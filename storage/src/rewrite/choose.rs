//! Chooses the files that the rewriter copies next. Pure: numbers in, file numbers out.
//!
//! A file is worth copying when little of it is live. A segment with verdicts on live batches of other files cannot be
//! unlinked before those are copied too, so it is chosen together with their files or not at all.

use std::collections::{BTreeMap, BTreeSet};

use super::RetentionClass;
use crate::ids::Lineage;

/// Files whose live part is below this are copied while space is ample, ...
const LIVE_SHARE_AMPLE: f64 = 0.5;
/// ... and those below this when space is used up.
const LIVE_SHARE_SHORT: f64 = 0.9;
/// Space is ample while this part of the file system is free.
const FREE_SHARE_AMPLE: f64 = 0.2;
/// From this pressure on space is short: nothing is spared any more.
pub(crate) const SHORT: f64 = 0.9;
/// Most files of one job.
const FILES_MAX: usize = 512;
/// While space is ample a job begins only if it frees this part of what all files take (less as space shrinks), ...
const GAIN_PART: u64 = 8;
/// ... or so many segments.
const GAIN_SEGMENTS: u64 = 16;
/// Runs of one lineage and class are merged if so many are shorter than half of what a run shall be, ...
const SMALL_RUNS_MAX: usize = 64;
/// ... or so many that together they fill one, those aside that are young.
const SMALL_RUNS_MIN: usize = 4;

/// A file that holds live batches.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FileUse {
    /// A segment or a run.
    pub(crate) number: u64,
    pub(crate) file_bytes: u64,
    pub(crate) live_bytes: u64,
    /// Only its live batches keep it: it is whole, indexed, and below what any kept checkpoint needs.
    pub(crate) may_go: bool,
    /// Its live batches will soon be dead without a rewrite.
    pub(crate) is_dying: bool,
    /// Of a run: it was made a short time ago, maybe by a pass of compaction whose successor replaces it.
    pub(crate) is_young: bool,
    /// Of a run: which it could be merged with.
    pub(crate) run: Option<(Lineage, RetentionClass)>,
}

/// The state of the disk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Situation {
    /// 0 while space is ample, 1 when it is used up.
    pub(crate) pressure: f64,
    /// Bytes that a job may write.
    pub(crate) budget_bytes: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) run_bytes: u64,
}

/// 0 while a fifth of the file system is free, 1 when no two segments fit above the reserve any more.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn pressure(free_bytes: u64, total_bytes: u64, reserve_bytes: u64, segment_bytes: u64) -> f64 {
    let used_up = reserve_bytes.saturating_add(segment_bytes.saturating_mul(2)) as f64;
    let ample = (total_bytes as f64 * FREE_SHARE_AMPLE).max(used_up * 2.0);
    ((ample - free_bytes as f64) / (ample - used_up).max(1.0)).clamp(0.0, 1.0)
}

/// While space is ample nothing is done for less than this.
pub(crate) fn gain_min(all_bytes: u64, segment_bytes: u64) -> u64 {
    (all_bytes / GAIN_PART).min(segment_bytes.saturating_mul(GAIN_SEGMENTS))
}

/// True if a file may be worth copying while space is ample.
pub(crate) fn is_mostly_dead(live_bytes: u64, file_bytes: u64) -> bool {
    live_bytes < file_bytes / 2
}

/// Files with batches that the verdicts of a segment decide on, itself aside.
pub(crate) type Needs<'a> = &'a dyn Fn(u64) -> Vec<u64>;

struct Chooser<'a> {
    files: BTreeMap<u64, &'a FileUse>,
    situation: Situation,
    needs: Needs<'a>,
}

impl Chooser<'_> {
    #[allow(clippy::cast_precision_loss)]
    fn is_worth_it(&self, live_bytes: u64, file_bytes: u64) -> bool {
        let share = LIVE_SHARE_AMPLE + (LIVE_SHARE_SHORT - LIVE_SHARE_AMPLE) * self.situation.pressure;
        (live_bytes as f64) < share * file_bytes as f64
    }

    fn may_be_copied(&self, file: &FileUse) -> bool {
        file.may_go && (self.situation.pressure > SHORT || !file.is_dying)
    }

    /// The file and all that must be copied with it; `None` if one of them cannot be copied, or it is not worth it.
    fn together(&self, first: u64, chosen: &BTreeSet<u64>) -> Option<BTreeSet<u64>> {
        let mut group = BTreeSet::from([first]);
        let mut open = vec![first];
        let (mut live, mut taken) = (0, 0);
        while let Some(number) = open.pop() {
            let file = self.files.get(&number)?;
            if !self.may_be_copied(file) || group.len() > FILES_MAX {
                return None;
            }
            live += file.live_bytes;
            taken += file.file_bytes;
            open.extend(
                (self.needs)(number).into_iter().filter(|needed| !chosen.contains(needed) && group.insert(*needed)),
            );
        }
        self.is_worth_it(live, taken).then_some(group)
    }

    fn live_bytes(&self, group: &BTreeSet<u64>) -> u64 {
        group.iter().filter_map(|number| self.files.get(number)).map(|file| file.live_bytes).sum()
    }

    /// Mostly dead files, those with the least to copy first.
    fn mostly_dead(&self) -> BTreeSet<u64> {
        let worth = |file: &&&FileUse| file.live_bytes > 0 && self.is_worth_it(file.live_bytes, file.file_bytes);
        let mut candidates: Vec<_> = self.files.values().filter(worth).collect();
        #[allow(clippy::cast_precision_loss)]
        let share = |file: &FileUse| file.live_bytes as f64 / file.file_bytes.max(1) as f64;
        candidates.sort_by(|a, b| share(a).total_cmp(&share(b)).then(a.number.cmp(&b.number)));
        let (mut chosen, mut bytes) = (BTreeSet::new(), 0);
        for candidate in candidates {
            if chosen.contains(&candidate.number) {
                continue;
            }
            let Some(group) = self.together(candidate.number, &chosen) else { continue };
            let more = self.live_bytes(&group);
            if bytes + more <= self.situation.budget_bytes && chosen.len() + group.len() <= FILES_MAX {
                bytes += more;
                chosen.extend(group);
            }
        }
        chosen
    }

    /// Short runs of one lineage and class.
    fn short_runs(&self) -> BTreeSet<u64> {
        let mut short: BTreeMap<_, Vec<&FileUse>> = BTreeMap::new();
        for file in self.files.values().filter(|file| self.may_be_copied(file) && file.live_bytes > 0) {
            if let Some(kind) = file.run.filter(|_| file.file_bytes < self.situation.run_bytes / 2) {
                short.entry(kind).or_default().push(file);
            }
        }
        for mut runs in short.into_values() {
            let are_many = runs.len() >= SMALL_RUNS_MAX;
            runs.retain(|run| are_many || !run.is_young);
            let sum: u64 = runs.iter().map(|run| run.live_bytes).sum();
            let due = are_many || (runs.len() >= SMALL_RUNS_MIN && sum >= self.situation.run_bytes);
            if !due {
                continue;
            }
            runs.sort_by_key(|run| run.number);
            let (mut chosen, mut bytes) = (BTreeSet::new(), 0);
            for run in runs {
                if bytes + run.live_bytes <= self.situation.budget_bytes && bytes < self.situation.run_bytes {
                    bytes += run.live_bytes;
                    chosen.insert(run.number);
                }
            }
            if chosen.len() >= SMALL_RUNS_MIN {
                return chosen;
            }
        }
        BTreeSet::new()
    }
}

/// The files of the next job; none if nothing is worth it.
pub(crate) fn choose(files: &[FileUse], situation: Situation, needs: Needs<'_>) -> BTreeSet<u64> {
    let by_number = files.iter().map(|file| (file.number, file)).collect();
    let chooser = Chooser { files: by_number, situation, needs };
    let chosen = chooser.mostly_dead();
    let taken: u64 = files.iter().filter(|file| chosen.contains(&file.number)).map(|file| file.file_bytes).sum();
    let gain = taken.saturating_sub(chooser.live_bytes(&chosen));
    let all: u64 = files.iter().map(|file| file.file_bytes).sum();
    #[allow(clippy::cast_precision_loss)]
    let enough = gain as f64 >= gain_min(all, situation.segment_bytes) as f64 * (1.0 - situation.pressure);
    let is_due = !chosen.is_empty() && enough;
    match is_due {
        true => chosen,
        false if situation.pressure < SHORT => chooser.short_runs(),
        false => BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::RunId;

    const AMPLE: Situation = Situation { pressure: 0.0, budget_bytes: 400, segment_bytes: 100, run_bytes: 400 };

    fn segment(number: u64, live_bytes: u64) -> FileUse {
        FileUse { number, file_bytes: 100, live_bytes, may_go: true, is_dying: false, is_young: false, run: None }
    }

    fn run(id: u64, file_bytes: u64, class: u8) -> FileUse {
        let run = Some((Lineage(1), RetentionClass(class)));
        let number = RunId(id).file_number();
        FileUse { number, file_bytes, live_bytes: file_bytes, may_go: true, is_dying: false, is_young: false, run }
    }

    fn alone(_: u64) -> Vec<u64> {
        Vec::new()
    }

    fn chosen(files: &[FileUse], situation: Situation) -> Vec<u64> {
        choose(files, situation, &alone).into_iter().collect()
    }

    #[test]
    fn what_is_mostly_dead_is_taken_and_more_of_it_as_space_shrinks() {
        let files = [segment(1, 10), segment(2, 49), segment(3, 50), segment(4, 89), segment(5, 95), segment(6, 0)];
        assert_eq!(chosen(&files, AMPLE), [1, 2]);
        assert_eq!(chosen(&files, Situation { pressure: 1.0, ..AMPLE }), [1, 2, 3, 4]);
        assert_eq!(
            chosen(&files, Situation { pressure: 1.0, budget_bytes: 60, ..AMPLE }),
            [1, 2],
            "the cheapest first"
        );
    }

    #[test]
    fn nothing_is_copied_for_a_small_gain_while_space_is_ample() {
        let mut files: Vec<_> = (1..20).map(|number| segment(number, 80)).collect();
        files.push(segment(20, 40));
        assert!(chosen(&files, AMPLE).is_empty());
        files.push(segment(21, 0));
        files.extend((22..26).map(|number| segment(number, 10)));
        assert_eq!(chosen(&files, AMPLE), [20, 22, 23, 24, 25]);
        files.truncate(20);
        assert!(chosen(&files, Situation { pressure: 0.1, ..AMPLE }).is_empty());
        assert!(chosen(&files, Situation { pressure: 0.8, ..AMPLE }).contains(&20));
    }

    #[test]
    fn what_dies_by_itself_is_left_alone_while_space_is_ample() {
        let files = [FileUse { is_dying: true, ..segment(1, 10) }];
        assert!(chosen(&files, AMPLE).is_empty());
        assert!(chosen(&files, Situation { pressure: 0.8, ..AMPLE }).is_empty());
        assert_eq!(chosen(&files, Situation { pressure: 0.95, ..AMPLE }), [1]);
        let needed = [FileUse { may_go: false, ..segment(1, 10) }];
        assert!(chosen(&needed, Situation { pressure: 1.0, ..AMPLE }).is_empty());
    }

    #[test]
    fn a_segment_that_decides_on_batches_elsewhere_takes_them_along_or_stays() {
        let decides = |number| if number == 2 { vec![1] } else { Vec::new() };
        let pick = |first: FileUse| choose(&[first, segment(2, 10)], AMPLE, &decides);
        assert_eq!(pick(segment(1, 60)), BTreeSet::from([1, 2]), "together they are mostly dead");
        assert_eq!(pick(segment(1, 95)), BTreeSet::new());
        assert_eq!(pick(FileUse { may_go: false, ..segment(1, 60) }), BTreeSet::new());
    }

    #[test]
    fn short_runs_are_merged_when_they_fill_one_or_are_too_many() {
        let number = |id| RunId(id).file_number();
        let files: Vec<_> = (1..=4).map(|id| run(id, 90, 7)).collect();
        assert!(chosen(&files, AMPLE).is_empty(), "they do not fill one");
        let files: Vec<_> = (1..=6).map(|id| run(id, 90, 7)).collect();
        assert_eq!(chosen(&files, AMPLE), [1, 2, 3, 4].map(number));
        let files: Vec<_> = (1..=6).map(|id| run(id, 90, id as u8)).collect();
        assert!(chosen(&files, AMPLE).is_empty(), "classes stay apart");
        let files: Vec<_> = (1..=64).map(|id| run(id, 2, 7)).collect();
        assert_eq!(chosen(&files, AMPLE).len(), 64);
        let long: Vec<_> = (1..=6).map(|id| run(id, 200, 7)).collect();
        assert!(chosen(&long, AMPLE).is_empty());
    }

    #[test]
    fn young_runs_are_merged_only_if_they_are_many() {
        let young = |id| FileUse { is_young: true, ..run(id, 90, 7) };
        let files: Vec<_> = (1..=12).map(young).collect();
        assert!(chosen(&files, AMPLE).is_empty(), "the next pass of compaction may replace them");
        let mut files: Vec<_> = (1..=4).map(young).chain((5..=9).map(|id| run(id, 90, 7))).collect();
        assert_eq!(chosen(&files, AMPLE), [5, 6, 7, 8].map(|id| RunId(id).file_number()), "the others alone fill one");
        files.truncate(8);
        assert!(chosen(&files, AMPLE).is_empty());
        let files: Vec<_> = (1..=64).map(|id| FileUse { is_young: true, ..run(id, 2, 7) }).collect();
        assert_eq!(chosen(&files, AMPLE).len(), 64);
    }

    #[test]
    fn pressure_rises_as_space_shrinks() {
        let at = |free| pressure(free, 1000, 50, 25);
        assert_eq!((at(1000), at(200), at(100), at(0)), (0.0, 0.0, 1.0, 1.0));
        assert!(at(180) < at(120) && at(120) < 1.0);
        assert_eq!(pressure(300, 1000, 100, 50), 0.5, "a small disk is never ample above its reserve alone");
    }

    proptest! {
        #[test]
        fn a_job_keeps_its_budget_and_leaves_nothing_undecided(
            live in prop::collection::vec((0..120u64, prop::bool::weighted(0.8), any::<bool>()), 1..30),
            links in prop::collection::vec((0..30u64, 0..30u64), 0..30), pressure in 0.0..1.0f64, budget_bytes in 0..1000u64,
        ) {
            let files: Vec<FileUse> = live.iter().enumerate().map(|(number, (live, may_go, is_dying))| FileUse {
                may_go: *may_go, is_dying: *is_dying, ..segment(number as u64, (*live).min(100))
            }).collect();
            let lives = |number: &u64| files.get(*number as usize).is_some_and(|file| file.live_bytes > 0);
            let needs = |number: u64| {
                let needed = links.iter().filter(|(from, to)| *from == number && to != from).map(|(_, to)| *to);
                needed.filter(lives).collect::<Vec<_>>()
            };
            let chosen = choose(&files, Situation { pressure, budget_bytes, ..AMPLE }, &needs);
            let taken: Vec<_> = files.iter().filter(|file| chosen.contains(&file.number)).collect();
            prop_assert!(taken.iter().map(|file| file.live_bytes).sum::<u64>() <= budget_bytes);
            prop_assert!(taken.iter().all(|file| file.may_go && (pressure > SHORT || !file.is_dying)));
            for number in &chosen {
                prop_assert!(needs(*number).iter().all(|needed| chosen.contains(needed)), "{number} could not go");
            }
        }
    }
}
