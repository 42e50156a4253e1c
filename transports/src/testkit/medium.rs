//! Both directions of a line: two pairs of wires, or one that they share.
//!
//! ```text
//!   two ways   end 0 --[ Line 0 ]--> end 1        what one end sends never meets what the other sends
//!              end 0 <--[ Line 1 ]-- end 1
//!
//!   one way    end 0 --[ Line 0 ]--+--> end 1     bytes that are on the wires at the same time arrive as garbage,
//!              end 0 <--+--[ Line 1 ]-- end 1     whoever sent them; with an echo, each end hears its own as well
//! ```
//!
//! One way at a time is how two wires of RS-485 work, and most radios.

use std::time::Instant;

use super::line::{Line, LineSettings};

/// A line with both its directions. Ends are 0 and 1.
#[derive(Debug)]
pub struct Medium {
    lines: [Line; 2],
    shared: bool,
    echo: bool,
}

impl Medium {
    /// Two lines: `there` for the bytes of end 0, `back` for those of end 1. The seed decides both.
    pub fn two_way(there: &LineSettings, back: &LineSettings, seed: u64, start: Instant) -> Self {
        let way = |settings: &LineSettings, turn: u64| {
            let seed = seed.wrapping_mul(2).wrapping_add(turn);
            Line::new(settings.clone(), seed, start)
        };
        Self {
            lines: [way(there, 0), way(back, 1)],
            shared: false,
            echo: false,
        }
    }

    /// One pair of wires, on which bytes of both ends collide. `echo`: an end hears what it sends.
    pub fn one_way(settings: &LineSettings, echo: bool, seed: u64, start: Instant) -> Self {
        Self {
            shared: true,
            echo,
            ..Self::two_way(settings, settings, seed, start)
        }
    }

    /// Gives bytes of an end to its driver; says how many it took.
    pub fn write(&mut self, now: Instant, end: usize, bytes: &[u8]) -> usize {
        self.advance(now);
        self.line(end).map_or(0, |line| line.write(now, bytes))
    }

    /// What has arrived at an end by now.
    pub fn read(&mut self, now: Instant, end: usize) -> Vec<u8> {
        self.advance(now);
        let mut bytes = Vec::new();
        let heard = self.line(1 - end.min(1)).map(|line| line.take(now));
        bytes.extend(heard.into_iter().flatten());
        if self.echo {
            let own = self.line(end).map(|line| line.take_echo(now));
            bytes.extend(own.into_iter().flatten());
        }
        bytes.sort_by_key(|(at, _)| *at);
        bytes.into_iter().flat_map(|(_, piece)| piece).collect()
    }

    /// Bytes of an end that wait in its driver.
    pub fn queued(&mut self, now: Instant, end: usize) -> usize {
        self.advance(now);
        self.line(end).map_or(0, |line| line.queued(now))
    }

    /// Bytes that the driver of an end would take now.
    pub fn room(&mut self, now: Instant, end: usize) -> usize {
        self.advance(now);
        self.line(end).map_or(0, |line| line.room(now))
    }

    /// Bytes of an end that have left its driver so far.
    pub fn carried(&self, end: usize) -> u64 {
        self.lines.get(end).map_or(0, Line::carried)
    }

    /// Bytes of both ends that were on the wires while the other end sent.
    pub fn collided(&self) -> u64 {
        self.lines.iter().map(Line::collided).sum()
    }

    /// Throws away what is in the driver of an end and on the way from it.
    pub fn flush(&mut self, end: usize) {
        if let Some(line) = self.line(end) {
            line.flush();
        }
    }

    /// When bytes arrive next, at either end, or room comes in a full buffer.
    pub fn next(&self) -> Option<Instant> {
        self.lines.iter().filter_map(Line::next).min()
    }

    /// When an end hears something next, or may.
    pub(super) fn next_heard(&self, end: usize) -> Option<Instant> {
        let from = self.lines.get(1 - end.min(1))?;
        let own = self.lines.get(end).filter(|_| self.echo);
        let heard = [from.through(), from.next_taken()];
        let echo = [own.and_then(Line::through), own.and_then(Line::next_echo)];
        heard.into_iter().chain(echo).flatten().min()
    }

    /// When room comes in the driver of an end.
    pub(super) fn next_room(&self, end: usize) -> Option<Instant> {
        self.lines.get(end)?.through()
    }

    fn line(&mut self, end: usize) -> Option<&mut Line> {
        self.lines.get_mut(end)
    }

    /// Both lines together, for bytes of one are what those of the other collide with.
    fn advance(&mut self, now: Instant) {
        let [one, other] = &mut self.lines;
        one.advance_beside(now, Some(other.busy()).filter(|_| self.shared), self.echo);
        other.advance_beside(now, Some(one.busy()).filter(|_| self.shared), self.echo);
    }
}
