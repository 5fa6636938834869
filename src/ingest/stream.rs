//! The JetStream stream: made if it is missing, verified if it is there.
//!
//! A stream that exists with other settings is used as it is, with one warning that names each
//! difference; it is changed only if the operator asked for that. Errors say what to do about
//! them; all of them are tried again by the callers, because somebody may put them right at the
//! broker. It reads no messages.

use std::fmt;
use std::time::Duration;

use async_nats::jetstream::context::RequestErrorKind;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, Error as ApiError, ErrorCode};
use futures_util::FutureExt;
use futures_util::future::select_ok;
use serde::Serialize;

use super::name::{NAME_BYTES_MAX, is_name};
use super::publisher::SUBJECT_BYTES_MAX;
use crate::channel::{ChannelError, Pattern};

/// The shortest age that nats-server takes for messages; zero, no limit, is allowed beside it.
pub const STREAM_MAX_AGE_MIN: Duration = Duration::from_millis(100);

/// A request that comes while the stream has no leader is never answered: it is sent again until
/// one is, so many times.
const ASK_AGAIN: Duration = Duration::from_millis(500);
const ASKED_MAX: u32 = 6;

/// The stream that is read, and what it is made with if it is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSettings {
    /// Its name.
    pub name: String,
    /// The subjects that it stores, and that are read from it.
    pub subjects: Vec<String>,
    /// How long a message is retained; zero for ever.
    pub max_age: Duration,
    /// Messages retained; -1 for any number.
    pub max_msgs: i64,
    /// Bytes retained; -1 for any number.
    pub max_bytes: i64,
    /// Copies in a cluster, 1 to 5.
    pub replicas: usize,
    /// Whether an existing stream is changed to these settings.
    pub update: bool,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            name: "ODIN_TOKENS".into(),
            subjects: vec!["odin.token.>".into(), "odin.global.>".into()],
            max_age: Duration::from_secs(30),
            max_msgs: 100_000,
            max_bytes: 52_428_800,
            replicas: 1,
            update: false,
        }
    }
}

/// What the operator has to put right in the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamSettingsError {
    /// A name that JetStream does not take.
    #[error(
        "the stream name {0:?} is not valid: set JS_STREAM_NAME to 1 to 255 bytes without spaces \
         and without . * > / \\"
    )]
    Name(String),
    /// No subject at all.
    #[error("no subject is configured: set NATS_SUBJECTS, for example odin.token.>,odin.global.>")]
    NoSubjects,
    /// A subject that is not one.
    #[error("the subject {subject:?} is not valid ({reason}): correct NATS_SUBJECTS")]
    Subject {
        /// The text.
        subject: String,
        /// The rule that it breaks.
        reason: ChannelError,
    },
    /// A number of replicas that JetStream does not take.
    #[error("{0} replicas are not possible: set JS_STREAM_REPLICAS to 1, 3 or 5")]
    Replicas(usize),
    /// An age that JetStream does not take.
    #[error(
        "a maximum age of {0:?} is not possible: set JS_STREAM_MAX_AGE to 0 (no limit) or to \
         {STREAM_MAX_AGE_MIN:?} or more"
    )]
    MaxAge(Duration),
    /// A consumer name that JetStream does not take.
    #[error(
        "the consumer name {0:?} is not valid: set JS_CONSUMER_NAME to 1 to 64 bytes without \
         spaces and without . * > / \\"
    )]
    ConsumerName(String),
    /// A durable consumer that would disappear between two connections.
    #[error(
        "an inactive threshold of {0:?} is too short: set JS_CONSUMER_INACTIVE_THRESHOLD to 30s \
         or more"
    )]
    InactiveThreshold(Duration),
}

impl StreamSettings {
    /// Checks what can be checked without a broker; returns the subjects as patterns.
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self) -> Result<Vec<Pattern>, StreamSettingsError> {
        if !is_name(&self.name, NAME_BYTES_MAX) {
            return Err(StreamSettingsError::Name(self.name.clone()));
        }
        if !(1..=5).contains(&self.replicas) {
            return Err(StreamSettingsError::Replicas(self.replicas));
        }
        if !self.max_age.is_zero() && self.max_age < STREAM_MAX_AGE_MIN {
            return Err(StreamSettingsError::MaxAge(self.max_age));
        }
        parse_subjects(&self.subjects)
    }

    fn config(&self) -> Config {
        let mut config = Config {
            name: self.name.clone(),
            storage: StorageType::File,
            retention: RetentionPolicy::Limits,
            ..Config::default()
        };
        self.apply(&mut config);
        config
    }

    fn apply(&self, config: &mut Config) {
        // NATS refuses a window for duplicates that is longer than a message's life.
        if !self.max_age.is_zero() {
            config.duplicate_window = config.duplicate_window.min(self.max_age);
        }
        config.subjects.clone_from(&self.subjects);
        config.max_age = self.max_age;
        config.max_messages = self.max_msgs;
        config.max_bytes = self.max_bytes;
        config.num_replicas = self.replicas;
        config.discard = DiscardPolicy::Old;
    }
}

/// Parses configured subjects.
///
/// # Errors
/// The first that is not valid, or that there is none.
pub fn parse_subjects(subjects: &[String]) -> Result<Vec<Pattern>, StreamSettingsError> {
    if subjects.is_empty() {
        return Err(StreamSettingsError::NoSubjects);
    }
    let parse = |subject: &String| {
        Pattern::parse(subject, SUBJECT_BYTES_MAX)
            .map_err(|reason| StreamSettingsError::Subject { subject: subject.clone(), reason })
    };
    subjects.iter().map(parse).collect()
}

/// Why the stream cannot be used now. All are tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("JetStream is not enabled: start nats-server with -js, or enable it for this account")]
    JetStreamDisabled,
    #[error(
        "another stream stores some of these subjects: set JS_STREAM_NAME to its name, or change \
         NATS_SUBJECTS"
    )]
    SubjectOverlap,
    #[error(
        "the broker has no room for the stream ({0}): lower JS_STREAM_MAX_BYTES or \
         JS_STREAM_REPLICAS, or raise the broker's limits"
    )]
    NoRoom(String),
    #[error(
        "JetStream does not answer: either it has no leader now, or the credentials may not use \
         $JS.API.>"
    )]
    NoAnswer,
    #[error("the stream does not exist")]
    Missing,
    #[error("the stream has lost its newest messages since it was asked: asked again")]
    WentBack,
    #[error(
        "another process reads the durable consumer {0}, and instances never share one: give each \
         instance a WS_INSTANCE of its own"
    )]
    ConsumerTaken(String),
    #[error(
        "a consumer {0} exists that is not a durable one of odin-ws: set another JS_CONSUMER_NAME, \
         or delete it"
    )]
    ConsumerForeign(String),
    #[error("JetStream refuses: {0}")]
    Refused(String),
    #[error("a request to JetStream failed: {0}")]
    Failed(String),
}

impl From<ApiError> for StreamError {
    fn from(error: ApiError) -> Self {
        match error.error_code() {
            ErrorCode::STREAM_NOT_FOUND => Self::Missing,
            ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                Self::JetStreamDisabled
            }
            ErrorCode::STREAM_SUBJECT_OVERLAP => Self::SubjectOverlap,
            ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::MEMORY_RESOURCES_EXCEEDED
            | ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED
            | ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED
            | ErrorCode::MAXIMUM_STREAMS_LIMIT
            | ErrorCode::CLUSTER_NO_PEERS => Self::NoRoom(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

/// Keeps the stream as configured, and remembers what was said about it.
#[derive(Debug)]
pub(crate) struct StreamKeeper {
    settings: StreamSettings,
    warned: String,
}

impl StreamKeeper {
    pub(crate) fn new(settings: StreamSettings) -> Self {
        Self { settings, warned: String::new() }
    }

    /// The stream as it is now; made if it was missing, changed if it differs and the settings
    /// ask for it.
    ///
    /// # Errors
    /// Why it cannot be used now.
    pub(crate) async fn ensure(&mut self, context: &Context) -> Result<Info, StreamError> {
        let info = match self.info(context).await {
            Err(StreamError::Missing) => return self.create(context).await,
            found => found?,
        };
        let differences = differences(&self.settings, &info.config);
        if differences.is_empty() {
            return Ok(info);
        }
        let text = differences.iter().map(Difference::to_string).collect::<Vec<_>>().join("; ");
        if self.settings.update {
            return self.update(context, info, &text).await;
        }
        if text != self.warned {
            tracing::warn!(
                stream = self.settings.name,
                differences = text,
                "the stream has other settings and is used as it is; JS_STREAM_UPDATE=true \
                 changes it"
            );
            self.warned = text;
        }
        Ok(info)
    }

    /// The stream as it is now.
    ///
    /// # Errors
    /// [`StreamError::Missing`], or why nothing is known.
    pub(crate) async fn info(&self, context: &Context) -> Result<Info, StreamError> {
        let subject = &format!("STREAM.INFO.{}", self.settings.name);
        let ask = |after: u32| async move {
            tokio::time::sleep(ASK_AGAIN * after).await;
            match call(context, subject, &()).await {
                Err(StreamError::NoAnswer) => Err(StreamError::NoAnswer),
                answer => Ok(answer),
            }
        };
        let answer = select_ok((0..ASKED_MAX).map(|after| ask(after).boxed()));
        match tokio::time::timeout(ASK_AGAIN * ASKED_MAX, answer).await {
            Ok(Ok((answer, _))) => answer,
            Ok(Err(error)) => Err(error),
            Err(_) => Err(StreamError::NoAnswer),
        }
    }

    async fn create(&self, context: &Context) -> Result<Info, StreamError> {
        let subject = format!("STREAM.CREATE.{}", self.settings.name);
        let created = call::<_, Info>(context, &subject, &self.settings.config()).await?;
        tracing::info!(
            stream = self.settings.name,
            subjects = self.settings.subjects.join(","),
            "the stream was missing and has been created"
        );
        Ok(created)
    }

    async fn update(
        &mut self,
        context: &Context,
        info: Info,
        differences: &str,
    ) -> Result<Info, StreamError> {
        let mut config = info.config.clone();
        self.settings.apply(&mut config);
        let subject = format!("STREAM.UPDATE.{}", self.settings.name);
        match call::<_, Info>(context, &subject, &config).await {
            Ok(updated) => {
                tracing::info!(stream = self.settings.name, differences, "the stream was changed");
                Ok(updated)
            }
            Err(error) => {
                if self.warned != differences {
                    tracing::warn!(
                        stream = self.settings.name,
                        differences,
                        %error,
                        "the stream cannot be changed and is used as it is"
                    );
                    differences.clone_into(&mut self.warned);
                }
                Ok(info)
            }
        }
    }
}

/// One request to the JetStream API.
///
/// # Errors
/// Why there is no answer, or a refusal.
pub(crate) async fn call<Q, A>(
    context: &Context,
    subject: &str,
    query: &Q,
) -> Result<A, StreamError>
where
    Q: Serialize + ?Sized,
    A: serde::de::DeserializeOwned,
{
    let answer: Result<Response<A>, _> = context.request(subject.to_owned(), query).await;
    match answer {
        Ok(Response::Ok(answer)) => Ok(answer),
        Ok(Response::Err { error }) => Err(error.into()),
        Err(error) => Err(match error.kind() {
            RequestErrorKind::NoResponders => StreamError::JetStreamDisabled,
            RequestErrorKind::TimedOut => StreamError::NoAnswer,
            RequestErrorKind::InvalidSubject | RequestErrorKind::Other => {
                StreamError::Failed(error.to_string())
            }
        }),
    }
}

/// A setting of a stream that is not as configured.
#[derive(Debug, PartialEq, Eq)]
struct Difference {
    setting: &'static str,
    has: String,
    configured: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: has {}, configured {}", self.setting, self.has, self.configured)
    }
}

fn differences(settings: &StreamSettings, has: &Config) -> Vec<Difference> {
    let limit = |count: i64| if count <= 0 { "no limit".to_owned() } else { count.to_string() };
    let sorted = |subjects: &[String]| {
        let mut subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
        subjects.sort_unstable();
        subjects.join(",")
    };
    let wanted = settings.config();
    let rows = [
        ("subjects", sorted(&has.subjects), sorted(&wanted.subjects)),
        ("max_age", format!("{:?}", has.max_age), format!("{:?}", wanted.max_age)),
        ("max_msgs", limit(has.max_messages), limit(wanted.max_messages)),
        ("max_bytes", limit(has.max_bytes), limit(wanted.max_bytes)),
        ("replicas", has.num_replicas.to_string(), wanted.num_replicas.to_string()),
        ("storage", format!("{:?}", has.storage), format!("{:?}", wanted.storage)),
        ("retention", format!("{:?}", has.retention), format!("{:?}", wanted.retention)),
        ("discard", format!("{:?}", has.discard), format!("{:?}", wanted.discard)),
    ];
    rows.into_iter()
        .filter(|(_, has, configured)| has != configured)
        .map(|(setting, has, configured)| Difference { setting, has, configured })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_as_configured_has_no_differences() {
        let settings = StreamSettings::default();
        let mut config = settings.config();
        config.subjects.reverse();
        assert_eq!(differences(&settings, &config), []);
        config.max_bytes = -1;
        let unlimited = StreamSettings { max_bytes: 0, ..settings };
        assert_eq!(differences(&unlimited, &config), [], "0 and -1 both mean no limit");
    }

    #[test]
    fn each_difference_is_named_with_both_values() {
        let settings = StreamSettings::default();
        let config = Config {
            subjects: vec!["odin.>".into()],
            max_age: Duration::from_secs(60),
            max_messages: -1,
            storage: StorageType::Memory,
            ..settings.config()
        };
        let texts: Vec<String> =
            differences(&settings, &config).iter().map(Difference::to_string).collect();
        assert_eq!(
            texts,
            [
                "subjects: has odin.>, configured odin.global.>,odin.token.>",
                "max_age: has 60s, configured 30s",
                "max_msgs: has no limit, configured 100000",
                "storage: has Memory, configured File",
            ]
        );
    }

    #[test]
    fn settings_that_jetstream_would_refuse_are_found_at_start() {
        let base = StreamSettings::default;
        let name = |name: &str| StreamSettings { name: name.into(), ..base() };
        let subjects = |subjects: &[&str]| StreamSettings {
            subjects: subjects.iter().map(ToString::to_string).collect(),
            ..base()
        };
        let cases = [
            (name(""), "JS_STREAM_NAME"),
            (name("a.b"), "\"a.b\""),
            (name("a/b"), "\"a/b\""),
            (name(&"x".repeat(256)), "JS_STREAM_NAME"),
            (subjects(&[]), "NATS_SUBJECTS"),
            (subjects(&["a.>.b"]), "\"a.>.b\""),
            (StreamSettings { replicas: 0, ..base() }, "JS_STREAM_REPLICAS"),
            (StreamSettings { max_age: Duration::from_millis(1), ..base() }, "JS_STREAM_MAX_AGE"),
        ];
        for (settings, expected) in cases {
            let error = settings.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(base().check().unwrap().len(), 2);
    }
}
