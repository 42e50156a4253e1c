//! How a figure is printed: with its goal, and whether that is held.

use serde::Serialize;

use crate::Outcome;

/// One measurement, as one line of JSON.
#[derive(Debug, Serialize)]
struct Measured<'a> {
    workload: &'static str,
    name: &'a str,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
}

/// The figures of one workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures(&'static str);

pub(crate) const MESH: Figures = Figures("mesh");
pub(crate) const FLEET: Figures = Figures("fleet");
pub(crate) const DURABLE: Figures = Figures("durable");
pub(crate) const CARRIERS: Figures = Figures("carriers");
pub(crate) const COPY: Figures = Figures("copy");
pub(crate) const FAR: Figures = Figures("far");

impl Figures {
    /// A figure without a goal.
    pub(crate) fn figure(self, name: &str, value: f64, unit: &'static str) -> Outcome<()> {
        self.print(name, value, unit, None)
    }

    /// A figure that should be no more than its goal.
    pub(crate) fn at_most(
        self,
        name: &str,
        value: f64,
        unit: &'static str,
        goal: f64,
    ) -> Outcome<()> {
        let goal = (format!("<= {goal}"), value <= goal);
        self.print(name, value, unit, Some(goal))
    }

    /// A figure that should be no less than its goal.
    pub(crate) fn at_least(
        self,
        name: &str,
        value: f64,
        unit: &'static str,
        goal: f64,
    ) -> Outcome<()> {
        let goal = (format!(">= {goal}"), value >= goal);
        self.print(name, value, unit, Some(goal))
    }

    fn print(
        self,
        name: &str,
        value: f64,
        unit: &'static str,
        goal: Option<(String, bool)>,
    ) -> Outcome<()> {
        let (goal, held) = goal.unzip();
        let measured = Measured {
            workload: self.0,
            name,
            value: (value * 1000.0).round() / 1000.0,
            unit,
            goal,
            verdict: held.map(|held| if held { "held" } else { "missed" }),
        };
        println!("{}", serde_json::to_string(&measured)?);
        Ok(())
    }
}
