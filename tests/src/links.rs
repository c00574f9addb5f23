//! A link between nodes that takes time: a proxy in front of a listener holds up every byte, in both directions, as long as the way
//! is, and passes on as many as come. `tc netem` does the same where the kernel has it.
//!
//! May not know: what the bytes mean, whose they are.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Bytes read at once, and how many such pieces may be on their way in one direction of a connection.
const PIECE_BYTES: usize = 256 << 10;
const PIECES_MAX: usize = 256;

struct Piece {
    due: Instant,
    bytes: Vec<u8>,
}

/// An address from which everything reaches `target` after `one_way`, and what is answered comes back after that time again. It
/// lasts as long as this process.
pub fn delayed(target: SocketAddr, one_way: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            // The node is not there yet, or not any more: so the proxy is not, either.
            let Ok(far) = TcpStream::connect(target) else { continue };
            let _ = near.set_nodelay(true).and_then(|()| far.set_nodelay(true));
            if let (Ok(from_near), Ok(from_far)) = (near.try_clone(), far.try_clone()) {
                carry(from_near, far, one_way);
                carry(from_far, near, one_way);
            }
        }
    });
    address
}

/// One direction of a connection.
fn carry(from: TcpStream, to: TcpStream, one_way: Duration) {
    let (sender, receiver) = sync_channel(PIECES_MAX);
    std::thread::spawn(move || read_pieces(from, &sender, one_way));
    std::thread::spawn(move || write_pieces(to, &receiver));
}

fn read_pieces(mut from: TcpStream, pieces: &SyncSender<Piece>, one_way: Duration) {
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let piece = Piece { due: Instant::now() + one_way, bytes: buffer[..count].to_vec() };
        if pieces.send(piece).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Read);
}

fn write_pieces(mut to: TcpStream, pieces: &Receiver<Piece>) {
    for piece in pieces {
        std::thread::sleep(piece.due.saturating_duration_since(Instant::now()));
        if to.write_all(&piece.bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
