//! The socket server: listeners, connections, order of responses, bursts, limits, back-pressure.
//!
//! One task per listener accepts; one task per connection serves it ([`connection::Connection`]).
//! May not know: what a request means, and any other layer of the broker; requests go to a [`dispatch::Dispatch`].

pub mod admission;
pub mod budget;
pub mod connection;
pub mod dispatch;
pub mod listener;
pub mod request_buffer;
pub mod response_queue;
pub mod sniff;
pub mod source;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::limits::ConnectionLimits;
use crate::server::admission::{Admission, Admitted};
use crate::server::budget::Budget;
use crate::server::connection::{Connection, Disconnect};
use crate::server::dispatch::{Dispatch, Peer};
use crate::server::listener::BoundListener;
use futures_util::FutureExt;
use ottla_env::critical::{Owner, count_panic};
use ottla_env::net::{self, Listener, Stream};
use ottla_env::rt::{self, JoinHandle};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Makes the dispatcher of each connection, and is called when connections open and close.
pub trait Service: Send + Sync + 'static {
    /// Answers the requests of one connection.
    type Dispatch: Dispatch;
    /// A client has connected.
    fn connected(&self, peer: &Peer) -> Self::Dispatch;
    /// A connection has ended: state keyed by it can be dropped.
    fn disconnected(&self, peer: &Peer, disconnect: &Disconnect);
    /// A connection was refused by a limit before it was served.
    fn refused(&self);
    /// A handler panicked; its connection is closed.
    fn panicked(&self, peer: &Peer, message: &str);
}

/// The listeners and connections of a node.
pub struct Server<S> {
    shared: Arc<Shared<S>>,
    accepting: Vec<JoinHandle<()>>,
}

struct Shared<S> {
    service: S,
    limits: Arc<ConnectionLimits>,
    admission: Admission,
    budget: Budget,
    next_connection: AtomicU64,
    stopping: AtomicBool,
    open: Mutex<BTreeMap<u64, Open>>,
}

/// An open connection, as the server holds it.
struct Open {
    stop: Option<oneshot::Sender<()>>,
}

impl<S: Service> Server<S> {
    /// Opens the listeners and serves every client that connects.
    pub fn start(
        listeners: Vec<BoundListener>,
        service: S,
        limits: ConnectionLimits,
        admission: Admission,
        budget: Budget,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            service,
            limits: Arc::new(limits),
            admission,
            budget,
            next_connection: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let mut accepting = Vec::new();
        for listener in listeners {
            let name = listener.name.clone();
            let socket = listener.open()?;
            let accept = accept(shared.clone(), name, socket);
            accepting.push(rt::spawn_critical("listener", Owner::process(), accept));
        }
        Ok(Self { shared, accepting })
    }

    /// The service whose connections these are.
    #[must_use]
    pub fn service(&self) -> &S {
        &self.shared.service
    }

    /// Stops accepting, lets requests in flight finish for a short time, closes all connections.
    pub async fn stop(&self) {
        for task in &self.accepting {
            task.abort();
        }
        self.shared.stopping.store(true, Ordering::Release);
        for open in self.shared.open.lock().values_mut() {
            if let Some(stop) = open.stop.take() {
                let _ = stop.send(());
            }
        }
        let deadline = rt::now() + self.shared.limits.drain + Duration::from_millis(200);
        while !self.shared.open.lock().is_empty() && rt::now() < deadline {
            rt::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn accept<S: Service>(shared: Arc<Shared<S>>, name: Arc<str>, mut listener: Box<dyn Listener>) {
    loop {
        match net::accept(&mut *listener).await {
            Ok((stream, address)) => accept_connection(&shared, &name, stream, address),
            Err(error) => {
                // The process is out of file descriptors, mostly: connections that close will free some.
                tracing::warn!(listener = %name, "cannot accept a connection: {error}; trying again");
                rt::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn accept_connection<S: Service>(
    shared: &Arc<Shared<S>>,
    name: &Arc<str>,
    stream: Box<dyn Stream>,
    address: SocketAddr,
) {
    let admitted = match shared.admission.admit(address.ip()) {
        Ok(admitted) => admitted,
        Err(refused) => {
            shared.service.refused();
            tracing::info!(listener = %name, client = %address, "connection refused: {refused}");
            return;
        }
    };
    let connection = shared.next_connection.fetch_add(1, Ordering::Relaxed);
    let peer = Peer { connection, listener: name.clone(), address };
    let (stop, stopped) = oneshot::channel();
    shared.open.lock().insert(connection, Open { stop: Some(stop) });
    rt::spawn(serve_connection(shared.clone(), peer, stream, admitted, stopped));
}

/// Serves one connection; a panic in a handler ends this connection and nothing else.
async fn serve_connection<S: Service>(
    shared: Arc<Shared<S>>,
    peer: Peer,
    stream: Box<dyn Stream>,
    admitted: Admitted,
    stopped: oneshot::Receiver<()>,
) {
    let dispatch = shared.service.connected(&peer);
    let mut connection = Connection::new(stream, dispatch, shared.limits.clone(), shared.budget.clone(), stopped);
    let disconnect = if shared.stopping.load(Ordering::Acquire) {
        Ok(Disconnect::Stopping)
    } else {
        AssertUnwindSafe(connection.serve()).catch_unwind().await
    };
    match disconnect {
        Ok(disconnect) => {
            log_disconnect(&peer, &disconnect);
            shared.service.disconnected(&peer, &disconnect);
        }
        Err(payload) => {
            let message = rt::panic_message(payload.as_ref());
            count_panic("connection");
            tracing::error!(listener = %peer.listener, client = %peer.address, "a request panicked: {message}; its connection is closed");
            shared.service.panicked(&peer, &message);
        }
    }
    shared.open.lock().remove(&peer.connection);
    drop(connection);
    drop(admitted);
}

fn log_disconnect(peer: &Peer, disconnect: &Disconnect) {
    let (listener, client) = (&peer.listener, peer.address);
    match disconnect {
        Disconnect::ByClient
        | Disconnect::ByClientMidway
        | Disconnect::Io(_)
        | Disconnect::Idle
        | Disconnect::Stopping => {
            tracing::debug!(%listener, %client, "connection ended: {disconnect}");
        }
        Disconnect::Frame(_)
        | Disconnect::Disk(_)
        | Disconnect::ForeignProtocol(_)
        | Disconnect::Request(_)
        | Disconnect::SlowRequest
        | Disconnect::NeverReads
        | Disconnect::NoMemory => {
            tracing::warn!(%listener, %client, "connection closed: {disconnect}");
        }
    }
}

#[cfg(test)]
mod tests;
