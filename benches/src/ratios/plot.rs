//! The plot: how much better than its goal each figure is, on a logarithmic axis.
//!
//! A row is a bar from the goal (1) to cepa's figure, right of it where the goal is held; the aim is a tick, rivals
//! are circles. What lies outside the axis stands at its edge.

use std::fmt::Write as _;

use super::goals::{Goal, Row, figure};
use super::rounds::Results;
use crate::Outcome;
use crate::measure::number;
use crate::peers::Peer;

const LABELS: f64 = 190.0;
const WIDTH: f64 = 900.0;
const FIGURES: f64 = 150.0;
const TOP: f64 = 74.0;
const LINE: f64 = 20.0;
/// The axis goes from a twentieth of the goal to twenty times as good.
const EDGE: f64 = 20.0;
const TICKS: [(f64, &str); 9] = [
    (0.05, "÷20"),
    (0.1, "÷10"),
    (0.2, "÷5"),
    (0.5, "÷2"),
    (1.0, "goal"),
    (2.0, "×2"),
    (5.0, "×5"),
    (10.0, "×10"),
    (20.0, "×20"),
];

const HELD: &str = "#2a7f4f";
const MISSED: &str = "#c0392b";

/// A colour for each rival.
fn colour(peer: Peer) -> &'static str {
    match peer {
        Peer::Cepa => HELD,
        Peer::Tcp => "#7f7f7f",
        Peer::Tls => "#1f3a5f",
        Peer::Yamux => "#e08a00",
        Peer::TokioYamux => "#8e5ea2",
        Peer::H2 => "#2e86c1",
        Peer::Quinn => "#b9770e",
    }
}

/// How many times better than the goal.
fn better(goal: Goal, value: f64) -> f64 {
    match goal {
        Goal::AtMost(goal) => goal / value,
        Goal::AtLeast(goal) => value / goal,
    }
}

fn x(better: f64) -> f64 {
    let span = WIDTH - LABELS - FIGURES;
    let share = better.clamp(1.0 / EDGE, EDGE).ln() / EDGE.ln();
    LABELS + span * (share + 1.0) / 2.0
}

pub(crate) fn svg(rows: &[&Row], results: &Results) -> Outcome<String> {
    let bottom = LINE.mul_add(number(rows.len()), TOP);
    let height = bottom + 12.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"14\">How many times better than its goal: cepa (bars) and rivals (circles)</text>\n"
    );
    legend(&mut svg, rows, results)?;
    for (at, name) in TICKS {
        let (x, wide) = (x(at), if name == "goal" { 1.5 } else { 0.5 });
        writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#999\" stroke-width=\"{wide}\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{name}</text>",
            TOP - 6.0
        )?;
    }
    for (i, row) in rows.iter().enumerate() {
        line(&mut svg, row, results, LINE.mul_add(number(i) + 0.5, TOP))?;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn legend(svg: &mut String, rows: &[&Row], results: &Results) -> Outcome<()> {
    let mut peers: Vec<Peer> = rows
        .iter()
        .flat_map(|row| results.peers(row.spec).filter(|peer| row.compares(*peer)))
        .collect();
    peers.sort();
    peers.dedup();
    for (i, peer) in peers.into_iter().enumerate() {
        let at = 90.0_f64.mul_add(number(i), 20.0);
        writeln!(
            svg,
            "<circle cx=\"{at}\" cy=\"38\" r=\"4\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\
             <text x=\"{:.1}\" y=\"42\">{}</text>",
            colour(peer),
            at + 9.0,
            peer.name()
        )?;
    }
    Ok(())
}

fn line(svg: &mut String, row: &Row, results: &Results, y: f64) -> Outcome<()> {
    let value = row.of(Peer::Cepa, results);
    writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
        LABELS - 8.0,
        y + 4.0,
        row.name
    )?;
    let goal = x(1.0);
    if value.is_nan() {
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{MISSED}\">not measured</text>",
            goal + 6.0,
            y + 4.0
        )?;
        return Ok(());
    }
    let fill = if row.goal.held(value) { HELD } else { MISSED };
    let end = x(better(row.goal, value));
    writeln!(
        svg,
        "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"10\" fill=\"{fill}\"/>",
        goal.min(end),
        y - 5.0,
        (goal - end).abs().max(1.0)
    )?;
    let aim = x(better(row.goal, row.aim.number()));
    writeln!(
        svg,
        "<line x1=\"{aim:.1}\" y1=\"{:.1}\" x2=\"{aim:.1}\" y2=\"{:.1}\" stroke=\"black\" stroke-width=\"1.5\"/>",
        y - 8.0,
        y + 8.0
    )?;
    for peer in results.peers(row.spec).filter(|peer| row.compares(*peer)) {
        let at = better(row.goal, row.of(peer, results));
        writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>",
            x(at),
            colour(peer)
        )?;
    }
    writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{fill}\">{} (goal {})</text>",
        WIDTH - FIGURES + 14.0,
        y + 4.0,
        figure(value),
        row.goal
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_is_right_for_both_kinds_of_goals_and_stays_on_the_axis() {
        assert!(x(better(Goal::AtMost(2.0), 1.0)) > x(1.0));
        assert!(x(better(Goal::AtLeast(2.0), 1.0)) < x(1.0));
        assert!((x(1e9) - (WIDTH - FIGURES)).abs() < 1e-6);
        assert!((x(0.0) - LABELS).abs() < 1e-6);
    }
}
