//! Forwarded requests and responses round trip; foreign bytes are an error.

use std::collections::BTreeMap;

use ottla_protocol::ids::NodeId;
use ottla_storage::ids::{RaftIndex, ReplicaId};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use uuid::Uuid;

use crate::levels::{FeatureLevel, Levels};
use crate::metadata::command::IntentEnd;
use crate::metadata::decide::{ControllerRequest, ControllerResponse};
use crate::metadata::error::MetadataError;
use crate::metadata::forward_codec::{ForwardedRequest, ForwardedResponse, RequestKind};
use crate::metadata::image::{
    DirectoryRecord, IntentKey, ListenerEndpoint, NodeRecord, NodeState, ReplicaRecord, ShardId,
};
use crate::metadata::liveness::{FenceReason, Liveness, LivenessChange};
use crate::metadata::registration::NodeRegistration;
use crate::metadata::requests::{
    ConfigChange, ConfigOp, ConfigOwner, CreatedTopic, FeatureUpdate, InternalTopic, MetadataQuorum, NewPartitions,
    NewTopic, Nodes, QuorumMember, TopicName, UpgradeType,
};
use crate::metadata::sessions::Heartbeat;

fn id() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn values() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("[a-z.]{1,20}", text(), 0..4)
}

fn nodes() -> impl Strategy<Value = Vec<NodeId>> {
    vec(any::<i32>().prop_map(NodeId), 0..4)
}

fn ids() -> impl Strategy<Value = Vec<ReplicaId>> {
    vec(any::<u64>().prop_map(ReplicaId), 0..4)
}

fn registration() -> impl Strategy<Value = NodeRegistration> {
    let listeners = vec((text(), text(), any::<u16>()), 0..3);
    let directories = vec((id(), text(), any::<u64>()), 0..3);
    let founders = vec((any::<u64>(), any::<i32>(), id()), 0..4);
    (any::<i32>(), proptest::option::of(text()), listeners, directories, any::<u64>(), founders, text(), ids())
        .prop_map(|(node, rack, listeners, directories, number, founders, cluster_id, lost)| {
            let listener = |(name, host, port)| ListenerEndpoint { name, host, port };
            let directory = |(id, path, free_bytes)| DirectoryRecord { id, path, free_bytes };
            let node = NodeRecord {
                id: NodeId(node),
                rack,
                listeners: listeners.into_iter().map(listener).collect(),
                directories: directories.into_iter().map(directory).collect(),
                version: "1".into(),
                levels: Levels::FIRST,
                epoch: RaftIndex(number),
                state: NodeState::Active,
                liveness: Liveness::default(),
            };
            let founder = |(id, node, directory)| ReplicaRecord { id: ReplicaId(id), node: NodeId(node), directory };
            NodeRegistration { node, cluster_id, founders: founders.into_iter().map(founder).collect(), lost }
        })
}

fn change() -> impl Strategy<Value = ConfigChange> {
    let owner = prop_oneof![
        text().prop_map(ConfigOwner::Topic),
        text().prop_map(ConfigOwner::Group),
        text().prop_map(ConfigOwner::ClientMetrics),
        any::<i32>().prop_map(|node| ConfigOwner::Node(NodeId(node))),
        Just(ConfigOwner::AllNodes)
    ];
    let op = prop_oneof![
        text().prop_map(ConfigOp::Set),
        Just(ConfigOp::Delete),
        text().prop_map(ConfigOp::Append),
        text().prop_map(ConfigOp::Subtract)
    ];
    (owner, vec((text(), op), 0..4), any::<bool>()).prop_map(|(owner, ops, replace)| ConfigChange {
        owner,
        ops,
        replace,
    })
}

fn controller_request() -> impl Strategy<Value = ControllerRequest> {
    let topic = (
        text(),
        proptest::option::of(any::<i32>()),
        proptest::option::of(any::<i16>()),
        vec((any::<i32>(), nodes()), 0..3),
        values(),
    )
        .prop_map(|(name, partitions, factor, assignments, configs)| NewTopic {
            name,
            partitions,
            factor,
            assignments,
            configs,
        });
    let internal = prop_oneof![Just(InternalTopic::ConsumerOffsets), Just(InternalTopic::TransactionState)];
    let key = (any::<u64>(), any::<u64>(), id()).prop_map(|(shard, index, topic)| IntentKey {
        shard: ShardId(shard),
        index: RaftIndex(index),
        topic,
    });
    let end = any::<bool>().prop_map(|done| if done { IntentEnd::Done } else { IntentEnd::Abort });
    prop_oneof![
        (topic, id()).prop_map(|(topic, id)| ControllerRequest::CreateTopic { topic, id }),
        (internal, id()).prop_map(|(topic, id)| ControllerRequest::EnsureInternal { topic, id }),
        text().prop_map(|name| ControllerRequest::DeleteTopic(TopicName::Name(name))),
        id().prop_map(|id| ControllerRequest::DeleteTopic(TopicName::Id(id))),
        (text(), any::<i32>(), proptest::option::of(vec(nodes(), 0..3))).prop_map(|(topic, count, assignments)| {
            ControllerRequest::CreatePartitions(NewPartitions { topic, count, assignments })
        }),
        change().prop_map(ControllerRequest::ChangeConfig),
        Just(ControllerRequest::AllocateProducerIds),
        vec((key, end), 0..5).prop_map(ControllerRequest::EndIntents),
        registration().prop_map(|registration| ControllerRequest::RegisterNode(Box::new(registration))),
        (any::<u64>(), nodes())
            .prop_map(|(shard, nodes)| ControllerRequest::ChangeReplicas { shard: ShardId(shard), nodes }),
        (any::<u64>(), any::<i32>(), id()).prop_map(|(shard, node, directory)| ControllerRequest::ChangeDirectory {
            shard: ShardId(shard),
            node: NodeId(node),
            directory
        }),
        (any::<u64>(), ids(), ids()).prop_map(|(shard, reached, left)| ControllerRequest::ForgetReplicas {
            shard: ShardId(shard),
            reached,
            left
        }),
        (any::<i32>(), any::<bool>())
            .prop_map(|(node, drain)| ControllerRequest::Drain { nodes: Nodes::One(NodeId(node)), drain }),
        (text(), any::<bool>()).prop_map(|(zone, drain)| ControllerRequest::Drain { nodes: Nodes::Zone(zone), drain }),
        any::<i32>().prop_map(|node| ControllerRequest::Unregister(NodeId(node))),
        Just(ControllerRequest::Balance),
        (any::<i32>(), any::<u64>(), 0_u8..4, any::<i64>()).prop_map(|(node, epoch, fenced, since_ms)| {
            let fenced = FenceReason::ALL.get(usize::from(fenced)).copied();
            let (node, epoch) = (NodeId(node), RaftIndex(epoch));
            ControllerRequest::SetLiveness(LivenessChange { node, epoch, to: Liveness { fenced, since_ms } })
        }),
        vec((text(), any::<i16>(), kind()), 0..3).prop_map(|requested| {
            let update = |(feature, level, kind)| FeatureUpdate { feature, level: FeatureLevel(level), kind };
            ControllerRequest::UpdateFeatures(requested.into_iter().map(update).collect())
        }),
    ]
}

fn kind() -> impl Strategy<Value = Option<UpgradeType>> {
    use UpgradeType::{SafeDowngrade, UnsafeDowngrade, Upgrade};
    prop_oneof![Just(None), Just(Some(Upgrade)), Just(Some(SafeDowngrade)), Just(Some(UnsafeDowngrade))]
}

fn request() -> impl Strategy<Value = ForwardedRequest> {
    let kind = prop_oneof![
        1 => Just(RequestKind::ReadIndex),
        1 => Just(RequestKind::Quorum),
        1 => (any::<i32>(), any::<u64>()).prop_map(|(node, epoch)| {
            RequestKind::Heartbeat(Heartbeat { node: NodeId(node), epoch: RaftIndex(epoch) })
        }),
        9 => (controller_request(), any::<bool>()).prop_map(|(request, validate_only)| RequestKind::Change { request, validate_only }),
    ];
    (any::<[u64; 4]>(), kind).prop_map(|([session, number, floor, term], kind)| ForwardedRequest {
        session,
        number,
        floor,
        term,
        kind,
    })
}

fn error() -> impl Strategy<Value = MetadataError> {
    use MetadataError as E;
    prop_oneof![
        Just(E::UnknownTopic),
        Just(E::UnknownTopicId),
        text().prop_map(E::TopicExists),
        text().prop_map(E::InvalidTopic),
        text().prop_map(E::InvalidPartitions),
        text().prop_map(E::InvalidReplicationFactor),
        text().prop_map(E::InvalidReplicaAssignment),
        text().prop_map(E::InvalidConfig),
        text().prop_map(E::PolicyViolation),
        text().prop_map(E::InvalidRequest),
        Just(E::DeletionDisabled),
        proptest::option::of(any::<i32>().prop_map(NodeId)).prop_map(|leader| E::NotController { leader }),
        Just(E::TimedOut),
        Just(E::Overloaded),
        Just(E::NoReassignmentInProgress),
        text().prop_map(E::NotRegistered),
        text().prop_map(E::InvalidUpdateVersion),
        text().prop_map(E::UnsupportedVersion),
        text().prop_map(E::Stopped),
    ]
}

fn response() -> impl Strategy<Value = ForwardedResponse> {
    let topic = (text(), id(), any::<i32>(), any::<i16>(), values())
        .prop_map(|(name, id, partitions, factor, overrides)| CreatedTopic { name, id, partitions, factor, overrides });
    let member = || {
        (any::<i32>(), id(), any::<[i64; 3]>()).prop_map(
            |(node, directory, [end, last_fetch_ms, last_caught_up_ms])| QuorumMember {
                node: NodeId(node),
                directory,
                log_end: end,
                last_fetch_ms,
                last_caught_up_ms,
            },
        )
    };
    let members = || vec(member(), 0..4);
    let quorum = (any::<i32>(), any::<u64>(), any::<i64>(), members(), members()).prop_map(
        |(leader, term, high_watermark, voters, observers)| MetadataQuorum {
            leader: NodeId(leader),
            term,
            high_watermark,
            voters,
            observers,
        },
    );
    let response = prop_oneof![
        quorum.prop_map(ControllerResponse::Quorum),
        Just(ControllerResponse::Done),
        topic.prop_map(ControllerResponse::Topic),
        (text(), id()).prop_map(|(name, id)| ControllerResponse::Deleted { name, id }),
        (any::<i64>(), any::<u32>()).prop_map(|(first, count)| ControllerResponse::ProducerIds { first, count }),
    ];
    let outcome = prop_oneof![response.prop_map(Ok), error().prop_map(Err)];
    (any::<u64>(), outcome).prop_map(|(index, outcome)| ForwardedResponse { index: RaftIndex(index), outcome })
}

proptest! {
    #[test]
    fn requests_round_trip_and_cut_ones_are_refused(request in request(), keep in any::<prop::sample::Index>()) {
        let bytes = request.encode();
        prop_assert!(ForwardedRequest::decode(&bytes[..keep.index(bytes.len())]).is_err());
        prop_assert_eq!(ForwardedRequest::decode(&bytes), Ok(request));
    }

    #[test]
    fn responses_round_trip_and_cut_ones_are_refused(response in response(), keep in any::<prop::sample::Index>()) {
        let bytes = response.encode();
        prop_assert!(ForwardedResponse::decode(&bytes[..keep.index(bytes.len())]).is_err());
        prop_assert_eq!(ForwardedResponse::decode(&bytes), Ok(response));
    }

    #[test]
    fn foreign_bytes_are_an_error_and_never_a_panic(request in request(), at in any::<prop::sample::Index>(), flip in 1_u8.., noise in vec(any::<u8>(), 0..200)) {
        let mut bytes = request.encode().to_vec();
        let place = at.index(bytes.len());
        bytes[place] ^= flip;
        let _ = ForwardedRequest::decode(&bytes);
        let _ = ForwardedResponse::decode(&bytes);
        let _ = ForwardedRequest::decode(&noise);
        let _ = ForwardedResponse::decode(&noise);
        let newer = [&[2][..], &bytes[1..]].concat();
        prop_assert!(ForwardedRequest::decode(&newer).is_err() && ForwardedResponse::decode(&newer).is_err());
    }
}
