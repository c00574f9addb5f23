//! What is no history is refused, and what is one goes through JSONL unharmed.

use ottla_checker::event::{Action, Event, Micro, Phase, Polled, Sent, Transaction};
use ottla_checker::{BadEvent, IDS_MAX, MICRO_MAX, Recorder, Verdict, check, lines};

fn event(process: u32, phase: Phase, action: Action) -> Event {
    Event { time: 0, process, client: process, phase, action }
}

fn send(values: &[u64]) -> Action {
    Action::Send(values.iter().map(|&value| Sent { value, ..Sent::default() }).collect())
}

fn refused(events: Vec<Event>) -> Option<BadEvent> {
    let mut recorder = Recorder::default();
    events.into_iter().find_map(|event| recorder.push(event).err())
}

#[test]
fn what_is_no_history_is_refused() {
    let poll = || Action::Poll(Polled::default());
    let twice = vec![event(1, Phase::Invoke, poll()), event(1, Phase::Invoke, poll())];
    assert_eq!(refused(twice), Some(BadEvent::Busy(1)));
    assert_eq!(refused(vec![event(1, Phase::Ok, poll())]), Some(BadEvent::NotInvoked(1)));
    let other = vec![event(1, Phase::Invoke, send(&[1])), event(1, Phase::Ok, poll())];
    assert_eq!(refused(other), Some(BadEvent::OtherOperation(1)));
    let other = vec![event(1, Phase::Invoke, send(&[1])), event(1, Phase::Ok, send(&[2]))];
    assert_eq!(refused(other), Some(BadEvent::OtherSends(1)));
    let back = vec![Event { time: 2, ..event(1, Phase::Invoke, poll()) }, event(1, Phase::Ok, poll())];
    assert_eq!(refused(back), Some(BadEvent::TimeFalls));
    assert_eq!(refused(vec![event(IDS_MAX, Phase::Invoke, poll())]), Some(BadEvent::IdTooLarge));
    let partition = Action::Assign { partitions: vec![u32::MAX], from_beginning: false };
    assert_eq!(refused(vec![event(1, Phase::Invoke, partition)]), Some(BadEvent::IdTooLarge));
    let micro = vec![Micro::Poll(Vec::new()); MICRO_MAX + 1];
    let long = Action::Txn(Transaction { micro, ..Transaction::default() });
    assert_eq!(refused(vec![event(1, Phase::Invoke, long)]), Some(BadEvent::TooManyMicros));
    let far = Action::LogStart { partition: 0, offset: u64::MAX };
    assert_eq!(refused(vec![event(1, Phase::Info, far)]), Some(BadEvent::OffsetTooLarge));
}

#[test]
fn a_refused_event_changes_nothing() {
    let mut recorder = Recorder::default();
    recorder.push(event(1, Phase::Invoke, send(&[1]))).unwrap();
    assert!(recorder.push(event(1, Phase::Ok, send(&[2]))).is_err());
    recorder.push(event(1, Phase::Ok, send(&[1]))).unwrap();
    let history = recorder.finish();
    assert_eq!((history.operations(), history.events(), history.events_of(0)), (1, 2, Some((0, Some(1)))));
}

#[test]
fn nothing_read_back_proves_nothing() {
    assert_eq!(check(&Recorder::default().finish()).verdict, Verdict::Unknown);
    let mut recorder = Recorder::default();
    recorder.push(event(1, Phase::Invoke, send(&[1]))).unwrap();
    recorder.push(event(1, Phase::Fail, send(&[]))).unwrap();
    assert_eq!(check(&recorder.finish()).verdict, Verdict::Unknown);
}

#[test]
fn lines_are_readable_and_say_where_they_are_bad() {
    let text = r#"
        {"process":0,"client":0,"type":"invoke","do":{"send":[{"partition":0,"value":1}]}}
        {"process":0,"client":0,"type":"ok","do":{"send":[{"partition":0,"value":1,"offset":0}]}}
        {"process":1,"client":1,"type":"invoke","do":{"poll":{}}}
        {"process":1,"client":1,"type":"ok","do":{"poll":{"records":[{"partition":0,"offset":0,"value":1}]}}}
    "#;
    assert_eq!(check(&lines::history(text).unwrap()).verdict, Verdict::Valid);
    let report = check(&lines::history(&text.replace(r#""value":1}]}}}"#, r#""value":2}]}}}"#)).unwrap());
    assert_eq!(report.verdict, Verdict::Invalid);
    let neighbour = &report.findings[0].operations[0];
    assert_eq!((neighbour.operation, neighbour.invoked, neighbour.completed), (0, 0, Some(1)));
    let reason = lines::history(&text.replace("\"poll\":{}", "\"poll\":7")).unwrap_err().to_string();
    assert!(reason.starts_with("line 4 is no event"), "{reason}");
    let twice = text.replace("\"type\":\"ok\"", "\"type\":\"invoke\"");
    let reason = lines::history(&twice).unwrap_err().to_string();
    assert_eq!(reason, "line 3 does not fit: process 0 invokes while its operation is open");
}
