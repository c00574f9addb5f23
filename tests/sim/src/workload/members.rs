//! Members of groups, over the wire: they join, sync, send heartbeats, commit and fetch offsets, leave, vanish, and
//! join again; some go on committing with their former generation.

use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest,
    OffsetFetchRequest, SyncGroupRequest, TopicName,
};
use ottla_checker::event::Phase;
use ottla_env::sim;

use super::group_client::{
    Answerer, CONSUMER, GroupClient, ILLEGAL_GENERATION, RANGE, REBALANCE, UNKNOWN_MEMBER, milliseconds, subscription,
};
use super::pause;
use crate::laws::groups;
use crate::registry::{PARTITIONS, TOPIC};
use crate::wire::text;
use crate::world::World;

const ID_REQUIRED: i16 = 79;

/// A member from its first join until it leaves or vanishes.
struct Member {
    client: GroupClient,
    /// Its process in the history.
    process: u32,
    id: String,
    /// 0 or below: none, it has to join.
    generation: i32,
    partitions: Vec<i32>,
    session: Duration,
    rebalance: Duration,
    changes: u64,
    /// When it first sent a join for its next generation.
    joining_since: Option<Duration>,
    /// When it first sent a join for its current generation: its timeouts start then at the earliest.
    asked_at: Duration,
    /// When it sent its last heartbeat that was answered, and the epoch of the answer; none before it has synced.
    beat: Option<(Duration, i32)>,
    synced: bool,
    /// Its former member id and generation.
    before: Option<(String, i32)>,
}

/// Joins and leaves until the workload ends.
pub(crate) async fn member(world: World, group: String, number: u64) {
    let mut before = None;
    while world.workload_runs() {
        let mut member = Member {
            client: GroupClient::new(world.clone(), &group, &format!("{group}-{number}")),
            process: world.history().process(),
            id: String::new(),
            generation: 0,
            partitions: Vec::new(),
            session: Duration::from_millis(1_500 + sim::random_below(5_000)),
            rebalance: Duration::from_millis(1_500 + sim::random_below(3_000)),
            changes: sim::random_below(1 << 20),
            joining_since: None,
            asked_at: Duration::ZERO,
            beat: None,
            synced: false,
            before: before.take(),
        };
        member.run().await;
        before = Some((member.id, member.generation)).filter(|(id, _)| !id.is_empty()).or(member.before);
        pause(500).await;
    }
}

impl Member {
    async fn run(&mut self) {
        while self.client.world.workload_runs() {
            if self.generation <= 0 {
                self.join().await;
            } else if !self.synced {
                self.sync().await;
            } else {
                match sim::random_below(64) {
                    // It vanishes.
                    0 => return,
                    1 => return self.leave().await,
                    // It changes its subscription: the group has to rebalance.
                    2 => {
                        self.changes += 1;
                        self.lose_generation();
                    }
                    3..24 => self.commit(self.id.clone(), self.generation).await,
                    24..32 => self.commit_as_before().await,
                    32..40 => self.fetch().await,
                    _ => self.heartbeat().await,
                }
            }
            pause(60).await;
        }
    }

    /// It has to join again, and uses its former generation now and then.
    fn lose_generation(&mut self) {
        if self.generation > 0 {
            self.before = Some((self.id.clone(), self.generation));
        }
        (self.generation, self.synced, self.beat) = (0, false, None);
    }

    async fn join(&mut self) {
        let asked_at = *self.joining_since.get_or_insert_with(sim::elapsed);
        let version = 4 + i16::try_from(sim::random_below(6)).unwrap_or(0);
        let protocol = JoinGroupRequestProtocol::default().with_name(text(RANGE));
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(text(&self.client.group)))
            .with_session_timeout_ms(milliseconds(self.session))
            .with_rebalance_timeout_ms(milliseconds(self.rebalance))
            .with_member_id(text(&self.id))
            .with_protocol_type(text(CONSUMER))
            .with_protocols(vec![protocol.with_metadata(subscription(self.changes))]);
        let told_before = self.client.told(|told| told.generation);
        let Some((answer, who)) = self.client.request(version, &request).await else { return };
        match answer.error_code {
            0 => self.joined(&answer, &who, asked_at, told_before).await,
            ID_REQUIRED => self.id = answer.member_id.to_string(),
            UNKNOWN_MEMBER => self.id.clear(),
            _ => pause(100).await,
        }
    }

    async fn joined(&mut self, answer: &JoinGroupResponse, who: &Answerer, asked_at: Duration, told_before: i32) {
        let generation = answer.generation_id;
        let leads = answer.leader == answer.member_id;
        let members: Vec<_> = answer.members.iter().map(|member| member.member_id.to_string()).collect();
        let members = leads.then_some(members);
        let before = who.newest.then_some(told_before);
        let leader = answer.leader.to_string();
        self.client.world.trace(
            None,
            format!(
                "node {} (epoch {:?}): {} joins generation {generation} of {}, {leader} leads",
                who.node.0,
                who.epoch,
                answer.member_id.as_str(),
                self.client.group
            ),
        );
        let verdict =
            self.client.told(|told| told.joined(&self.client.group, before, generation, (leader, members.clone())));
        self.client.world.judge(verdict);
        self.client.heed(who);
        self.id = answer.member_id.to_string();
        (self.generation, self.synced, self.beat) = (generation, false, None);
        (self.asked_at, self.joining_since) = (asked_at, None);
        if let Some(members) = members {
            self.assign(&members).await;
        }
    }

    /// The leader assigns partitions to all members and syncs.
    async fn assign(&mut self, members: &[String]) {
        let mark = sim::random_below(u64::MAX);
        let share = |number: usize| {
            let mut bytes = BytesMut::new();
            bytes.put_i32(self.generation);
            bytes.put_u64(mark);
            let number = i32::try_from(number).unwrap_or(0);
            let count = i32::try_from(members.len()).unwrap_or(1);
            (0..PARTITIONS).filter(|index| index % count == number).for_each(|index| bytes.put_i32(index));
            bytes.freeze()
        };
        let one = |(number, member): (usize, &String)| {
            SyncGroupRequestAssignment::default().with_member_id(text(member)).with_assignment(share(number))
        };
        let assignments = members.iter().enumerate().map(one).collect();
        self.sync_with(assignments).await;
    }

    async fn sync(&mut self) {
        self.sync_with(Vec::new()).await;
    }

    async fn sync_with(&mut self, assignments: Vec<SyncGroupRequestAssignment>) {
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(&self.client.group)))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id))
            .with_protocol_type(Some(text(CONSUMER)))
            .with_protocol_name(Some(text(RANGE)))
            .with_assignments(assignments);
        let Some((answer, who)) = self.client.request(5, &request).await else {
            // A leader whose assignment may be lost joins again.
            return self.lose_generation();
        };
        if answer.error_code != 0 {
            return self.refused(answer.error_code, &who).await;
        }
        self.client.heed(&who);
        self.synced = true;
        let mut share = answer.assignment;
        self.partitions.clear();
        if share.len() < 12 {
            return;
        }
        let (of, mark) = (share.get_i32(), share.get_u64());
        while share.len() >= 4 {
            self.partitions.push(share.get_i32());
        }
        let verdict = self.client.told(|told| told.assigned(&self.client.group, self.generation, of, mark));
        self.client.world.judge(verdict);
    }

    async fn heartbeat(&mut self) {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.client.group)))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id));
        let sent = sim::elapsed();
        let Some((answer, who)) = self.client.request(4, &request).await else { return };
        if answer.error_code != 0 {
            return self.refused(answer.error_code, &who).await;
        }
        self.client.heed(&who);
        if let Some(epoch) = who.epoch {
            self.beat = Some((sent, epoch));
        }
    }

    async fn refused(&mut self, code: i16, who: &Answerer) {
        match code {
            UNKNOWN_MEMBER => {
                self.judge_forgotten(who);
                self.lose_generation();
                self.id.clear();
            }
            ILLEGAL_GENERATION | REBALANCE => self.lose_generation(),
            _ => pause(60).await,
        }
    }

    /// Its coordinator may remove it when it was silent for its session timeout, or did not join or sync within its
    /// rebalance timeout: each starts with a request of its own at the earliest. Heartbeats count only for the
    /// coordinator that answered them.
    fn judge_forgotten(&self, who: &Answerer) {
        let beat = self.beat.filter(|(_, epoch)| who.epoch == Some(*epoch)).map(|(sent, _)| sent);
        let since = beat.unwrap_or(self.asked_at).max(self.asked_at);
        // Clocks run at different speeds.
        let times = self.session.min(self.rebalance) * 99 / 100;
        if who.newest && sim::elapsed().saturating_sub(since) < times {
            let who = format!("node {} (epoch {:?}, not silent since {since:?} for {times:?})", who.node.0, who.epoch);
            self.client.world.judge::<()>(Err(groups::forgotten(&self.client.group, &self.id, self.generation, &who)));
        }
    }

    async fn leave(&mut self) {
        let member = MemberIdentity::default().with_member_id(text(&self.id));
        let request =
            LeaveGroupRequest::default().with_group_id(GroupId(text(&self.client.group))).with_members(vec![member]);
        let _ = self.client.request(5, &request).await;
    }

    /// One of its assigned partitions.
    fn owned(&self) -> Option<i32> {
        let pick = usize::try_from(sim::random_below(self.partitions.len().max(1) as u64)).unwrap_or(0);
        self.partitions.get(pick).copied()
    }

    async fn fetch(&mut self) {
        let Some(index) = self.owned() else { return };
        let topic =
            OffsetFetchRequestTopics::default().with_name(TopicName(text(TOPIC))).with_partition_indexes(vec![index]);
        let asked = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(&self.client.group)))
            .with_topics(Some(vec![topic]));
        let request = OffsetFetchRequest::default().with_groups(vec![asked]);
        self.client.world.history().fetches(self.process, Phase::Invoke, &self.client.group, (index, None));
        let answer = self.client.request(8, &request).await.map(|(answer, _)| answer);
        let group = answer.as_ref().and_then(|answer| answer.groups.first()).filter(|group| group.error_code == 0);
        let told = group.and_then(|group| group.topics.first()?.partitions.first()).filter(|told| told.error_code == 0);
        let offset = told.map(|told| told.committed_offset).filter(|offset| *offset >= 0);
        let phase = if told.is_some() { Phase::Ok } else { Phase::Fail };
        self.client.world.history().fetches(self.process, phase, &self.client.group, (index, offset));
    }

    async fn commit_as_before(&mut self) {
        if let Some((id, generation)) = self.before.clone() {
            self.commit(id, generation).await;
        }
    }

    async fn commit(&mut self, id: String, generation: i32) {
        let Some(index) = self.owned() else { return };
        let (newest, offset) = self.client.told(|told| {
            told.offset += 1;
            (told.generation, told.offset)
        });
        let partition =
            OffsetCommitRequestPartition::default().with_partition_index(index).with_committed_offset(offset);
        let topic = OffsetCommitRequestTopic::default().with_name(TopicName(text(TOPIC)));
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(&self.client.group)))
            .with_generation_id_or_member_epoch(generation)
            .with_member_id(text(&id))
            .with_topics(vec![topic.with_partitions(vec![partition])]);
        let process = self.process;
        let record = |world: &World, group: &str, phase| {
            world.history().commits(process, phase, (group, generation), (index, offset));
        };
        record(&self.client.world, &self.client.group, Phase::Invoke);
        let Some((answer, who)) = self.client.request(9, &request).await else {
            return record(&self.client.world, &self.client.group, Phase::Info);
        };
        let code = answer.topics.first().and_then(|topic| Some(topic.partitions.first()?.error_code));
        let phase = match code {
            Some(0) => Phase::Ok,
            Some(UNKNOWN_MEMBER | ILLEGAL_GENERATION | REBALANCE) => Phase::Fail,
            _ => Phase::Info,
        };
        record(&self.client.world, &self.client.group, phase);
        if code == Some(0) {
            self.client.heed(&who);
            self.client.told(|told| told.has_committed = true);
            self.client.world.trace(
                None,
                format!("node {} committed {offset} of {} by {id} in {generation}", who.node.0, self.client.group),
            );
            self.client.world.judge(groups::committed(&self.client.group, generation, newest));
        }
    }
}
