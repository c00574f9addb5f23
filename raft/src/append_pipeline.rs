//! Appends to one follower, several in flight: requests are sent one behind the other, and their responses are yielded in the
//! order of the requests, as openraft wants them.
//!
//! How much is in flight follows the link and the follower's disk (`net::congestion_window`). May not know: how a request is sent,
//! and what entries mean.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt};
use openraft::AnyError;
use openraft::entry::RaftEntry;
use openraft::errors::{RPCError, Unreachable};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendResult};
use ottla_env::mutants::{self, Bug};
use ottla_env::rt;

use crate::net::congestion_window::{Bounds, CongestionWindow};
use crate::openraft_types::{LogEntry, RaftLogId, TypeConfig};

/// What is in flight to a follower, in bytes of entries; one request is always sent. A response waits for the follower's disk.
const BOUNDS: Bounds = Bounds {
    first: 1 << 20,
    min: 64 << 10,
    max: 16 << 20,
    queueing_low: Duration::from_millis(100),
    queueing_high: Duration::from_millis(500),
};
/// Requests in flight to a follower.
const REQUESTS_MAX: usize = 64;

type Response = Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>>;
/// What openraft is told of a request.
pub(crate) type Outcome = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// A request in flight.
struct InFlight {
    prev: Option<RaftLogId>,
    last: Option<RaftLogId>,
    bytes: usize,
    sent_at: rt::Instant,
    response: BoxFuture<'static, Response>,
    /// The response, until those before it are there.
    received: Option<Response>,
}

/// The stream of outcomes of a stream of requests.
pub(crate) struct AppendPipeline<S, F> {
    input: Option<S>,
    send: F,
    window: CongestionWindow,
    in_flight: VecDeque<InFlight>,
    bytes: usize,
    /// The last entry that the follower has acknowledged to this stream.
    acknowledged: Option<RaftLogId>,
}

fn lost() -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(&AnyError::error(
        "an append was lost, or arrived behind one that was sent later",
    )))
}

impl<S, F> AppendPipeline<S, F>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
    F: FnMut(AppendEntriesRequest<TypeConfig>) -> BoxFuture<'static, Response> + Unpin,
{
    /// Sends what `input` yields with `send`, whose future is polled at once, so that requests are sent in order.
    pub(crate) fn new(input: S, send: F) -> Self {
        let window = CongestionWindow::new(BOUNDS);
        Self { input: Some(input), send, window, in_flight: VecDeque::new(), bytes: 0, acknowledged: None }
    }

    /// True if another request may be sent.
    fn has_room(&self) -> bool {
        let requests = self.in_flight.len();
        requests == 0 || (requests < REQUESTS_MAX && self.bytes < self.window.bytes_max())
    }

    fn fill(&mut self, cx: &mut Context<'_>) {
        while self.has_room() {
            let Some(input) = &mut self.input else { return };
            let request = match input.poll_next_unpin(cx) {
                Poll::Ready(Some(request)) => request,
                Poll::Ready(None) => return self.input = None,
                Poll::Pending => return,
            };
            let bytes = request.entries.iter().map(LogEntry::bytes).sum();
            let prev = request.prev_log_id;
            let last = request.entries.last().map(RaftEntry::log_id).or(prev);
            let mut response = (self.send)(request);
            let received = match response.poll_unpin(cx) {
                Poll::Ready(response) => Some(response),
                Poll::Pending => None,
            };
            self.bytes += bytes;
            self.in_flight.push_back(InFlight { prev, last, bytes, sent_at: rt::now(), response, received });
        }
    }

    /// Takes the responses that have come.
    fn receive(&mut self, cx: &mut Context<'_>) {
        let in_flight = self.bytes;
        for request in self.in_flight.iter_mut().filter(|request| request.received.is_none()) {
            if let Poll::Ready(response) = request.response.poll_unpin(cx) {
                if response.is_ok() && request.bytes > 0 {
                    self.window.note_arrival(request.bytes, in_flight, request.sent_at, rt::now());
                }
                request.received = Some(response);
            }
        }
    }

    /// True if a follower that has not answered an earlier request lacks what that one brings: it did not arrive.
    fn has_lost_first(&self) -> bool {
        let conflicts = |request: &InFlight| matches!(request.received, Some(Ok(AppendEntriesResponse::Conflict)));
        self.in_flight.front().is_some_and(|first| first.received.is_none()) && self.in_flight.iter().any(conflicts)
    }

    fn end(&mut self) {
        self.input = None;
        self.in_flight.clear();
    }
}

impl<S, F> Stream for AppendPipeline<S, F>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
    F: FnMut(AppendEntriesRequest<TypeConfig>) -> BoxFuture<'static, Response> + Unpin,
{
    type Item = Outcome;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        let pipeline = &mut *self;
        pipeline.receive(cx);
        pipeline.fill(cx);
        if pipeline.has_lost_first() {
            pipeline.end();
            return Poll::Ready(Some(Err(lost())));
        }
        let Some(first) = pipeline.in_flight.front_mut() else {
            return if pipeline.input.is_none() { Poll::Ready(None) } else { Poll::Pending };
        };
        let Some(response) = first.received.take() else { return Poll::Pending };
        let (prev, mut last) = (first.prev, first.last);
        pipeline.bytes -= first.bytes;
        pipeline.in_flight.pop_front();
        if mutants::is_on(Bug::AppendAcknowledgedTwice)
            && let Some(next) = pipeline.in_flight.front()
        {
            last = next.last;
        }
        // It arrived before what it follows, and was answered before that was there: openraft would take the follower's log for one
        // that has lost acknowledged entries.
        if matches!(response, Ok(AppendEntriesResponse::Conflict)) && prev.is_some() && prev <= pipeline.acknowledged {
            pipeline.end();
            return Poll::Ready(Some(Err(lost())));
        }
        let goes_on = match &response {
            Ok(AppendEntriesResponse::Success) => true,
            Ok(AppendEntriesResponse::PartialSuccess(upto)) => *upto == last,
            _ => false,
        };
        match goes_on {
            true => pipeline.acknowledged = last.max(pipeline.acknowledged),
            false => pipeline.end(),
        }
        Poll::Ready(Some(response.map(|response| response.into_stream_result(prev, last))))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::task::Waker;

    use bytes::Bytes;
    use openraft::raft::StreamAppendError;
    use ottla_storage::entry::{Batches, Entry, EntryKind};
    use ottla_storage::ids::{LogId, RaftIndex, Term};
    use parking_lot::Mutex;
    use tokio::sync::oneshot;

    use super::*;
    use crate::openraft_types::{RaftVote, to_raft_log_id};

    const TERM: u64 = 1;

    fn id(index: u64) -> LogId {
        LogId { term: Term(TERM), index: RaftIndex(index) }
    }

    /// A request for one entry of so many bytes.
    fn request(index: u64, bytes: usize) -> AppendEntriesRequest<TypeConfig> {
        let (kind, payload) = (EntryKind::Normal, Bytes::from(vec![0; bytes]));
        let entry = Entry { log_id: id(index), kind, clock_ms: 0, payload, batches: Batches::default() };
        AppendEntriesRequest {
            vote: RaftVote::new_committed(TERM, 1),
            prev_log_id: Some(to_raft_log_id(id(index - 1))),
            entries: vec![entry.into()],
            leader_commit: None,
        }
    }

    type Responders = Arc<Mutex<BTreeMap<u64, oneshot::Sender<AppendEntriesResponse<TypeConfig>>>>>;

    /// The followers' side: what was sent and is not answered yet, by the index of the entry.
    fn follower() -> (Responders, impl FnMut(AppendEntriesRequest<TypeConfig>) -> BoxFuture<'static, Response> + Unpin)
    {
        let sent = Responders::default();
        let responders = sent.clone();
        let send = move |request: AppendEntriesRequest<TypeConfig>| {
            let (responder, response) = oneshot::channel();
            responders.lock().insert(request.entries[0].log_id().index, responder);
            async move { response.await.map_err(|_| lost()) }.boxed()
        };
        (sent, send)
    }

    fn respond(sent: &Responders, index: u64, response: AppendEntriesResponse<TypeConfig>) {
        sent.lock().remove(&index).unwrap().send(response).unwrap();
    }

    fn next<S: Stream<Item = Outcome> + Unpin>(stream: &mut S) -> Option<Option<Outcome>> {
        match stream.poll_next_unpin(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }

    fn matches_upto(outcome: Option<Option<Outcome>>, index: u64) -> bool {
        matches!(outcome, Some(Some(Ok(Ok(Some(last))))) if last.index == index)
    }

    #[test]
    fn responses_come_in_the_order_of_the_requests() {
        let (sent, send) = follower();
        let mut pipeline = AppendPipeline::new(futures_util::stream::iter((1..=3).map(|n| request(n, 10))), send);
        assert!(next(&mut pipeline).is_none());
        assert_eq!(sent.lock().len(), 3, "all are in flight");
        respond(&sent, 2, AppendEntriesResponse::Success);
        assert!(next(&mut pipeline).is_none());
        respond(&sent, 1, AppendEntriesResponse::Success);
        assert!(matches_upto(next(&mut pipeline), 1) && matches_upto(next(&mut pipeline), 2));
        respond(&sent, 3, AppendEntriesResponse::Success);
        assert!(matches_upto(next(&mut pipeline), 3));
        assert!(matches!(next(&mut pipeline), Some(None)));
    }

    #[test]
    fn nothing_is_sent_behind_a_conflict_and_one_behind_a_lost_request_is_no_conflict() {
        let (sent, send) = follower();
        let mut pipeline = AppendPipeline::new(futures_util::stream::iter((1..=3).map(|n| request(n, 10))), send);
        assert!(next(&mut pipeline).is_none());
        respond(&sent, 1, AppendEntriesResponse::Conflict);
        let outcome = next(&mut pipeline);
        assert!(matches!(outcome, Some(Some(Ok(Err(StreamAppendError::Conflict(prev))))) if prev.index == 0));
        assert!(matches!(next(&mut pipeline), Some(None)));

        let (sent, send) = follower();
        let mut pipeline = AppendPipeline::new(futures_util::stream::iter((1..=3).map(|n| request(n, 10))), send);
        assert!(next(&mut pipeline).is_none());
        respond(&sent, 2, AppendEntriesResponse::Conflict);
        assert!(
            matches!(next(&mut pipeline), Some(Some(Err(RPCError::Unreachable(_))))),
            "the first one did not arrive"
        );
        assert!(matches!(next(&mut pipeline), Some(None)));
    }

    /// openraft asserts that no follower's log falls behind what it has acknowledged.
    #[test]
    fn one_that_overtook_the_request_before_it_is_no_conflict() {
        let (sent, send) = follower();
        let mut pipeline = AppendPipeline::new(futures_util::stream::iter((1..=3).map(|n| request(n, 10))), send);
        assert!(next(&mut pipeline).is_none());
        respond(&sent, 1, AppendEntriesResponse::Success);
        respond(&sent, 2, AppendEntriesResponse::Conflict);
        assert!(matches_upto(next(&mut pipeline), 1));
        assert!(
            matches!(next(&mut pipeline), Some(Some(Err(RPCError::Unreachable(_))))),
            "it arrived before the first"
        );
        assert!(matches!(next(&mut pipeline), Some(None)));
    }

    #[test]
    fn bytes_in_flight_are_bounded_and_a_long_request_goes_alone() {
        let (sent, send) = follower();
        let requests = (1..=5).map(|n| request(n, BOUNDS.first));
        let mut pipeline = AppendPipeline::new(futures_util::stream::iter(requests), send);
        assert!(next(&mut pipeline).is_none());
        assert_eq!(sent.lock().len(), 1);
        respond(&sent, 1, AppendEntriesResponse::Success);
        assert!(matches_upto(next(&mut pipeline), 1) && next(&mut pipeline).is_none());
        assert_eq!(sent.lock().len(), 2, "the window has grown");
    }
}
