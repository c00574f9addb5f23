//! Listeners: bound early, so that a port in use is an error at startup; opened when the node can serve.
//!
//! May not know: requests.

#![allow(clippy::disallowed_types)] // binds sockets

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ottla_env::net;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::config::Listener;

/// Socket options that the configuration may set.
#[derive(Debug, Clone, Default)]
pub struct SocketOptions {
    /// `socket.send.buffer.bytes`.
    pub send_buffer_bytes: Option<usize>,
    /// `socket.receive.buffer.bytes`.
    pub receive_buffer_bytes: Option<usize>,
    /// `socket.listen.backlog.size`.
    pub backlog: u32,
}

/// A listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listener}: {source}{hint}")]
pub struct BindError {
    listener: String,
    source: io::Error,
    hint: &'static str,
}

/// Makes a bound listener listen.
type Open<L> = Box<dyn FnOnce() -> io::Result<L> + Send>;

/// A bound listener that does not listen yet: clients cannot connect.
pub struct BoundListener<L = Box<dyn net::Listener>> {
    /// Name of the listener.
    pub name: Arc<str>,
    /// The bound address, with the assigned port if port 0 was configured.
    pub address: SocketAddr,
    open: Open<L>,
}

impl BoundListener<TcpListener> {
    /// Binds one configured listener.
    ///
    /// # Errors
    /// When the address cannot be resolved or bound.
    pub async fn bind(listener: &Listener, options: &SocketOptions) -> Result<Self, BindError> {
        let failed = |source: io::Error| BindError { listener: listener.to_string(), hint: hint(&source), source };
        let addresses = resolve(&listener.endpoint.host, listener.endpoint.port).await.map_err(failed)?;
        let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host has no address");
        for address in addresses {
            match bind_one(address, options) {
                Ok(socket) => {
                    let address = socket.local_addr().map_err(failed)?.as_socket().unwrap_or(address);
                    let backlog = i32::try_from(options.backlog.max(1)).unwrap_or(i32::MAX);
                    let open = move || {
                        socket.listen(backlog)?;
                        TcpListener::from_std(socket.into())
                    };
                    return Ok(Self { name: listener.name.as_str().into(), address, open: Box::new(open) });
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    /// The same for a server, which serves listeners of every kind.
    #[must_use]
    pub fn boxed(self) -> BoundListener {
        let open = self.open;
        BoundListener { name: self.name, address: self.address, open: Box::new(move || Ok(Box::new(open()?) as _)) }
    }
}

impl BoundListener {
    /// A listener that is no socket; clients that connect before it is opened wait.
    #[must_use]
    pub fn of(name: &str, address: SocketAddr, listener: Box<dyn net::Listener>) -> Self {
        Self::opened_by(name, address, move || Ok(listener))
    }

    /// A listener that is no socket, and is not there before it is opened.
    #[must_use]
    pub fn opened_by(
        name: &str,
        address: SocketAddr,
        open: impl FnOnce() -> io::Result<Box<dyn net::Listener>> + Send + 'static,
    ) -> Self {
        Self { name: name.into(), address, open: Box::new(open) }
    }
}

impl<L> BoundListener<L> {
    /// Starts to listen: clients can connect.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(self) -> io::Result<L> {
        (self.open)()
    }
}

async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if host.is_empty() {
        // All addresses: one dual-stack socket where the host has IPv6, else IPv4.
        return Ok(vec![SocketAddr::from(([0_u16; 8], port)), SocketAddr::from(([0, 0, 0, 0], port))]);
    }
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

fn bind_one(address: SocketAddr, options: &SocketOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A restarted node must not wait until connections of the earlier process leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (is another broker running here? stop it, or set another port in `listeners`)",
        io::ErrorKind::AddrNotAvailable => {
            " (the host of `listeners` is not an address of this machine; use `listeners` for what to bind and \
             `advertised.listeners` for what clients are told)"
        }
        io::ErrorKind::PermissionDenied => " (ports below 1024 need privileges)",
        _ => "",
    }
}
