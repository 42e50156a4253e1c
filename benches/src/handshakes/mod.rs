//! What handshakes cost: in bytes, and in memory and time when strangers hold them open.
//!
//! | file | holds |
//! | --- | --- |
//! | `bytes` | how many bytes a mutual handshake takes |
//! | `flood` | strangers that stay silent, or nearly, and an honest dialler among them |
//! | `listener` | the process that they attack |

pub(crate) mod bytes;
pub(crate) mod flood;
pub(crate) mod listener;

/// One figure on a line: `name value goal held|missed`.
fn judged(name: &str, value: f64, unit: &str, goal: f64) {
    let word = if value <= goal { "held" } else { "missed" };
    println!("{name} {value:.1} {unit} goal <= {goal} {word}");
}

/// A figure without a goal.
fn report(name: &str, value: f64, unit: &str) {
    println!("{name} {value:.1} {unit}");
}
