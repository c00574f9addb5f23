//! Bytes and the order of replies: listeners, connections, dispatch.
