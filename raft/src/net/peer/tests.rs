//! Two nodes over loopback, or over a simulated link: requests and responses, rejected handshakes, lost connections. No group
//! runs here: services respond.

#![allow(clippy::unwrap_used, clippy::disallowed_types)] // real sockets

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use ottla_env::real::TcpConnector;
use ottla_env::sim::net::{Conditions, SimNet};
use ottla_env::sim::{self, SimNode};
use ottla_protocol::ids::NodeId;
use ottla_storage::ids::ReplicaId;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use uuid::Uuid;

use super::{Identity, Listening, PeerNetwork};
use crate::host::RaftHost;
use crate::net::{Message, Network, PeerDirectory, Priority, ReplicaLocation};
use crate::options::RaftOptions;

const WAIT: Duration = Duration::from_secs(20);

/// Replica n is located on node n.
#[derive(Default)]
struct Map(Mutex<BTreeMap<NodeId, String>>);

impl PeerDirectory for Map {
    fn locate(&self, replica: ReplicaId) -> Option<ReplicaLocation> {
        Some(ReplicaLocation { node: NodeId(i32::try_from(replica.0).ok()?), is_urgent: false })
    }

    fn address(&self, node: NodeId) -> Option<String> {
        self.0.lock().get(&node).cloned()
    }
}

struct OneNode {
    network: PeerNetwork,
    host: RaftHost,
    address: String,
    _listening: Listening,
}

fn identity(node: i32, directory: u128, cluster: Option<&str>) -> Identity {
    Identity { node: NodeId(node), directory: Uuid::from_u128(directory), cluster: cluster.map(str::to_owned) }
}

/// A node whose service responds with its node id, followed by the request.
async fn node(map: &Arc<Map>, identity: Identity) -> OneNode {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    map.0.lock().insert(identity.node, address.clone());
    let own = identity.node;
    let network = PeerNetwork::new(identity, Arc::new(TcpConnector), map.clone());
    let host = RaftHost::new(Arc::new(network.clone()), RaftOptions::default());
    let service = move |_from: ReplicaId, request: Bytes| -> BoxFuture<'static, Option<Bytes>> {
        Box::pin(async move {
            let own = u8::try_from(own.0).ok()?;
            Some([&[own], &request[..]].concat().into())
        })
    };
    host.serve(ReplicaId(u64::from(own.0.unsigned_abs())), Arc::new(service));
    let listening = network.listen(Box::new(listener), Arc::new(host.clone()));
    OneNode { network, host, address, _listening: listening }
}

/// Binds a port that another listener is about to close.
async fn bind_again(address: &str) -> TcpListener {
    loop {
        if let Ok(listener) = TcpListener::bind(address).await {
            return listener;
        }
        tokio::task::yield_now().await;
    }
}

async fn ask(from: &OneNode, to: u64, request: &[u8]) -> Result<Bytes, String> {
    let request = Bytes::copy_from_slice(request);
    from.host.request(ReplicaId(9), ReplicaId(to), request, Priority::Normal, WAIT).await.map_err(|why| why.to_string())
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

#[test]
fn requests_of_all_sizes_are_answered_in_any_order() {
    block_on(async {
        let map = Arc::default();
        let (one, two) = (node(&map, identity(1, 10, None)).await, node(&map, identity(2, 20, Some("c"))).await);
        let sizes = (0..200_usize).map(|number| number * number * 7);
        let responses = join_all(sizes.map(|size| {
            let (one, request) = (&one, vec![5; size]);
            async move { (ask(one, 2, &request).await, request) }
        }));
        for (response, request) in responses.await {
            assert_eq!(response.unwrap(), [&[2], &request[..]].concat());
        }
        assert_eq!(ask(&two, 1, b"back").await.unwrap(), &b"\x01back"[..]);
        assert!(ask(&one, 3, b"").await.unwrap_err().contains("not known"));
    });
}

#[test]
fn a_node_that_returns_at_another_address_is_found_and_foreign_nodes_are_rejected() {
    block_on(async {
        let map = Arc::default();
        let one = node(&map, identity(1, 10, Some("ours"))).await;
        let two = node(&map, identity(2, 20, None)).await;
        assert_eq!(ask(&one, 2, b"?").await.unwrap(), &b"\x02?"[..]);
        assert_eq!(one.network.identify(&two.address).await.unwrap(), identity(2, 20, None));
        drop(two);
        while ask(&one, 2, b"?").await.is_ok() {
            tokio::task::yield_now().await;
        }
        let two = node(&map, identity(2, 20, None)).await;
        while ask(&one, 2, b"?").await.is_err() {
            tokio::task::yield_now().await;
        }
        two.network.set_cluster("theirs");
        let why = two.network.identify(&one.address).await.unwrap_err().to_string();
        assert!(why.contains("belongs to cluster theirs"), "{why}");
        let wiped = node(&Arc::default(), identity(1, 11, None)).await;
        let why = wiped.network.identify(&one.address).await.unwrap_err().to_string();
        assert!(why.contains("node id 1 is in use"), "{why}");
        map.0.lock().insert(NodeId(4), one.address.clone());
        let why = ask(&one, 4, b"?").await.unwrap_err();
        assert!(why.contains("this is node 1, not node 4"), "{why}");
    });
}

/// The first of two nodes with one id stays as long as it is connected.
#[test]
fn a_node_id_is_taken_as_long_as_its_node_is_connected() {
    block_on(async {
        let map = Arc::default();
        let one = node(&map, identity(1, 10, None)).await;
        let first = node(&map, identity(2, 20, None)).await;
        let second = node(&Arc::default(), identity(2, 21, None)).await;
        assert_eq!(ask(&first, 1, b"?").await.unwrap(), &b"\x01?"[..]);
        let why = second.network.identify(&one.address).await.unwrap_err().to_string();
        assert!(why.contains("node id 2 is in use"), "{why}");
        drop(first);
        while second.network.identify(&one.address).await.is_err() {
            tokio::task::yield_now().await;
        }
    });
}

/// A process that ends takes its time: its port may still accept connections, which are closed at once.
#[test]
fn a_dead_process_is_distinguished_from_a_closed_connection() {
    block_on(async {
        let map = Arc::default();
        let one = node(&map, identity(1, 10, None)).await;
        let (closed, mut closed_nodes) = tokio::sync::mpsc::unbounded_channel();
        one.network.on_peer_closed(Arc::new(move |node, confirmation| drop(closed.send((node, confirmation)))));
        let two = node(&map, identity(2, 20, None)).await;
        assert_eq!(ask(&one, 2, b"?").await.unwrap(), &b"\x02?"[..]);
        let address = two.address.clone();
        drop(two);
        let dying = bind_again(&address).await;
        let (node_id, confirmation) = closed_nodes.recv().await.unwrap();
        assert_eq!(node_id, NodeId(2));
        for _ in 0..3 {
            drop(dying.accept().await.unwrap());
        }
        drop(dying);
        assert!(confirmation.await.unwrap(), "the port is closed");

        let two = node(&map, identity(2, 20, None)).await;
        while ask(&one, 2, b"?").await.is_err() {
            tokio::task::yield_now().await;
        }
        while closed_nodes.try_recv().is_ok() {}
        let address = two.address.clone();
        drop(two);
        let again = bind_again(&address).await;
        let network = PeerNetwork::new(identity(2, 20, None), Arc::new(TcpConnector), map.clone());
        let host = RaftHost::new(Arc::new(network.clone()), RaftOptions::default());
        let _listening = network.listen(Box::new(again), Arc::new(host));
        let (_, confirmation) = closed_nodes.recv().await.unwrap();
        assert!(!confirmation.await.unwrap(), "a node listens");
    });
}

/// Four seconds without a whole frame, but not without a byte: twice as long as a node may be silent.
#[test]
fn a_long_response_over_a_slow_link_is_no_silence() {
    sim::run(1, || async {
        let (net, map) = (SimNet::default(), Arc::<Map>::default());
        let network = |node: i32| {
            let connector = net.connector(SimNode(node.unsigned_abs()));
            PeerNetwork::new(identity(node, 10, None), connector, map.clone())
        };
        let (near, far) = (network(1), network(2));
        let host = RaftHost::new(Arc::new(far.clone()), RaftOptions::default());
        let service = |_from: ReplicaId, _request: Bytes| -> BoxFuture<'static, Option<Bytes>> {
            Box::pin(async { Some(vec![7; 400_000].into()) })
        };
        host.serve(ReplicaId(2), Arc::new(service));
        map.0.lock().insert(NodeId(2), "node-2:19092".to_owned());
        let _listening = far.listen(net.listen(SimNode(2), "node-2:19092"), Arc::new(host));
        net.set_conditions(Conditions { bytes_per_second: Some(100_000), ..Conditions::default() });
        let request = Message::Request(Bytes::from_static(b"?"));
        let response = near.call(ReplicaId(9), ReplicaId(2), request, Priority::Bulk, WAIT).await;
        assert!(matches!(&response, Ok(Message::Response(bytes)) if bytes.len() == 400_000), "{response:?}");
    });
}
