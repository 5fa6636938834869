//! Logging in to a real nats-server, and plain pub/sub over it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::PathBuf;

use odin_ws::ingest::{
    CORE_SUBJECTS_DEFAULT, ConsumerMode, CoreSettings, JetStreamSettings, NatsSettings, Publisher,
    Source, StreamSettings, run,
};
use odin_ws::testing::Secret;
use odin_ws::testing::SourceStatus::{Live, Stale};
use support::jwt::Trust;
use support::nats::NatsServer;
use support::source::{RunningSource, Told, nats_at};
use tokio::sync::watch;

const WITH_USER: &str = "authorization { user: ana, password: \"p@ss\" }";

fn core(nats: NatsSettings, subjects: &[&str]) -> Source {
    let subjects = subjects.iter().map(ToString::to_string).collect();
    Source::Core(CoreSettings { nats, subjects })
}

fn event(pos: u64, channel: &str, data: &str) -> Told {
    Told::Event(pos, channel.to_owned(), data.to_owned())
}

#[tokio::test]
async fn overlapping_subscriptions_deliver_a_message_once() {
    let server = NatsServer::start();
    let subjects = ["a.*.x", "a.b.*", "a.b.x", "c.>"];
    let mut source = RunningSource::start(core(nats_at(&server.url()), &subjects));
    let epoch = source.epoch_once_live().await;
    assert!(epoch.starts_with("core-"), "{epoch}");
    let client = async_nats::connect(server.url()).await.unwrap();
    for (number, subject) in ["a.b.x", "a.b.y", "a.c.x", "d", "c.d"].into_iter().enumerate() {
        client.publish(subject, number.to_string().into()).await.unwrap();
        // One after the other, as the subscriptions are read in no particular order.
        client.flush().await.unwrap();
        if subject != "d" {
            let Told::Event(_, channel, data) = source.next().await else { panic!("no event") };
            assert_eq!((channel.as_str(), data), (subject, number.to_string()));
        }
    }
    source.stop().await;
}

#[tokio::test]
async fn after_a_loss_of_the_connection_the_epoch_is_another() {
    let mut server = NatsServer::start();
    let mut source = RunningSource::start(core(nats_at(&server.url()), &CORE_SUBJECTS_DEFAULT));
    let old = source.epoch_once_live().await;
    let client = async_nats::connect(server.url()).await.unwrap();
    client.publish("odin.tokens.abc.price", "1".into()).await.unwrap();
    assert_eq!(source.next().await, event(1, "odin.tokens.abc.price", "1"));
    server.kill();
    assert_eq!(source.next().await, Told::Status(Stale));
    server.restart();
    let Told::Epoch(new) = source.next().await else { panic!("no epoch") };
    assert_ne!(new, old);
    assert_eq!(source.next().await, Told::Status(Live));
    let client = async_nats::connect(server.url()).await.unwrap();
    client.publish("token.abc.update", "2".into()).await.unwrap();
    assert_eq!(source.next().await, event(2, "token.abc.update", "2"));
    source.stop().await;
}

#[tokio::test]
async fn credentials_come_from_the_settings_or_from_the_url() {
    let server = NatsServer::start_with(WITH_USER);
    let in_url = nats_at(&server.url().replace("nats://", "nats://ana:p%40ss@"));
    let in_settings = NatsSettings {
        user: Some("ana".to_owned()),
        password: Some(Secret::from("p@ss".to_owned())),
        ..nats_at(&server.url())
    };
    for nats in [in_url, in_settings] {
        let mut source = RunningSource::start(core(nats, &["a"]));
        source.epoch_once_live().await;
        source.stop().await;
    }
}

#[tokio::test]
async fn a_token_is_taken_too() {
    let server = NatsServer::start_with("authorization { token: \"s3cret\" }");
    let token = Some(Secret::from("s3cret".to_owned()));
    let nats = NatsSettings { token, ..nats_at(&server.url()) };
    let mut source = RunningSource::start(core(nats, &["a"]));
    source.epoch_once_live().await;
    source.stop().await;
}

#[tokio::test]
async fn a_credentials_file_is_read_again_at_every_connection() {
    let mut server = NatsServer::start();
    let (old, new) = (Trust::new(), Trust::new());
    let creds_file = server.dir().join("user.creds");
    std::fs::write(&creds_file, old.user_creds()).unwrap();
    server.configure(&old.server_settings());
    server.restart();
    let nats = NatsSettings { creds_file: Some(creds_file.clone()), ..nats_at(&server.url()) };
    let mut source = RunningSource::start(core(nats, &["a"]));
    source.epoch_once_live().await;
    // The broker trusts another operator from now on, and the file follows later.
    server.configure(&new.server_settings());
    server.restart();
    server.logged("authentication error").await;
    std::fs::write(&creds_file, new.user_creds()).unwrap();
    assert_eq!(source.next().await, Told::Status(Stale));
    source.epoch_once_live().await;
    source.stop().await;
}

#[tokio::test]
async fn refused_credentials_are_tried_again() {
    let mut server = NatsServer::start_with(WITH_USER);
    let mut source = RunningSource::start(core(nats_at(&server.url()), &["a"]));
    server.logged("authentication error").await;
    // The operator drops the password; until then the source must not have ended.
    server.kill();
    server.configure("");
    server.restart();
    source.epoch_once_live().await;
    source.stop().await;
}

#[tokio::test]
async fn settings_that_can_never_work_end_the_source_at_once() {
    let server = NatsServer::start();
    let base = nats_at(&server.url());
    let creds = server.dir().join("user.creds");
    std::fs::write(&creds, "not a credentials file").unwrap();
    let missing = PathBuf::from("/does/not/exist");
    let cases = [
        (NatsSettings { creds_file: Some(missing.clone()), ..base.clone() }, "/does/not/exist"),
        (NatsSettings { creds_file: Some(creds), ..base.clone() }, "user.creds"),
        (NatsSettings { ca_file: Some(missing), ..base.clone() }, "/does/not/exist"),
        (NatsSettings { urls: vec!["nats://ana:s3cret@[".to_owned()], ..base }, "NATS URL"),
    ];
    for (nats, expected) in cases {
        let stream = StreamSettings::default();
        let source =
            Source::JetStream(JetStreamSettings { nats, stream, mode: ConsumerMode::Ordered });
        let (_shutdown, flag) = watch::channel(false);
        let error = run(source, Publisher::new(Vec::new()), flag).await.unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("s3cret"), "{error}");
    }
}
