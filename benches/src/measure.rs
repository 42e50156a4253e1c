//! What is measured with: the clock, the processor time and the memory of this process, and the middle of many.
//!
//! Processor time is what getrusage(2) has for all threads of the process, in user and in system mode; so both
//! ends of a connection are in it. A median resists the odd round in which the machine did something else.

use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;

use crate::Outcome;

/// Time by the clock and by the processor, from a point on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch {
    at: Instant,
    cpu: Duration,
}

/// What a [`Stopwatch`] has counted, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
}

impl Stopwatch {
    pub(crate) fn start() -> Outcome<Self> {
        Ok(Self {
            cpu: cpu_time()?,
            at: Instant::now(),
        })
    }

    pub(crate) fn stop(self) -> Outcome<Run> {
        Ok(Run {
            seconds: self.at.elapsed().as_secs_f64(),
            cpu_seconds: cpu_time()?.saturating_sub(self.cpu).as_secs_f64(),
        })
    }
}

fn cpu_time() -> Outcome<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(micros)?))
}

/// Bytes of this process that are in memory now.
pub(crate) fn resident_bytes() -> Outcome<f64> {
    resident_bytes_of(std::process::id())
}

/// The same of another process (VmRSS of proc(5); Linux).
pub(crate) fn resident_bytes_of(process: u32) -> Outcome<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
    let kib = kib.ok_or("no VmRSS in its status: memory is measured on Linux only")?;
    Ok(kib.trim().parse::<f64>()? * 1024.0)
}

/// Seconds of processor time that another process has used, in user and in system mode, to a hundredth (stat of
/// proc(5); Linux).
pub(crate) fn cpu_seconds_of(process: u32) -> Outcome<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in parentheses may have blanks; the 12th and 13th word behind it are the two times.
    let (_, words) = stat.rsplit_once(')').ok_or("no name in its stat")?;
    let ticks = words.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    // USER_HZ is 100 wherever Linux runs.
    Ok(ticks / 100.0)
}

/// Seconds of processor time of a process and all that descend from it, those that have ended and been waited for as well; to a
/// hundredth (stat of proc(5); Linux).
pub(crate) fn cpu_seconds_with_children(process: u32) -> Outcome<f64> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // It may have ended since.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{id}/stat")) else {
            continue;
        };
        let (_, words) = stat.rsplit_once(')').ok_or("no name in its stat")?;
        let words: Vec<&str> = words.split_whitespace().collect();
        let parent: u32 = words.get(1).ok_or("no parent in its stat")?.parse()?;
        // Its own user and system time, and those of its ended children.
        let times = words.get(11..15).ok_or("no times in its stat")?;
        let ticks = times.iter().map(|word| word.parse::<f64>());
        all.push((id, parent, ticks.sum::<Result<f64, _>>()?));
    }
    let mut family = vec![process];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        let children = all.iter().filter(|(_, of, _)| *of == parent);
        family.extend(children.map(|(id, _, _)| *id));
        at += 1;
    }
    let ticks = all.iter().filter(|(id, _, _)| family.contains(id));
    Ok(ticks.map(|(_, _, ticks)| ticks).sum::<f64>() / 100.0)
}

/// Lets this process have so many descriptors, as far as it may.
pub(crate) fn allow_descriptors(wanted: usize) -> Outcome<()> {
    let wanted = u64::try_from(wanted)?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard)?;
    }
    Ok(())
}

/// The middle of `values`; of an even number of them the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

/// The least value that at least the share `q` (0 to 1) of `values` does not exceed.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // q is a share, so this is an index
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
    let sorted = sorted(values);
    let rank = (number(sorted.len()) * q).ceil() as usize;
    sorted
        .get(rank.max(1) - 1)
        .or(sorted.last())
        .copied()
        .unwrap_or(f64::NAN)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// A count as a number to divide by.
#[allow(clippy::cast_precision_loss)] // exact up to 2^53, and no count here comes near
pub(crate) fn number(count: usize) -> f64 {
    count as f64
}

/// Whether there is a program of this name.
pub(crate) fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(tool).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::float_cmp)] // whole numbers
    fn the_middle_of_odd_and_even() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    #[allow(clippy::float_cmp)] // whole numbers
    fn quantiles_are_values_that_were_measured() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&hundred, 0.99), 99.0);
        assert_eq!(quantile(&hundred, 0.5), 50.0);
        assert_eq!(quantile(&hundred, 1.0), 100.0);
        assert_eq!(quantile(&[7.0], 0.01), 7.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn work_takes_processor_time_and_memory_is_there() {
        let watch = Stopwatch::start().unwrap();
        let mut sum = 0_u64;
        while watch.at.elapsed() < Duration::from_millis(50) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let run = watch.stop().unwrap();
        assert!(run.seconds >= 0.05);
        assert!(run.cpu_seconds > 0.0);
        assert!(resident_bytes().unwrap() > 100_000.0);
    }

    #[test]
    fn another_process_is_asked_for_the_same_time() {
        let spent = Duration::from_millis(50);
        let begun = cpu_time().unwrap();
        while cpu_time().unwrap() < begun + spent {}
        // Hundredths, rounded down, of user and of system time.
        let measured = cpu_seconds_of(std::process::id()).unwrap();
        let least = spent.as_secs_f64() - 0.02;
        let most = cpu_time().unwrap().as_secs_f64() + 0.02;
        assert!(
            (least..most).contains(&measured),
            "{measured} of {least} to {most}"
        );
    }
}
