//! SaslHandshake (key 17, v0-v1): chooses the mechanism of authentication.
//!
//! Every listener is PLAINTEXT. The answer is Kafka's on such a listener: ILLEGAL_SASL_STATE and no mechanism, which tells
//! a client that is set up for SASL why it cannot go on.

use kafka_protocol::messages::SaslHandshakeResponse;
use ottla_protocol::error::ErrorCode;

pub(super) fn handle() -> SaslHandshakeResponse {
    SaslHandshakeResponse::default().with_error_code(ErrorCode::IllegalSaslState.code())
}
