//! Feature levels: the initial level of a cluster, registration of nodes, updates; and that a build before feature
//! levels reads everything that this one writes until a level is raised.

use std::sync::Arc;

use ottla_protocol::error::ErrorCode;
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::{RaftIndex, ReplicaId};
use proptest::prelude::*;
use uuid::Uuid;

use crate::codec::CodecError;
use crate::config::Config;
use crate::levels::{FEATURE, FeatureLevel, KAFKA_FEATURE, KAFKA_LEVEL, Levels};
use crate::metadata::bootstrap_service::BootstrapRequest;
use crate::metadata::command::{Command, Decision, decode, encode};
use crate::metadata::decide::{ControllerRequest, decide};
use crate::metadata::error::MetadataError;
use crate::metadata::forward_codec::{ForwardedRequest, RequestKind};
use crate::metadata::image::{NodeRecord, ReplicaRecord};
use crate::metadata::liveness::{FenceReason, Liveness};
use crate::metadata::registration::NodeRegistration;
use crate::metadata::requests::{FeatureUpdate, NewTopic, UpgradeType};
use crate::metadata::state_machine::{MetadataStateMachine, Outcome, Refusal};
use crate::metadata::tests::placement::node;

/// The state machine of a later release than this one, which understands all levels of these tests.
const LATER: Levels = Levels { oldest: FeatureLevel(1), newest: FeatureLevel(Levels::OWN.newest.0 + 1) };

fn levels(oldest: i16, newest: i16) -> Levels {
    Levels { oldest: FeatureLevel(oldest), newest: FeatureLevel(newest) }
}

/// The state machine of a build that understands these feature levels.
fn machine_of(levels: Levels) -> MetadataStateMachine {
    let mut config = Config::default();
    config.levels = levels;
    MetadataStateMachine::new(Arc::new(config))
}

fn node_of(id: i32, levels: Levels) -> NodeRecord {
    NodeRecord { levels, ..node(id, None, &[100]) }
}

fn registration(node: NodeRecord, founders: i32) -> NodeRegistration {
    let founder = |id: i32| ReplicaRecord {
        id: ReplicaId(u64::from(id.unsigned_abs())),
        node: NodeId(id),
        directory: node_of(id, LATER).directories[0].id,
    };
    NodeRegistration {
        node,
        cluster_id: "abc".into(),
        founders: (1..=founders).map(founder).collect(),
        lost: Vec::new(),
    }
}

fn submit(machine: &mut MetadataStateMachine, request: &ControllerRequest) -> Result<(), MetadataError> {
    let decided = decide(machine.image(), request)?;
    let (index, bytes) = (RaftIndex(machine.image().index.0 + 1), encode(machine.image().index, &decided.commands));
    let outcomes = machine.apply(index, &bytes).unwrap();
    assert!(!outcomes.iter().any(|outcome| matches!(outcome, Outcome::Refused(_))), "{outcomes:?}");
    Ok(())
}

/// Registers founders one after another; returns the outcome of each.
fn found(founders: &[Levels]) -> (MetadataStateMachine, Vec<Result<(), ErrorCode>>) {
    let mut machine = machine_of(LATER);
    let count = i32::try_from(founders.len()).unwrap();
    let outcomes = (1..).zip(founders).map(|(id, levels)| {
        let register = ControllerRequest::RegisterNode(Box::new(registration(node_of(id, *levels), count)));
        submit(&mut machine, &register).map_err(|error| error.code())
    });
    let outcomes = outcomes.collect();
    (machine, outcomes)
}

fn rejoin(machine: &mut MetadataStateMachine, id: i32, levels: Levels) -> Result<(), MetadataError> {
    submit(machine, &ControllerRequest::RegisterNode(Box::new(registration(node_of(id, levels), 1))))
}

fn raise(level: i16, kind: UpgradeType) -> ControllerRequest {
    ControllerRequest::UpdateFeatures(vec![FeatureUpdate {
        feature: FEATURE.to_owned(),
        level: FeatureLevel(level),
        kind: Some(kind),
    }])
}

#[test]
fn a_cluster_begins_at_the_newest_level_that_all_its_founders_understand() {
    for (founders, level) in [
        (vec![Levels::FIRST], 1),
        (vec![levels(1, 2)], 2),
        (vec![levels(1, 3), levels(1, 2), levels(2, 3)], 2),
        (vec![levels(1, 3), levels(1, 3), Levels::FIRST], 1),
        // A later release that does not understand level 1 any more can found a cluster all the same.
        (vec![levels(2, 3), levels(2, 3)], 3),
    ] {
        let (machine, outcomes) = found(&founders);
        assert!(outcomes.iter().all(Result::is_ok), "{founders:?}: {outcomes:?}");
        assert_eq!(machine.image().level, FeatureLevel(level), "{founders:?}");
    }
    // No level is set before the last founder is registered.
    let (machine, _) = found(&[levels(1, 2), levels(1, 2), levels(1, 2)]);
    assert_eq!(machine.image().level, FeatureLevel(2));
    let mut early = MetadataStateMachine::new(Arc::new(Config::default()));
    submit(&mut early, &ControllerRequest::RegisterNode(Box::new(registration(node_of(1, levels(1, 2)), 3)))).unwrap();
    assert_eq!(early.image().level, FeatureLevel::FIRST);
    assert!(submit(&mut early, &raise(2, UpgradeType::Upgrade)).is_err());
    let (_, outcomes) = found(&[levels(2, 3), Levels::FIRST]);
    assert_eq!(outcomes, [Ok(()), Err(ErrorCode::UnsupportedVersion)], "no level that both understand");
}

/// Two of three founders are registered, and a client has created a topic.
fn begun_early(levels: Levels) -> MetadataStateMachine {
    let mut machine = machine_of(LATER);
    for id in 1..=2 {
        submit(&mut machine, &ControllerRequest::RegisterNode(Box::new(registration(node_of(id, levels), 3)))).unwrap();
    }
    let topic = NewTopic { name: "early".to_owned(), factor: Some(1), ..NewTopic::default() };
    submit(&mut machine, &ControllerRequest::CreateTopic { topic, id: Uuid::from_u128(7) }).unwrap();
    machine
}

#[test]
fn a_cluster_that_begins_before_its_last_founder_has_joined_waits_for_it_with_its_level() {
    for (early, last, begins, becomes) in [
        (levels(1, 2), LATER, 1, 2),
        (levels(1, 2), Levels::FIRST, 1, 1),
        // The oldest level that those registered by then understand.
        (levels(2, 4), levels(1, 3), 2, 3),
    ] {
        let mut machine = begun_early(early);
        assert_eq!(machine.image().level, FeatureLevel(begins), "a founder that is to come could not read more");
        // Nodes that are no founders say nothing of the one that is missing, nor does a founder that starts again.
        rejoin(&mut machine, 1, early).unwrap();
        assert_eq!(machine.image().level, FeatureLevel(begins));
        submit(&mut machine, &ControllerRequest::RegisterNode(Box::new(registration(node_of(3, last), 3)))).unwrap();
        assert_eq!(machine.image().level, FeatureLevel(becomes));
        rejoin(&mut machine, 3, LATER).unwrap();
        rejoin(&mut machine, 4, LATER).unwrap();
        assert_eq!(machine.image().level, FeatureLevel(becomes), "only an operator raises it afterwards");
    }
}

#[test]
fn a_node_that_does_not_understand_the_level_is_refused_and_told_why() {
    let (mut machine, _) = found(&[levels(1, 2)]);
    let before = machine.checksum();
    let refused = rejoin(&mut machine, 2, Levels::FIRST).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Broker 2 understands levels 1-1 of ottla.version, and the cluster is at level 2: start it with the release that the \
         others run, or a later one."
    );
    let refused = rejoin(&mut machine, 2, levels(3, 3)).unwrap_err();
    assert!(refused.to_string().contains("raise the level before"), "{refused}");
    // A registered node is refused as well, with another build.
    assert_eq!(rejoin(&mut machine, 1, Levels::FIRST).unwrap_err().code(), ErrorCode::UnsupportedVersion);
    assert_eq!(machine.checksum(), before);
    assert_eq!(rejoin(&mut machine, 2, levels(2, 3)), Ok(()));
    // A later release joins at the old level, and the level stays.
    assert_eq!(machine.image().level, FeatureLevel(2));
}

#[test]
fn a_level_is_raised_when_every_node_understands_it_and_never_lowered() {
    use UpgradeType::{SafeDowngrade, UnsafeDowngrade, Upgrade};
    let (mut machine, _) = found(&[Levels::FIRST, Levels::FIRST]);
    let refused = |machine: &mut MetadataStateMachine, level: i16, kind: UpgradeType, why: &str| {
        let error = submit(machine, &raise(level, kind)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidUpdateVersion);
        assert_eq!(error.to_string(), format!("Invalid update version {level} for feature {FEATURE}. {why}"));
    };
    // One node after the other is upgraded.
    refused(&mut machine, 2, Upgrade, "Broker 1 only supports versions 1-1");
    rejoin(&mut machine, 1, levels(1, 2)).unwrap();
    refused(&mut machine, 2, Upgrade, "Broker 2 only supports versions 1-1");
    rejoin(&mut machine, 2, levels(1, 3)).unwrap();
    assert_eq!(machine.image().level, FeatureLevel(1));
    refused(&mut machine, 3, Upgrade, "Broker 1 only supports versions 1-2");
    refused(&mut machine, 2, SafeDowngrade, "Can't downgrade to a newer version.");
    submit(&mut machine, &raise(2, Upgrade)).unwrap();
    assert_eq!(machine.image().level, FeatureLevel(2));
    // Repeated: it has no effect.
    assert!(decide(machine.image(), &raise(2, Upgrade)).unwrap().commands.is_empty());
    refused(&mut machine, 0, SafeDowngrade, "Broker 1 only supports versions 1-2");
    refused(&mut machine, -1, Upgrade, "A feature version cannot be less than 0.");
    let without = "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe \
                   downgrade.";
    refused(&mut machine, 1, Upgrade, without);
    let lossy = "Refusing to perform the requested downgrade because it might delete metadata information.";
    refused(&mut machine, 1, SafeDowngrade, lossy);
    refused(&mut machine, 1, UnsafeDowngrade, "Unsafe metadata downgrade is not supported in this version.");
    assert_eq!(machine.image().level, FeatureLevel(2));
}

#[test]
fn all_requested_updates_are_made_or_none() {
    let (mut machine, _) = found(&[levels(1, 1)]);
    rejoin(&mut machine, 1, levels(1, 2)).unwrap();
    let update = |feature: &str, kind: Option<UpgradeType>| FeatureUpdate {
        feature: feature.to_owned(),
        level: FeatureLevel(2),
        kind,
    };
    let own = update(FEATURE, Some(UpgradeType::Upgrade));
    let kafkas = update("metadata.version", Some(UpgradeType::Upgrade));
    for (requested, code) in [
        (vec![own.clone(), kafkas], ErrorCode::InvalidUpdateVersion),
        (vec![update(FEATURE, None)], ErrorCode::InvalidUpdateVersion),
        (vec![own.clone(), own.clone()], ErrorCode::InvalidRequest),
    ] {
        assert_eq!(submit(&mut machine, &ControllerRequest::UpdateFeatures(requested)).unwrap_err().code(), code);
        assert_eq!(machine.image().level, FeatureLevel(1));
    }
    assert_eq!(submit(&mut machine, &ControllerRequest::UpdateFeatures(Vec::new())), Ok(()));
    let as_it_is = FeatureUpdate { level: KAFKA_LEVEL, ..update(KAFKA_FEATURE, Some(UpgradeType::Upgrade)) };
    assert_eq!(submit(&mut machine, &ControllerRequest::UpdateFeatures(vec![as_it_is.clone()])), Ok(()));
    assert_eq!(machine.image().level, FeatureLevel(1), "the other feature is as it was");
    assert_eq!(submit(&mut machine, &ControllerRequest::UpdateFeatures(vec![own, as_it_is])), Ok(()));
    assert_eq!(machine.image().level, FeatureLevel(2));
}

#[test]
fn a_build_stops_at_a_level_that_it_does_not_understand_in_the_log_and_in_a_checkpoint() {
    let above = FeatureLevel(Levels::OWN.newest.0 + 1);
    let (latest, _) = found(&[levels(1, above.0)]);
    assert_eq!(latest.image().level, above);
    let (records, index) = (latest.all_records(), latest.image().index);
    let config = || Arc::new(Config::default());
    assert_eq!(MetadataStateMachine::restore(config(), index, &records).err(), Some(CodecError::Level(above.0)));
    let (mut later, _) = found(&[levels(1, 2)]);
    let index = later.image().index;
    let mut own = MetadataStateMachine::new(config());
    let entry = encode(RaftIndex(0), &[Command::SetFeatureLevel { level: above }]);
    assert_eq!(own.apply(RaftIndex(1), &entry), Err(CodecError::Level(above.0)));
    // A command that is refused for another reason does not stop the replica.
    let stale = encode(RaftIndex(7), &[Command::SetFeatureLevel { level: above }]);
    assert_eq!(own.apply(RaftIndex(1), &stale), Ok(vec![Outcome::Refused(Refusal::Overtaken)]));
    // A command of a later release cannot be decoded, whatever level is in force.
    let liveness = Liveness { fenced: Some(FenceReason::Stopped), since_ms: 1 };
    let fenced = encode(RaftIndex(0), &[Command::SetNodeLiveness { node: NodeId(1), liveness }]);
    assert_eq!(machine_of(Levels::FIRST).apply(RaftIndex(1), &fenced), Err(CodecError::Level(2)));
    // A level that a registered node does not understand is refused, whatever node decided it.
    let entry = encode(index, &[Command::SetFeatureLevel { level: FeatureLevel(3) }]);
    let refused = later.apply(RaftIndex(index.0 + 1), &entry);
    assert_eq!(refused, Ok(vec![Outcome::Refused(Refusal::FeatureLevel)]));
}

/// As 5dc1475 wrote it, before there were levels: node 2, without anything.
const OLD_NODE: [u8; 17] = [2, 0, 0, 0, 0, 1, b'0', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn formats_before_levels_are_read_and_written_the_same() {
    let old = node(2, None, &[]);
    let command = [&[2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2][..], &OLD_NODE].concat();
    let registered = vec![Command::RegisterNode(old.clone())];
    assert_eq!(encode(RaftIndex(0), &registered), command);
    assert_eq!(decode(&command), Ok(Decision { decided_on: Some(RaftIndex(0)), commands: registered }));
    let requested =
        NodeRegistration { node: old.clone(), cluster_id: "c".into(), founders: Vec::new(), lost: Vec::new() };
    let fields = [&OLD_NODE[..], &[1, b'c', 0, 0]].concat();
    let at_a_desk = [&[1, 1][..], &fields].concat();
    let forwarded = BootstrapRequest::Register(Box::new(requested.clone()));
    assert_eq!(forwarded.encode(), at_a_desk);
    assert_eq!(BootstrapRequest::decode(&at_a_desk), Ok(forwarded));
    let kind = |registration: NodeRegistration| RequestKind::Change {
        request: ControllerRequest::RegisterNode(Box::new(registration)),
        validate_only: false,
    };
    let of_the_leader = [&[1][..], &[0; 32], &[1, 0, 9], &fields].concat();
    let forwarded = |registration: NodeRegistration| ForwardedRequest {
        session: 0,
        number: 0,
        floor: 0,
        term: 0,
        kind: kind(registration),
    };
    assert_eq!(forwarded(requested.clone()).encode(), of_the_leader);
    assert_eq!(ForwardedRequest::decode(&of_the_leader), Ok(forwarded(requested.clone())));

    // Levels that differ from the first are at the end of the request.
    let later = NodeRegistration { node: NodeRecord { levels: LATER, ..old }, ..requested };
    let bytes = forwarded(later.clone()).encode();
    assert_eq!(ForwardedRequest::decode(&bytes), Ok(forwarded(later.clone())));
    assert!((1..4).all(|cut| ForwardedRequest::decode(&bytes[..bytes.len() - cut]).is_err()));
    let forwarded = BootstrapRequest::Register(Box::new(later));
    assert_eq!(BootstrapRequest::decode(&forwarded.encode()), Ok(forwarded));
}

proptest! {
    /// For any registrations and updates: each registered node understands the level in force.
    #[test]
    fn every_registered_node_understands_the_level(steps in proptest::collection::vec((1_i32..5, 1_i16..4, 0_i16..3, any::<bool>()), 1..40)) {
        let mut machine = machine_of(levels(1, 9));
        for (id, oldest, more, raises) in steps {
            let requested = match raises {
                true => raise(oldest, UpgradeType::Upgrade),
                false => ControllerRequest::RegisterNode(Box::new(registration(node_of(id, levels(oldest, oldest + more)), 2))),
            };
            let before = machine.image().level;
            let _ = submit(&mut machine, &requested);
            let image = machine.image();
            if image.shards.len() > 1 {
                prop_assert!(image.nodes.values().all(|node| node.levels.contains(image.level)));
            }
            prop_assert!(image.level >= before);
        }
    }
}
