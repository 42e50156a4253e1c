//! What `cepa cp` shows while it copies: one line on a terminal, with the rate and the time that is left; and how it went, in the end.
//!
//! What counts is what has arrived at the other end by its own word: this end's buffers take in a second what a serial line
//! carries in an hour.

use std::fmt::Write;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use cepa::transports::text::clean;
use indicatif::{
    HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
    TermLike,
};

use crate::columns::{count, size};
use crate::exit::{Code, Failure, say};
use crate::files::report::{IN_NO_FOLDER, Report};
use crate::keep::in_words;
use crate::rate::Rate;
use crate::say::{Line, has_status_line};
use crate::stderr::{self, columns};

/// The line of this process, where it has one.
static BAR: OnceLock<ProgressBar> = OnceLock::new();

/// Columns of the name in the line, so that all of it fits 80: ` 100% 1023.99 MiB/1023.99 MiB 1023.99 MiB/s 59:59 left`.
const NAME: usize = 22;

const TEMPLATE: &str = "{msg} {percent:>3}% {binary_bytes}/{binary_total_bytes}{rate}{left}";
const WITHOUT_TOTAL: &str = "{msg} {binary_bytes}{rate}";

/// The status line as what the bar is drawn on: `stderr.rs` takes it away before other lines, and shows it again behind them.
#[derive(Debug, Default)]
struct OnStatusLine(Mutex<String>);

impl OnStatusLine {
    fn drawn(&self) -> MutexGuard<'_, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// There is one line, so the cursor goes nowhere.
impl TermLike for OnStatusLine {
    fn width(&self) -> u16 {
        u16::try_from(columns()).unwrap_or(u16::MAX)
    }

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.drawn().push_str(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.drawn().clear();
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let line = std::mem::take(&mut *self.drawn());
        // Behind a shell's prompt (`&`) the terminal is somebody else's.
        let line = if stderr::is_in_front() {
            line
        } else {
            String::new()
        };
        stderr::status(line.trim().chars().take(columns()).collect());
        Ok(())
    }
}

/// What has come of a copy so far.
#[derive(Debug)]
pub(crate) struct Progress {
    begun: Instant,
    files: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    /// Files of folders that failed.
    in_no_folder: AtomicU64,
    /// In this session: what has arrived, what was there, and what will not come.
    arrived: AtomicU64,
    present: AtomicU64,
    unsent: AtomicU64,
    /// What has arrived in the sessions before.
    before: AtomicU64,
    counted: AtomicBool,
    rate: Mutex<Rate>,
    this: Weak<Self>,
}

impl Progress {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            begun: Instant::now(),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            in_no_folder: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            present: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
            before: AtomicU64::new(0),
            counted: AtomicBool::new(false),
            rate: Mutex::default(),
            this: this.clone(),
        })
    }

    /// Shows it from now on, where somebody looks.
    pub(crate) fn show(self: &Arc<Self>) {
        if !has_status_line() {
            return;
        }
        let line = Box::new(OnStatusLine::default());
        let bar =
            ProgressBar::with_draw_target(None, ProgressDrawTarget::term_like_with_hz(line, 4));
        if let Some(style) = self.style(WITHOUT_TOTAL) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        let _ = BAR.set(bar);
    }

    /// Takes it off the terminal.
    pub(crate) fn hide() {
        if let Some(bar) = BAR.get() {
            bar.finish_and_clear();
        }
    }

    /// Another session begins, and goes through everything again.
    pub(crate) fn again(&self) {
        self.before
            .fetch_add(self.arrived.swap(0, Relaxed), Relaxed);
        for of_session in [
            &self.files,
            &self.bytes,
            &self.failed,
            &self.in_no_folder,
            &self.present,
            &self.unsent,
        ] {
            of_session.store(0, Relaxed);
        }
    }

    /// What was carried: not what was there.
    fn moved(&self) -> u64 {
        self.before.load(Relaxed) + self.arrived.load(Relaxed)
    }

    /// Bytes carried a second, by now.
    fn rate(&self) -> Option<f64> {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        rate.count(Instant::now(), self.moved());
        rate.a_second()
    }

    /// The form of the line, whose rate and time are those of what is carried.
    fn style(&self, template: &str) -> Option<ProgressStyle> {
        let this = self.this.clone();
        let rate = move |_: &ProgressState, out: &mut dyn Write| {
            let rate = this.upgrade().and_then(|it| it.rate());
            let _ = rate.map(|rate| write!(out, " {}/s", size(rate)));
        };
        let this = self.this.clone();
        let left = move |state: &ProgressState, out: &mut dyn Write| {
            let rate = this.upgrade().and_then(|it| it.rate());
            let rest = state.len().map(|all| all.saturating_sub(state.pos()));
            if let (Some(rate), Some(rest)) = (rate, rest)
                && let Some(time) = time_for(rest, rate)
            {
                let _ = write!(out, " {:#} left", HumanDuration(time));
            }
        };
        let style = ProgressStyle::with_template(template).ok()?;
        Some(style.with_key("rate", rate).with_key("left", left))
    }

    fn draw(&self) {
        if let Some(bar) = BAR.get() {
            let parts = [&self.arrived, &self.present, &self.unsent];
            bar.set_position(parts.iter().map(|part| part.load(Relaxed)).sum());
        }
    }

    /// Says how it went.
    pub(crate) fn ended(&self) -> Result<(), Failure> {
        let (files, bytes) = (self.files.load(Relaxed), self.bytes.load(Relaxed));
        let moved = self.moved();
        let time = self.begun.elapsed();
        let there = match bytes.saturating_sub(moved) {
            0 => String::new(),
            there => format!(" ({} of that had been there)", HumanBytes(there)),
        };
        let text = format!(
            "copied {}, {}{there}, in {}",
            count(files, "file"),
            HumanBytes(bytes),
            in_words(time)
        );
        let line = Line::from(text)
            .number("files", files)
            .number("bytes", bytes);
        say(line.number("transferred", moved).seconds("seconds", time));
        let within = match self.in_no_folder.load(Relaxed) {
            0 => String::new(),
            n => format!(", with {} in it", count(n, "file")),
        };
        match self.failed.load(Relaxed) {
            0 if within.is_empty() => Ok(()),
            0 | 1 => Err(some(&format!("1 was not copied{within}"))),
            n => Err(some(&format!("{n} were not copied{within}"))),
        }
    }
}

fn some(what: &str) -> Failure {
    Failure::new(Code::Some, format!("{what}; each has a line above"))
}

/// How long so many bytes take; not told where nothing passes.
// A count of bytes is far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn time_for(bytes: u64, rate: f64) -> Option<Duration> {
    let seconds = (rate >= 1.0).then(|| bytes as f64 / rate)?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// The end of a long name: that is where names differ.
fn shortened(label: &str) -> String {
    let label = clean(label, usize::MAX);
    let len = label.chars().count();
    if len <= NAME {
        return format!("{label:NAME$}");
    }
    let end: String = label.chars().skip(len - NAME + 1).collect();
    format!("…{end}")
}

impl Report for Progress {
    fn problem(&self, is_error: bool, text: &str) {
        if is_error {
            self.failed.fetch_add(1, Relaxed);
            say(Line::from(format_args!("cepa: {text}")).of_error());
        } else {
            say(format_args!("warning: {text}"));
        }
    }

    fn refused(&self, label: &str, unsent: u64, why: &str) {
        self.unsent.fetch_add(unsent, Relaxed);
        // The other end's word for it: where nothing has failed yet, there is no line above for this one to belong to.
        if why.starts_with(IN_NO_FOLDER) && self.failed.load(Relaxed) > 0 {
            self.in_no_folder.fetch_add(1, Relaxed);
            return;
        }
        self.problem(true, &format!("{label}: {why}"));
    }

    fn begins(&self, label: &str, present: u64) {
        self.present.fetch_add(present, Relaxed);
        if let Some(bar) = BAR.get() {
            bar.set_message(shortened(label));
        }
        self.draw();
    }

    fn arrived(&self, bytes: u64) {
        self.arrived.store(bytes, Relaxed);
        self.draw();
    }

    fn stored(&self, _label: &str, size: u64) {
        self.files.fetch_add(1, Relaxed);
        self.bytes.fetch_add(size, Relaxed);
    }

    fn total(&self, _files: u64, bytes: u64) {
        if let Some(bar) = BAR.get()
            && !self.counted.swap(true, Relaxed)
        {
            bar.set_length(bytes);
            if let Some(style) = self.style(TEMPLATE) {
                bar.set_style(style);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a copy that goes on, only what is carried is a rate and takes time.
    #[test]
    fn what_was_there_is_not_carried() {
        let progress = Progress::new();
        progress.begins("a", 1 << 40);
        progress.arrived(1000);
        assert_eq!(progress.moved(), 1000);
        progress.again();
        progress.begins("a", 1 << 40);
        progress.arrived(500);
        assert_eq!(progress.moved(), 1500);
        let _ = progress.style(TEMPLATE).unwrap();
        assert_eq!(time_for(3000, 1500.0), Some(Duration::from_secs(2)));
        assert_eq!(time_for(3000, 0.0), None);
    }

    #[test]
    fn the_line_fits_80_columns() {
        let longest = " 100% 1023.99 MiB/1023.99 MiB 1023.99 MiB/s 59m left";
        assert!(NAME + longest.chars().count() <= 80);
        for label in ["a", &"ä".repeat(300), "\u{1b}[31mred\nline"] {
            let name = shortened(label);
            assert_eq!(name.chars().count(), NAME, "{name:?}");
            assert!(!name.chars().any(char::is_control), "{name:?}");
        }
    }
}
