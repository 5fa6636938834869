//! What most of the tests have in common: clients that are connected and one that is away, while
//! the server is held up and messages are lost.

use std::time::Duration;

use async_nats::jetstream::stream::Config;

use super::{BTC, ETH, Instance, Market, Mode, OTHER, Place, Witness};

/// Clients that resume while the loss is being noticed, and the time that passes meanwhile.
const RESUMING: u32 = 8;
const WHILE: Duration = Duration::from_secs(1);

pub struct Scene {
    pub market: Market,
    pub old: Instance,
    pub live: Witness,
    /// Where a client stood that is away.
    pub place: Place,
    mode: Mode,
}

impl Scene {
    /// A few messages have been published and read.
    pub fn of(stream: &Config, mode: Mode) -> Self {
        let mut scene = Self::at(Market::open(stream), mode);
        if stream.subjects == ["odin.>"] {
            scene.market.publish(OTHER);
        }
        scene
    }

    /// The same in a market that has its stream.
    pub fn at(mut market: Market, mode: Mode) -> Self {
        let old = market.instance(mode);
        let live = Witness::of("live", &old, &["odin.token.>"]);
        market.publish(ETH);
        market.publish(BTC);
        live.wait_for(market.truth.next_number() - 1);
        let place = live.place().expect("a position");
        Self { market, old, live, place, mode }
    }

    /// Holds the server up for at least so long, while this is done to the market.
    pub fn held_up(&mut self, duration: Duration, work: impl FnOnce(&mut Market)) {
        self.old.hold_up();
        work(&mut self.market);
        std::thread::sleep(duration);
        self.old.let_go_on();
    }

    /// Nobody is told anything false, now or later, here or on another instance.
    pub fn assert_no_false_claim(self) {
        self.conclude();
    }

    /// The same; and messages are lost, so that clients are told and no resume recovers.
    pub fn assert_loss_is_told(self) {
        let (market, live, later) = self.conclude();
        assert!(market.missing(&live, "odin.token.>") > 0, "nothing was lost");
        live.wait_for_resync();
        for witness in later {
            assert!(!witness.is_recovered(), "{} recovered", witness.name);
        }
    }

    /// The same; and nothing is lost, so that no client is told and every resume recovers.
    pub fn assert_all_recover(self) {
        let (market, live, later) = self.conclude();
        assert_eq!(market.missing(&live, "odin.token.>"), 0);
        assert!(!live.was_told_of_a_loss(), "nothing was lost");
        for witness in later {
            assert!(witness.is_recovered(), "{} did not recover", witness.name);
        }
    }

    /// The market, the live client, and those that resumed when the loss had been told.
    fn conclude(mut self) -> (Market, Witness, Vec<Witness>) {
        let Self { market, old, live, place, mode } = &mut self;
        live.heartbeat();
        let channels = ["odin.token.>"];
        let mut witnesses = Vec::new();
        for _ in 0..RESUMING {
            witnesses.push(Witness::resume("resumed meanwhile", old, &channels, place));
            live.heartbeat();
            std::thread::sleep(WHILE / RESUMING);
        }
        market.assert_no_false_claim(&refer(live, &witnesses));
        let fresh = market.instance(*mode);
        let later = vec![
            Witness::resume("resumed later", old, &channels, place),
            Witness::resume("resumed on a fresh instance", &fresh, &channels, place),
        ];
        let resumed = later.len();
        witnesses.extend(later);
        witnesses.push(market.snapshot("snapshot", old, &channels));
        witnesses.push(market.snapshot("snapshot of a fresh instance", &fresh, &channels));
        for channel in [BTC, ETH, BTC] {
            market.publish(channel);
        }
        live.heartbeat();
        market.assert_no_false_claim(&refer(live, &witnesses));
        let later = witnesses.drain(RESUMING as usize..).take(resumed).collect();
        (self.market, self.live, later)
    }
}

fn refer<'a>(live: &'a Witness, others: &'a [Witness]) -> Vec<&'a Witness> {
    std::iter::once(live).chain(others).collect()
}
