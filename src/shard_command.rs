//! What other threads ask of a shard: one bounded queue to each shard, and an answer where one is
//! wanted.
//!
//! Bounds: [`COMMANDS_MAX`] commands wait for a shard. A question that finds the queue full is
//! refused at once; what has to reach the shard waits up to [`DELIVERY_DEADLINE`] for a place. An
//! answer is awaited up to [`ANSWER_DEADLINE`]. The shard takes commands in their order, between
//! its other turns, and waits for nobody who asked.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Commands that wait for a shard: a few requests of the admin port, and what ends the server.
pub(crate) const COMMANDS_MAX: usize = 16;

/// How long a command that has to reach the shard waits for a place in its queue.
pub(crate) const DELIVERY_DEADLINE: Duration = Duration::from_secs(1);

/// How long an answer is awaited. A shard under load takes up to 50 ms to see a command.
pub(crate) const ANSWER_DEADLINE: Duration = Duration::from_secs(1);

/// What another thread asks of a shard.
#[derive(Debug)]
pub(crate) enum ShardCommand {
    /// Have `/ready` fail, and serve as before; the answer says that it does.
    Retire(Reply<()>),
    /// Stop listening, and have the clients leave within this time.
    Drain(Duration),
    /// Stop listening, close what is left with 1001, end.
    ShutDown,
}

/// Why a command was not carried out, or is not known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CommandError {
    /// Too many commands wait already.
    #[error("the shard has {COMMANDS_MAX} commands to carry out already, try again later")]
    Full,
    /// The shard has ended.
    #[error("the shard has ended")]
    Ended,
    /// It may still be carried out.
    #[error("the shard did not answer in time")]
    Late,
}

/// Where the answer to a command goes.
#[derive(Debug)]
pub(crate) struct Reply<T>(oneshot::Sender<T>);

impl<T> Reply<T> {
    /// Answers. If the asker waits no longer, the answer is dropped.
    pub(crate) fn send(self, answer: T) {
        self.0.send(answer).map_or_else(drop, |()| ());
    }
}

/// The way to one shard, for any thread.
#[derive(Debug, Clone)]
pub(crate) struct CommandSender(mpsc::Sender<ShardCommand>);

/// A shard's end of its queue.
pub(crate) type CommandReceiver = mpsc::Receiver<ShardCommand>;

/// The queue of one shard.
pub(crate) fn command_queue() -> (CommandSender, CommandReceiver) {
    let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
    (CommandSender(sender), receiver)
}

impl CommandSender {
    /// Asks the shard something, such as `ask(ShardCommand::Retire)`. It must be called within
    /// tokio, as [`Self::deliver`].
    ///
    /// # Errors
    /// The queue is full, the shard has ended, or it does not answer.
    pub(crate) async fn ask<T>(
        &self,
        question: impl FnOnce(Reply<T>) -> ShardCommand,
    ) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.0.try_send(question(Reply(reply))).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => CommandError::Full,
            mpsc::error::TrySendError::Closed(_) => CommandError::Ended,
        })?;
        match timeout(ANSWER_DEADLINE, answer).await {
            Ok(answer) => answer.map_err(|_| CommandError::Ended),
            Err(_) => Err(CommandError::Late),
        }
    }

    /// Hands over a command that has to reach the shard, however many wait.
    ///
    /// # Errors
    /// The shard has ended, or takes no commands any more.
    pub(crate) async fn deliver(&self, command: ShardCommand) -> Result<(), CommandError> {
        match timeout(DELIVERY_DEADLINE, self.0.send(command)).await {
            Ok(sent) => sent.map_err(|_| CommandError::Ended),
            Err(_) => Err(CommandError::Full),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_is_answered() {
        let (sender, mut receiver) = command_queue();
        let shard = async {
            match receiver.recv().await {
                Some(ShardCommand::Retire(reply)) => reply.send(()),
                other => panic!("{other:?}"),
            }
        };
        let (answer, ()) = tokio::join!(sender.ask(ShardCommand::Retire), shard);
        assert_eq!(answer, Ok(()));
        let shard = async { drop(receiver.recv().await) };
        let (answer, ()) = tokio::join!(sender.ask(ShardCommand::Retire), shard);
        assert_eq!(answer, Err(CommandError::Ended), "the shard dropped the question");
        drop(receiver);
        assert_eq!(sender.ask(ShardCommand::Retire).await, Err(CommandError::Ended));
        assert_eq!(sender.deliver(ShardCommand::ShutDown).await, Err(CommandError::Ended));
    }

    #[tokio::test]
    async fn a_full_queue_refuses_questions_at_once_and_takes_what_must_come_later() {
        let (sender, mut receiver) = command_queue();
        for _ in 0..COMMANDS_MAX {
            assert_eq!(sender.deliver(ShardCommand::Drain(Duration::ZERO)).await, Ok(()));
        }
        assert_eq!(sender.ask(ShardCommand::Retire).await, Err(CommandError::Full));
        let (delivered, first) =
            tokio::join!(sender.deliver(ShardCommand::ShutDown), receiver.recv());
        assert_eq!(delivered, Ok(()));
        assert!(matches!(first, Some(ShardCommand::Drain(_))), "in their order");
    }
}
