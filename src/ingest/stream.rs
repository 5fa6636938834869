//! The stream: created if it is not there, used as it is if it is there with other settings, and
//! changed only on request.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, RetentionPolicy, StorageType, Stream,
};
use async_nats::jetstream::{Error as JetStreamError, ErrorCode};

use super::connect::cause;

/// What the stream should be.
#[derive(Debug, Clone)]
pub struct StreamSettings {
    /// The stream's name.
    pub name: String,
    /// The subjects that it stores.
    pub subjects: Vec<String>,
    /// How long a message is kept.
    pub max_age: Duration,
    /// How many are kept.
    pub max_messages: i64,
    /// How many bytes are kept.
    pub max_bytes: i64,
    /// On how many servers.
    pub replicas: usize,
    /// Whether an existing stream is changed to these settings.
    pub update: bool,
}

/// The stream cannot be had now. The broker's fault, or its configuration's.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// The server has JetStream switched off.
    #[error("JetStream is not enabled on this NATS server: start it with -js")]
    NoJetStream,
    /// The server does not take the stream as configured.
    #[error("the stream {name} cannot be {verb}: {cause}{fix}")]
    Refused {
        /// The stream.
        name: String,
        /// What was tried.
        verb: &'static str,
        /// What the server said.
        cause: String,
        /// What to do, if that is known.
        fix: &'static str,
    },
    /// No answer.
    #[error("no answer about the stream {name}: {cause}")]
    NoAnswer {
        /// The stream.
        name: String,
        /// What the client said.
        cause: String,
    },
}

/// Whether NATS takes this as a stream's name.
pub fn is_valid_stream_name(name: &str) -> bool {
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || ".*>/\\".contains(c);
    !name.is_empty() && name.len() <= 255 && !name.contains(is_bad)
}

impl StreamSettings {
    fn config(&self) -> Config {
        Config {
            name: self.name.clone(),
            subjects: self.subjects.clone(),
            max_age: self.max_age,
            max_messages: self.max_messages,
            max_bytes: self.max_bytes,
            num_replicas: self.replicas,
            storage: StorageType::File,
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::Old,
            ..Config::default()
        }
    }

    /// The stream, created if it is not there. What differs is warned of unless `is_known`.
    pub(super) async fn ensure(
        &self,
        context: &Context,
        is_known: bool,
    ) -> Result<Stream<Info>, StreamError> {
        let found = match context.get_stream(&self.name).await {
            Ok(found) => found,
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(inner)
                    if inner.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    return self.create(context).await;
                }
                GetStreamErrorKind::JetStream(inner) => return Err(self.refused("read", &inner)),
                _ => return Err(self.no_answer(&error)),
            },
        };
        let differences = differences(&found.cached_info().config, &self.config());
        if differences.is_empty() {
            return Ok(found);
        }
        if self.update {
            return self.change(context, &found.cached_info().config, &differences).await;
        }
        if !is_known {
            tracing::warn!(
                stream = %self.name,
                differences = %differences.join("; "),
                "the stream exists with other settings and is used as it is; \
                 JS_STREAM_UPDATE=true changes it"
            );
        }
        Ok(found)
    }

    async fn create(&self, context: &Context) -> Result<Stream<Info>, StreamError> {
        let stream =
            context.create_stream(self.config()).await.map_err(|error| match error.kind() {
                CreateStreamErrorKind::JetStream(inner) => self.refused("created", &inner),
                CreateStreamErrorKind::JetStreamUnavailable => StreamError::NoJetStream,
                _ => self.no_answer(&error),
            })?;
        tracing::info!(stream = %self.name, subjects = %self.subjects.join(","), "stream created");
        Ok(stream)
    }

    /// Changes what the settings name and leaves the rest of the stream's configuration alone.
    async fn change(
        &self,
        context: &Context,
        existing: &Config,
        differences: &[String],
    ) -> Result<Stream<Info>, StreamError> {
        let wanted = self.config();
        // NATS refuses a window for duplicates that is longer than a message's life.
        let duplicate_window = match self.max_age {
            Duration::ZERO => existing.duplicate_window,
            max_age => existing.duplicate_window.min(max_age),
        };
        let config = Config {
            duplicate_window,
            subjects: wanted.subjects,
            max_age: wanted.max_age,
            max_messages: wanted.max_messages,
            max_bytes: wanted.max_bytes,
            num_replicas: wanted.num_replicas,
            storage: wanted.storage,
            retention: wanted.retention,
            discard: wanted.discard,
            ..existing.clone()
        };
        context.update_stream(&config).await.map_err(|error| match error.kind() {
            CreateStreamErrorKind::JetStream(inner) => self.refused("changed", &inner),
            _ => self.no_answer(&error),
        })?;
        let differences = differences.join("; ");
        tracing::info!(stream = %self.name, %differences, "stream changed");
        context.get_stream(&self.name).await.map_err(|error| self.no_answer(&error))
    }

    fn refused(&self, verb: &'static str, error: &JetStreamError) -> StreamError {
        let code = error.error_code();
        if code == ErrorCode::JETSTREAM_NOT_ENABLED
            || code == ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
        {
            return StreamError::NoJetStream;
        }
        let fix = if code == ErrorCode::STREAM_SUBJECT_OVERLAP {
            ": another stream has these subjects, set JS_STREAM_NAME to it or NATS_SUBJECTS to others"
        } else if code == ErrorCode::INSUFFICIENT_RESOURCES
            || code == ErrorCode::STORAGE_RESOURCES_EXCEEDED
        {
            ": lower JS_STREAM_MAX_BYTES, or give the server more storage"
        } else {
            ""
        };
        StreamError::Refused { name: self.name.clone(), verb, cause: error.to_string(), fix }
    }

    fn no_answer(&self, error: &dyn std::error::Error) -> StreamError {
        let cause = cause(error);
        if cause.contains("no responders") {
            return StreamError::NoJetStream;
        }
        StreamError::NoAnswer { name: self.name.clone(), cause }
    }
}

/// What an existing stream has otherwise than wanted, as `setting: has X, configured Y`.
fn differences(existing: &Config, wanted: &Config) -> Vec<String> {
    let sorted = |subjects: &[String]| {
        let mut subjects = subjects.to_vec();
        subjects.sort();
        subjects.join(",")
    };
    let pairs = [
        ("subjects", sorted(&existing.subjects), sorted(&wanted.subjects)),
        ("max_age", format!("{:?}", existing.max_age), format!("{:?}", wanted.max_age)),
        ("max_msgs", existing.max_messages.to_string(), wanted.max_messages.to_string()),
        ("max_bytes", existing.max_bytes.to_string(), wanted.max_bytes.to_string()),
        ("replicas", existing.num_replicas.to_string(), wanted.num_replicas.to_string()),
        ("storage", format!("{:?}", existing.storage), format!("{:?}", wanted.storage)),
        ("retention", format!("{:?}", existing.retention), format!("{:?}", wanted.retention)),
        ("discard", format!("{:?}", existing.discard), format!("{:?}", wanted.discard)),
    ];
    pairs
        .into_iter()
        .filter(|(_, has, configured)| has != configured)
        .map(|(name, has, configured)| format!("{name}: has {has}, configured {configured}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> StreamSettings {
        StreamSettings {
            name: "S".into(),
            subjects: vec!["b.>".into(), "a.>".into()],
            max_age: Duration::from_secs(30),
            max_messages: 100,
            max_bytes: 1_000,
            replicas: 1,
            update: false,
        }
    }

    #[test]
    fn each_difference_is_named() {
        let wanted = settings().config();
        let same = Config { subjects: vec!["a.>".into(), "b.>".into()], ..wanted.clone() };
        assert_eq!(differences(&same, &wanted), [""; 0]);
        let other = Config {
            max_age: Duration::from_secs(60),
            storage: StorageType::Memory,
            ..wanted.clone()
        };
        assert_eq!(
            differences(&other, &wanted),
            ["max_age: has 60s, configured 30s", "storage: has Memory, configured File"]
        );
    }

    #[test]
    fn stream_names() {
        for name in ["ODIN_TOKENS", "a-b"] {
            assert!(is_valid_stream_name(name), "{name}");
        }
        for name in ["", "a.b", "a b", "a*", ">", "a/b"] {
            assert!(!is_valid_stream_name(name), "{name}");
        }
    }
}
