//! The reports of a run, each a pure function of [`RunData`](crate::data::RunData).
//!
//! ```text
//! figures  what is computed from the measured values, once for all reports
//! unit     numbers with their unit, for people
//! table    the text at the end of a run
//! json     for programs; its names are stable
//! html     one self-contained page
//! grid     a table of columns, as text and as markup
//! floor    the server beside a bare sender
//! loris    hostile clients
//! chart    a chart as SVG
//! series   the samples as a chart's lines
//! page     the page's style and script
//! markup   escapes text
//! ```
//!
//! Bounds: a chart has at most [`chart::POINTS_MAX`] points per line, whatever the run's length.

mod chart;
mod figures;
mod floor;
mod grid;
mod html;
mod json;
mod loris;
mod markup;
mod page;
mod series;
mod table;
mod unit;

pub use html::html;
pub use json::json;
pub use table::table;

#[cfg(test)]
mod tests;
