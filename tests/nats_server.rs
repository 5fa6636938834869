//! The nats-server that other tests rely on: same address and same store after SIGKILL.

mod support;

use async_nats::jetstream;
use support::nats::NatsServer;

#[tokio::test]
async fn a_killed_server_comes_back_with_its_address_and_its_messages() {
    let mut server = NatsServer::start();
    let url = server.url();
    let context = jetstream::new(async_nats::connect(&url).await.unwrap());
    let config = jetstream::stream::Config {
        name: "S".into(),
        subjects: vec!["s.>".into()],
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    context.publish("s.a", "1".into()).await.unwrap().await.unwrap();

    server.kill();
    assert!(async_nats::connect(&url).await.is_err());
    server.restart();

    assert_eq!(server.url(), url);
    let context = jetstream::new(async_nats::connect(&url).await.unwrap());
    assert_eq!(context.get_stream("S").await.unwrap().cached_info().state.messages, 1);
}
