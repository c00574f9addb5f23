//! Malformed input on the wire: frames, headers, connections. After each case the broker runs, other clients are
//! served, and a counter has moved.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest};
use ottla_tests::batch::TestBatch;
use ottla_tests::process::Broker;
use ottla_tests::raw::{Raw, frame, text};

/// Bytes that a refused connection may cost; a frame is announced with far more.
const REFUSED_BYTES_MAX: u64 = 64 << 20;

/// Runs `attack` against a broker that serves a topic, and looks at it afterwards.
fn survives(settings: &[(&str, &str)], attack: impl FnOnce(&mut Broker)) {
    let mut broker = Broker::start(settings);
    let mut other = Raw::connect(broker.address());
    other.create_topic("witness", 1, &[]);
    assert_eq!(other.produce("witness", 0, TestBatch::of(&[b"before"]).encode()).error_code, 0);
    let resident = broker.resident_bytes();
    attack(&mut broker);
    assert!(broker.is_alive(), "the process lives");
    assert!(broker.resident_bytes() < resident + REFUSED_BYTES_MAX, "memory stays within its bound");
    if settings.iter().any(|(name, _)| *name == "KAFKA_CONNECTIONS_MAX_IDLE_MS") {
        // The witness was idle meanwhile, and was closed for it.
        other = Raw::connect(broker.address());
    }
    assert_eq!(other.produce("witness", 0, TestBatch::of(&[b"after"]).encode()).base_offset, 1);
    assert_eq!(other.read_all("witness", 0).len(), 2, "what is stored is unchanged");
    broker.stop();
}

fn refused(broker: &Broker) -> f64 {
    broker.metric("ottla_connections_refused_total", "")
}

/// Sends bytes on a fresh connection and demands that the broker closes it and counts that.
fn closes_after(broker: &Broker, bytes: &[u8]) {
    let before = refused(broker);
    let mut raw = Raw::connect(broker.address());
    let _ = raw.stream.write_all(bytes);
    assert!(raw.is_closed(), "closed after {:?}", &bytes[..bytes.len().min(16)]);
    assert_eq!(refused(broker), before + 1.0, "one counter moved");
}

#[test]
fn sizes_that_no_frame_has_close_the_connection() {
    survives(&[("KAFKA_SOCKET_REQUEST_MAX_BYTES", "1000000")], |broker| {
        for size in [-1, i32::MIN, 0, 1, 7, 1_000_001, i32::MAX] {
            let mut bytes = size.to_be_bytes().to_vec();
            bytes.extend([0; 8]);
            closes_after(broker, &bytes);
        }
    });
}

#[test]
fn other_protocols_on_the_port_are_closed_and_named_in_the_log() {
    survives(&[], |broker| {
        closes_after(broker, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        closes_after(broker, &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03, 0x00]);
        let log = broker.log();
        assert!(log.contains("HTTP") && log.contains("TLS"), "the log names what came:\n{log}");
    });
}

#[test]
fn an_announced_frame_costs_nothing_before_its_bytes_arrive() {
    survives(&[], |broker| {
        let resident = broker.resident_bytes();
        let mut open = Vec::new();
        for _ in 0..20 {
            let mut raw = Raw::connect(broker.address());
            raw.send(&100_000_000_i32.to_be_bytes());
            raw.send(&[0, 0, 0, 9]);
            open.push(raw);
        }
        let mut other = Raw::connect(broker.address());
        other.call(
            3,
            &ApiVersionsRequest::default().with_client_software_name(text("t")).with_client_software_version(text("1")),
        );
        assert!(broker.resident_bytes() < resident + REFUSED_BYTES_MAX);
    });
}

#[test]
fn half_a_frame_and_an_end_is_an_ordinary_end() {
    survives(&[], |broker| {
        let bytes = frame(9, 1, &MetadataRequest::default());
        let mut raw = Raw::connect(broker.address());
        raw.send(&bytes[..bytes.len() / 2]);
        raw.stream.shutdown(Shutdown::Write).unwrap();
        assert!(raw.is_closed());
    });
}

#[test]
fn unknown_keys_and_versions_close_but_api_versions_is_answered() {
    survives(&[], |broker| {
        for (key, version) in [(9999_i16, 0_i16), (-1, 0), (3, 99), (0, 99)] {
            let mut body = BytesMut::new();
            body.put_i16(key);
            body.put_i16(version);
            body.put_i32(7);
            body.put_i16(-1);
            let mut bytes = i32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
            bytes.extend(&body);
            closes_after(broker, &bytes);
        }
        let mut raw = Raw::connect(broker.address());
        let mut body = BytesMut::new();
        body.put_i16(18);
        body.put_i16(99);
        body.put_i32(7);
        body.put_i16(-1);
        raw.send(&i32::try_from(body.len()).unwrap().to_be_bytes());
        raw.send(&body);
        let answer = raw.receive().expect("an answer in version 0");
        assert_eq!(&answer[..6], &[0, 0, 0, 7, 0, 35], "UNSUPPORTED_VERSION");
        let versions = raw.call(
            3,
            &ApiVersionsRequest::default().with_client_software_name(text("t")).with_client_software_version(text("1")),
        );
        assert_eq!(versions.error_code, 0, "the connection goes on");
    });
}

/// A frame of an API with a body made by hand.
fn by_hand(key: i16, version: i16, flexible: bool, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_i16(key);
    out.put_i16(version);
    out.put_i32(1);
    out.put_i16(1);
    out.put_slice(b"c");
    if flexible {
        out.put_u8(0);
    }
    out.put_slice(body);
    let mut bytes = i32::try_from(out.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(&out);
    bytes
}

#[test]
fn bodies_that_lie_about_their_lengths_close_the_connection() {
    survives(&[], |broker| {
        let overlong_varint = [0xff_u8; 11];
        let tag_past_the_end = [1, 0, 1, 5, 0xff, 0xff, 0x7f];
        let cases: &[(&str, Vec<u8>)] = &[
            ("array length 2^31-1", by_hand(3, 4, false, &i32::MAX.to_be_bytes())),
            ("array length -2", by_hand(3, 4, false, &(-2_i32).to_be_bytes())),
            ("string length past the end", by_hand(3, 4, false, &[0, 0, 0, 1, 0x7f, 0xff, b'x', 1])),
            ("null string where none may be", by_hand(3, 4, false, &[0, 0, 0, 1, 0xff, 0xff, 1])),
            ("overlong varint", by_hand(3, 9, true, &overlong_varint)),
            ("tag past the end", by_hand(3, 9, true, &tag_past_the_end)),
            ("truncated body", by_hand(3, 9, true, &[])),
            ("negative string length in the header", vec![0, 0, 0, 10, 0, 3, 0, 4, 0, 0, 0, 1, 0xff, 0xfe]),
        ];
        for (what, bytes) in cases {
            println!("{what}");
            closes_after(broker, bytes);
        }
    });
}

#[test]
fn ten_thousand_unknown_tags_are_bounded() {
    survives(&[], |broker| {
        let mut body = vec![1, 0, 0, 0];
        body.extend([0x90, 0x4e]);
        for tag in 0..10_000_u32 {
            let mut number = tag + 100;
            while number >= 0x80 {
                body.push((number & 0x7f) as u8 | 0x80);
                number >>= 7;
            }
            body.push(number as u8);
            body.push(0);
        }
        let mut raw = Raw::connect(broker.address());
        raw.send(&by_hand(3, 9, true, &body));
        let _ = raw.receive();
    });
}

#[test]
fn a_hundred_thousand_pipelined_requests_are_answered_in_order() {
    survives(&[], |broker| {
        let count = 100_000;
        let raw = Raw::connect(broker.address());
        let mut writer = raw.stream.try_clone().unwrap();
        let sending = std::thread::spawn(move || {
            let request = ApiVersionsRequest::default();
            let mut out = Vec::new();
            for correlation in 0..count {
                out.extend(frame(0, correlation, &request));
            }
            writer.write_all(&out).unwrap();
        });
        let mut raw = raw;
        for correlation in 0..count {
            let answer = raw.receive().expect("an answer");
            assert_eq!(i32::from_be_bytes(answer[..4].try_into().unwrap()), correlation);
        }
        sending.join().unwrap();
    });
}

#[test]
fn a_client_that_never_reads_is_held_back() {
    survives(&[], |broker| {
        let mut stream = TcpStream::connect(broker.address()).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
        let request = frame(0, 1, &ApiVersionsRequest::default());
        let burst: Vec<u8> = request.repeat(10_000);
        let mut written = 0_usize;
        // The answers are ten times the requests: the broker stops reading long before this much went in.
        while written < 256 << 20 {
            match stream.write(&burst) {
                Ok(count) => written += count,
                Err(_) => break,
            }
        }
        assert!(written < 256 << 20, "the broker read on although nobody takes its answers");
    });
}

#[test]
fn idle_connections_and_slow_writers_are_closed() {
    survives(&[("KAFKA_CONNECTIONS_MAX_IDLE_MS", "1000")], |broker| {
        let mut idle = TcpStream::connect(broker.address()).unwrap();
        idle.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0, "closed when idle");
        let mut slow = TcpStream::connect(broker.address()).unwrap();
        slow.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let bytes = frame(0, 1, &ApiVersionsRequest::default());
        let mut closed = false;
        for byte in bytes.iter().cycle().take(100) {
            let end = slow.write_all(&[*byte]).is_err() || matches!(slow.read(&mut [0; 1]), Ok(0));
            closed = closed || end;
            if closed {
                break;
            }
        }
        assert!(closed, "a frame has to be whole within the idle limit");
    });
}

#[test]
fn connections_above_the_limit_are_closed() {
    survives(&[("KAFKA_MAX_CONNECTIONS", "20")], |broker| {
        let mut open: Vec<Raw> = (0..40).map(|_| Raw::connect(broker.address())).collect();
        let mut served = 0;
        for raw in &mut open {
            let bytes = frame(0, 1, &ApiVersionsRequest::default());
            if raw.stream.write_all(&bytes).is_ok() && raw.receive().is_some() {
                served += 1;
            }
        }
        assert!((1..=20).contains(&served), "{served} of 40 are served");
    });
}

#[test]
fn a_client_id_that_is_no_text_is_not_written_to_the_log_as_it_is() {
    survives(&[], |broker| {
        let mut body = BytesMut::new();
        body.put_i16(3);
        body.put_i16(4);
        body.put_i32(1);
        body.put_i16(4);
        body.put_slice(&[0xff, 0xfe, 0x1b, b'[']);
        body.put_i32(i32::MAX);
        let mut bytes = i32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(&body);
        closes_after(broker, &bytes);
        assert!(!broker.log().contains('\u{1b}'), "no escape sequence in the log");
    });
}
