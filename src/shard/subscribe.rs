//! What `subscribe` and `unsubscribe` do: channels are admitted, what the client missed or wants
//! to have first is found, and both follow the answer.
//!
//! Bound: one [`ScanBudget`] for everything that a command looks through.

use std::rc::Rc;

use super::Now;
use super::commands::Commands;
use super::delivery::requested_bytes;
use super::history::{LoggedEvent, ResumeOutcome, SubscribeCommand, WaitingResume, put_in_order};
use super::limits::{
    BACKLOG_EVENTS_MAX, SCAN_STEPS_MAX, SCAN_STEPS_PER_COMMAND, SNAPSHOT_MESSAGES_MAX,
};
use super::scan_budget::ScanBudget;
use super::settings::{Mode, ShardSettings};
use super::subscriptions::Topics;
use crate::channel::{ChannelError, Pattern};
use crate::protocol::command::{CommandId, ResumePoint};
use crate::protocol::message::{
    ErrorCode, Rejection, ResumeRefusal, ResumeSummary, ServerMessage, SnapshotSummary, Subscribed,
    Unsubscribed,
};

impl Commands<'_> {
    /// Keeps a command whose position is not reached yet.
    ///
    /// # Errors
    /// There is nothing to wait for, or no room: the command is handed back.
    pub(super) fn wait_to_resume(
        &mut self,
        command: SubscribeCommand,
        now: Now,
    ) -> Result<(), SubscribeCommand> {
        let pos = match &command.resume {
            Some(point) if self.history.is_ahead(point) => point.pos,
            _ => return Err(command),
        };
        let waiting = WaitingResume::new(self.connection.id, command, pos, now.monotonic_ms());
        let room = self.budget_left();
        self.waiting.wait(waiting, room)
    }

    /// Subscribes to what is admitted of the command's channels, and sends what it asks for first.
    pub(super) fn subscribe(&mut self, command: &SubscribeCommand) {
        let mut budget = ScanBudget::new(SCAN_STEPS_MAX);
        let before = self.index.subscribed(self.connection.id.index);
        let admitted = self.admit_all(&command.channels);
        let patterns = &admitted.patterns;
        let resume = command.resume.as_ref();
        let outcome = resume.map(|point| self.resume(patterns, point, &before, &mut budget));
        // Whoever gets everything does not need the newest.
        let snapshot = command.snapshot && !matches!(outcome, Some(Ok(_)));
        // The newest must not overtake what was missed: the client's position would pass it.
        let is_behind = self.connection.delivery.has_backlog();
        let mut newest = Vec::new();
        let is_known = snapshot
            && !is_behind
            && self.collect_newest(&admitted.added, &before, &mut budget, &mut newest);
        self.charge(&budget);
        let complete = self.cut_snapshot(&mut newest) && !budget.is_exceeded() && is_known;
        let position = self.history.newest_position();
        self.connection.answer(&ServerMessage::Subscribed(Subscribed {
            channels: patterns.iter().map(Pattern::as_str).collect(),
            rejected: admitted.rejected,
            total: self.index.count_of(self.connection.id.index),
            epoch: self.history.epoch(),
            pos: position.pos.0,
            ts: position.ts_ms,
            kept_per_channel: self.history.kept_per_channel(),
            recovered: outcome.as_ref().map(Result::is_ok),
            resume: outcome.as_ref().map(summary),
            snapshot: snapshot.then_some(SnapshotSummary { messages: newest.len(), complete }),
            id: command.id.clone(),
        }));
        if let Some(Ok(missed)) = outcome
            && !missed.is_empty()
        {
            self.connection.delivery.resume(missed, self.backlog_events);
            self.turns.catch_up(self.connection.id, &mut self.connection.marks);
        }
        for event in &newest {
            let limits = &self.settings.limits.client;
            self.connection.delivery.answer_newest(event, limits, self.encoder);
        }
    }

    /// Ends subscriptions, and resumes of these channels that wait.
    pub(super) fn unsubscribe(&mut self, channels: &[String], id: Option<CommandId>) {
        let place = self.connection.id.index;
        let mut removed = Vec::new();
        let mut rejected = Vec::new();
        let mut withdrawn = self.waiting.withdraw(place, channels);
        for channel in channels {
            let was_waiting = withdrawn.remove(channel);
            if self.index.unsubscribe(place, channel) || was_waiting {
                removed.push(channel.as_str());
            } else {
                let message = "this connection is not subscribed to it".into();
                rejected.push(Rejection { channel, code: ErrorCode::NotSubscribed, message });
            }
        }
        if !removed.is_empty() && self.connection.delivery.has_backlog() {
            let mut budget = ScanBudget::new(SCAN_STEPS_MAX);
            let subscribed = self.index.subscribed(place);
            self.connection.delivery.retain_backlog(|event| {
                budget.charge(1);
                self.index.has_match(&subscribed, event.channel(), &mut budget)
            });
            self.charge(&budget);
        }
        let total = self.index.count_of(place);
        let message = Unsubscribed { channels: removed, rejected, total, id };
        self.connection.answer(&ServerMessage::Unsubscribed(message));
    }

    /// Subscribes to every channel that is admitted.
    fn admit_all<'a>(&mut self, channels: &'a [String]) -> Admitted<'a> {
        let place = self.connection.id.index;
        let mut admitted = Admitted::default();
        for channel in channels {
            match self.admit(channel) {
                Ok(pattern) => {
                    if self.index.subscribe(place, &pattern) {
                        admitted.added.push(pattern.clone());
                    }
                    admitted.patterns.push(pattern);
                }
                Err((code, message)) => {
                    let message = message.into();
                    admitted.rejected.push(Rejection { channel, code, message });
                }
            }
        }
        admitted
    }

    /// Whether the connection may subscribe to `channel` now.
    fn admit(&self, channel: &str) -> Result<Pattern, (ErrorCode, String)> {
        let pattern = self.settings.parse_allowed(channel)?;
        let place = self.connection.id.index;
        let channels_max = self.settings.limits.client.channels;
        let is_full = self.index.count_of(place) >= channels_max;
        if is_full && !self.index.is_subscribed(place, channel) {
            let message = format!("at most {channels_max} channels per connection");
            return Err((ErrorCode::TooManyChannels, message));
        }
        Ok(pattern)
    }

    /// What the client missed on `patterns` since `point`. Nothing of it may have been sent before:
    /// `before` is what the connection was subscribed to.
    fn resume(
        &mut self,
        patterns: &[Pattern],
        point: &ResumePoint,
        before: &Topics,
        budget: &mut ScanBudget,
    ) -> ResumeOutcome {
        let room = BACKLOG_EVENTS_MAX.saturating_sub(self.backlog_events.get());
        let events_max = self.settings.limits.client.resume_messages.min(room);
        let outcome = self.history.missed(patterns, point, events_max, budget);
        let outcome = outcome.and_then(|missed| {
            let mut was_sent =
                |event: &Rc<LoggedEvent>| self.index.has_match(before, event.channel(), budget);
            if missed.iter().any(&mut was_sent) {
                return Err(ResumeRefusal::AlreadySubscribed);
            }
            Ok(missed)
        });
        match &outcome {
            Ok(missed) => {
                self.stats.resumed += 1;
                self.stats.resumed_messages += missed.len() as u64;
            }
            Err(reason) => self.stats.not_resumed[*reason as usize] += 1,
        }
        outcome
    }

    /// The newest events of what `patterns` add to the connection's subscriptions; whether they are
    /// known to be the newest, and all.
    fn collect_newest(
        &self,
        patterns: &[Pattern],
        before: &Topics,
        budget: &mut ScanBudget,
        newest: &mut Vec<Rc<LoggedEvent>>,
    ) -> bool {
        let mut are_known = true;
        for pattern in patterns {
            are_known &= self.history.for_each_newest(pattern, budget, |event, budget| {
                if !self.index.has_match(before, event.channel(), budget) {
                    newest.push(Rc::clone(event));
                }
            });
        }
        are_known
    }

    /// Puts a snapshot in order, and keeps the newest that one snapshot may hold and the
    /// connection's budget leaves room for; whether that is all of them.
    fn cut_snapshot(&self, newest: &mut Vec<Rc<LoggedEvent>>) -> bool {
        put_in_order(newest);
        let mut left = self.budget_left();
        let fits = |event: &&Rc<LoggedEvent>| {
            let bytes = requested_bytes(event);
            let fits = bytes <= left;
            left = left.saturating_sub(bytes);
            fits
        };
        let kept = newest.iter().rev().take(SNAPSHOT_MESSAGES_MAX).take_while(fits).count();
        let excess = newest.len() - kept;
        newest.drain(..excess);
        excess == 0
    }

    /// Has a command that was dear count as several more.
    fn charge(&mut self, budget: &ScanBudget) {
        let commands = budget.taken() / SCAN_STEPS_PER_COMMAND;
        let per_second = self.settings.limits.client.commands_per_second;
        self.connection.rate.charge(commands, per_second);
    }
}

/// What became of the channels of a command.
#[derive(Debug, Default)]
struct Admitted<'a> {
    /// Those that the connection is subscribed to now.
    patterns: Vec<Pattern>,
    /// Those among them that are new.
    added: Vec<Pattern>,
    rejected: Vec<Rejection<'a>>,
}

impl ShardSettings {
    /// A channel or pattern that this server serves.
    fn parse_allowed(&self, channel: &str) -> Result<Pattern, (ErrorCode, String)> {
        let pattern =
            Pattern::parse(channel, self.limits.client.channel_bytes).map_err(|error| {
                let code = match error {
                    ChannelError::TooLong { .. } => ErrorCode::ChannelTooLong,
                    _ => ErrorCode::InvalidChannel,
                };
                (code, error.to_string())
            })?;
        if let Mode::Channels { allowed } = &self.mode
            && !allowed.iter().any(|subject| subject.covers(&pattern))
        {
            let subjects: Vec<&str> = allowed.iter().map(Pattern::as_str).collect();
            let message = format!("this server serves {}", subjects.join(", "));
            return Err((ErrorCode::ChannelNotAllowed, message));
        }
        Ok(pattern)
    }
}

/// What became of a resume, as the answer has it.
fn summary(outcome: &ResumeOutcome) -> ResumeSummary {
    match outcome {
        Ok(missed) => ResumeSummary::Recovered { messages: missed.len() },
        Err(reason) => ResumeSummary::Refused { reason: *reason, message: reason.text().into() },
    }
}
