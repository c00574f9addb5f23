//! The handshake of a connection: both nodes identify themselves, and either may reject the other.
//!
//!  request:  | magic "OTLA" | length u16 | oldest u8 | newest u8 | class u8
//!            | node i32 | directory uuid | expected i32 | cluster |
//!  response: | magic "OTLA" | length u16 | 0 accepted: version u8 | node i32 | directory uuid | cluster |
//!  or        | magic "OTLA" | length u16 | 1 rejected: why |
//!
//! `cluster`: the cluster's id, empty while a node has none. The receiver of a request does not know yet which versions
//! the sender speaks, so the layout of the request never changes. A release with a newer version offers both, and the
//! responding node chooses the newest that both speak: so nodes of two releases communicate during a rolling upgrade.
//! May not know: what follows.

use std::io;
use std::ops::RangeInclusive;

use bytes::{Buf, BufMut, BytesMut};
use ottla_env::net::Duplex;
use ottla_protocol::ids::NodeId;
use uuid::Uuid;

const MAGIC: [u8; 4] = *b"OTLA";
/// The versions of frames and messages that this release speaks. 1: 0.4.0 to 0.5.3; 2: a replica's state comes in parts;
/// 3, since 0.5.10: a receiver says what it has received.
pub(super) const VERSIONS: RangeInclusive<u8> = 1..=3;
/// The value of `expected` if any node will do.
const ANY_NODE: i32 = -1;

/// What a connection carries: messages of one class do not wait for those of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ConnectionClass {
    /// Heartbeats, votes, requests to services, everything of the metadata group and of coordinators.
    Urgent = 0,
    /// Entries of client data.
    Entries = 1,
    /// Snapshots, repairs, and requests that may wait.
    Bulk = 2,
}

impl ConnectionClass {
    fn of(tag: u8) -> Option<Self> {
        [Self::Urgent, Self::Entries, Self::Bulk].into_iter().find(|class| *class as u8 == tag)
    }
}

/// The identity of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub node: NodeId,
    /// The random id of its first data directory: a node that returns with another directory is another node.
    pub directory: Uuid,
    /// The id of its cluster, once the node has one.
    pub cluster: Option<String>,
}

/// Why a handshake was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeRejection {
    /// The node belongs to another cluster.
    #[error("node {node} belongs to cluster {theirs}, this node to {ours}: correct ottla.cluster.seeds")]
    OtherCluster {
        /// The node that was rejected.
        node: NodeId,
        /// Its cluster.
        theirs: String,
        /// The cluster of the rejecting node.
        ours: String,
    },
    /// Two nodes have the same id.
    #[error(
        "node id {node} is in use by a node with another data directory ({directory}): give each node an id of its own"
    )]
    InUse {
        /// The id.
        node: NodeId,
        /// The directory of the node that has it.
        directory: Uuid,
    },
    /// Another node uses the address now.
    #[error("this is node {found}, not node {expected}")]
    NotHere {
        /// The node at the address.
        found: NodeId,
        /// The node that was expected there.
        expected: i32,
    },
    /// The two nodes have no version in common.
    #[error("no common version: this node speaks {VERSIONS:?}, the other {oldest} to {newest}")]
    Version {
        /// The oldest version that the other node speaks.
        oldest: u8,
        /// The newest version that the other node speaks.
        newest: u8,
    },
}

/// The first message of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HandshakeRequest {
    pub(super) identity: Identity,
    pub(super) class: ConnectionClass,
    /// The node that the sender expects at the address.
    pub(super) expected: Option<NodeId>,
    oldest: u8,
    newest: u8,
}

impl HandshakeRequest {
    pub(super) fn new(identity: Identity, class: ConnectionClass, expected: Option<NodeId>) -> Self {
        Self { identity, class, expected, oldest: *VERSIONS.start(), newest: *VERSIONS.end() }
    }

    /// The version of the connection, or why `own` rejects the request, judged by the request alone.
    pub(super) fn check(&self, own: &Identity) -> Result<u8, HandshakeRejection> {
        let (oldest, newest) = (self.oldest, self.newest);
        let version = newest.min(*VERSIONS.end());
        if version < oldest.max(*VERSIONS.start()) {
            return Err(HandshakeRejection::Version { oldest, newest });
        }
        same_cluster(own, &self.identity)?;
        match self.expected {
            Some(expected) if expected != own.node => {
                Err(HandshakeRejection::NotHere { found: own.node, expected: expected.0 })
            }
            _ if self.identity.node == own.node && self.identity.directory != own.directory => {
                Err(HandshakeRejection::InUse { node: own.node, directory: own.directory })
            }
            _ => Ok(version),
        }
    }
}

/// Rejects a node of another cluster.
pub(super) fn same_cluster(own: &Identity, other: &Identity) -> Result<(), HandshakeRejection> {
    match (&own.cluster, &other.cluster) {
        (Some(ours), Some(theirs)) if ours != theirs => {
            Err(HandshakeRejection::OtherCluster { node: other.node, theirs: theirs.clone(), ours: ours.clone() })
        }
        _ => Ok(()),
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn put_identity(into: &mut BytesMut, identity: &Identity) {
    into.put_i32(identity.node.0);
    into.put_u128(identity.directory.as_u128());
    into.put_slice(identity.cluster.as_deref().unwrap_or_default().as_bytes());
}

/// The identity at the end of a message; `between` bytes stand between directory and cluster.
fn identity(bytes: &mut &[u8], between: usize) -> io::Result<(Identity, Vec<u8>)> {
    if bytes.len() < 20 + between {
        return Err(invalid("a handshake ends early"));
    }
    let (node, directory) = (NodeId(bytes.get_i32()), Uuid::from_u128(bytes.get_u128()));
    let held = bytes[..between].to_vec();
    bytes.advance(between);
    let cluster = std::str::from_utf8(bytes).map_err(|_| invalid("a cluster id is no text"))?;
    let cluster = (!cluster.is_empty()).then(|| cluster.to_owned());
    Ok((Identity { node, directory, cluster }, held))
}

async fn write(to: &Duplex, bytes: &[u8]) -> io::Result<()> {
    let mut framed = BytesMut::from(&MAGIC[..]);
    framed.put_u16(u16::try_from(bytes.len()).map_err(|_| invalid("a handshake is too long"))?);
    framed.put_slice(bytes);
    to.write_all(&mut framed).await
}

/// Exactly so many bytes: what follows them belongs to the frames.
async fn read_exact(from: &Duplex, count: usize) -> io::Result<BytesMut> {
    let mut bytes = BytesMut::new();
    while bytes.len() < count {
        let mut lacking = BytesMut::with_capacity(count - bytes.len());
        if from.read(&mut lacking).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.unsplit(lacking);
    }
    assert_eq!(bytes.len(), count, "bytes of a handshake");
    Ok(bytes)
}

async fn read(from: &Duplex) -> io::Result<BytesMut> {
    let mut head = read_exact(from, MAGIC.len() + 2).await?;
    if head.split_to(MAGIC.len()) != MAGIC[..] {
        return Err(invalid("not a node of Ottla: check the ports in ottla.cluster.seeds"));
    }
    read_exact(from, usize::from(head.get_u16())).await
}

pub(super) async fn write_request(to: &Duplex, request: &HandshakeRequest) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&[request.oldest, request.newest, request.class as u8]);
    let expected = request.expected.map_or(ANY_NODE, |node| node.0);
    bytes.put_i32(request.identity.node.0);
    bytes.put_u128(request.identity.directory.as_u128());
    bytes.put_i32(expected);
    bytes.put_slice(request.identity.cluster.as_deref().unwrap_or_default().as_bytes());
    write(to, &bytes).await
}

pub(super) async fn read_request(from: &Duplex) -> io::Result<HandshakeRequest> {
    let bytes = read(from).await?;
    let mut rest = &bytes[..];
    let Some(([oldest, newest, class], behind)) = rest.split_first_chunk::<3>() else {
        return Err(invalid("a handshake ends early"));
    };
    rest = behind;
    let class = ConnectionClass::of(*class).ok_or_else(|| invalid("a handshake of no known class"))?;
    let (identity, expected) = identity(&mut rest, 4)?;
    let expected = NodeId(expected.as_slice().get_i32());
    let expected = (expected.0 != ANY_NODE).then_some(expected);
    Ok(HandshakeRequest { identity, class, expected, oldest: *oldest, newest: *newest })
}

/// `response`: the version of the connection and who accepts it, or why it is rejected.
pub(super) async fn write_response(
    to: &Duplex,
    response: &Result<(u8, Identity), HandshakeRejection>,
) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    match response {
        Ok((version, own)) => {
            bytes.put_slice(&[0, *version]);
            put_identity(&mut bytes, own);
        }
        Err(why) => {
            bytes.put_u8(1);
            bytes.put_slice(why.to_string().as_bytes());
        }
    }
    write(to, &bytes).await
}

/// The version of the connection and the identity of the responding node, or why it rejected the handshake.
pub(super) async fn read_response(from: &Duplex) -> io::Result<Result<(u8, Identity), String>> {
    let bytes = read(from).await?;
    match bytes.split_first() {
        Some((0, rest)) => {
            let (version, mut rest) = rest.split_first().ok_or_else(|| invalid("a handshake response ends early"))?;
            if !VERSIONS.contains(version) {
                return Err(invalid("a handshake response in a version that was not offered"));
            }
            Ok(Ok((*version, identity(&mut rest, 0)?.0)))
        }
        Some((1, why)) => Ok(Err(String::from_utf8_lossy(why).into_owned())),
        _ => Err(invalid("a handshake response of no known kind")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::net::peer::connected_pair;
    use ottla_env::sim;

    async fn everything(from: Duplex) -> Vec<u8> {
        let mut bytes = BytesMut::with_capacity(1 << 10);
        while from.read(&mut bytes).await.unwrap() > 0 {}
        bytes.to_vec()
    }

    /// A stream that holds these bytes, and ends.
    async fn holding(bytes: Vec<u8>) -> Duplex {
        let (near, far) = connected_pair().await;
        near.write_all(&mut &bytes[..]).await.unwrap();
        far
    }

    fn bytes_of_request(request: HandshakeRequest) -> Vec<u8> {
        let written = sim::run(1, || async move {
            let (near, far) = connected_pair().await;
            write_request(&near, &request).await.unwrap();
            drop(near);
            everything(far).await
        });
        written.output
    }

    fn bytes_of_response(response: Result<(u8, Identity), HandshakeRejection>) -> Vec<u8> {
        let written = sim::run(1, || async move {
            let (near, far) = connected_pair().await;
            write_response(&near, &response).await.unwrap();
            drop(near);
            everything(far).await
        });
        written.output
    }

    fn request_in(bytes: &[u8]) -> io::Result<HandshakeRequest> {
        let bytes = bytes.to_vec();
        sim::run(1, || async move { read_request(&holding(bytes).await).await }).output
    }

    fn response_in(bytes: &[u8]) -> io::Result<Result<(u8, Identity), String>> {
        let bytes = bytes.to_vec();
        sim::run(1, || async move { read_response(&holding(bytes).await).await }).output
    }

    fn known(node: i32, directory: u128, cluster: Option<&str>) -> Identity {
        Identity { node: NodeId(node), directory: Uuid::from_u128(directory), cluster: cluster.map(str::to_owned) }
    }

    #[test]
    fn handshakes_round_trip_and_truncated_ones_are_rejected() {
        for (cluster, expected) in [(None, None), (Some("c"), Some(NodeId(7)))] {
            let request = HandshakeRequest::new(known(3, 9, cluster), ConnectionClass::Entries, expected);
            let bytes = bytes_of_request(request.clone());
            assert_eq!(request_in(&bytes).unwrap(), request);
            assert!((0..bytes.len()).all(|cut| request_in(&bytes[..cut]).is_err()));
        }
        let refused = HandshakeRejection::NotHere { found: NodeId(1), expected: 2 };
        for sent in [Ok((1, known(3, 9, None))), Ok((2, known(3, 9, Some("c")))), Err(refused)] {
            let received = response_in(&bytes_of_response(sent.clone())).unwrap();
            assert_eq!(received, sent.map_err(|why| why.to_string()));
        }
        assert!(request_in(b"GET / HTTP/1.1\r\n").is_err());
    }

    /// The bytes are fixed: nodes of two releases exchange them.
    #[test]
    fn the_newest_version_that_both_nodes_speak_is_chosen() {
        let own = known(1, 10, Some("c"));
        let welcome = |version: u8| [&b"OTLA"[..], &[0, 23, 0, version, 0, 0, 0, 1], &[0; 15], &[10], b"c"].concat();
        for (oldest, newest, chosen) in [(1, 1, Some(1)), (1, 2, Some(2)), (2, 9, Some(3)), (4, 9, None), (0, 0, None)]
        {
            let offered: Vec<u8> =
                [&b"OTLA"[..], &[0, 28, oldest, newest, 1, 0, 0, 0, 2], &[0; 15], &[20, 255, 255, 255, 255], b"c"]
                    .concat();
            let request = request_in(&offered).unwrap();
            let version = request.check(&own);
            assert_eq!(version.as_ref().ok().copied(), chosen, "{oldest} to {newest}");
            if let Some(chosen) = chosen {
                assert_eq!(bytes_of_response(version.map(|version| (version, own.clone()))), welcome(chosen));
                assert_eq!(response_in(&welcome(chosen)).unwrap(), Ok((chosen, own.clone())));
            }
        }
        let ours = HandshakeRequest::new(known(2, 20, Some("c")), ConnectionClass::Entries, None);
        assert_eq!(&bytes_of_request(ours)[6..8], &[1, 3]);
        assert!(response_in(&welcome(4)).is_err(), "a version that was not offered");
    }

    #[test]
    fn foreign_nodes_are_rejected() {
        let own = known(1, 10, Some("ours"));
        let request = |other: Identity, expected: Option<i32>| {
            HandshakeRequest::new(other, ConnectionClass::Urgent, expected.map(NodeId))
        };
        assert_eq!(request(known(2, 20, Some("ours")), Some(1)).check(&own), Ok(3));
        assert_eq!(request(known(2, 20, None), None).check(&own), Ok(3), "it is new");
        assert_eq!(request(known(1, 10, Some("ours")), None).check(&own), Ok(3), "itself");
        let other = request(known(2, 20, Some("theirs")), Some(1)).check(&own);
        assert!(matches!(other, Err(HandshakeRejection::OtherCluster { .. })));
        assert!(matches!(request(known(1, 20, None), None).check(&own), Err(HandshakeRejection::InUse { .. })));
        assert!(matches!(request(known(2, 20, None), Some(3)).check(&own), Err(HandshakeRejection::NotHere { .. })));
    }
}
