//! ApiVersions (key 18, v0-v4): what this broker serves, made from the one table.
//!
//! v3+: name and version of the client's software (KIP-511), INVALID_REQUEST if they are malformed. A version above
//! the table's is answered before decoding, in v0 with UNSUPPORTED_VERSION (`server::kafka`).

use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use ottla_protocol::error::ErrorCode;
use ottla_protocol::response::advertised_versions;

use crate::server::Context;

pub(super) fn handle(_ctx: &Context, version: i16, request: &ApiVersionsRequest) -> ApiVersionsResponse {
    let named = is_software_word(&request.client_software_name) && is_software_word(&request.client_software_version);
    if version >= 3 && !named {
        return ApiVersionsResponse::default().with_error_code(ErrorCode::InvalidRequest.code());
    }
    ApiVersionsResponse::default().with_api_keys(advertised_versions())
}

/// Letters, digits, `-` and `.`, beginning and ending with a letter or digit, as Kafka has it.
fn is_software_word(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    word.starts_with(plain) && word.ends_with(plain) && word.chars().all(|c| plain(c) || c == '-' || c == '.')
}

#[cfg(test)]
mod tests {
    use super::is_software_word;

    #[test]
    fn software_words_are_kafkas() {
        assert!(["librdkafka", "4.1.0", "a", "kafka-python.x"].into_iter().all(is_software_word));
        assert!(!["", "-a", "a.", "a b", "ü"].into_iter().any(is_software_word));
    }
}
