//! The read buffer of a connection: bytes received and not decoded yet; whole frames are split off without a copy.
//!
//! The buffer grows as bytes arrive, never to the size that a frame announces, so that an announced size costs nothing.
//! Bytes above a small free share are reserved from the node's budget. May not know: sockets, what a request means.

use bytes::{Bytes, BytesMut};
use ottla_env::rt::Instant;
use ottla_protocol::frame::{self, FrameError, FrameLimits};

use crate::limits::{
    CONNECTION_FREE_BYTES, ConnectionLimits, FRAME_GROWTH_BYTES, FRAME_TRUSTED_BYTES, READ_AHEAD_BYTES,
    READ_BUFFER_BYTES_MIN,
};
use crate::server::budget::{Budget, Reservation};

/// After this many small reads in a row the next one is smaller.
const SMALL_READS_MAX: u32 = 16;

/// While requests are in flight, memory is returned to the budget in portions of at least this size.
const SETTLE_BYTES: usize = 64 * 1024;

/// Whether the buffer can take more bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Room {
    /// It can: read into [`RequestBuffer::buffer`].
    Ready,
    /// The budget must grant this many bytes first.
    NeedsMemory(usize),
    /// It holds enough undecoded bytes; read on when requests have been answered.
    Full,
}

/// The read buffer of one connection.
#[derive(Debug)]
pub struct RequestBuffer {
    buffer: BytesMut,
    limits: FrameLimits,
    read_bytes_next: usize,
    /// Reads in a row that filled less than a quarter of their buffer.
    small_reads: u32,
    /// Bytes reserved from the budget: for the buffer and the requests in flight.
    reservation: Reservation,
    in_flight_bytes: usize,
    frame_began: Option<Instant>,
}

impl RequestBuffer {
    /// An empty buffer.
    #[must_use]
    pub fn new(limits: &ConnectionLimits) -> Self {
        Self {
            buffer: BytesMut::new(),
            limits: FrameLimits::with_request_bytes_max(limits.request_bytes_max, true),
            read_bytes_next: READ_BUFFER_BYTES_MIN,
            small_reads: 0,
            reservation: Reservation::default(),
            in_flight_bytes: 0,
            frame_began: None,
        }
    }

    /// The next whole frame, without its length, if it has arrived.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(frame) = frame::next_frame(&mut self.buffer, &self.limits)? else { return Ok(None) };
        self.in_flight_bytes += frame.len();
        self.frame_began = None;
        Ok(Some(frame))
    }

    /// A request of `bytes` is answered: its memory is free again.
    pub fn answered(&mut self, bytes: usize) {
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
        // Not for every request of a burst: the budget is shared by all connections.
        let excess = self.reservation.bytes().saturating_sub(self.held_bytes());
        if excess >= SETTLE_BYTES || (excess > 0 && self.in_flight_bytes == 0) {
            self.settle();
        }
    }

    /// Bytes in the buffer and in flight above the free share.
    fn held_bytes(&self) -> usize {
        (self.buffer.len() + self.in_flight_bytes).saturating_sub(CONNECTION_FREE_BYTES)
    }

    /// Bytes of requests taken and not yet answered.
    #[must_use]
    pub fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    /// Makes room for the next read. `blocked`: a whole request waits until earlier ones are answered.
    pub fn make_room(&mut self, blocked: bool, budget: &Budget) -> Room {
        if self.is_full(blocked) {
            return Room::Full;
        }
        let capacity = self.capacity_wanted();
        let needed = self.to_reserve(capacity);
        if needed > 0 {
            match budget.try_take(needed) {
                Some(more) => self.reservation.merge(more),
                None => return Room::NeedsMemory(needed),
            }
        }
        self.buffer.reserve(capacity - self.buffer.len());
        Room::Ready
    }

    /// Whether nothing more is read for now. `blocked`: a whole request may be waiting in the buffer.
    #[must_use]
    pub fn is_full(&self, blocked: bool) -> bool {
        blocked && self.buffer.len() >= READ_AHEAD_BYTES
    }

    /// Whether the buffer holds no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The budget has granted the memory that the connection waited for.
    pub fn granted(&mut self, more: Reservation) {
        self.reservation.merge(more);
    }

    /// The buffer to read the socket into; [`RequestBuffer::make_room`] comes first, [`RequestBuffer::received`] after.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// `bytes` were added to the buffer, which had room for `room`.
    pub fn received(&mut self, bytes: usize, room: usize, now: Instant) {
        if self.frame_began.is_none() {
            self.frame_began = Some(now);
        }
        // A read that filled its buffer is followed by a larger one; small reads by a smaller one, but only after
        // several: a burst slightly larger than the buffer ends in one small read.
        if bytes == room {
            self.read_bytes_next = (self.read_bytes_next * 2).min(READ_AHEAD_BYTES);
            self.small_reads = 0;
        } else if bytes * 4 >= self.read_bytes_next {
            self.small_reads = 0;
        } else {
            self.small_reads += 1;
            if self.small_reads >= SMALL_READS_MAX {
                self.small_reads = 0;
                self.read_bytes_next = (self.read_bytes_next / 2).max(READ_BUFFER_BYTES_MIN);
            }
        }
    }

    /// When the incomplete frame in the buffer began to arrive, and how many of its bytes are in the buffer.
    #[must_use]
    pub fn partial_frame(&mut self, now: Instant) -> Option<(Instant, usize)> {
        if self.buffer.is_empty() {
            return None;
        }
        // Bytes received behind a whole frame count from the first time this function sees them.
        Some((*self.frame_began.get_or_insert(now), self.buffer.len()))
    }

    /// The first bytes, to recognise a foreign protocol.
    #[must_use]
    pub fn first_bytes(&self) -> &[u8] {
        self.buffer.get(..5).unwrap_or(&self.buffer)
    }

    /// Returns the memory of an idle connection.
    pub fn release_idle_memory(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
            self.read_bytes_next = READ_BUFFER_BYTES_MIN;
        }
        self.settle();
    }

    /// The capacity for the next read, by the bytes that have arrived.
    fn capacity_wanted(&self) -> usize {
        let here = self.buffer.len();
        let step = here + self.read_bytes_next;
        let missing = frame::missing_bytes(&self.buffer, &self.limits);
        if missing == 0 {
            return step;
        }
        let growth =
            if here >= FRAME_TRUSTED_BYTES { here.max(FRAME_GROWTH_BYTES) } else { here.max(self.read_bytes_next) };
        // Room for a little more than the frame, so that the same read also gets a pipelined next request.
        (here + growth).min(here + missing + READ_BUFFER_BYTES_MIN)
    }

    fn to_reserve(&self, capacity: usize) -> usize {
        let held = capacity + self.in_flight_bytes;
        held.saturating_sub(CONNECTION_FREE_BYTES).saturating_sub(self.reservation.bytes())
    }

    /// Returns what is reserved beyond the bytes in the buffer and in flight.
    fn settle(&mut self) {
        self.reservation.shrink_to(self.held_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> RequestBuffer {
        RequestBuffer::new(&ConnectionLimits { request_bytes_max: 10_000_000, ..ConnectionLimits::default() })
    }

    fn receive(requests: &mut RequestBuffer, bytes: &[u8]) {
        requests.buffer().extend_from_slice(bytes);
        requests.received(bytes.len(), bytes.len() + 1, Instant(0));
    }

    fn frame(length: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(length).unwrap().to_be_bytes().to_vec();
        bytes.resize(4 + length, 0);
        bytes
    }

    #[test]
    fn frames_come_out_whole_however_they_arrive() {
        let mut requests = requests();
        let mut stream = frame(10);
        stream.extend(frame(20));
        for byte in &stream {
            let before = requests.next_frame().unwrap();
            if let Some(whole) = before {
                assert_eq!(whole.len(), 10);
            }
            receive(&mut requests, std::slice::from_ref(byte));
        }
        assert_eq!(requests.next_frame().unwrap().unwrap().len(), 20);
        assert_eq!(requests.next_frame().unwrap(), None);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        for (size, error) in [
            (-1_i32, FrameError::BadLength { length: -1 }),
            (0, FrameError::BadLength { length: 0 }),
            (10_000_001, FrameError::TooLarge { length: 10_000_001, limit: 10_000_000 }),
        ] {
            let mut requests = requests();
            receive(&mut requests, &size.to_be_bytes());
            assert_eq!(requests.next_frame().unwrap_err(), error);
        }
    }

    #[test]
    fn memory_follows_the_bytes_that_came_not_the_announced_size() {
        let budget = Budget::new(64 << 20);
        let mut requests = requests();
        receive(&mut requests, &9_000_000_u32.to_be_bytes());
        receive(&mut requests, &[0, 0]);
        assert_eq!(requests.next_frame().unwrap(), None);
        assert_eq!(requests.make_room(false, &budget), Room::Ready);
        assert!(requests.buffer().capacity() <= 2 * READ_BUFFER_BYTES_MIN, "{}", requests.buffer().capacity());
        assert!(budget.bytes_used() <= READ_BUFFER_BYTES_MIN);
    }

    #[test]
    fn a_burst_and_its_small_rest_are_read_at_once_the_next_time() {
        let (budget, mut requests) = (Budget::new(64 << 20), requests());
        let burst = frame(9_000);
        for _ in 0..3 {
            assert_eq!(requests.make_room(false, &budget), Room::Ready);
            let room = requests.buffer().capacity() - requests.buffer().len();
            let bytes = room.min(burst.len());
            requests.buffer().extend_from_slice(&burst[..bytes]);
            requests.received(bytes, room, Instant(0));
            if bytes < burst.len() {
                assert_eq!(requests.make_room(false, &budget), Room::Ready);
                let room = requests.buffer().capacity() - requests.buffer().len();
                requests.buffer().extend_from_slice(&burst[bytes..]);
                requests.received(burst.len() - bytes, room, Instant(0));
            }
            let whole = requests.next_frame().unwrap().unwrap();
            requests.answered(whole.len());
        }
        assert_eq!(requests.make_room(false, &budget), Room::Ready);
        assert!(requests.buffer().capacity() >= burst.len());
    }

    #[test]
    fn a_large_request_waits_for_the_budget_and_gives_it_back() {
        let budget = Budget::new(100_000);
        let taken = budget.try_take(90_000).unwrap();
        let mut requests = requests();
        receive(&mut requests, &frame(50_000)[..20_000]);
        let Room::NeedsMemory(needed) = requests.make_room(false, &budget) else { panic!("has room") };
        drop(taken);
        requests.granted(budget.try_take(needed).unwrap());
        assert_eq!(requests.make_room(false, &budget), Room::Ready);
        receive(&mut requests, &frame(50_000)[20_000..]);
        let whole = requests.next_frame().unwrap().unwrap();
        requests.answered(whole.len());
        assert_eq!(budget.bytes_used(), 0);
    }
}
