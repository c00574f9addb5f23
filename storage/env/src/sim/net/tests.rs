//! Bytes between simulated machines: order, bandwidth, cut links, and every way in which a connection ends.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::BytesMut;

use super::{Conditions, SimNet};
use crate::net::{Duplex, Listener, accept};
use crate::rt;
use crate::sim::{self, SimNode, elapsed};

const CLIENT: SimNode = SimNode(1);
const SERVER: SimNode = SimNode(2);
const ADDRESS: &str = "node-2:19092";

async fn connected(net: &SimNet) -> (Duplex, Duplex, Box<dyn Listener>) {
    let mut listener = net.listen(SERVER, ADDRESS);
    let client = net.connector(CLIENT).connect(ADDRESS).await.unwrap();
    let (server, _) = accept(&mut *listener).await.unwrap();
    (Duplex::new(client), Duplex::new(server), listener)
}

/// Reads so many bytes.
async fn read(from: &Duplex, count: usize) -> std::io::Result<BytesMut> {
    let mut bytes = BytesMut::new();
    while bytes.len() < count {
        bytes.reserve(1 << 10);
        if from.read(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(bytes)
}

#[test]
fn bytes_arrive_in_order_and_then_the_end() {
    sim::run_twice(3, || async {
        let (client, server, _listener) = connected(&SimNet::default()).await;
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
        let expected = sent.clone();
        let writing = rt::spawn(async move { client.write_all(&mut &sent[..]).await.unwrap() });
        assert_eq!(read(&server, expected.len()).await.unwrap(), expected);
        writing.await.unwrap();
        assert_eq!(read(&server, 1).await.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn a_link_takes_as_long_as_its_bandwidth_and_its_delay_say() {
    sim::run_twice(4, || async {
        let net = SimNet::default();
        let delay_min = Duration::from_millis(30);
        let bytes_per_second = Some(1_000_000);
        net.set_conditions(Conditions { delay_min, delay_max: delay_min, bytes_per_second, loss_per_mille: 0 });
        let (client, server, _listener) = connected(&net).await;
        let began = elapsed();
        client.write_all(&mut &[0; 500_000][..]).await.unwrap();
        read(&server, 500_000).await.unwrap();
        assert_eq!((elapsed() - began).as_millis(), 530);
    });
}

#[test]
fn a_port_that_is_closed_refuses_at_once_and_a_machine_without_power_never_answers() {
    sim::run_twice(5, || async {
        let net = SimNet::default();
        let connector = net.connector(CLIENT);
        let refused = connector.connect(ADDRESS).await.err().unwrap();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(refused.raw_os_error().is_some(), "as the operating system reports it");
        net.lose_power(SERVER);
        assert!(rt::timeout(Duration::from_secs(60), connector.connect(ADDRESS)).await.is_err());
        net.power_on(SERVER);
        assert!(connector.connect(ADDRESS).await.is_err());
    });
}

#[test]
fn what_is_sent_over_a_cut_link_arrives_when_it_is_restored() {
    sim::run_twice(6, || async {
        let net = SimNet::default();
        let (client, server, _listener) = connected(&net).await;
        net.cut(CLIENT, SERVER);
        client.write_all(&mut &b"late"[..]).await.unwrap();
        assert!(rt::timeout(Duration::from_secs(9), read(&server, 1)).await.is_err());
        let answer = rt::timeout(Duration::from_secs(9), async {
            server.write_all(&mut &b"other"[..]).await.unwrap();
            read(&client, 5).await.unwrap()
        });
        assert_eq!(&answer.await.unwrap()[..], b"other", "the other direction carries");
        let healing = net.clone();
        rt::spawn(async move {
            rt::sleep(Duration::from_secs(1)).await;
            healing.heal();
        });
        assert_eq!(&read(&server, 4).await.unwrap()[..], b"late");
    });
}

#[test]
fn a_machine_that_lost_power_is_silent_and_resets_the_connection_once_it_is_back() {
    sim::run_twice(7, || async {
        let net = SimNet::default();
        let (client, server, listener) = connected(&net).await;
        net.lose_power(SERVER);
        drop((server, listener));
        client.write_all(&mut &b"?"[..]).await.unwrap();
        assert!(rt::timeout(Duration::from_secs(60), read(&client, 1)).await.is_err(), "half-open");
        net.power_on(SERVER);
        assert_eq!(read(&client, 1).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);

        let (idle, server, listener) = connected(&net).await;
        net.lose_power(SERVER);
        drop((server, listener));
        net.power_on(SERVER);
        assert!(rt::timeout(Duration::from_secs(60), read(&idle, 1)).await.is_err(), "it has sent nothing since");
        idle.write_all(&mut &b"?"[..]).await.unwrap();
        assert_eq!(read(&idle, 1).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn connections_that_are_reset_end_on_both_sides_and_new_ones_can_be_opened() {
    sim::run_twice(8, || async {
        let net = SimNet::default();
        let (client, server, mut listener) = connected(&net).await;
        net.reset_connections(SERVER);
        for side in [&client, &server] {
            assert_eq!(read(side, 1).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
            assert!(side.write_all(&mut &b"x"[..]).await.is_err());
        }
        let client = Duplex::new(net.connector(CLIENT).connect(ADDRESS).await.unwrap());
        let (server, _) = accept(&mut *listener).await.unwrap();
        client.write_all(&mut &b"x"[..]).await.unwrap();
        assert_eq!(&read(&Duplex::new(server), 1).await.unwrap()[..], b"x");
    });
}
