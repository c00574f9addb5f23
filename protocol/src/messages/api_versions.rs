//! ApiVersions (key 18): version 5 says which cluster and node the client means (KIP-1242). The response is that of version 4.

use kafka_protocol::protocol::StrBytes;

use super::{message, structure};

message! {
    ApiVersions;
    /// Asks what a node serves.
    ApiVersionsRequest {
        client_software_name: StrBytes = 3..;
        client_software_version: StrBytes = 3..;
        cluster_id: Option<StrBytes> = 5..;
        node_id: i32 = 5.., -1;
    }
}
