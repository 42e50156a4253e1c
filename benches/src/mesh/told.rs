//! Figures of this workload.

use crate::Outcome;
use crate::figure;

const MESH: &str = "mesh";

/// A figure without a goal.
pub(super) fn figure(name: &'static str, value: f64, unit: &'static str) -> Outcome<()> {
    figure::figure(MESH, name, value, unit)
}

/// A figure that should be no more than its goal.
pub(super) fn at_most(
    name: &'static str,
    value: f64,
    unit: &'static str,
    goal: f64,
) -> Outcome<()> {
    figure::at_most(MESH, name, value, unit, goal)
}

/// A figure that should be no less than its goal.
pub(super) fn at_least(
    name: &'static str,
    value: f64,
    unit: &'static str,
    goal: f64,
) -> Outcome<()> {
    figure::at_least(MESH, name, value, unit, goal)
}
