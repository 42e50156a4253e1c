//! How a figure is told: with its goal, and whether that is held.

use serde::Serialize;

use crate::Outcome;

/// One measurement, as one line of JSON.
#[derive(Debug, Serialize)]
struct Measured {
    workload: &'static str,
    name: &'static str,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
}

/// A figure without a goal.
pub(crate) fn figure(
    workload: &'static str,
    name: &'static str,
    value: f64,
    unit: &'static str,
) -> Outcome<()> {
    print(workload, name, value, unit, None)
}

/// A figure that should be no more than its goal.
pub(crate) fn at_most(
    workload: &'static str,
    name: &'static str,
    value: f64,
    unit: &'static str,
    goal: f64,
) -> Outcome<()> {
    print(
        workload,
        name,
        value,
        unit,
        Some((format!("<= {goal}"), value <= goal)),
    )
}

/// A figure that should be no less than its goal.
pub(crate) fn at_least(
    workload: &'static str,
    name: &'static str,
    value: f64,
    unit: &'static str,
    goal: f64,
) -> Outcome<()> {
    print(
        workload,
        name,
        value,
        unit,
        Some((format!(">= {goal}"), value >= goal)),
    )
}

fn print(
    workload: &'static str,
    name: &'static str,
    value: f64,
    unit: &'static str,
    goal: Option<(String, bool)>,
) -> Outcome<()> {
    let verdict = goal
        .as_ref()
        .map(|(_, held)| if *held { "held" } else { "missed" });
    let measured = Measured {
        workload,
        name,
        value: (value * 1000.0).round() / 1000.0,
        unit,
        goal: goal.map(|(goal, _)| goal),
        verdict,
    };
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}
