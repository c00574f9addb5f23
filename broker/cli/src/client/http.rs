//! A minimal HTTP client for a node's admin port: GET or POST, status and body.
//!
//! May not know: the contents of a page.

#![allow(clippy::disallowed_types)] // a client

use std::io;
use std::time::Duration;

use ottla_env::rt;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::address::Address;

/// Time limit of a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// A page about a hundred thousand partitions is a few MiB.
const PAGE_BYTES_MAX: u64 = 64 << 20;

/// Why a request failed.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The address is not one that this client supports.
    #[error("{0:?} is not http://host:port")]
    NoAddress(String),
    /// No connection, or no complete response.
    #[error("{address}: {source}")]
    Connection {
        /// The admin port.
        address: Address,
        /// What happened.
        source: io::Error,
    },
    /// The response is not HTTP.
    #[error("{address} does not speak HTTP")]
    NotHttp {
        /// The server's address.
        address: Address,
    },
}

/// The status where there is no such page, or nothing by that name.
pub const NOT_FOUND: u16 = 404;
/// The status of a node that finds no controller, or gets no answer of one.
pub const SERVICE_UNAVAILABLE: u16 = 503;

/// Status and body of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// 200 and so on.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Sends a GET request. `base` is `http://host:port`; `path` begins with a slash.
///
/// # Errors
/// When there is no HTTP response.
pub async fn get(base: &str, path: &str) -> Result<Page, HttpError> {
    call("GET", base, path).await
}

/// Sends a POST request. `base` and `path` as for [`get`].
///
/// # Errors
/// When there is no HTTP response: it is then unknown whether the request was carried out.
pub async fn post(base: &str, path: &str) -> Result<Page, HttpError> {
    call("POST", base, path).await
}

async fn call(method: &str, base: &str, path: &str) -> Result<Page, HttpError> {
    let named = base.strip_prefix("http://").unwrap_or(base).trim_end_matches('/');
    let address = Address::parse(named).map_err(|_| HttpError::NoAddress(base.to_owned()))?;
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    let answer = rt::timeout(RESPONSE_TIMEOUT, request(method, &address, path)).await.unwrap_or_else(|_| Err(late()));
    let answer = answer.map_err(|source| HttpError::Connection { address: address.clone(), source })?;
    page(&String::from_utf8_lossy(&answer)).ok_or(HttpError::NotHttp { address })
}

/// Percent-encodes a string as a segment of a path.
#[must_use]
pub fn escaped(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let escape = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    word.bytes().map(escape).collect()
}

async fn request(method: &str, address: &Address, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    // HTTP/1.0: the response is not chunked and ends with the connection.
    let request =
        format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(PAGE_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(answer)
}

fn page(answer: &str) -> Option<Page> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut words = head.lines().next()?.split(' ');
    words.next()?.strip_prefix("HTTP/1.")?;
    Some(Page { status: words.next()?.parse().ok()?, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_and_others_refused() {
        let read = page("HTTP/1.1 404 Not Found\r\na: b\r\n\r\n{}\r\n\r\nmore");
        assert_eq!(read, Some(Page { status: 404, body: "{}\r\n\r\nmore".to_owned() }));
        for answer in ["", "HTTP/1.1 200 OK", "SSH-2.0\r\n\r\n", "HTTP/1.1 x\r\n\r\n"] {
            assert_eq!(page(answer), None, "{answer}");
        }
    }

    #[test]
    fn words_are_no_paths() {
        assert_eq!(escaped("zone-a"), "zone-a");
        assert_eq!(escaped("a/../b é"), "a%2F..%2Fb%20%C3%A9");
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_said_so() {
        for base in ["https://a:1", "http://", "a b"] {
            assert!(matches!(get(base, "/").await, Err(HttpError::NoAddress(_))), "{base}");
        }
    }
}
