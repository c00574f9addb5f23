//! Retries of retriable errors: exponential backoff and a deadline.
//!
//! May not know: what is retried.

use std::time::Duration;

use ottla_env::rt;

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A new leader is elected within seconds; an error that lasts longer is reported.
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);

/// The retries of one request, with growing pauses.
#[derive(Debug)]
pub(super) struct Retry {
    deadline: rt::Instant,
    pause: Duration,
}

impl Retry {
    pub(super) fn new() -> Self {
        Self { deadline: rt::now() + RETRY_TIMEOUT, pause: PAUSE_MIN }
    }

    /// Waits before the next attempt; false if the deadline is reached.
    pub(super) async fn backoff(&mut self) -> bool {
        if rt::now() + self.pause >= self.deadline {
            return false;
        }
        rt::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_env::sim;

    #[test]
    fn attempts_become_rarer_and_end() {
        sim::run(1, || async {
            let (began, mut retry, mut attempts) = (rt::now(), Retry::new(), 0);
            while retry.backoff().await {
                attempts += 1;
            }
            assert!((20..30).contains(&attempts), "{attempts}");
            assert!(rt::now().since(began) < RETRY_TIMEOUT);
        });
    }
}
