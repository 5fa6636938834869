//! Carries out a history: a stream, instances that read it, and clients that move between them.

use serde_json::json;

use super::client::{Client, Link, PATTERNS, matches};
use super::history::{History, PLACES};
use super::instance::Instance;
use super::invariants::{Broken, Scene};
use super::operation::Op;
use super::stream::{CHANNELS, Stream};

/// Steps of an instance until it comes to rest; far more than it takes.
const STEPS_MAX: usize = 400;

/// Everything that there is.
pub(super) struct World {
    stream: Stream,
    instances: Vec<Option<Instance>>,
    clients: Vec<Client>,
    is_durable: bool,
    log_messages: usize,
}

impl World {
    /// Carries out a history.
    ///
    /// # Errors
    /// What was broken, and after how many operations.
    pub(super) fn run(history: &History) -> Result<(), (usize, Broken)> {
        let mut world = Self {
            stream: Stream::new(),
            instances: (0..PLACES).map(|_| None).collect(),
            clients: vec![Client::default(); usize::from(PLACES)],
            is_durable: history.is_durable,
            log_messages: history.log_messages,
        };
        for (at, op) in history.ops.iter().enumerate() {
            world.apply(*op).map_err(|broken| (at + 1, broken))?;
        }
        world.settle().map_err(|broken| (history.ops.len(), broken))
    }

    fn apply(&mut self, op: Op) -> Result<(), Broken> {
        let stream = &mut self.stream;
        match op {
            Op::Publish(channel) => stream.publish(channel.into(), false),
            Op::PublishUnreadable(channel) => stream.publish(channel.into(), true),
            Op::Rollup(channel) => {
                stream.purge(Some(channel.into()), 0);
                stream.publish(channel.into(), false);
            }
            Op::Age(count) => {
                let first = stream.state().first;
                stream.purge_to(first + u64::from(count));
            }
            Op::Delete(from_newest) => stream.delete(from_newest.into()),
            Op::Purge => stream.purge(None, 0),
            Op::PurgeChannel(channel, keep) => stream.purge(Some(channel.into()), keep.into()),
            Op::KeepPerChannel(max) => {
                stream.per_channel_max = max.into();
                stream.keep_to_limits();
            }
            Op::Keep(max) => {
                stream.messages_max = max.into();
                stream.keep_to_limits();
            }
            Op::Save => stream.save(),
            Op::Restore => {
                stream.restore();
            }
            Op::LoseTail(count) => {
                stream.lose_tail(count.into());
            }
            Op::Recreate => stream.recreate(),
            Op::Start(place) => self.start(place.into()),
            Op::Connect(client, instance, pattern, snapshot) => {
                self.connect(client.into(), instance.into(), pattern.into(), snapshot)?;
            }
            Op::Disconnect(client) => self.disconnect(client.into()),
            Op::Heartbeat(client) => self.command(client.into(), r#"{"type":"heartbeat"}"#)?,
            Op::Subscribe(client, pattern, snapshot) => {
                self.subscribe(client.into(), pattern.into(), snapshot)?;
            }
            Op::Reload(client) => self.reload(client.into())?,
            Op::Settle => self.settle()?,
            Op::Pass(half_seconds) => {
                let ms = 500 * u64::from(half_seconds);
                self.stream.pass(ms);
                self.instances.iter_mut().flatten().for_each(|instance| instance.pass(ms));
                self.read_all()?;
            }
            Op::Stick(place)
            | Op::Unstick(place)
            | Op::Step(place)
            | Op::Send(place, _)
            | Op::SendElsewhere(place)
            | Op::Run(place)
            | Op::Cut(place)
            | Op::Look(place)
            | Op::Newest(place) => self.drive(place.into(), op)?,
        }
        Ok(())
    }

    fn drive(&mut self, place: usize, op: Op) -> Result<(), Broken> {
        let stream = &self.stream;
        let Some(instance) = &mut self.instances[place] else { return Ok(()) };
        let driver = &mut instance.driver;
        match op {
            Op::Stick(_) => instance.is_stuck = true,
            Op::Unstick(_) => instance.is_stuck = false,
            Op::Step(_) => driver.advance(stream),
            Op::Send(_, count) => driver.send(stream, count.into()),
            Op::SendElsewhere(_) => driver.take_elsewhere(stream),
            Op::Cut(_) => driver.cut(),
            Op::Look(_) => driver.look(stream),
            Op::Newest(_) => driver.read_newest(stream),
            _ => return self.run_on(place),
        }
        instance.turn();
        Self::read(&self.stream, instance, place, &mut self.clients)
    }

    /// An instance reads what there is.
    fn run_on(&mut self, place: usize) -> Result<(), Broken> {
        let Some(instance) = &mut self.instances[place] else { return Ok(()) };
        for _ in 0..16 {
            instance.driver.send(&self.stream, 2);
            instance.driver.advance(&self.stream);
            instance.turn();
            Self::read(&self.stream, instance, place, &mut self.clients)?;
        }
        Ok(())
    }

    fn start(&mut self, place: usize) {
        self.instances[place] = Some(Instance::new(self.is_durable, self.log_messages));
        for client in &mut self.clients {
            client.link.take_if(|link| link.instance == place);
        }
    }

    fn connect(
        &mut self,
        client: usize,
        place: usize,
        pattern: usize,
        snapshot: bool,
    ) -> Result<(), Broken> {
        let state = &mut self.clients[client];
        let Some(instance) = self.instances[place].as_mut().filter(|_| state.link.is_none()) else {
            return Ok(());
        };
        let mut link = Link::new(place, instance.connect());
        let resume = state.position.filter(|_| !state.wants.is_empty());
        if resume.is_none() {
            state.begin();
            state.wants = vec![pattern];
        }
        link.resumes_from = resume;
        link.subscriptions = state.wants.iter().map(|pattern| (*pattern, None)).collect();
        let channels: Vec<&str> = state.wants.iter().map(|it| PATTERNS[*it].0).collect();
        state.link = Some(link);
        let mut command = json!({"type": "subscribe", "channels": channels, "snapshot": snapshot});
        if let Some(at) = resume {
            let epoch = super::driver::epoch(at.life);
            command["resume"] = json!({"epoch": epoch, "pos": at.pos, "ts": at.ts});
        }
        self.command(client, &command.to_string())
    }

    fn disconnect(&mut self, client: usize) {
        if let Some(link) = self.clients[client].link.take()
            && let Some(instance) = &mut self.instances[link.instance]
        {
            instance.disconnect(link.id);
        }
    }

    fn subscribe(&mut self, client: usize, pattern: usize, snapshot: bool) -> Result<(), Broken> {
        let state = &mut self.clients[client];
        let Some(link) = &mut state.link else { return Ok(()) };
        let is_waiting = link.subscriptions.iter().any(|(_, promise)| promise.is_none());
        if is_waiting || state.wants.contains(&pattern) {
            return Ok(());
        }
        link.subscriptions.push((pattern, None));
        state.wants.push(pattern);
        let channels = [PATTERNS[pattern].0];
        let command = json!({"type": "subscribe", "channels": channels, "snapshot": snapshot});
        self.command(client, &command.to_string())
    }

    /// Unsubscribes from everything, and subscribes again.
    fn reload(&mut self, client: usize) -> Result<(), Broken> {
        let state = &mut self.clients[client];
        let Some(link) = &mut state.link else { return Ok(()) };
        if link.resumes_from.is_some() {
            return Ok(());
        }
        state.position = None;
        let channels: Vec<&str> = state.wants.iter().map(|it| PATTERNS[*it].0).collect();
        link.subscriptions.clear();
        let again = state.wants.iter().map(|pattern| (*pattern, None)).collect();
        let unsubscribe = json!({"type": "unsubscribe", "channels": channels}).to_string();
        let subscribe = json!({"type": "subscribe", "channels": channels, "snapshot": true});
        self.command(client, &unsubscribe)?;
        if let Some(link) = &mut self.clients[client].link {
            link.subscriptions = again;
        }
        self.command(client, &subscribe.to_string())
    }

    fn command(&mut self, client: usize, text: &str) -> Result<(), Broken> {
        let Some(link) = &self.clients[client].link else { return Ok(()) };
        let place = link.instance;
        let Some(instance) = &mut self.instances[place] else { return Ok(()) };
        instance.command(link.id, text);
        Self::read(&self.stream, instance, place, &mut self.clients)
    }

    fn read_all(&mut self) -> Result<(), Broken> {
        for (place, instance) in self.instances.iter_mut().enumerate() {
            if let Some(instance) = instance {
                Self::read(&self.stream, instance, place, &mut self.clients)?;
            }
        }
        Ok(())
    }

    /// The clients of an instance read what it has sent.
    fn read(
        stream: &Stream,
        instance: &mut Instance,
        place: usize,
        clients: &mut [Client],
    ) -> Result<(), Broken> {
        for (id, bytes) in instance.sent() {
            let is_its = |it: &&mut Client| {
                it.link.as_ref().is_some_and(|link| link.instance == place && link.id == id)
            };
            let Some(client) = clients.iter_mut().find(is_its) else { continue };
            let Some(mut link) = client.link.take() else { continue };
            link.bytes.extend(bytes);
            for message in link.take_messages() {
                let mut scene = Scene { stream, driver: &instance.driver, client };
                scene.take(&mut link, &message)?;
            }
            client.link = Some(link);
        }
        Ok(())
    }

    /// Brings everything to rest, and checks that each client has everything or was told.
    fn settle(&mut self) -> Result<(), Broken> {
        for place in 0..self.instances.len() {
            self.rest(place)?;
        }
        for (client, state) in self.clients.iter_mut().enumerate() {
            let Some(link) = state.link.take() else { continue };
            if let Some(instance) = &self.instances[link.instance]
                && !instance.driver.is_stuck_at_unreadable(&self.stream)
            {
                let scene = Scene { stream: &self.stream, driver: &instance.driver, client: state };
                scene
                    .check_settled(&link)
                    .map_err(|broken| format!("{broken} to client {client}"))?;
            }
            state.link = Some(link);
        }
        Ok(())
    }

    fn rest(&mut self, place: usize) -> Result<(), Broken> {
        let stream = &self.stream;
        let Some(instance) = &mut self.instances[place] else { return Ok(()) };
        instance.is_stuck = false;
        let mut quiet = 0;
        for step in 0..STEPS_MAX {
            instance.driver.send(stream, 1);
            instance.driver.advance(stream);
            instance.turn();
            instance.driver.look(stream);
            instance.turn();
            instance.driver.read_newest(stream);
            instance.turn();
            Self::read(stream, instance, place, &mut self.clients)?;
            quiet = if instance.driver.is_settled(stream) { quiet + 1 } else { 0 };
            // Two looks, of three steps each.
            if quiet > 6 {
                break;
            }
            if step + 1 == STEPS_MAX && !instance.driver.is_stuck_at_unreadable(stream) {
                return Err(format!("instance {place} does not come to rest"));
            }
        }
        instance.pass(6_000);
        Self::read(stream, instance, place, &mut self.clients)
    }
}

#[test]
fn patterns_match_what_the_table_says() {
    for (number, (text, _)) in PATTERNS.iter().enumerate() {
        let pattern = crate::channel::Pattern::parse(text, 256).unwrap();
        for (channel, name) in CHANNELS.iter().enumerate() {
            assert_eq!(pattern.matches(name), matches(number, channel), "{text} {name}");
        }
    }
}
