//! `--gate`: how many strangers may be in a handshake at once, and what those who fail bring upon where they come from.
//!
//! The settings are those of the library's gate (`cepa::gate::Config`), by shorter names.

use std::str::FromStr;
use std::time::Duration;

use cepa::gate::Config;

/// Changes of a gate's settings, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gate(Vec<(&'static str, Value)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Count(usize),
    Time(Duration),
}

/// Every key, what it takes, and what that may be at least.
const KEYS: &[(&str, Kind)] = &[
    ("places", Kind::Count(1)),
    ("per-host", Kind::Count(1)),
    ("waiting", Kind::Count(0)),
    ("waiting-per-host", Kind::Count(0)),
    ("wait", Kind::Time),
    ("refused", Kind::Time),
    ("timed-out", Kind::Time),
    ("tolerated", Kind::Time),
    ("longest", Kind::Time),
    ("proven", Kind::Time),
];

#[derive(Clone, Copy)]
enum Kind {
    Count(usize),
    Time,
}

/// Each place and each stream that waits has a descriptor.
const MOST: usize = 100_000;

impl Gate {
    pub(crate) fn apply(&self, config: &mut Config) {
        for (key, value) in &self.0 {
            match value {
                Value::Count(n) => {
                    let at = match *key {
                        "places" => &mut config.all,
                        "per-host" => &mut config.one_source,
                        "waiting" => &mut config.waiting,
                        _ => &mut config.waiting_one_source,
                    };
                    *at = *n;
                }
                Value::Time(time) => {
                    let at = match *key {
                        "wait" => &mut config.patience,
                        "refused" => &mut config.penalty_refused,
                        "timed-out" => &mut config.penalty_timed_out,
                        "tolerated" => &mut config.tolerated,
                        "longest" => &mut config.most,
                        _ => &mut config.proven,
                    };
                    *at = *time;
                }
            }
        }
    }
}

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Vec::new();
        for word in text.split(',') {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let Some((key, kind)) = KEYS.iter().find(|(key, _)| *key == name) else {
                let keys: Vec<_> = KEYS.iter().map(|(key, _)| *key).collect();
                return Err(format!(
                    "there is no {name:?}; give KEY=VALUE,… with the keys {}",
                    keys.join(", ")
                ));
            };
            let value = match kind {
                Kind::Count(least) => {
                    let n = value.parse().ok().filter(|n| (*least..=MOST).contains(n));
                    let n = n.ok_or_else(|| format!("{key} is a number, {least} to {MOST}"))?;
                    Value::Count(n)
                }
                Kind::Time => {
                    let time = time(value)
                        .ok_or_else(|| format!("{key} is a time, as in 500ms, 2s, 10min or 1h"))?;
                    Value::Time(time)
                }
            };
            all.push((*key, value));
        }
        Ok(Self(all))
    }
}

/// A time with its unit, up to a day.
fn time(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(at)?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let time = Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(ms)?);
    (time <= Duration::from_secs(86_400)).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_a_setting_of_its_own() {
        let given: Gate = "places=64,per-host=9,waiting=0,waiting-per-host=5,wait=2s,refused=0s,timed-out=500ms,tolerated=1min,longest=2h,proven=3h"
            .parse()
            .unwrap();
        let mut config = Config::default();
        given.apply(&mut config);
        let counts = [
            config.all,
            config.one_source,
            config.waiting,
            config.waiting_one_source,
        ];
        assert_eq!(counts, [64, 9, 0, 5]);
        let times = [
            config.patience,
            config.penalty_refused,
            config.penalty_timed_out,
            config.tolerated,
            config.most,
            config.proven,
        ];
        let ms = [2000, 0, 500, 60_000, 7_200_000, 10_800_000];
        assert_eq!(times, ms.map(Duration::from_millis));
        let untouched: Gate = "per-host=100".parse().unwrap();
        let mut config = Config::default();
        untouched.apply(&mut config);
        assert_eq!((config.all, config.one_source), (100, 100));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, why) in [
            ("", "there is no"),
            ("place=1", "there is no \"place\""),
            ("places=0", "places is a number, 1 to"),
            ("places=-1", "places is a number"),
            ("places=1000000", "places is a number"),
            ("wait=2", "wait is a time"),
            ("wait=25h", "wait is a time"),
            ("wait=s", "wait is a time"),
            ("places=1,,", "there is no"),
        ] {
            let error = text.parse::<Gate>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
