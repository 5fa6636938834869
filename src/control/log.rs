//! Structured logs on standard error: text for people, JSON lines for collectors.

use std::io::IsTerminal as _;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogConfig;

/// Starts logging. Our own messages have the configured level; libraries speak up from warnings
/// on, or less if that is less, and the NATS client not at all: what it has to say is logged
/// where it is handled, with limits on how often.
pub fn start(config: &LogConfig) {
    let libraries = config.level.min(Level::WARN);
    let targets = Targets::new()
        .with_default(libraries)
        .with_target("odin_ws", config.level)
        .with_target("async_nats", LevelFilter::OFF);
    let registry = tracing_subscriber::registry().with(targets);
    if config.is_json {
        let layer = fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
        registry.with(layer.with_current_span(false).with_span_list(false)).init();
    } else {
        let is_colored = std::io::stderr().is_terminal();
        let text = fmt::layer().with_target(false).with_ansi(is_colored);
        let text = text.with_writer(std::io::stderr);
        registry.with(text).init();
    }
}
