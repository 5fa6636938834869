//! The server beside a bare sender.

use super::grid::Grid;
use super::unit;
use crate::data::{FloorData, FloorRate, FloorSide};

/// A row per rate and round, and one for the medians.
pub fn grid(floor: &FloorData) -> Grid {
    Grid {
        title: "floor",
        columns: vec![
            "deliveries/s",
            "round",
            "frame",
            "server",
            "bare sender",
            "ratio",
            "server p99",
            "bare p99",
        ],
        rows: floor.rates.iter().flat_map(rows).collect(),
        note: "CPU per delivery, user and system, by the scheduler; the ratio is that of the \
               medians"
            .into(),
    }
}

fn rows(rate: &FloorRate) -> Vec<Vec<String>> {
    let wanted = unit::quantity(rate.deliveries_wanted_per_s);
    let mut rows = Vec::new();
    for (at, round) in rate.rounds.iter().enumerate() {
        let cost = |side: &FloorSide| unit::time_us(side.us_per_delivery);
        let p99 = |side: &FloorSide| unit::time_us(side.latency.p99_us as f64);
        let (server, bare) = (&round.server, &round.bare);
        rows.push(vec![
            wanted.clone(),
            (at + 1).to_string(),
            unit::memory(server.frame_bytes),
            cost(server),
            cost(bare),
            ratio(server.us_per_delivery / bare.us_per_delivery),
            p99(server),
            p99(bare),
        ]);
    }
    rows.push(vec![
        wanted,
        "median".into(),
        String::new(),
        unit::time_us(rate.server_us_per_delivery),
        unit::time_us(rate.bare_us_per_delivery),
        ratio(rate.server_to_bare),
        String::new(),
        String::new(),
    ]);
    rows
}

fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}
