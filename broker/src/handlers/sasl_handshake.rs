//! SaslHandshake (key 17, v0-v1): chooses the SASL mechanism.
//!
//! Every listener is PLAINTEXT. The response is Kafka's on such a listener: ILLEGAL_SASL_STATE and no mechanism, from
//! which a client configured for SASL can report why it cannot connect.

use kafka_protocol::messages::SaslHandshakeResponse;
use ottla_protocol::error::ErrorCode;

pub(super) fn handle() -> SaslHandshakeResponse {
    SaslHandshakeResponse::default().with_error_code(ErrorCode::IllegalSaslState.code())
}
