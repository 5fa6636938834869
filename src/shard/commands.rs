//! What each command of a client does. The answer is queued before anything it causes.

use std::rc::Rc;

use super::Now;
use super::engine::{Mode, Shard};
use super::id::ConnId;
use super::limits::{
    COMMAND_EXCESS_MAX, SNAPSHOT_LOOKS_MAX, SNAPSHOT_LOOKS_PER_COMMAND, SNAPSHOT_MESSAGES_MAX,
};
use super::newest::Looks;
use super::outbox::QUEUED_EVENT_BYTES;
use super::recent::LoggedEvent;
use super::resume::{self, Subscription};
use super::transmit::event_frame_bytes;
use crate::channel::{ChannelError, Pattern};
use crate::protocol::close::CloseReason;
use crate::protocol::command::{self, Command, CommandError, CommandId};
use crate::protocol::message::{
    Batch, Error, ErrorCode, ErrorDetail, Heartbeat, Rejection, Replay, ServerMessage,
    SnapshotSummary, Status, Subscribed, Subscriptions, Unsubscribed,
};

impl Shard {
    pub(super) fn on_text(&mut self, id: ConnId, text: &str, now: Now) {
        let (command_id, command) = command::parse(text);
        if let Err(retry_after_ms) = self.take_command(id, now) {
            let message = "too many commands, this one was not carried out".into();
            let detail = ErrorDetail::Retry { retry_after_ms };
            self.refuse_command(id, ErrorCode::RateLimited, message, (detail, command_id));
            if self.find(id).is_some_and(|it| it.command_excess >= COMMAND_EXCESS_MAX) {
                self.close(id, CloseReason::CommandFlood, now);
            }
            return;
        }
        match command {
            Ok(Command::Subscribe { channels, .. } | Command::Unsubscribe { channels })
                if channels.len() > self.settings.limits.client.channels =>
            {
                let limit = self.settings.limits.client.channels;
                let message = format!("at most {limit} channels in one command");
                let detail = (ErrorDetail::Limit { limit }, command_id);
                self.refuse_command(id, ErrorCode::TooManyChannels, message.into(), detail);
            }
            Ok(Command::Subscribe { channels, snapshot, resume }) => {
                let subscription = Subscription { channels, snapshot, resume, command_id };
                if let Some(subscription) = self.wait_to_resume(id, subscription, now) {
                    self.subscribe(id, &subscription);
                }
            }
            Ok(Command::Unsubscribe { channels }) => self.unsubscribe(id, &channels, command_id),
            Ok(Command::Replay { from_seq, to_seq }) => {
                self.replay(id, from_seq, to_seq, command_id);
            }
            Ok(Command::Batch { ms }) => {
                if let Some(connection) = self.find(id) {
                    connection.batch_ms = ms;
                }
                self.answer(id, &ServerMessage::Batch(Batch { ms, id: command_id }));
            }
            Ok(Command::Heartbeat { ts }) => {
                let position = self.reached(id);
                let heartbeat =
                    Heartbeat { server_time: now.unix_ms, ts, position, id: command_id };
                let frame = ServerMessage::Heartbeat(heartbeat).to_frame();
                self.queue(id, frame);
            }
            Ok(Command::Subscriptions) => self.list_subscriptions(id, command_id),
            Ok(Command::Status) => self.status(id, command_id, now),
            Err(error) => {
                let code = match error {
                    CommandError::Json(_) => ErrorCode::InvalidJson,
                    CommandError::Invalid(_) => ErrorCode::InvalidCommand,
                    CommandError::UnknownType(_) => ErrorCode::UnknownType,
                };
                let detail = (ErrorDetail::None {}, command_id);
                self.refuse_command(id, code, error.to_string().into(), detail);
            }
        }
    }

    fn take_command(&mut self, id: ConnId, now: Now) -> Result<(), u64> {
        let per_second = self.settings.limits.client.commands_per_second;
        let Some(connection) = self.find(id) else { return Ok(()) };
        let taken = connection.rate.take(now.monotonic_ms, per_second);
        connection.command_excess = match taken {
            Ok(()) => connection.command_excess.saturating_sub(1),
            Err(_) => connection.command_excess.saturating_add(1),
        };
        taken
    }

    /// Has a command that was dear count as several more.
    fn charge(&mut self, id: ConnId, commands: usize) {
        let per_second = self.settings.limits.client.commands_per_second;
        if let Some(connection) = self.find(id) {
            connection.rate.charge(commands, per_second);
        }
    }

    fn refuse_command(
        &mut self,
        id: ConnId,
        code: ErrorCode,
        message: std::borrow::Cow<'static, str>,
        (detail, command_id): (ErrorDetail, Option<CommandId>),
    ) {
        let error = Error { code, message, detail, id: command_id };
        self.answer(id, &ServerMessage::Error(error));
    }

    pub(super) fn subscribe(&mut self, id: ConnId, subscription: &Subscription) {
        let Subscription { channels, snapshot, resume, command_id } = subscription;
        let mut accepted = Vec::new();
        let mut rejected = Vec::new();
        let mut wanted: Vec<Rc<LoggedEvent>> = Vec::new();
        let mut looks = Looks::new(SNAPSHOT_LOOKS_MAX);
        let mut cut = resume.as_ref().map(|point| self.cut(id, channels, point, &mut looks));
        // Whoever gets everything does not need the newest.
        let snapshot = *snapshot && !matches!(cut, Some(Ok(_)));
        // The newest must not overtake what was missed: the client's position would pass it.
        let is_behind = self.find(id).is_some_and(|connection| connection.catch_up.is_some());
        for channel in channels {
            match self.admit(id, channel) {
                Ok(pattern) => {
                    if snapshot && !is_behind && !self.index.is_subscribed(id.index, channel) {
                        self.collect_snapshot(id, &pattern, &mut looks, &mut wanted);
                    }
                    self.index.subscribe(id.index, &pattern);
                    accepted.push(channel.as_str());
                }
                Err((code, message)) => {
                    rejected.push(Rejection { channel, code, message: message.into() });
                }
            }
        }
        if let (Some(Ok(missed)), false) = (&mut cut, rejected.is_empty()) {
            missed.retain(|event| self.index.has_match(id.index, event.event().channel()));
        }
        self.charge(id, looks.taken() / SNAPSHOT_LOOKS_PER_COMMAND);
        let complete =
            order_snapshot(&mut wanted, self.budget_left(id)) && !looks.is_exceeded() && !is_behind;
        let newest = self.log.newest();
        let message = ServerMessage::Subscribed(Subscribed {
            channels: accepted,
            rejected,
            total: self.index.count_of(id.index),
            epoch: self.epoch.as_ref().map(|epoch| &*epoch.0),
            pos: newest.pos.0,
            ts: newest.ts_ms,
            recovered: cut.as_ref().map(Result::is_ok),
            resume: cut.as_ref().map(resume::summary),
            snapshot: snapshot.then_some(SnapshotSummary { messages: wanted.len(), complete }),
            id: command_id.clone(),
        });
        let frame = message.to_frame();
        self.queue(id, frame);
        if let Some(Ok(missed)) = cut {
            self.catch_up(id, missed);
        }
        let replay_messages = self.settings.limits.client.replay_messages;
        for event in &wanted {
            self.deflate_for(id.index, event);
            let Some(connection) = self.find(id) else { return };
            let seq = connection.replay.push(event, replay_messages);
            connection.drops_in_row = 0;
            self.outbox_of(id.index).push_requested(seq, event);
        }
    }

    /// Whether the connection may subscribe to `channel` now.
    fn admit(&self, id: ConnId, channel: &str) -> Result<Pattern, (ErrorCode, String)> {
        let pattern = self.parse_allowed(channel)?;
        let limits = &self.settings.limits.client;
        let is_full = self.index.count_of(id.index) >= limits.channels;
        if is_full && !self.index.is_subscribed(id.index, channel) {
            let message = format!("at most {} channels per connection", limits.channels);
            return Err((ErrorCode::TooManyChannels, message));
        }
        Ok(pattern)
    }

    /// A channel or pattern that this server serves.
    pub(super) fn parse_allowed(&self, channel: &str) -> Result<Pattern, (ErrorCode, String)> {
        let limits = &self.settings.limits.client;
        let pattern = Pattern::parse(channel, limits.channel_bytes).map_err(|error| {
            let code = match error {
                ChannelError::TooLong { .. } => ErrorCode::ChannelTooLong,
                _ => ErrorCode::InvalidChannel,
            };
            (code, error.to_string())
        })?;
        if let Mode::Channels { allowed } = &self.settings.mode
            && !allowed.iter().any(|subject| subject.covers(&pattern))
        {
            let subjects: Vec<&str> = allowed.iter().map(Pattern::as_str).collect();
            let message = format!("this server serves {}", subjects.join(", "));
            return Err((ErrorCode::ChannelNotAllowed, message));
        }
        Ok(pattern)
    }

    /// The newest events of what `pattern` adds to the connection's subscriptions.
    fn collect_snapshot(
        &self,
        id: ConnId,
        pattern: &Pattern,
        looks: &mut Looks,
        wanted: &mut Vec<Rc<LoggedEvent>>,
    ) {
        self.newest.for_each_match(pattern, looks, |event| {
            if !self.index.has_match(id.index, event.event().channel()) {
                wanted.push(Rc::clone(event));
            }
        });
    }

    fn unsubscribe(&mut self, id: ConnId, channels: &[String], command_id: Option<CommandId>) {
        let mut removed = Vec::new();
        let mut rejected = Vec::new();
        let mut withdrawn = self.waiting_resumes.withdraw(id.index, channels);
        for channel in channels {
            let was_waiting = withdrawn.remove(channel);
            if self.index.unsubscribe(id.index, channel) || was_waiting {
                removed.push(channel.as_str());
            } else {
                let message = "this connection is not subscribed to it".into();
                rejected.push(Rejection { channel, code: ErrorCode::NotSubscribed, message });
            }
        }
        if !removed.is_empty() {
            self.filter_catch_up(id);
        }
        let total = self.index.count_of(id.index);
        let message = Unsubscribed { channels: removed, rejected, total, id: command_id };
        self.answer(id, &ServerMessage::Unsubscribed(message));
    }

    fn replay(&mut self, id: ConnId, from_seq: u64, to_seq: u64, command_id: Option<CommandId>) {
        let Some(connection) = self.find(id) else { return };
        let Some(range) = connection.replay.range(from_seq, to_seq) else {
            let (first_seq, last_seq) = match connection.replay.first_seq() {
                0 => (0, 0),
                first => (first, connection.replay.last_seq()),
            };
            let message = format!("events {from_seq} to {to_seq} are not all held").into();
            let detail = (ErrorDetail::Range { first_seq, last_seq }, command_id);
            return self.refuse_command(id, ErrorCode::RangeNotAvailable, message, detail);
        };
        let events: Vec<(u64, Rc<LoggedEvent>)> =
            range.map(|(seq, event)| (seq, Rc::clone(event))).collect();
        let held: usize = events.iter().map(|(_, event)| requested_bytes(event)).sum();
        if held > self.budget_left(id) {
            let limit = self.settings.limits.connection_budget_bytes;
            let message = format!(
                "{held} bytes of events do not fit the memory of this connection now: ask for \
                 fewer, or read what waits first"
            );
            let detail = (ErrorDetail::Limit { limit }, command_id);
            return self.refuse_command(id, ErrorCode::OverBudget, message.into(), detail);
        }
        let count = events.len() as u64;
        let message = Replay { from_seq, to_seq, count, id: command_id };
        self.answer(id, &ServerMessage::Replay(message));
        for (seq, event) in events {
            self.outbox_of(id.index).push_requested(seq, &event);
        }
    }

    fn list_subscriptions(&mut self, id: ConnId, command_id: Option<CommandId>) {
        let mut channels: Vec<&str> = self.index.texts_of(id.index).collect();
        channels.sort_unstable();
        let total = channels.len();
        let message = Subscriptions { channels, total, id: command_id };
        let frame = ServerMessage::Subscriptions(message).to_frame();
        self.queue(id, frame);
    }

    fn status(&mut self, id: ConnId, command_id: Option<CommandId>, now: Now) {
        let name = self.connection_name(id);
        let connected_clients = self.settings.census.total();
        let subscriptions = self.index.count_of(id.index);
        let source = self.source.as_str();
        let Some(connection) = self.find(id) else { return };
        let message = ServerMessage::Status(Status {
            connection_id: &name,
            connected_clients,
            latency_ms: connection.latency_ms,
            subscriptions,
            last_seq: connection.replay.last_seq(),
            source,
            server_time: now.unix_ms,
            id: command_id,
        });
        self.answer(id, &message);
        self.ping(id, now);
    }
}

/// Puts a snapshot in stream order, each event once, and keeps the newest that one snapshot may
/// hold and the connection's budget leaves room for; whether that is all of them.
fn order_snapshot(wanted: &mut Vec<Rc<LoggedEvent>>, mut budget_left: usize) -> bool {
    wanted.sort_by_key(|event| event.pos());
    wanted.dedup_by_key(|event| event.pos());
    let fits = |event: &&Rc<LoggedEvent>| {
        let bytes = requested_bytes(event);
        let fits = bytes <= budget_left;
        budget_left = budget_left.saturating_sub(bytes);
        fits
    };
    let kept = wanted.iter().rev().take(SNAPSHOT_MESSAGES_MAX).take_while(fits).count();
    let excess = wanted.len() - kept;
    wanted.drain(..excess);
    excess == 0
}

/// What an event that was asked for takes at most until it is sent: its place in a queue that grew
/// by doubling, and the frame.
fn requested_bytes(event: &LoggedEvent) -> usize {
    2 * QUEUED_EVENT_BYTES + event_frame_bytes(u64::MAX, event.tail_for(None))
}
