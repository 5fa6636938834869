//! When the deadlines of a client that says nothing come.

use super::world::World;
use crate::shard::timers::{TICK_MS, until_tick_ms};

/// The operation code of a frame, and how long the client had been silent when it came.
type Told = (u8, u64);

/// What the server says to a client that is silent.
fn signs_of_life(heartbeat_ms: u64, idle_ms: u64, phase_ms: u64, late_ms: u64) -> Vec<Told> {
    let mut world = World::new(1);
    let limits = &mut world.shard.settings.limits;
    (limits.heartbeat_interval_ms, limits.idle_timeout_ms) = (heartbeat_ms, idle_ms);
    world.pass(phase_ms);
    world.connect_with("");
    world.check();
    let mut seen = world.clients[0].frames.len();
    let began_ms = world.now.monotonic_ms();
    let mut told = Vec::new();
    while world.now.monotonic_ms() < began_ms + idle_ms + 2 * TICK_MS {
        world.pass(until_tick_ms(world.now.monotonic_ms()) + late_ms);
        world.tick();
        world.check();
        let silent_ms = world.now.monotonic_ms() - began_ms;
        let frames = &world.clients[0].frames;
        told.extend(frames[seen..].iter().map(|(opcode, _)| (*opcode, silent_ms)));
        seen = frames.len();
    }
    told
}

#[test]
fn each_deadline_comes_within_a_tick_and_none_puts_off_the_next() {
    let plans: [(u64, u64, &[Told]); 3] = [
        (25_000, 60_000, &[(10, 25_000), (9, 50_000), (8, 60_000)]),
        (3_000, 12_000, &[(10, 3_000), (9, 6_000), (9, 9_000), (8, 12_000)]),
        (27_000, 60_000, &[(10, 27_000), (9, 54_000), (8, 60_000)]),
    ];
    for (heartbeat_ms, idle_ms, expected) in plans {
        for (phase_ms, late_ms) in [(0, 0), (1, 3), (500, 12), (863, 7), (999, 40)] {
            let told = signs_of_life(heartbeat_ms, idle_ms, phase_ms, late_ms);
            let opcodes = |told: &[Told]| told.iter().map(|it| it.0).collect::<Vec<_>>();
            assert_eq!(opcodes(&told), opcodes(expected), "{told:?}");
            for ((_, at_ms), (_, stated_ms)) in told.iter().zip(expected) {
                let is_in_time = *at_ms >= *stated_ms && *at_ms < stated_ms + TICK_MS + late_ms;
                assert!(is_in_time, "phase {phase_ms} ms, late {late_ms} ms: {told:?}");
            }
        }
    }
}
