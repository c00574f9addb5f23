//! The brokers of a cluster and the connections to them: found through any of several addresses.
//!
//! May not know: topics, groups.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;

use kafka_protocol::protocol::Request;

use super::address::Address;
use super::connection::Connection;
use super::error::ClientError;

/// A broker as responses of the cluster describe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its id.
    pub id: i32,
    /// The advertised address.
    pub address: Address,
    /// The broker's rack.
    pub rack: Option<String>,
}

/// The brokers that can be reached, and the open connections.
pub struct Brokers {
    bootstrap: Vec<Address>,
    known: BTreeMap<i32, Broker>,
    open: BTreeMap<Address, Connection>,
}

impl Brokers {
    /// Brokers behind these addresses; no connection is open yet.
    #[must_use]
    pub fn new(bootstrap: Vec<Address>) -> Self {
        Self { bootstrap, known: BTreeMap::new(), open: BTreeMap::new() }
    }

    /// Replaces the known brokers by those of a response.
    pub(super) fn update(&mut self, brokers: impl IntoIterator<Item = Broker>) {
        self.known = brokers.into_iter().map(|broker| (broker.id, broker)).collect();
    }

    /// All brokers that are known.
    pub(super) fn known(&self) -> Vec<Broker> {
        self.known.values().cloned().collect()
    }

    /// Sends a request to any broker.
    pub(super) async fn send_any<R: Request>(
        &mut self,
        versions: RangeInclusive<i16>,
        make: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, ClientError> {
        self.open.retain(|_, connection| connection.is_alive());
        let (address, connection) = match self.open.pop_first() {
            Some(open) => open,
            None => self.connect_any().await?,
        };
        self.send_on(address, connection, versions, make).await
    }

    /// Sends a request to one broker.
    pub(super) async fn send<R: Request>(
        &mut self,
        broker: i32,
        versions: RangeInclusive<i16>,
        make: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, ClientError> {
        let (address, connection) = self.take(broker).await?;
        self.send_on(address, connection, versions, make).await
    }

    /// Sends one broker a request without a response.
    pub(super) async fn send_one_way<R: Request>(
        &mut self,
        broker: i32,
        versions: RangeInclusive<i16>,
        make: impl FnOnce(i16) -> R,
    ) -> Result<(), ClientError> {
        let (address, mut connection) = self.take(broker).await?;
        connection.send_one_way(versions, make).await?;
        self.open.insert(address, connection);
        Ok(())
    }

    /// The address of a broker.
    pub(super) fn address_of(&self, broker: i32) -> Result<Address, ClientError> {
        let unknown = || ClientError::Refused {
            what: format!("broker {broker}"),
            code: ottla_protocol::error::ErrorCode::BrokerNotAvailable.code(),
            message: Some("the cluster does not tell where it is".to_owned()),
        };
        self.known.get(&broker).map(|broker| broker.address.clone()).ok_or_else(unknown)
    }

    async fn take(&mut self, broker: i32) -> Result<(Address, Connection), ClientError> {
        let address = self.address_of(broker)?;
        let connection = match self.open.remove(&address).filter(Connection::is_alive) {
            Some(connection) => connection,
            None => Connection::open(&address).await?,
        };
        Ok((address, connection))
    }

    /// Sends a request on a connection, which is kept if it is still usable.
    async fn send_on<R: Request>(
        &mut self,
        address: Address,
        mut connection: Connection,
        versions: RangeInclusive<i16>,
        make: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, ClientError> {
        let answer = connection.call(versions, make).await;
        if matches!(answer, Ok(_) | Err(ClientError::Unsupported { .. })) {
            self.open.insert(address, connection);
        }
        answer
    }

    /// Connects to the first address that accepts: those given, in their order, then those of the known brokers.
    async fn connect_any(&self) -> Result<(Address, Connection), ClientError> {
        let mut tried: Vec<(Address, io::Error)> = Vec::new();
        for address in self.bootstrap.iter().chain(self.known.values().map(|broker| &broker.address)) {
            if tried.iter().any(|(known, _)| known == address) {
                continue;
            }
            match Connection::open(address).await {
                Ok(connection) => return Ok((address.clone(), connection)),
                Err(ClientError::Connection { source, .. }) => tried.push((address.clone(), source)),
                Err(error) => return Err(error),
            }
        }
        Err(ClientError::NoBrokerAvailable { tried })
    }
}
