//! What the integration tests share: starting and stopping real broker processes, a thin raw client.
