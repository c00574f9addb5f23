//! Messages between two replicas of one node: one of them takes the place of the other, in another data directory.
//!
//! May not know: sockets, and why a node has two replicas of a shard.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ottla_env::rt;
use ottla_storage::ids::ReplicaId;
use parking_lot::Mutex;

use super::{Message, MessageHandler, Network, NoResponse, Priority};

/// Delivers within the process. By itself it is the network of a node that is a cluster of its own.
#[derive(Default)]
pub struct LocalDelivery(Mutex<Option<Weak<dyn MessageHandler>>>);

impl LocalDelivery {
    /// From now on messages go to `handler`, for as long as the caller keeps it.
    pub fn deliver_to(&self, handler: &Arc<dyn MessageHandler>) {
        *self.0.lock() = Some(Arc::downgrade(handler));
    }
}

impl Network for LocalDelivery {
    fn call(
        &self,
        from: ReplicaId,
        to: ReplicaId,
        request: Message,
        _priority: Priority,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Message, NoResponse>> {
        let Some(handler) = self.0.lock().as_ref().and_then(Weak::upgrade) else {
            return NoResponse::unknown_location(to);
        };
        Box::pin(async move {
            let mut handled = handler.deliver(from, to, request);
            // As where a connection is read: the first step is made here, so what was sent in order reaches its group in order.
            if let Some(response) = (&mut handled).now_or_never() {
                return response;
            }
            // It is acted upon whether its sender still waits or not.
            match rt::timeout(timeout, rt::spawn(handled)).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => Err(NoResponse(format!("replica {to} failed: {error}"))),
                Err(_) => Err(NoResponse(format!("replica {to} gave no answer in time"))),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use ottla_env::sim;

    use super::*;

    /// Answers after a while, unless it never does.
    struct Slow;

    impl MessageHandler for Slow {
        fn deliver(
            &self,
            from: ReplicaId,
            _to: ReplicaId,
            request: Message,
        ) -> BoxFuture<'static, Result<Message, NoResponse>> {
            Box::pin(async move {
                rt::sleep(Duration::from_millis(from.0)).await;
                Ok(request)
            })
        }
    }

    #[test]
    fn a_message_is_answered_within_the_process_in_time_or_not_at_all() {
        sim::run(1, || async {
            let delivery = LocalDelivery::default();
            let call = |millis: u64| {
                let (from, timeout) = (ReplicaId(millis), Duration::from_millis(50));
                delivery.call(from, ReplicaId(2), Message::AppendEntriesSuccess, Priority::Normal, timeout)
            };
            assert!(call(0).await.is_err(), "nobody is there yet");
            let handler: Arc<dyn MessageHandler> = Arc::new(Slow);
            delivery.deliver_to(&handler);
            assert_eq!(call(10).await.unwrap(), Message::AppendEntriesSuccess);
            assert!(call(1_000).await.is_err(), "it takes too long");
            drop(handler);
            assert!(call(0).await.is_err(), "nobody is there any more");
        });
    }
}
