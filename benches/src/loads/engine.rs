//! The raw load: one thread that drives any number of connections in groups, each with a role. It measures a window after
//! a ramp; what it costs itself is measured by whoever calls it.

use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Done;
use super::conn::{Fetched, Producing, Reader, read_some};
use super::frames::{FetchFrame, ProduceFrames};
use crate::peers::nats;
use crate::wire::{Topic, Wire};

/// How long answers are waited for after the window.
const DRAIN: Duration = Duration::from_secs(20);

/// What the connections of a group do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    /// Produces with so many requests in flight per connection.
    Produce { depth: usize },
    /// The same to NATS: one message a request, the topic's name and partitions have no meaning.
    Publish { depth: usize },
    /// Produces so many requests a second, all connections together, whatever the answers do: latency counts from the
    /// intended time of sending.
    Paced { rate: f64 },
    /// Reads from the beginning to the end and begins again.
    Replay { bytes_max: i32 },
    /// Reads what the paced group before it produces (connection by connection); latency counts from the intended time
    /// of sending to the arrival here.
    Tail { bytes_max: i32 },
    /// Asks for much and reads nothing of it.
    Stuck,
}

/// Connections with one role on one topic; `records` of `size` bytes make a batch.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) role: Role,
    pub(crate) topic: Topic,
    pub(crate) connections: usize,
    pub(crate) records: usize,
    pub(crate) size: usize,
}

/// How long a load runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) ramp: Duration,
    pub(crate) window: Duration,
    /// The window ends early once this much payload has moved.
    pub(crate) bytes_max: u64,
}

enum Task {
    Produce(Producing),
    Read(Box<Reader>),
    Stuck,
}

struct Conn {
    stream: TcpStream,
    group: usize,
    number: usize,
    task: Task,
    blocked: bool,
}

/// So many connections are made before it is seen that they are accepted: Kafka's `socket.listen.backlog.size` is 50.
const ACCEPTED: usize = 32;

struct State {
    group: Group,
    frames: Option<ProduceFrames>,
    done: Done,
    /// Paced: requests sent so far, ramp included, and where its connections begin.
    sent: u64,
    first: usize,
    /// Tail: the end of each partition before the load, and the rate of the group that is followed.
    bases: Vec<u64>,
    rate: f64,
}

/// A load that is connected and may run once.
pub(crate) struct Engine {
    epoll: OwnedFd,
    conns: Vec<Conn>,
    states: Vec<State>,
    began: Instant,
    counting: bool,
    stopping: bool,
    moved: u64,
}

impl Engine {
    /// Connects all groups.
    pub(crate) fn connect(to: SocketAddr, groups: &[Group]) -> Self {
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        let (mut conns, mut states): (Vec<Conn>, Vec<State>) = (Vec::new(), Vec::new());
        for (index, group) in groups.iter().enumerate() {
            let first = conns.len();
            for number in 0..group.connections {
                let stream = match group.role {
                    Role::Publish { .. } => nats::connect(to, number),
                    _ => TcpStream::connect(to),
                };
                let stream = stream.unwrap_or_else(|e| panic!("connection {number}: {e}"));
                // More than the listener's queue holds would each be lost and sent again after a second.
                if number % ACCEPTED == ACCEPTED - 1 && !matches!(group.role, Role::Publish { .. }) {
                    Wire::connect(to).answers();
                }
                stream.set_nodelay(true).unwrap();
                stream.set_nonblocking(true).unwrap();
                let data = EventData::new_u64(conns.len() as u64);
                if !matches!(group.role, Role::Stuck) {
                    epoll::add(&epoll, &stream, data, EventFlags::IN).unwrap();
                }
                conns.push(Conn { stream, group: index, number, task: task(group, number), blocked: false });
            }
            let frames = match group.role {
                Role::Produce { .. } | Role::Paced { .. } => {
                    Some(ProduceFrames::new(&group.topic, group.records, group.size))
                }
                Role::Publish { .. } => Some(ProduceFrames::nats(group.connections, group.size)),
                _ => None,
            };
            let mut state =
                State { group: group.clone(), frames, done: Done::new(), sent: 0, first, bases: Vec::new(), rate: 0.0 };
            if let Role::Tail { .. } = group.role {
                let ends = Wire::connect(to).ends(&group.topic);
                state.bases = ends.into_iter().map(|end| u64::try_from(end).unwrap()).collect();
                let paced = |g: &Group| if let Role::Paced { rate } = g.role { Some(rate) } else { None };
                state.rate = groups.iter().find_map(paced).expect("a paced group to follow");
            }
            states.push(state);
        }
        let mut engine =
            Self { epoll, conns, states, began: Instant::now(), counting: false, stopping: false, moved: 0 };
        engine.place_tails();
        engine
    }

    /// Readers at the end begin there.
    fn place_tails(&mut self) {
        for conn in &mut self.conns {
            let bases = &self.states[conn.group].bases;
            if let (Task::Read(reader), false) = (&mut conn.task, bases.is_empty()) {
                for place in &mut reader.places {
                    place.1 = bases[place.0 as usize];
                }
            }
        }
    }

    /// Runs ramp, window and drain; `edge` is called at both ends of the window. Results by group, and the window's
    /// length.
    pub(crate) fn run(mut self, span: Span, mut edge: impl FnMut()) -> (Vec<Done>, Duration) {
        self.began = Instant::now();
        for at in 0..self.conns.len() {
            self.begin(at);
        }
        self.turn_until(span.ramp, u64::MAX);
        edge();
        (self.counting, self.moved) = (true, 0);
        let from = self.began.elapsed();
        self.turn_until(span.ramp + span.window, span.bytes_max);
        let window = self.began.elapsed() - from;
        self.counting = false;
        edge();
        self.stopping = true;
        let deadline = self.began.elapsed() + DRAIN;
        while self.conns.iter().any(is_waiting) && self.began.elapsed() < deadline {
            self.turn(Duration::from_millis(20));
        }
        (self.states.into_iter().map(|s| s.done).collect(), window)
    }

    fn begin(&mut self, at: usize) {
        let conn = &mut self.conns[at];
        let group = &self.states[conn.group].group;
        match &mut conn.task {
            Task::Produce(task) => {
                if let Role::Produce { depth } | Role::Publish { depth } = group.role {
                    (0..depth).for_each(|_| task.push(0));
                }
            }
            Task::Read(reader) => reader.ask(&mut conn.stream, 0).expect("the first request"),
            Task::Stuck => {
                use std::io::Write;
                let mut frame = FetchFrame::new(&group.topic, 50 << 20, 500);
                let partition = (conn.number % usize::try_from(group.topic.partitions).unwrap()) as u32;
                let _ = conn.stream.write_all(frame.with(partition, 0));
            }
        }
        self.flush(at);
    }

    fn turn_until(&mut self, end: Duration, bytes_max: u64) {
        loop {
            let now = self.began.elapsed();
            if now >= end || self.moved >= bytes_max {
                return;
            }
            let due = self.send_due(now.as_nanos() as u64);
            let wait = due.map_or(end, |d| Duration::from_nanos(d).min(end)).saturating_sub(now);
            self.turn(wait.min(Duration::from_millis(50)));
        }
    }

    /// Sends what the paced groups owe until now; when the next request is due.
    fn send_due(&mut self, now: u64) -> Option<u64> {
        let mut next: Option<u64> = None;
        for index in 0..self.states.len() {
            let Role::Paced { rate } = self.states[index].group.role else { continue };
            let (first, count) = (self.states[index].first, self.states[index].group.connections as u64);
            let time_of = |sent: u64| (sent as f64 * 1e9 / rate) as u64;
            let before = self.states[index].sent;
            while time_of(self.states[index].sent) <= now {
                let sent = self.states[index].sent;
                if let Task::Produce(task) = &mut self.conns[first + (sent % count) as usize].task {
                    task.push(time_of(sent));
                }
                self.states[index].sent += 1;
            }
            for sent in before..self.states[index].sent.min(before + count) {
                self.flush(first + (sent % count) as usize);
            }
            let due = time_of(self.states[index].sent);
            next = Some(next.map_or(due, |n| n.min(due)));
        }
        next
    }

    /// Waits for events, at most so long, and serves them.
    fn turn(&mut self, wait: Duration) {
        thread_local!(static BUFFER: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; 256 << 10]));
        // ppoll is exact to the nanosecond where epoll would round to milliseconds.
        let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let _ = poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&timeout));
        let mut events = Vec::with_capacity(256);
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let events_of = rustix::buffer::spare_capacity(&mut events);
        if epoll::wait(&self.epoll, events_of, Some(&zero)).is_err() {
            return;
        }
        BUFFER.with_borrow_mut(|buffer| {
            for event in &events {
                let (data, flags) = (event.data, event.flags);
                let at = data.u64() as usize;
                if flags.contains(EventFlags::OUT) {
                    self.flush(at);
                }
                if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                    let taken = read_some(&mut self.conns[at].stream, buffer);
                    let count = taken.unwrap_or_else(|e| panic!("connection {at} of the load: {e}"));
                    self.take(at, &buffer[..count]);
                }
            }
        });
    }

    fn take(&mut self, at: usize, bytes: &[u8]) {
        let now = self.began.elapsed().as_nanos() as u64;
        let conn = &mut self.conns[at];
        let state = &mut self.states[conn.group];
        match &mut conn.task {
            Task::Produce(task) => {
                let frames = state.frames.as_ref().expect("frames of a producer");
                let mut answers = 0;
                task.take(bytes, &frames.answers, |sent, code| {
                    answers += 1;
                    state.done.errors += u64::from(code != 0);
                    if self.counting && code == 0 {
                        state.done.record(now.saturating_sub(sent));
                        state.done.requests += 1;
                        state.done.records += frames.records;
                        state.done.bytes += frames.payload;
                        self.moved += frames.payload;
                    }
                });
                if let (Role::Produce { .. } | Role::Publish { .. }, false) = (state.group.role, self.stopping) {
                    (0..answers).for_each(|_| task.push(now));
                }
                self.flush(at);
            }
            Task::Read(reader) => {
                let Some(found) = reader.stream.take(bytes, reader.frame.answer_head) else { return };
                self.moved += account(state, reader, &found, now, self.counting);
                reader.asked_at = None;
                if !self.stopping {
                    reader.ask(&mut conn.stream, now).expect("a fetch request");
                }
            }
            Task::Stuck => {}
        }
    }

    fn flush(&mut self, at: usize) {
        let conn = &mut self.conns[at];
        let Task::Produce(task) = &mut conn.task else { return };
        let frames = self.states[conn.group].frames.as_ref().expect("frames of a producer");
        let blocked = task.flush(&mut conn.stream, frames).unwrap_or_else(|e| panic!("connection {at}: {e}"));
        if blocked != conn.blocked {
            conn.blocked = blocked;
            let flags = if blocked { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(&self.epoll, &conn.stream, EventData::new_u64(at as u64), flags).unwrap();
        }
    }
}

fn task(group: &Group, number: usize) -> Task {
    let partitions = u32::try_from(group.topic.partitions).unwrap();
    let (number, connections) = (number as u32, group.connections as u32);
    let (bytes_max, wait_ms) = match group.role {
        Role::Produce { .. } | Role::Paced { .. } => {
            return Task::Produce(Producing::new(number, connections, partitions));
        }
        Role::Publish { .. } => return Task::Produce(Producing::new(number, connections, connections)),
        Role::Stuck => return Task::Stuck,
        Role::Replay { bytes_max } | Role::Tail { bytes_max } => (bytes_max, 500),
    };
    let mut places: Vec<(u32, u64)> =
        (0..partitions).filter(|p| p % connections == number % connections).map(|p| (p, 0)).collect();
    if places.is_empty() {
        places.push((number % partitions, 0));
    }
    let frame = FetchFrame::new(&group.topic, bytes_max, wait_ms);
    Task::Read(Box::new(Reader { frame, stream: Default::default(), places, current: 0, asked_at: None }))
}

fn is_waiting(conn: &Conn) -> bool {
    match &conn.task {
        Task::Produce(task) => !task.is_idle(),
        Task::Read(reader) => reader.asked_at.is_some(),
        Task::Stuck => false,
    }
}

/// Counts an answer and moves its reader on; the bytes that came.
fn account(state: &mut State, reader: &mut Reader, found: &Fetched, now: u64, counting: bool) -> u64 {
    state.done.errors += u64::from(found.error != 0);
    let (partition, from) = reader.places[reader.current];
    let next = found.next.unwrap_or(from);
    if counting && found.error == 0 {
        state.done.requests += 1;
        state.done.records += next.saturating_sub(from);
        state.done.bytes += found.bytes;
    }
    match state.group.role {
        Role::Tail { .. } => {
            let base = state.bases[partition as usize];
            let (batch, connections) = (state.group.records as u64, f64::from(state.group.topic.partitions));
            let (first, last) = ((from - base) / batch, next.saturating_sub(base) / batch);
            for n in first..last {
                let intended = (n as f64 * connections + f64::from(partition)) * 1e9 / state.rate;
                if counting {
                    state.done.record(now.saturating_sub(intended as u64));
                }
            }
            reader.places[reader.current].1 = next;
        }
        _ => {
            let asked = reader.asked_at.unwrap_or(now);
            if counting {
                state.done.record(now - asked);
            }
            reader.places[reader.current].1 = if next >= found.high_watermark { 0 } else { next };
            reader.current = (reader.current + 1) % reader.places.len();
        }
    }
    found.bytes
}
