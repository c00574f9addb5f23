//! Static members of a group (KIP-345), over the wire: each is restarted now and then, comes back under its instance id in
//! time, and its former process goes on with the member id that it had.
//!
//! May not know: dynamic members.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest};
use ottla_env::sim;

use super::group_client::{
    CONSUMER, GroupClient, ILLEGAL_GENERATION, RANGE, REBALANCE, UNKNOWN_MEMBER, milliseconds, subscription,
};
use super::pause;
use crate::laws::static_members;
use crate::wire::text;
use crate::world::World;

/// Members of the group.
pub(crate) const MEMBERS: usize = 2;
const GROUP: &str = "static-members";
/// No coordinator is away for so long.
const SESSION: Duration = Duration::from_secs(60);
const REBALANCE_TIMEOUT: Duration = Duration::from_secs(5);
/// A member with one of these answers has to join again.
const HAS_TO_JOIN: [i16; 4] = [UNKNOWN_MEMBER, ILLEGAL_GENERATION, REBALANCE, static_members::FENCED];

struct StaticMember {
    client: GroupClient,
    instance: String,
    /// Empty: it was started just now.
    id: String,
    generation: i32,
    synced: bool,
    /// The id of its former process.
    replaced: Option<String>,
}

/// Restarts, joins and sends heartbeats until the workload ends.
pub(crate) async fn static_member(world: World, number: usize) {
    let instance = format!("instance-{number}");
    let client = GroupClient::new(world, GROUP, &instance);
    let (id, generation, synced, replaced) = (String::new(), 0, false, None);
    let mut member = StaticMember { client, instance, id, generation, synced, replaced };
    while member.client.world.workload_runs() {
        if member.generation == 0 {
            member.join().await;
        } else if !member.synced {
            member.sync(Vec::new()).await;
        } else {
            match sim::random_below(24) {
                0 => member.start_anew(),
                1..6 => member.heartbeat_as_before().await,
                _ => member.heartbeat().await,
            }
        }
        pause(120).await;
    }
}

impl StaticMember {
    /// A new process knows nothing but its instance id. A member never joins again under its member id: a request that is
    /// late would let the group rebalance at any time.
    fn start_anew(&mut self) {
        if !self.id.is_empty() {
            self.replaced = Some(std::mem::take(&mut self.id));
        }
        (self.generation, self.synced) = (0, false);
    }

    async fn join(&mut self) {
        let version = 5 + i16::try_from(sim::random_below(5)).unwrap_or(0);
        let protocol = JoinGroupRequestProtocol::default().with_name(text(RANGE));
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_session_timeout_ms(milliseconds(SESSION))
            .with_rebalance_timeout_ms(milliseconds(REBALANCE_TIMEOUT))
            .with_group_instance_id(Some(text(&self.instance)))
            .with_protocol_type(text(CONSUMER))
            .with_protocols(vec![protocol.with_metadata(subscription(0))]);
        let answer = self.client.request(version, &request).await;
        let Some((answer, who)) = answer.filter(|(answer, _)| answer.error_code == 0) else { return };
        let what = format!("{} is {} of generation {}", self.instance, answer.member_id.as_str(), answer.generation_id);
        self.client.world.trace(None, format!("node {} (epoch {:?}): {what}", who.node.0, who.epoch));
        let settled = self.client.told(|told| told.settled);
        if who.newest {
            self.client.world.judge(static_members::keeps(GROUP, settled, answer.generation_id));
        }
        self.client.heed(&who);
        self.joined(&answer).await;
    }

    async fn joined(&mut self, answer: &JoinGroupResponse) {
        self.id = answer.member_id.to_string();
        self.generation = answer.generation_id;
        let leads = answer.leader == answer.member_id && !answer.skip_assignment;
        if leads {
            let share = |member: &str| {
                let assignment = Bytes::from_static(b"share");
                SyncGroupRequestAssignment::default().with_member_id(text(member)).with_assignment(assignment)
            };
            let shares = answer.members.iter().map(|member| share(&member.member_id)).collect();
            self.sync(shares).await;
        }
    }

    async fn sync(&mut self, assignments: Vec<SyncGroupRequestAssignment>) {
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id))
            .with_group_instance_id(Some(text(&self.instance)))
            .with_protocol_type(Some(text(CONSUMER)))
            .with_protocol_name(Some(text(RANGE)))
            .with_assignments(assignments);
        let answer = self.client.request(5, &request).await;
        let Some((_, who)) = answer.filter(|(answer, _)| answer.error_code == 0) else { return self.start_anew() };
        self.client.heed(&who);
        self.synced = true;
        let (instance, generation) = (self.instance.clone(), self.generation);
        self.client.told(|told| told.synced(instance, generation, MEMBERS));
    }

    fn heartbeat_of(&self, id: &str) -> HeartbeatRequest {
        HeartbeatRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_generation_id(self.generation)
            .with_member_id(text(id))
            .with_group_instance_id(Some(text(&self.instance)))
    }

    async fn heartbeat(&mut self) {
        let request = self.heartbeat_of(&self.id);
        let answer = self.client.request(4, &request).await;
        match answer {
            Some((answer, who)) if answer.error_code == 0 => self.client.heed(&who),
            // A join that was late has taken its place, or the group rebalances.
            Some((answer, _)) if HAS_TO_JOIN.contains(&answer.error_code) => self.start_anew(),
            _ => {}
        }
    }

    /// The former process does not know that it was replaced.
    async fn heartbeat_as_before(&mut self) {
        let Some(id) = self.replaced.clone() else { return };
        let request = self.heartbeat_of(&id);
        let answer = self.client.request(4, &request).await;
        if let Some((answer, _)) = answer.filter(|(_, who)| who.newest) {
            self.client.world.judge(static_members::fenced(GROUP, &self.instance, &id, answer.error_code));
        }
    }
}
