//! A connection to one broker: the versions that the broker serves, request frames, responses in order.
//!
//! After an error a connection cannot be used any more. May not know: what requests mean.

#![allow(clippy::disallowed_types)] // a client

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use ottla_env::rt;
use ottla_protocol::error::ErrorCode;
use ottla_protocol::frame::DATA_FRAME_BYTES_MAX;
use ottla_protocol::versions::ApiKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::address::Address;
use super::error::ClientError;

/// The client id of this client.
pub(super) const CLIENT_ID: &str = "ottla";
/// Time limit for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of a response; requests carry the shorter [`REQUEST_TIMEOUT_MS`].
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(40);
/// The timeout that requests carry for the broker's work.
pub(super) const REQUEST_TIMEOUT_MS: i32 = 30_000;

// The broker's answer that its work took too long arrives.
const _: () = assert!(RESPONSE_TIMEOUT.as_millis() > REQUEST_TIMEOUT_MS as u128);
/// The largest response: records come in pieces of a few MiB, or in a single batch.
const RESPONSE_BYTES_MAX: usize = DATA_FRAME_BYTES_MAX + (1 << 20);
/// Buffer space for each read from the socket.
const READ_BYTES: usize = 64 << 10;
/// The version of ApiVersions requests; a broker that does not support it answers in version 0.
const API_VERSIONS: i16 = 3;

/// An open connection.
pub(super) struct Connection {
    address: Address,
    stream: TcpStream,
    input: BytesMut,
    correlation: i32,
    /// Lowest and highest version of each API.
    served: BTreeMap<i16, (i16, i16)>,
}

impl Connection {
    /// Connects, and requests the versions that the broker serves.
    pub(super) async fn open(address: &Address) -> Result<Self, ClientError> {
        let connect = TcpStream::connect((address.host.as_str(), address.port));
        let late = || Err(io::Error::new(io::ErrorKind::TimedOut, "no connection in time"));
        let stream = rt::timeout(CONNECT_TIMEOUT, connect).await.unwrap_or_else(|_| late());
        let stream = stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        let stream = stream.map_err(|source| ClientError::Connection { address: address.clone(), source })?;
        let (input, served) = (BytesMut::new(), BTreeMap::new());
        let mut connection = Self { address: address.clone(), stream, input, correlation: 0, served };
        connection.served = connection.request_api_versions().await?;
        Ok(connection)
    }

    async fn request_api_versions(&mut self) -> Result<BTreeMap<i16, (i16, i16)>, ClientError> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str(CLIENT_ID))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let mut body = self.exchange(API_VERSIONS, &request).await?;
        let is_older = body.get(..2) == Some(&ErrorCode::UnsupportedVersion.code().to_be_bytes()[..]);
        let version = if is_older { 0 } else { API_VERSIONS };
        let answer =
            ApiVersionsResponse::decode(&mut body, version).map_err(|_| self.strange("an answer that is none"))?;
        if !is_older {
            ClientError::check(answer.error_code, None, || format!("{}: ApiVersions", self.address))?;
        }
        Ok(answer.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect())
    }

    /// False if the broker has closed the connection.
    pub(super) fn is_alive(&self) -> bool {
        let nothing_came = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        self.stream.try_read(&mut [0]).as_ref().is_err_and(nothing_came)
    }

    /// The newest version of an API that both sides support.
    pub(super) fn version<R: Request>(&self, ours: &RangeInclusive<i16>) -> Result<i16, ClientError> {
        let theirs = self.served.get(&R::KEY);
        let common = theirs.map(|(low, high)| (*low.max(ours.start()), *high.min(ours.end())));
        if let Some((_, version)) = common.filter(|(low, high)| low <= high) {
            return Ok(version);
        }
        let range = |low: i16, high: i16| format!("version {low} to {high}");
        Err(ClientError::Unsupported {
            address: self.address.clone(),
            api: ApiKey::from_code(R::KEY).map_or_else(|| format!("API {}", R::KEY), |api| api.name().to_owned()),
            served: theirs
                .map_or_else(|| "in no version".to_owned(), |(low, high)| format!("in {}", range(*low, *high))),
            needed: range(*ours.start(), *ours.end()),
        })
    }

    /// Sends a request in the newest version of `ours` that the broker serves, and reads its response.
    pub(super) async fn call<R: Request>(
        &mut self,
        ours: RangeInclusive<i16>,
        make: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, ClientError> {
        let version = self.version::<R>(&ours)?;
        let mut body = self.exchange(version, &make(version)).await?;
        R::Response::decode(&mut body, version).map_err(|_| self.strange("an answer that cannot be read"))
    }

    /// Sends a request that has no response.
    pub(super) async fn send_one_way<R: Request>(
        &mut self,
        ours: RangeInclusive<i16>,
        make: impl FnOnce(i16) -> R,
    ) -> Result<(), ClientError> {
        let version = self.version::<R>(&ours)?;
        let frame = self.frame(version, &make(version))?;
        let sent = rt::timeout(RESPONSE_TIMEOUT, self.stream.write_all(&frame)).await.unwrap_or_else(|_| Err(late()));
        sent.map_err(|source| self.broken(source))
    }

    /// Sends a request and returns the body of its response.
    async fn exchange<R: Request>(&mut self, version: i16, request: &R) -> Result<Bytes, ClientError> {
        let frame = self.frame(version, request)?;
        let talk = async {
            self.stream.write_all(&frame).await.map_err(|source| self.broken(source))?;
            self.receive().await
        };
        let answer = rt::timeout(RESPONSE_TIMEOUT, talk).await;
        let mut answer = answer.unwrap_or_else(|_| Err(self.broken(late())))?;
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version));
        match header {
            Ok(header) if header.correlation_id == self.correlation => Ok(answer),
            _ => Err(self.strange("an answer to something else")),
        }
    }

    fn frame<R: Request>(&mut self, version: i16, request: &R) -> Result<Bytes, ClientError> {
        self.correlation = self.correlation.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)));
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        let written =
            header.encode(&mut frame, R::header_version(version)).and_then(|()| request.encode(&mut frame, version));
        written.map_err(|error| ClientError::Unencodable(error.to_string()))?;
        let length =
            i32::try_from(frame.len() - 4).map_err(|_| ClientError::Unencodable("it is too large".to_owned()))?;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        Ok(frame.freeze())
    }

    /// The next frame without its length. The buffer grows with the bytes that arrive, not to the announced size.
    async fn receive(&mut self) -> Result<Bytes, ClientError> {
        loop {
            if let Some(head) = self.input.first_chunk::<4>() {
                let length = usize::try_from(i32::from_be_bytes(*head)).ok();
                let Some(length) = length.filter(|length| (4..=RESPONSE_BYTES_MAX).contains(length)) else {
                    return Err(self.strange("bytes that are no frame; is it an HTTP or a TLS port?"));
                };
                if self.input.len() >= 4 + length {
                    self.input.advance(4);
                    return Ok(self.input.split_to(length).freeze());
                }
            }
            self.input.reserve(READ_BYTES);
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) => {
                    let closed = io::Error::new(io::ErrorKind::UnexpectedEof, "the broker closed the connection");
                    return Err(self.broken(closed));
                }
                Ok(_) => {}
                Err(source) => return Err(self.broken(source)),
            }
        }
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Connection { address: self.address.clone(), source }
    }

    fn strange(&self, why: &str) -> ClientError {
        ClientError::NotKafka { address: self.address.clone(), why: why.to_owned() }
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", RESPONSE_TIMEOUT.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::api_versions_response::ApiVersion;
    use kafka_protocol::messages::{FindCoordinatorRequest, MetadataRequest};
    use tokio::net::TcpListener;

    /// A server that reads one request, responds with these bytes, then closes.
    async fn answering(answer: Vec<u8>) -> Result<Connection, ClientError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address { host: "127.0.0.1".to_owned(), port: listener.local_addr().unwrap().port() };
        let served = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(&answer).await.unwrap();
        };
        tokio::join!(Connection::open(&address), served).0
    }

    fn framed(version: i16, correlation: i32, answer: &ApiVersionsResponse) -> Vec<u8> {
        let mut body = BytesMut::new();
        body.put_i32(correlation);
        answer.encode(&mut body, version).unwrap();
        [&i32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
    }

    fn serving(key: i16, low: i16, high: i16) -> ApiVersionsResponse {
        let api = ApiVersion::default().with_api_key(key).with_min_version(low).with_max_version(high);
        ApiVersionsResponse::default().with_api_keys(vec![api])
    }

    #[tokio::test]
    async fn the_newest_version_that_both_know_is_spoken() {
        let answer = serving(ApiKey::Metadata.code(), 2, 9);
        let connection = answering(framed(3, 1, &answer)).await.unwrap();
        assert_eq!(connection.version::<MetadataRequest>(&(4..=12)).unwrap(), 9);
        assert_eq!(connection.version::<MetadataRequest>(&(0..=7)).unwrap(), 7);
        let error = connection.version::<MetadataRequest>(&(10..=12)).err().unwrap().to_string();
        assert!(error.contains("serves Metadata in version 2 to 9, and version 10 to 12 is needed"), "{error}");
        let error = connection.version::<FindCoordinatorRequest>(&(4..=6)).err().unwrap().to_string();
        assert!(error.contains("FindCoordinator in no version"), "{error}");
    }

    #[tokio::test]
    async fn an_old_broker_answers_in_version_0() {
        let answer = serving(ApiKey::Metadata.code(), 0, 5).with_error_code(ErrorCode::UnsupportedVersion.code());
        let connection = answering(framed(0, 1, &answer)).await.unwrap();
        assert_eq!(connection.version::<MetadataRequest>(&(4..=12)).unwrap(), 5);
    }

    #[tokio::test]
    async fn what_is_no_broker_is_told_from_one() {
        for (answer, why) in [
            (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "does not speak Kafka's protocol"),
            (vec![0x15, 3, 3, 0, 2, 2, 70], "does not speak Kafka's protocol"),
            (framed(3, 77, &serving(3, 0, 1)), "an answer to something else"),
            (vec![0, 0, 0, 6, 0, 0, 0, 1, 0, 0], "an answer that is none"),
            (Vec::new(), "closed the connection"),
            (vec![0, 0, 1], "closed the connection"),
        ] {
            let error = answering(answer).await.err().unwrap().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
