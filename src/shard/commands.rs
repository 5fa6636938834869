//! What each command of a client does. The answer is queued before anything it causes; who sends
//! it is not known here.

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;

use super::Now;
use super::accounting::budget_left;
use super::connection::Connection;
use super::delivery::{Encoder, requested_bytes};
use super::history::{History, SubscribeCommand, WaitingResumes};
use super::settings::ShardSettings;
use super::stats::Stats;
use super::subscriptions::SubscriptionIndex;
use super::turns::Turns;
use crate::protocol::close::CloseReason;
use crate::protocol::command::{self, Command, CommandError, CommandId};
use crate::protocol::message::{
    Batch, Error, ErrorCode, ErrorDetail, Heartbeat, Replay, ServerMessage, Status, Subscriptions,
};

/// The commands of one connection, and what they may touch.
#[derive(Debug)]
pub(super) struct Commands<'a> {
    pub connection: &'a mut Connection,
    pub index: &'a mut SubscriptionIndex,
    pub history: &'a History,
    pub waiting: &'a mut WaitingResumes,
    pub turns: &'a mut Turns,
    pub encoder: &'a mut Encoder,
    pub stats: &'a mut Stats,
    /// The events of all backlogs of the shard.
    pub backlog_events: &'a Rc<Cell<usize>>,
    pub settings: &'a ShardSettings,
}

impl Commands<'_> {
    /// Carries out the command that `text` is; returns why the connection is to be closed, if it
    /// is.
    pub(super) fn run(&mut self, text: &str, now: Now) -> Option<CloseReason> {
        let (id, command) = command::parse(text);
        let per_second = self.settings.limits.client.commands_per_second;
        let taken = self.connection.rate.take(now.monotonic_us, per_second);
        let is_flood = self.connection.excess.count(taken);
        if let Err(retry_after_ms) = taken {
            let message = "too many commands, this one was not carried out".into();
            let detail = ErrorDetail::Retry { retry_after_ms };
            self.refuse(ErrorCode::RateLimited, message, (detail, id));
            return is_flood.then_some(CloseReason::CommandFlood);
        }
        match command {
            Ok(command) => self.carry_out(command, id, now),
            Err(error) => {
                let code = match error {
                    CommandError::Json(_) => ErrorCode::InvalidJson,
                    CommandError::Invalid(_) => ErrorCode::InvalidCommand,
                    CommandError::UnknownType(_) => ErrorCode::UnknownType,
                };
                self.refuse(code, error.to_string().into(), (ErrorDetail::None {}, id));
            }
        }
        None
    }

    fn carry_out(&mut self, command: Command, id: Option<CommandId>, now: Now) {
        let channels_max = self.settings.limits.client.channels;
        match command {
            Command::Subscribe { channels, .. } | Command::Unsubscribe { channels }
                if channels.len() > channels_max =>
            {
                let message = format!("at most {channels_max} channels in one command");
                let detail = (ErrorDetail::Limit { limit: channels_max }, id);
                self.refuse(ErrorCode::TooManyChannels, message.into(), detail);
            }
            Command::Subscribe { channels, snapshot, resume } => {
                let command = SubscribeCommand { channels, snapshot, resume, id };
                if let Err(command) = self.wait_to_resume(command, now) {
                    self.subscribe(&command);
                }
            }
            Command::Unsubscribe { channels } => self.unsubscribe(&channels, id),
            Command::Replay { from_seq, to_seq } => self.replay(from_seq, to_seq, id),
            Command::Batch { ms } => {
                self.connection.delivery.set_batch_ms(ms);
                self.connection.answer(&ServerMessage::Batch(Batch { ms, id }));
            }
            Command::Heartbeat { ts } => {
                // What is sent next comes behind everything up to the newest position that the
                // connection is to have, unless something is still to come before it.
                let has_all = self.connection.delivery.is_up_to_date()
                    && !self.waiting.has_any_of(self.connection.id.index);
                let position = self.history.reached().filter(|_| has_all);
                let heartbeat = Heartbeat { server_time: now.unix_ms, ts, position, id };
                self.connection.answer(&ServerMessage::Heartbeat(heartbeat));
            }
            Command::Subscriptions => self.list_subscriptions(id),
            Command::Status => self.status(id, now),
        }
    }

    /// Answers with an error.
    fn refuse(
        &mut self,
        code: ErrorCode,
        message: Cow<'static, str>,
        (detail, id): (ErrorDetail, Option<CommandId>),
    ) {
        self.connection.answer(&ServerMessage::Error(Error { code, message, detail, id }));
    }

    /// What the connection may still ask for, in bytes.
    pub(super) fn budget_left(&self) -> usize {
        budget_left(self.connection, self.index, self.waiting, &self.settings.limits)
    }

    fn replay(&mut self, from_seq: u64, to_seq: u64, id: Option<CommandId>) {
        let Some(events) = self.connection.delivery.replayed(from_seq, to_seq) else {
            let (first_seq, last_seq) = self.connection.delivery.replayable();
            let message = format!("events {from_seq} to {to_seq} are not all held").into();
            let detail = (ErrorDetail::Range { first_seq, last_seq }, id);
            return self.refuse(ErrorCode::RangeNotAvailable, message, detail);
        };
        let held: usize = events.iter().map(|(_, event)| requested_bytes(event)).sum();
        if held > self.budget_left() {
            let limit = self.settings.limits.connection_budget_bytes;
            let message = format!(
                "{held} bytes of events do not fit the memory of this connection now: ask for \
                 fewer, or read what waits first"
            );
            let detail = (ErrorDetail::Limit { limit }, id);
            return self.refuse(ErrorCode::OverBudget, message.into(), detail);
        }
        let count = events.len() as u64;
        let message = Replay { from_seq, to_seq, count, id };
        self.connection.answer(&ServerMessage::Replay(message));
        for (seq, event) in events {
            self.connection.delivery.answer_replayed(seq, &event);
        }
    }

    fn list_subscriptions(&mut self, id: Option<CommandId>) {
        let mut channels: Vec<&str> = self.index.texts_of(self.connection.id.index).collect();
        channels.sort_unstable();
        let total = channels.len();
        let message = Subscriptions { channels, total, id };
        self.connection.answer(&ServerMessage::Subscriptions(message));
    }

    fn status(&mut self, id: Option<CommandId>, now: Now) {
        let name = self.settings.connection_name(self.connection.number);
        self.connection.answer(&ServerMessage::Status(Status {
            connection_id: &name,
            connected_clients: self.settings.census.total(),
            latency_ms: self.connection.latency_ms(),
            subscriptions: self.index.count_of(self.connection.id.index),
            last_seq: self.connection.delivery.last_seq(),
            source: self.history.source().as_str(),
            server_time: now.unix_ms,
            id,
        }));
        self.connection.measure(now);
    }
}
