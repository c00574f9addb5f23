//! One client connection: reads requests, writes responses in the order of requests, one read and one write per burst.
//!
//! Back-pressure means that the connection does not read. The bytes stay in the kernel, and TCP flow control stops the
//! client, while one of these holds:
//! - responses wait to be written;
//! - requests in flight have reached their limit of number or bytes;
//! - the node's memory budget is used up.
//!
//! May not know: what requests mean.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ottla_env::mutants::{self, Bug};
use ottla_env::net::{self, Stream};
use ottla_env::rt::{self, Instant};
use ottla_protocol::frame::FrameError;
use ottla_storage::read::ReadError;
use tokio::sync::oneshot;

use crate::limits::{ConnectionLimits, IN_FLIGHT_BYTES_MAX, TURN_BYTES, WRITE_BURST_BYTES};
use crate::server::budget::{Budget, Reservation};
use crate::server::dispatch::{Answer, CloseReason, Dispatch, Started, Turn};
use crate::server::request_buffer::{RequestBuffer, Room};
use crate::server::response_queue::{Next, ResponseQueue};
use crate::server::sniff::ForeignProtocol;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Disconnect {
    /// The client closed it.
    #[error("closed by the client")]
    ByClient,
    /// A response was partly written when its records could no longer be read from the disk.
    #[error("{0}; the answer cannot be finished")]
    Disk(#[from] ReadError),
    /// The client closed it in the middle of a request.
    #[error("closed by the client in the middle of a request")]
    ByClientMidway,
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The bytes received are no Kafka request.
    #[error("{0} (socket.request.max.bytes)")]
    Frame(#[from] FrameError),
    /// The bytes received belong to another protocol.
    #[error("{}", .0.advice())]
    ForeignProtocol(ForeignProtocol),
    /// A request can only be answered by closing the connection.
    #[error("{0}")]
    Request(#[from] CloseReason),
    /// Idle beyond `connections.max.idle.ms`.
    #[error("idle for longer than connections.max.idle.ms")]
    Idle,
    /// A request began to arrive and was not complete in time.
    #[error("a request began to arrive and was not complete in time")]
    SlowRequest,
    /// The client does not read its responses.
    #[error("the client does not read its answers")]
    NeverReads,
    /// Memory for a large request did not become free in time.
    #[error(
        "no memory for a large request within the time limit; raise queued.max.request.bytes or slow the producers"
    )]
    NoMemory,
    /// The node shuts down.
    #[error("the node stops")]
    Stopping,
}

struct InFlight<R> {
    bytes: usize,
    answer: BoxFuture<'static, Answer<R>>,
}

/// What woke the loop up.
enum Event<R> {
    Stop,
    Answered(Answer<R>),
    Memory(Reservation),
    Readable(io::Result<()>),
    Tick,
}

/// A connection with its buffers, memory and requests in flight.
pub struct Connection<D: Dispatch> {
    stream: Box<dyn Stream>,
    dispatch: D,
    limits: Arc<ConnectionLimits>,
    budget: Budget,
    stop: oneshot::Receiver<()>,
    request_buffer: RequestBuffer,
    responses: ResponseQueue,
    /// Memory of the responses in the queue.
    response_memory: Reservation,
    /// Started requests, in order; only the first is polled, the work of the others proceeds in its own tasks.
    queue: VecDeque<InFlight<D::Reply>>,
    /// The last request in the queue must be answered before a later one starts.
    alone: bool,
    /// A decoded request that waits until all earlier requests are answered.
    next: Option<(D::Call, usize)>,
    memory_wait: Option<(Instant, BoxFuture<'static, Reservation>)>,
    tick: Pin<Box<dyn Future<Output = ()> + Send>>,
    active: Instant,
    served_any: bool,
}

impl<D: Dispatch> Connection<D> {
    /// Wraps an accepted connection; `stop` fires (or closes) when the node shuts down.
    pub fn new(
        stream: Box<dyn Stream>,
        dispatch: D,
        limits: Arc<ConnectionLimits>,
        budget: Budget,
        stop: oneshot::Receiver<()>,
    ) -> Self {
        Self {
            request_buffer: RequestBuffer::new(&limits),
            tick: Box::pin(rt::sleep(tick_every(&limits))),
            stream,
            dispatch,
            limits,
            budget,
            stop,
            responses: ResponseQueue::default(),
            response_memory: Reservation::default(),
            queue: VecDeque::new(),
            alone: false,
            next: None,
            memory_wait: None,
            active: rt::now(),
            served_any: false,
        }
    }

    /// Serves the client until one side disconnects. The socket stays open until the connection is dropped, so that the
    /// metrics of its end are counted before the client sees it.
    pub async fn serve(&mut self) -> Disconnect {
        let disconnect = match self.run().await {
            Ok(never) => match never {},
            Err(disconnect) => disconnect,
        };
        // Requests received before the disconnect are answered; a client may have closed only its own direction.
        let answer_more = matches!(disconnect, Disconnect::ByClient | Disconnect::ByClientMidway);
        if answer_more || matches!(disconnect, Disconnect::Request(_) | Disconnect::Frame(_) | Disconnect::Stopping) {
            let drain = self.limits.drain;
            let _ = rt::timeout(drain, self.drain(answer_more)).await;
        }
        disconnect
    }

    async fn run(&mut self) -> Result<Infallible, Disconnect> {
        loop {
            self.start_ready_requests()?;
            let progress = self.encode_ready_responses().await?;
            if progress && self.responses.len() < WRITE_BURST_BYTES {
                // The next request of this burst may be answered at once, too: then one write carries both responses.
                continue;
            }
            if self.responses.is_empty() {
                let event = self.wait().await;
                self.handle(event).await?;
            } else {
                self.flush().await?;
                tokio::task::coop::consume_budget().await;
            }
        }
    }

    /// Completes started requests (with `start_more` also those that have arrived), then writes the responses.
    async fn drain(&mut self, start_more: bool) -> Result<(), Disconnect> {
        loop {
            if start_more {
                self.start_ready_requests()?;
            }
            if let Some(first) = self.queue.front_mut() {
                let answer = first.answer.as_mut().await;
                self.complete(answer)?;
            } else {
                return self.flush().await;
            }
            if self.responses.len() >= WRITE_BURST_BYTES {
                self.flush().await?;
            }
        }
    }

    /// Decodes frames and starts every request whose turn it is.
    fn start_ready_requests(&mut self) -> Result<(), Disconnect> {
        loop {
            if self.blocked() {
                return Ok(());
            }
            if let Some((call, bytes)) = self.next.take() {
                self.alone = true;
                self.start(call, bytes);
                return Ok(());
            }
            let Some(frame) = self.next_frame()? else { return Ok(()) };
            let bytes = frame.len();
            let (call, turn) = self.dispatch.decode(frame)?;
            self.served_any = true;
            match turn {
                Turn::Overlap => self.start(call, bytes),
                Turn::Alone => self.next = Some((call, bytes)),
            }
        }
    }

    /// Whether requests that have arrived must wait until earlier ones are answered.
    fn blocked(&self) -> bool {
        !self.queue.is_empty()
            && (self.alone
                || self.next.is_some()
                || self.queue.len() >= self.limits.in_flight_requests_max
                || self.request_buffer.in_flight_bytes() >= IN_FLIGHT_BYTES_MAX)
    }

    fn start(&mut self, call: D::Call, bytes: usize) {
        let Started { answer, ordered } = self.dispatch.start(call);
        self.alone |= !ordered;
        self.queue.push_back(InFlight { bytes, answer });
    }

    fn next_frame(&mut self) -> Result<Option<bytes::Bytes>, Disconnect> {
        if !self.served_any
            && let Some(protocol) = ForeignProtocol::recognise(self.request_buffer.first_bytes())
        {
            return Err(Disconnect::ForeignProtocol(protocol));
        }
        Ok(self.request_buffer.next_frame()?)
    }

    /// Encodes the responses that are ready, in the order of requests. True if there was one.
    async fn encode_ready_responses(&mut self) -> Result<bool, Disconnect> {
        let mut any = false;
        if mutants::is_on(Bug::AnswersSwapped) && self.queue.len() > 1 {
            self.queue.swap(0, 1);
        }
        while self.responses.len() < WRITE_BURST_BYTES {
            let Some(first) = self.queue.front_mut() else { break };
            let polled = poll_fn(|cx| Poll::Ready(first.answer.as_mut().poll(cx))).await;
            let Poll::Ready(answer) = polled else { break };
            self.complete(answer)?;
            any = true;
        }
        Ok(any)
    }

    /// Completes the first request of the queue with its answer.
    fn complete(&mut self, answer: Answer<D::Reply>) -> Result<(), Disconnect> {
        if let Some(done) = self.queue.pop_front() {
            self.request_buffer.answered(done.bytes);
        }
        self.alone = self.alone && !self.queue.is_empty();
        match answer {
            Answer::Reply { reply, memory } => {
                self.dispatch.encode(reply, &mut self.responses)?;
                self.response_memory.merge(memory);
                Ok(())
            }
            Answer::Nothing => Ok(()),
            Answer::Close(reason) => {
                // The client sent later requests before it could see this disconnect: they are not answered.
                self.queue.clear();
                Err(Disconnect::Request(reason))
            }
        }
    }

    /// Waits for the next event; only called when no response waits to be written.
    async fn wait(&mut self) -> Event<D::Reply> {
        let may_read = self.memory_wait.is_none() && !self.request_buffer.is_full(self.blocked());
        let head = self.queue.front_mut();
        let in_flight = head.is_some();
        let answered = async {
            match head {
                Some(first) => first.answer.as_mut().await,
                None => std::future::pending().await,
            }
        };
        let memory = async {
            match &mut self.memory_wait {
                Some((_, granted)) => granted.as_mut().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = &mut self.stop => Event::Stop,
            answer = answered, if in_flight => Event::Answered(answer),
            granted = memory => Event::Memory(granted),
            () = self.tick.as_mut() => Event::Tick,
            ready = net::readable(&*self.stream), if may_read => Event::Readable(ready),
        }
    }

    async fn handle(&mut self, event: Event<D::Reply>) -> Result<(), Disconnect> {
        match event {
            Event::Stop => Err(Disconnect::Stopping),
            Event::Answered(answer) => {
                self.active = rt::now();
                self.complete(answer)
            }
            Event::Memory(granted) => {
                self.memory_wait = None;
                self.request_buffer.granted(granted);
                self.read().await
            }
            Event::Readable(ready) => {
                ready?;
                self.read().await
            }
            Event::Tick => self.check_deadlines(),
        }
    }

    /// One read, as large as there is room for.
    async fn read(&mut self) -> Result<(), Disconnect> {
        let blocked = self.blocked();
        match self.request_buffer.make_room(blocked, &self.budget) {
            Room::Ready => {}
            Room::Full => return Ok(()),
            Room::NeedsMemory(bytes) => {
                let deadline = rt::now() + self.limits.memory_wait;
                self.memory_wait = Some((deadline, Box::pin(self.budget.take(bytes))));
                return Ok(());
            }
        }
        let buffer = self.request_buffer.buffer();
        let room = buffer.capacity() - buffer.len();
        let polled = poll_fn(|cx| Poll::Ready(self.stream.poll_read(buffer, cx))).await;
        match polled {
            Poll::Ready(Ok(0)) if self.request_buffer.is_empty() => Err(Disconnect::ByClient),
            Poll::Ready(Ok(0)) => Err(Disconnect::ByClientMidway),
            Poll::Ready(Ok(bytes)) => {
                self.active = rt::now();
                self.request_buffer.received(bytes, room, self.active);
                Ok(())
            }
            Poll::Pending => Ok(()),
            Poll::Ready(Err(error)) => Err(error.into()),
        }
    }

    /// Writes the queued responses; fails if the client reads nothing for `write_stall`.
    async fn flush(&mut self) -> Result<(), Disconnect> {
        let mut progress = self.active;
        let (mut finished, mut stalled) = (self.responses.is_empty(), false);
        let mut since_yield = 0;
        // The budget's memory for the piece that waits for a slow client.
        let mut paid = None;
        while !finished {
            if self.responses.prepare()? == Next::OnDisk {
                self.read_from_disk().await?;
            }
            match self.responses.with_slices(|slices| self.stream.try_write_vectored(slices)) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(bytes) => {
                    finished = self.responses.advance(bytes);
                    stalled = false;
                    since_yield += bytes;
                    if !finished && since_yield >= TURN_BYTES {
                        // A long response to a fast client yields to the other tasks of this thread.
                        rt::yield_now().await;
                        since_yield = 0;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !std::mem::replace(&mut stalled, true) {
                        progress = rt::now();
                    }
                    let piece = self.responses.piece_bytes();
                    if paid.is_none() && piece > 0 {
                        paid = self.budget.try_take_spare(piece);
                        if paid.is_none() {
                            // No memory for the piece: it is copied again when the client reads on.
                            self.responses.drop_piece();
                        }
                    }
                    self.writable(progress, &mut paid).await?;
                    self.responses.grew_old();
                    since_yield = 0;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.active = rt::now();
        self.response_memory = Reservation::default();
        Ok(())
    }

    async fn read_from_disk(&mut self) -> Result<(), Disconnect> {
        let Some(read) = self.responses.disk_read() else { return Ok(()) };
        let read = rt::spawn_blocking(move || read.run()).await.map_err(io::Error::other)??;
        self.responses.disk_was_read(read);
        Ok(())
    }

    /// Waits until the socket takes bytes. For a slow client the copied piece is dropped and its memory returned.
    async fn writable(&mut self, progress: Instant, paid: &mut Option<Reservation>) -> Result<(), Disconnect> {
        loop {
            tokio::select! {
                biased;
                ready = net::writable(&*self.stream) => return Ok(ready?),
                () = self.tick.as_mut() => {
                    self.tick = Box::pin(rt::sleep(tick_every(&self.limits)));
                    self.responses.drop_piece();
                    *paid = None;
                    if rt::now().since(progress) > self.limits.write_stall {
                        return Err(Disconnect::NeverReads);
                    }
                }
            }
        }
    }

    fn check_deadlines(&mut self) -> Result<(), Disconnect> {
        self.tick = Box::pin(rt::sleep(tick_every(&self.limits)));
        let now = rt::now();
        if let Some((deadline, _)) = &self.memory_wait {
            return if now > *deadline { Err(Disconnect::NoMemory) } else { Ok(()) };
        }
        let waits = !self.queue.is_empty() || self.next.is_some();
        if !waits && let Some((began, bytes)) = self.request_buffer.partial_frame(now) {
            let per_kib = Duration::from_secs(u64::try_from(bytes / 1024).unwrap_or(u64::MAX));
            if now.since(began) > self.limits.frame_grace.saturating_add(per_kib) {
                return Err(Disconnect::SlowRequest);
            }
        }
        if !waits && now.since(self.active) > self.limits.idle {
            return Err(Disconnect::Idle);
        }
        if !waits {
            self.request_buffer.release_idle_memory();
            self.responses.release_idle_memory();
        }
        Ok(())
    }
}

/// How often a connection checks its deadlines: a coarse timer, cheap enough for many idle connections.
fn tick_every(limits: &ConnectionLimits) -> Duration {
    let shortest = limits.idle.min(limits.frame_grace).min(limits.write_stall).min(limits.memory_wait);
    (shortest / 2).clamp(Duration::from_millis(10), Duration::from_secs(10))
}
