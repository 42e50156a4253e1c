//! Text for people: lines of at most 80 columns, which every terminal has, and how many there are of something.

use std::fmt::Write as _;

/// Columns of a line.
pub(crate) const WIDTH: usize = 80;

/// The text behind `head`, broken at spaces, with its further lines under its first. A word that is too long for a line has
/// one of its own. Without a line end behind the last.
pub(crate) fn beside(head: &str, text: &str) -> String {
    let indent = head.chars().count();
    let mut out = String::from(head);
    let mut column = indent;
    for word in text.split(' ') {
        let width = word.chars().count();
        if column > indent {
            if column + 1 + width > WIDTH {
                let _ = write!(out, "\n{:indent$}", "");
                column = indent;
            } else {
                out.push(' ');
                column += 1;
            }
        }
        out.push_str(word);
        column += width;
    }
    out
}

/// So many of something, in words.
pub(crate) fn count(n: u64, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{n} {what}s"),
    }
}

/// A number of bytes, in at most ten characters.
pub(crate) fn size(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut amount, mut unit) = (bytes, 0);
    while amount >= 999.5 && unit + 1 < units.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let unit = units.get(unit).unwrap_or(&"B");
    if *unit == "B" || amount >= 99.95 {
        format!("{amount:.0} {unit}")
    } else {
        format!("{amount:.1} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_stand_under_each_other() {
        let text = beside("word  ", &["abcdefg"; 20].join(" "));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with("word  abc"));
        assert!(lines[1].starts_with("      abc"));
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{text}");
        let long = "x".repeat(100);
        assert_eq!(
            beside("a ", &format!("b {long} c")),
            format!("a b\n  {long}\n  c")
        );
        assert_eq!(beside("a ", "b"), "a b");
    }

    #[test]
    fn a_size_has_three_figures_and_a_unit() {
        for (bytes, text) in [
            (0.0, "0 B"),
            (999.0, "999 B"),
            (1000.0, "1.0 KiB"),
            (1536.0, "1.5 KiB"),
            (102_400.0, "100 KiB"),
            (1_048_576.0, "1.0 MiB"),
            (5e9, "4.7 GiB"),
            (1e18, "909495 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
