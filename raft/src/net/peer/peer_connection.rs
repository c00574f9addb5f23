//! One connection to another node: requests are sent as they come, responses arrive in any order.
//!
//! It is opened by the first request, and opened again, after a backoff with jitter, when it was lost; during the
//! backoff requests fail at once. A node that answers nothing for two seconds, not even a ping, is given up; while it receives
//! a long frame on a slow link it says so (`send_window`). From when it has received a request on, its response may be late;
//! before that only the link is slow. May not know: replicas.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Buf;
use ottla_env::critical::Owner;
use ottla_env::mutants::{self, Bug};
use ottla_env::net::Duplex;
use ottla_env::{rt, watch};
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::ReplicaId;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::frame::{Batch, EncodedFrame, Frame, FrameReader, IDLE_PING_INTERVAL, Kind, Read};
use super::handshake::{
    ConnectionClass, HandshakeRequest, Identity, VERSIONS, read_response, same_cluster, write_request,
};
use super::local_node::LocalNode;
use super::send_window::SendWindow;
use crate::net::message_codec::decode;
use crate::net::{Message, NoResponse};

/// Requests in flight on one connection, in units of [`UNIT_BYTES`].
const BUDGET_UNITS: usize = 64 << 10;
const UNIT_BYTES: usize = 1 << 10;
/// Bytes that are put together for one write.
pub(super) const WRITE_BYTES: usize = 1 << 20;
/// How long the other node has to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a node that has closed a connection is probed.
const PROBES_MAX: usize = 25;
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pings are sent while responses are outstanding.
const PING_INTERVAL: Duration = Duration::from_millis(500);
pub(super) const IDLE_MAX: Duration = Duration::from_secs(20);
/// A node that sends nothing for so long while responses are outstanding is given up.
const PEER_SILENCE_MAX: Duration = Duration::from_secs(2);
/// How often a caller looks whether its request has arrived.
const ARRIVAL_CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Backoff between connection attempts: doubled after each failure.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

// A connection is given up only after several pings without an answer.
const _: () = assert!(PEER_SILENCE_MAX.as_millis() >= 3 * PING_INTERVAL.as_millis());
const _: () = assert!(IDLE_MAX.as_millis() >= 3 * IDLE_PING_INTERVAL.as_millis());

/// Units of the budget for so many bytes; never more than there are.
pub(super) fn units(bytes: usize) -> u32 {
    u32::try_from((bytes / UNIT_BYTES + 1).min(BUDGET_UNITS)).unwrap_or(u32::MAX)
}

/// The budget of requests in flight.
pub(super) fn call_budget() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(BUDGET_UNITS))
}

type Response = Result<Message, NoResponse>;

fn closed() -> NoResponse {
    NoResponse("the connection is closed".to_owned())
}

pub(super) fn late() -> NoResponse {
    NoResponse("no answer in time".to_owned())
}

/// A request that waits for its response.
struct Waiting {
    responder: oneshot::Sender<Response>,
    /// Where it ends among the bytes that are written to the connection, once it is one of them.
    end: Option<u64>,
}

/// Requests that wait for a response.
#[derive(Default)]
struct Calls {
    next: AtomicU64,
    waiting: Mutex<BTreeMap<u64, Waiting>>,
}

impl Calls {
    /// Notes where a request ends among the bytes that are written; false if no caller waits for its response any more.
    fn begin_writing(&self, number: u64, end: u64) -> bool {
        self.waiting.lock().get_mut(&number).map(|waiting| waiting.end = Some(end)).is_some()
    }

    /// Where a request that waits for its response ends among the bytes that are written.
    fn end_of(&self, number: u64) -> Option<u64> {
        self.waiting.lock().get(&number)?.end
    }

    fn complete(&self, number: u64, response: Response) {
        let number = match mutants::is_on(Bug::ResponsesMixedUp) {
            true => self.waiting.lock().keys().next().copied().unwrap_or(number),
            false => number,
        };
        if let Some(waiting) = self.waiting.lock().remove(&number) {
            let _gave_up = waiting.responder.send(response);
        }
    }

    fn fail_all(&self, why: &str) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for waiting in waiting.into_values() {
            let _gave_up = waiting.responder.send(Err(NoResponse(why.to_owned())));
        }
    }
}

/// A call that waits for its response; dropped, it is deregistered.
struct CallGuard<'a> {
    calls: &'a Calls,
    number: u64,
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        self.calls.waiting.lock().remove(&self.number);
    }
}

struct Outgoing {
    number: u64,
    frame: EncodedFrame,
    _permit: OwnedSemaphorePermit,
}

/// Until when requests fail at once, and why.
type Backoff = Arc<Mutex<Option<(rt::Instant, String)>>>;

/// A connection to a node for one class of messages, whether it is up or not.
pub(super) struct PeerConnection {
    queue: mpsc::UnboundedSender<Outgoing>,
    budget: Arc<Semaphore>,
    calls: Arc<Calls>,
    backoff: Backoff,
    /// The version that the other node spoke last; `None` before the first connection.
    version: watch::Sender<Option<u8>>,
    /// What is on its way over the connection that is open, or was last.
    window: Arc<Mutex<Arc<SendWindow>>>,
}

impl PeerConnection {
    pub(super) fn new(local: &Arc<LocalNode>, node: NodeId, class: ConnectionClass) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let (calls, backoff): (Arc<Calls>, Backoff) = Default::default();
        let version = watch::Sender::new(None);
        let window = Arc::new(Mutex::new(Arc::new(SendWindow::new(*VERSIONS.start()))));
        let task = ConnectionTask {
            local: local.clone(),
            node,
            class,
            calls: calls.clone(),
            backoff: backoff.clone(),
            version: version.clone(),
            window: window.clone(),
        };
        rt::spawn_critical("peer-connection", Owner::process(), task.run(waiting));
        Self { queue, budget: call_budget(), calls, backoff, version, window }
    }

    /// The version in which a request is encoded. Before the first connection it is the oldest, in which nearly everything can be
    /// said; for what cannot, the connection is opened first.
    async fn version_for(&self, request: &Message) -> Result<u8, NoResponse> {
        let (oldest, needed) = (*VERSIONS.start(), request.since_version());
        let mut known = *self.version.borrow();
        if known.is_none() && needed > oldest {
            let number = self.calls.next.fetch_add(1, Ordering::Relaxed);
            let (_opening, _nothing) = self.enqueue(number, EncodedFrame::bare(Kind::Ping)).await?;
            let mut version = self.version.subscribe();
            drop(version.wait_for(Option::is_some).await.map_err(|_| closed())?);
            known = *version.borrow();
        }
        let version = known.unwrap_or(oldest);
        match version >= needed {
            true => Ok(version),
            false => Err(NoResponse(format!("the other node speaks version {version} of messages"))),
        }
    }

    /// Queues a frame as a call of this number, as soon as the budget allows; the call lasts until its guard is dropped.
    async fn enqueue(
        &self,
        number: u64,
        frame: EncodedFrame,
    ) -> Result<(CallGuard<'_>, oneshot::Receiver<Response>), NoResponse> {
        let permit = Arc::clone(&self.budget).acquire_many_owned(units(frame.bytes)).await.map_err(|_| closed())?;
        let (responder, response) = oneshot::channel();
        self.calls.waiting.lock().insert(number, Waiting { responder, end: None });
        let guard = CallGuard { calls: &self.calls, number };
        self.queue.send(Outgoing { number, frame, _permit: permit }).map_err(|_| closed())?;
        Ok((guard, response))
    }

    /// Sends a request; waits for its response as long as the caller does.
    pub(super) async fn call(&self, ends: (ReplicaId, ReplicaId), request: &Message) -> Response {
        let (_guard, response) = self.send(ends, request).await?;
        response.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Sends a request behind all that were sent before; waits for its response until the connection is lost, or so long
    /// after the other node has received it.
    pub(super) async fn call_in_order(
        &self,
        ends: (ReplicaId, ReplicaId),
        request: &Message,
        timeout: Duration,
    ) -> Response {
        let (guard, mut response) = self.send(ends, request).await?;
        let mut arrived_at = None;
        loop {
            if let Ok(response) = rt::timeout(ARRIVAL_CHECK_INTERVAL, &mut response).await {
                return response.unwrap_or_else(|_| Err(closed()));
            }
            if arrived_at.is_none() && self.has_arrived(guard.number) {
                arrived_at = Some(rt::now());
            }
            if arrived_at.is_some_and(|at| rt::now().since(at) >= timeout) {
                return Err(late());
            }
        }
    }

    /// True if the other node is known to have received a request that waits for its response.
    fn has_arrived(&self, number: u64) -> bool {
        let window = self.window.lock().clone();
        self.calls.end_of(number).is_some_and(|end| window.has_received(end))
    }

    /// Queues a request, unless the other node could not be reached just now.
    async fn send(
        &self,
        ends: (ReplicaId, ReplicaId),
        request: &Message,
    ) -> Result<(CallGuard<'_>, oneshot::Receiver<Response>), NoResponse> {
        if let Some((until, why)) = &*self.backoff.lock()
            && rt::now() < *until
        {
            return Err(NoResponse(why.clone()));
        }
        let number = self.calls.next.fetch_add(1, Ordering::Relaxed);
        let version = self.version_for(request).await?;
        let frame = EncodedFrame::request(number, ends, request, version);
        let frame = frame.map_err(|error| NoResponse(error.to_string()))?;
        self.enqueue(number, frame).await
    }
}

/// True if the other node has closed the connection, rather than fallen silent.
fn is_reset(why: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(why.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// True if the port is closed, which only the operating system reports: a node that rejects sends a response.
fn is_port_closed(why: &io::Error) -> bool {
    why.raw_os_error().is_some() && why.kind() == io::ErrorKind::ConnectionRefused
}

/// The task that keeps one connection open.
struct ConnectionTask {
    local: Arc<LocalNode>,
    node: NodeId,
    class: ConnectionClass,
    calls: Arc<Calls>,
    backoff: Backoff,
    version: watch::Sender<Option<u8>>,
    window: Arc<Mutex<Arc<SendWindow>>>,
}

/// A pause of this length or up to half less, so that nodes do not reconnect all at once.
fn jittered(pause: Duration) -> Duration {
    let half = u64::try_from(pause.as_nanos() / 2).unwrap_or(u64::MAX).max(1);
    pause - Duration::from_nanos(rt::random_u64() % half)
}

impl ConnectionTask {
    async fn run(self, mut queue: mpsc::UnboundedReceiver<Outgoing>) {
        let mut pause = PAUSE_MIN;
        while let Some(first) = queue.recv().await {
            let why = match self.connect().await {
                Ok((stream, version)) => {
                    pause = PAUSE_MIN;
                    *self.backoff.lock() = None;
                    let window = Arc::new(SendWindow::new(version));
                    *self.window.lock() = window.clone();
                    let why = self.exchange(stream, &window, first, &mut queue).await;
                    if is_reset(&why) {
                        let (known, confirmation) = oneshot::channel();
                        self.local.peer_closed(self.node, confirmation);
                        let has_died = self.probe_process_died().await;
                        if has_died {
                            tracing::info!(node = self.node.0, "the process of a node has died: {why}");
                        }
                        let _ = known.send(has_died);
                    }
                    why
                }
                Err(error) => {
                    let until = rt::now() + jittered(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                    *self.backoff.lock() = Some((until, error.to_string()));
                    error
                }
            };
            tracing::debug!(node = self.node.0, class = ?self.class, "connection to another node: {why}");
            while queue.try_recv().is_ok() {}
            self.calls.fail_all(&why.to_string());
            if mutants::is_on(Bug::ConnectionNotReopened) {
                return;
            }
        }
    }

    /// True if the node's port is closed. A process that ends closes its port a while before or after its connections:
    /// only an answered handshake shows that it is alive.
    async fn probe_process_died(&self) -> bool {
        let mut refused = 0;
        for _ in 0..PROBES_MAX {
            let Some(address) = self.local.peers.address(self.node) else { return false };
            match connect_to(&self.local, &address, self.class, Some(self.node)).await {
                Err(error) if is_port_closed(&error) => refused += 1,
                Err(error) if is_reset(&error) => refused = 0,
                _ => return false,
            }
            if refused == 2 {
                return true;
            }
            rt::sleep(PAUSE_MIN).await;
        }
        false
    }

    async fn connect(&self) -> io::Result<(Duplex, u8)> {
        let unknown =
            || io::Error::new(io::ErrorKind::NotFound, format!("the address of node {} is not known", self.node));
        let address = self.local.peers.address(self.node).ok_or_else(unknown)?;
        let (stream, (version, found)) = connect_to(&self.local, &address, self.class, Some(self.node)).await?;
        self.version.send_replace(Some(version));
        if found.node != self.node {
            return Err(io::Error::other(format!("node {} is at {address}, not node {}", found.node, self.node)));
        }
        Ok((stream, version))
    }

    /// Sends and receives until the connection is lost; returns why.
    async fn exchange(
        &self,
        stream: Duplex,
        window: &SendWindow,
        first: Outgoing,
        queue: &mut mpsc::UnboundedReceiver<Outgoing>,
    ) -> io::Error {
        let (received_at, ping) = (AtomicI64::new(rt::now().0), Notify::new());
        let ended = tokio::select! {
            biased;
            ended = self.read_frames(&stream, window, &received_at) => ended,
            ended = self.write_frames((&stream, window), first, queue, &ping) => ended,
            ended = self.detect_silence(&received_at, &ping) => ended,
        };
        ended.err().unwrap_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"))
    }

    async fn read_frames(&self, from: &Duplex, window: &SendWindow, received_at: &AtomicI64) -> io::Result<()> {
        let mut frames = FrameReader::default();
        while let Some(read) = frames.next(from).await? {
            received_at.store(rt::now().0, Ordering::Relaxed);
            let Read::Frame(Frame { kind, number, body, .. }) = read else { continue };
            match kind {
                Kind::Response => {
                    let message = decode(body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                    self.calls.complete(number, Ok(message));
                }
                Kind::NoResponse => {
                    let why = String::from_utf8_lossy(&body).into_owned();
                    self.calls.complete(number, Err(NoResponse(why)));
                }
                Kind::Pong => {}
                Kind::Received if window.note_received(number) => {}
                Kind::Received => return Err(io::Error::other("more was received than was sent")),
                Kind::Request | Kind::Ping => return Err(io::Error::other("a request where responses are expected")),
            }
        }
        Ok(())
    }

    async fn write_frames(
        &self,
        (to, window): (&Duplex, &SendWindow),
        first: Outgoing,
        queue: &mut mpsc::UnboundedReceiver<Outgoing>,
        ping: &Notify,
    ) -> io::Result<()> {
        let (mut batch, mut next) = (Batch::default(), Some(first));
        loop {
            // The permit is returned when the socket has taken the bytes.
            let mut written = Vec::new();
            while let Some(outgoing) = next.take() {
                let end = window.written() + (batch.bytes() + outgoing.frame.bytes) as u64;
                if self.calls.begin_writing(outgoing.number, end) {
                    batch.push(outgoing.frame);
                    written.push(outgoing._permit);
                }
                next = if batch.bytes() < WRITE_BYTES { queue.try_recv().ok() } else { None };
            }
            while batch.bytes() > 0 {
                let mut front = batch.front(window.room().await);
                let count = front.remaining();
                to.write_all(&mut front).await?;
                window.note_written(count);
            }
            drop(written);
            tokio::select! {
                biased;
                () = ping.notified() => batch.push(EncodedFrame::bare(Kind::Ping)),
                outgoing = queue.recv() => match outgoing {
                    Some(outgoing) => next = Some(outgoing),
                    None => return Err(io::Error::other("the connection is not needed any more")),
                },
            }
        }
    }

    /// Ends when the other node is silent although requests are outstanding.
    async fn detect_silence(&self, received_at: &AtomicI64, ping: &Notify) -> io::Result<()> {
        let (mut waiting_since, mut pinged_at) = (None, rt::now());
        loop {
            rt::sleep(PING_INTERVAL).await;
            if self.calls.waiting.lock().is_empty() {
                waiting_since = None;
                if rt::now().since(pinged_at) >= IDLE_PING_INTERVAL {
                    pinged_at = rt::now();
                    ping.notify_one();
                }
                continue;
            }
            let since = *waiting_since.get_or_insert_with(rt::now);
            let received_at = rt::Instant(received_at.load(Ordering::Relaxed));
            if rt::now().since(since.max(received_at)) > PEER_SILENCE_MAX {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer, not even to a ping"));
            }
            ping.notify_one();
        }
    }
}

/// Connects to an address and completes the handshake; returns the version of the connection and the identity of the other
/// node.
pub(super) async fn connect_to(
    local: &LocalNode,
    address: &str,
    class: ConnectionClass,
    expected: Option<NodeId>,
) -> io::Result<(Duplex, (u8, Identity))> {
    let own = local.identity();
    let late = |what: &str| io::Error::new(io::ErrorKind::TimedOut, format!("{address}: {what}"));
    let connected = rt::timeout(CONNECT_TIMEOUT, local.connector.connect(address)).await;
    let stream = Duplex::new(connected.map_err(|_| late("no connection in time"))??);
    let request = HandshakeRequest::new(own.clone(), class, expected);
    let said = async {
        write_request(&stream, &request).await?;
        read_response(&stream).await
    };
    let answer = rt::timeout(HANDSHAKE_TIMEOUT, said).await.map_err(|_| late("no handshake in time"))??;
    let refused = |why| io::Error::new(io::ErrorKind::ConnectionRefused, format!("{address}: {why}"));
    let (version, other) = answer.map_err(refused)?;
    same_cluster(&own, &other).map_err(io::Error::other)?;
    Ok((stream, (version, other)))
}
