//! The signal that ends a source: a flag that goes up once and stays up.
//!
//! A source checks it between messages, never inside `publish`: an event that was pushed to
//! one shard and not to the next would break the order that all shards share.

use std::time::Duration;

use tokio::sync::watch;

/// The receiving end of the process's shutdown flag.
#[derive(Debug, Clone)]
pub(crate) struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    pub(crate) fn new(flag: watch::Receiver<bool>) -> Self {
        Self(flag)
    }

    /// Resolves when the flag is up, or when nobody is left who could raise it.
    pub(crate) async fn fired(&self) {
        let mut flag = self.0.clone();
        // An error means that the sender is gone, which ends the source as well.
        flag.wait_for(|is_up| *is_up).await.ok();
    }

    /// Waits for `delay`; true if the flag went up before.
    pub(crate) async fn fired_within(&self, delay: Duration) -> bool {
        self.fired_before(tokio::time::sleep(delay)).await
    }

    /// Waits for `work`; true if the flag went up before.
    pub(crate) async fn fired_before(&self, work: impl Future<Output = ()>) -> bool {
        tokio::select! {
            biased;
            () = self.fired() => true,
            () = work => false,
        }
    }
}
