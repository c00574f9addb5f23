//! Histories of a correct model are found sound, and each way to spoil one is noticed, by the law that it breaks.

#![allow(clippy::unwrap_used)]

mod model;
mod mutate;

use ottla_checker::event::Event;
use ottla_checker::{Recorder, Report, Verdict, check, lines};
use proptest::prelude::*;

fn judge(events: &[Event]) -> Report {
    let mut recorder = Recorder::default();
    for (at, event) in events.iter().enumerate() {
        recorder.push(event.clone()).unwrap_or_else(|reason| panic!("event {at}: {reason}: {event:?}"));
    }
    check(&recorder.finish())
}

fn scripts() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec(any::<(u8, u8)>(), 100..600)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_correct_broker_does_is_sound(script in scripts()) {
        let report = judge(&model::run(&script));
        prop_assert_eq!(report.verdict, Verdict::Valid, "{:#?}", report.findings);
    }

    #[test]
    fn a_report_is_the_same_each_time_and_through_json(script in scripts(), seed: usize, way in 0..mutate::ALL.len()) {
        let mut events = model::run(&script);
        let _ = mutate::ALL[way].2(&mut events, seed);
        let text: Vec<String> = events.iter().map(|event| lines::write(event).unwrap()).collect();
        let again = check(&lines::history(&text.join("\n")).unwrap());
        let report = serde_json::to_string(&judge(&events)).unwrap();
        prop_assert_eq!(report, serde_json::to_string(&again).unwrap());
    }
}

/// Mutates histories until `CASES` of them could be spoiled in this way; all must be caught.
fn caught(name: &str) {
    let &(_, law, mutate) = mutate::ALL.iter().find(|(other, _, _)| *other == name).unwrap();
    let config =
        ProptestConfig { cases: 100, failure_persistence: None, max_global_rejects: 4000, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&(scripts(), any::<usize>()), |(script, seed)| {
        let mut events = model::run(&script);
        prop_assume!(mutate(&mut events, seed).is_some());
        let report = judge(&events);
        prop_assert_eq!(report.verdict, Verdict::Invalid);
        prop_assert!(report.broken.contains_key(&law), "{name}: {law:?} is not among {:?}", report.broken);
        Ok(())
    });
    outcome.unwrap_or_else(|reason| panic!("{name}: {reason}"));
}

macro_rules! ways {
    ($($test:ident $name:literal)*) => {
        $(#[test] fn $test() { caught($name); })*

        #[test]
        fn every_way_to_spoil_a_history_is_tried() {
            assert_eq!([$($name),*].as_slice(), mutate::ALL.iter().map(|(name, _, _)| *name).collect::<Vec<_>>());
        }
    };
}

ways! {
    unread "unread"
    drop_from_a_poll "drop from a poll"
    drop_a_polls_end "drop a poll's end"
    duplicate "duplicate"
    swap_values "swap values"
    swap_records "swap records"
    shift "shift an acknowledgement"
    fail "fail what was read"
    abort "abort what was read"
    phantom "a value from nowhere"
    early "read before it was sent"
    zombie "a zombie's epoch"
    sequence "a sequence again"
    half "half a transfer"
    forget "forget a commit"
    invent "invent a commit"
}
