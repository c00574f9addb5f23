//! One page of a node's admin port: GET or POST, and what comes back.
//!
//! May not know: what is on the page.

use std::io;
use std::time::Duration;

use ottla_storage::env::rt;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::address::Address;

/// How long a page may take.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// A page about a hundred thousand partitions is a few MiB.
const PAGE_BYTES_MAX: u64 = 64 << 20;

/// Why a page did not come.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The address is none that this client speaks to.
    #[error("{0:?} is not http://host:port")]
    NoAddress(String),
    /// Nobody answers, or not to the end.
    #[error("{address}: {source}")]
    Connection {
        /// The admin port.
        address: Address,
        /// What happened.
        source: io::Error,
    },
    /// Something else than HTTP came back.
    #[error("{address} does not speak HTTP")]
    NotHttp {
        /// Who answered.
        address: Address,
    },
}

/// Status and body of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// 200 and so on.
    pub status: u16,
    /// What came with it.
    pub body: String,
}

/// Gets a page. `base` is `http://host:port`; `path` begins with a slash.
///
/// # Errors
/// When nobody answers in HTTP.
pub async fn get(base: &str, path: &str) -> Result<Page, HttpError> {
    call("GET", base, path).await
}

/// Has something done. `base` and `path` as for [`get`].
///
/// # Errors
/// When nobody answers in HTTP; whether it was done is not known then.
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

/// A word as a part of a path: what has a meaning there is written in hexadecimal.
#[must_use]
pub fn escaped(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let escape = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    word.bytes().map(escape).collect()
}

async fn request(method: &str, address: &Address, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
    // HTTP/1.0: the answer comes in one piece and ends with the connection.
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
