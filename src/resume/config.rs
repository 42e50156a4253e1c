//! Every limit of a durable stream, with its default and the reason for it.

use std::time::Duration;

use cepa_transports::Rate;

/// The limits of a durable session. Start from [`Config::default`] and change fields.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Bytes that are kept for sending again until the peer has them; default 4 MiB, least 16 KiB. It is all that this end
    /// holds: when it is full, writes wait. Where sessions share memory
    /// ([`mux::Config::receive_pool`](crate::mux::Config::receive_pool)) it comes from there, 64 KiB apart, and is less while little is free. It also bounds what is on its way at once, so a path of
    /// 50 ms carries 80 MB/s at most. Where [`line_rate`](Self::line_rate) is known, eight seconds of the line are enough.
    pub replay: usize,
    /// How long a session is kept without a path before it is given up; default 10 min. Of what the two ends want the
    /// shorter counts. Bounds how long a peer that went away holds its memory here.
    pub park: Duration,
    /// Bytes a second that the path carries, where that is known (a serial line); default none. Limits of time and of
    /// memory follow it.
    pub line_rate: Option<Rate>,
    /// The peer is asked whether it is there after so much silence; default 15 s. While bytes are not acknowledged on a path
    /// whose round trip is short, it is asked after 1 s.
    pub keepalive: Duration,
    /// So much silence, with a question unanswered, is the loss of the path; default 30 s, and 3 s where it was asked after 1 s.
    pub keepalive_timeout: Duration,
}

setters!(Config {
    with_replay => replay: usize,
    with_park => park: Duration,
    with_line_rate => line_rate: Option<Rate>,
    with_keepalive => keepalive: Duration,
    with_keepalive_timeout => keepalive_timeout: Duration,
});

impl Default for Config {
    fn default() -> Self {
        Self {
            replay: 4 << 20,
            park: Duration::from_secs(10 * 60),
            line_rate: None,
            keepalive: Duration::from_secs(15),
            keepalive_timeout: Duration::from_secs(30),
        }
    }
}

/// Least of what is kept: a TLS record, below which nothing would move.
const REPLAY_MIN: usize = 16 << 10;

/// On a line whose rate is known: seconds of it that are kept.
const LINE_SECONDS: f64 = 8.0;

/// What an acknowledgement takes on a line: its frame, a TLS record and the frame of a link around it.
const ACK_ON_LINE: f64 = 64.0;

/// Share of a slow line that acknowledgements may take.
const ACK_SHARE: f64 = 0.01;

/// An acknowledgement waits so long for company, and no longer where bytes go on coming: while they do, the sender hears of it.
const ACK_DELAY: Duration = Duration::from_millis(200);

/// The most that a slow line stretches that to: below the time after which silence is asked about.
const ACK_DELAY_MAX: Duration = Duration::from_secs(5);

/// Where the round trip is shorter than this, a path that is silent under way is found out quickly.
pub(crate) const QUICK_ROUND_TRIP: Duration = Duration::from_millis(300);
const QUICK_KEEPALIVE: Duration = Duration::from_secs(1);
const QUICK_TIMEOUT: Duration = Duration::from_secs(3);

/// As good as never.
const LONG: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What the engine makes of a [`Config`].
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) replay: usize,
    /// So much that is not acknowledged is, without waiting for company.
    pub(crate) ack_share: u64,
    pub(crate) ack_delay: Duration,
    /// When to ask, and how long to wait for an answer: usually, and while bytes are under way on a quick path.
    pub(crate) patient: (Duration, Duration),
    pub(crate) quick: (Duration, Duration),
}

impl Limits {
    pub(crate) fn of(config: &Config) -> Self {
        let rate = config.line_rate.map(Rate::as_bytes_per_second);
        let mut replay = config.replay.max(REPLAY_MIN);
        let (mut ack_delay, mut line) = (ACK_DELAY, Duration::ZERO);
        if let Some(rate) = rate {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // saturates
            let of_line = (rate * LINE_SECONDS) as usize;
            replay = replay.min(of_line.max(REPLAY_MIN));
            let least = Duration::try_from_secs_f64(ACK_ON_LINE / ACK_SHARE / rate);
            ack_delay = least
                .unwrap_or(ACK_DELAY_MAX)
                .clamp(ACK_DELAY, ACK_DELAY_MAX);
            // A full window that is being written is no silence.
            #[allow(clippy::cast_precision_loss)]
            let seconds = replay as f64 / rate;
            line = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        }
        let longer = |ask: Duration, dead: Duration| {
            let wait = dead.saturating_sub(ask).max(Duration::from_millis(1));
            // A moment that far away can be told.
            [ask, wait]
                .map(|time| time.saturating_add(line).min(LONG))
                .into()
        };
        Self {
            replay,
            ack_share: (replay as u64 / 8)
                .max(REPLAY_MIN as u64)
                .min(replay as u64 / 2),
            ack_delay,
            patient: longer(config.keepalive, config.keepalive_timeout),
            quick: longer(
                QUICK_KEEPALIVE.min(config.keepalive),
                QUICK_TIMEOUT.min(config.keepalive_timeout),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_line() {
        let usual = Limits::of(&Config::default());
        assert_eq!((usual.replay, usual.ack_share), (4 << 20, 512 << 10));
        assert_eq!(usual.ack_delay, ACK_DELAY);
        assert_eq!(
            usual.patient,
            (Duration::from_secs(15), Duration::from_secs(15))
        );
        assert_eq!(
            usual.quick,
            (Duration::from_secs(1), Duration::from_secs(2))
        );

        // 115,200 baud: of what comes, acknowledgements take at most a hundredth back.
        let line =
            Limits::of(&Config::default().with_line_rate(Some(Rate::bytes_per_second(11_520.0))));
        assert_eq!((line.replay, line.ack_share), (92_160, 16 << 10));
        assert!(ACK_ON_LINE / line.ack_delay.as_secs_f64() <= 0.01 * 11_520.0 + 1e-6);
        assert_eq!(
            line.quick,
            (Duration::from_secs(9), Duration::from_secs(10))
        );

        let never = Config::default()
            .with_keepalive(Duration::MAX)
            .with_keepalive_timeout(Duration::MAX);
        assert_eq!(Limits::of(&never).patient.0, LONG);

        // A very slow line still carries a record.
        let slow = Limits::of(
            &Config::default()
                .with_line_rate(Some(Rate::bytes_per_second(30.0)))
                .with_replay(1),
        );
        assert_eq!((slow.replay, slow.ack_share), (16 << 10, 8 << 10));
        assert_eq!(slow.ack_delay, ACK_DELAY_MAX);
    }
}
