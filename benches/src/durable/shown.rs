//! Prints a figure of this bench.

use crate::{Outcome, figure};

const DURABLE: &str = "durable";

/// A figure without a goal.
pub(super) fn figure(name: &'static str, value: f64, unit: &'static str) -> Outcome<()> {
    figure::figure(DURABLE, name, value, unit)
}

pub(super) fn at_most(
    name: &'static str,
    value: f64,
    unit: &'static str,
    goal: f64,
) -> Outcome<()> {
    figure::at_most(DURABLE, name, value, unit, goal)
}

pub(super) fn at_least(
    name: &'static str,
    value: f64,
    unit: &'static str,
    goal: f64,
) -> Outcome<()> {
    figure::at_least(DURABLE, name, value, unit, goal)
}
