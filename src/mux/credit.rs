//! Flow control: how much may be sent, how much the peer may send, and how far windows grow.
//!
//! A receive window is `max` bytes: what the peer may still send (`left`), what has arrived and is
//! unread, and what was read and is not yet granted again (`spent`). Credit goes back when half of
//! the window was read. If that half was used up within four round trips of a path that is not near,
//! the window and not the path held the peer back, and it grows eight times, as far as the session's
//! [`Budget`] allows. A sender that starts sends eight times as much in each round trip as in the one before,
//! so an eighth of the window within two round trips is reason enough, and the credit goes back at once:
//! waiting for the half would cost such a sender a round trip at each step.
//!
//! Both ends take the same first window for granted: 256 KiB, as the spec has it, or less where they have agreed on that. What is
//! less grows to those 256 KiB as soon as the stream has carried as much ([`PROVEN`]), wherever the path leads. So what hardly moves, or
//! is read by nobody, costs the first window and no more; and what was read by somebody who only hands it on tells nothing, for
//! that much fits into the queues behind it.

use std::time::{Duration, Instant};

use super::frame::INITIAL_WINDOW;

/// What has to be read of a stream before its window grows on a near path: more than the queues of whoever hands it on hold.
pub(crate) const PROVEN: u64 = INITIAL_WINDOW as u64;

/// A window that is used up half within so many round trips is too small.
const FAST_ROUND_TRIPS: u32 = 4;

/// A path with a shorter round trip needs no large window: 256 KiB in 1 ms are 250 MB/s, and what waits
/// beyond that falls out of the caches.
const NEAR: Duration = Duration::from_millis(1);

/// What a window may become there all the same. The two ends are on two cores then, and each time that one
/// has to wait for the other costs a wake-up: with 256 KiB between them they took turns, with this they
/// work side by side at twice the rate.
const NEAR_WINDOW: u32 = 1 << 20;

/// Streams in a session, at most, for that; between many there is always one that need not wait.
const NEAR_STREAMS: u64 = 4;

/// A part of the window that is used up within so many round trips will be the whole in the next.
const STARTING_ROUND_TRIPS: u32 = 2;

/// What has to be read in that time of a stream with a small first window before that becomes the usual one: less than the first flight
/// of a sender that does not know the path yet, whose second one is a usual window.
const FIRST_READ: u32 = 2 << 10;

/// How many times larger a window becomes that is too small: 256 KiB to 16 MiB in two steps, for a far
/// path is idle for most of each.
const GROWTH: u32 = 8;

/// What this end may still send on one stream.
#[derive(Debug)]
pub(crate) struct SendWindow {
    credit: u32,
    /// Bytes sent since credit last came: how much the peer may not have read.
    since_credit: u32,
}

impl SendWindow {
    pub(crate) fn new(first: u32) -> Self {
        Self {
            credit: first,
            since_credit: 0,
        }
    }

    pub(crate) fn credit(&self) -> u32 {
        self.credit
    }

    pub(crate) fn since_credit(&self) -> u32 {
        self.since_credit
    }

    /// The peer granted `delta`; `None` when that is more than the protocol can express.
    pub(crate) fn grant(&mut self, delta: u32) -> Option<()> {
        self.credit = self.credit.checked_add(delta)?;
        if delta > 0 {
            self.since_credit = 0;
        }
        Some(())
    }

    pub(crate) fn spend(&mut self, n: u32) {
        debug_assert!(n <= self.credit, "no frame is longer than the credit");
        self.credit = self.credit.saturating_sub(n);
        self.since_credit = self.since_credit.saturating_add(n);
    }
}

/// What the peer may still send on one stream.
#[derive(Debug)]
pub(crate) struct RecvWindow {
    /// Size of the whole window; at least the first one.
    max: u32,
    /// What the peer may still send.
    left: u32,
    /// What the application has read and the peer was not granted again.
    spent: u32,
    /// When the first byte came after credit last went to the peer, if one has.
    since: Option<Instant>,
    /// The peer will soon need more than the window: credit is due before half of it was read.
    outgrown: bool,
    /// It does not grow: what is read is handed on, and nobody is known to take it there.
    held: bool,
}

impl RecvWindow {
    pub(crate) fn new(first: u32) -> Self {
        Self {
            max: first,
            left: first,
            spent: 0,
            since: None,
            outgrown: false,
            held: false,
        }
    }

    /// Whether the window is not to grow for the time being.
    pub(crate) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    pub(crate) fn max(&self) -> u32 {
        self.max
    }

    pub(crate) fn left(&self) -> u32 {
        self.left
    }

    /// Makes the window larger by `extra`, which the peer is told with the SYN or ACK.
    pub(crate) fn enlarge(&mut self, extra: u32) {
        self.max = self.max.saturating_add(extra);
        self.left = self.left.saturating_add(extra);
    }

    /// The peer announced `n` bytes; `None` when that is more than its window.
    pub(crate) fn take(&mut self, now: Instant, n: u32) -> Option<()> {
        self.since.get_or_insert(now);
        self.left = self.left.checked_sub(n)?;
        Some(())
    }

    /// The application read `n` bytes.
    pub(crate) fn read(&mut self, n: usize) {
        self.spent = self
            .spent
            .saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
        debug_assert!(self.spent <= self.max, "nobody reads more than was granted");
    }

    /// Looks whether what was read says that the window will soon be too small.
    pub(crate) fn look_ahead(
        &mut self,
        now: Instant,
        round_trip: Option<Duration>,
        largest: u32,
        budget: &Budget,
    ) {
        let Some(round_trip) = round_trip.filter(|round_trip| *round_trip >= NEAR) else {
            return;
        };
        let passed = self.passed(now);
        // Behind its first few records a sender far away sends a window of yamux at once.
        let enough = if self.max < INITIAL_WINDOW {
            FIRST_READ.min(self.max / GROWTH)
        } else {
            self.max / GROWTH
        };
        self.outgrown |= self.spent >= enough
            && passed <= round_trip.saturating_mul(STARTING_ROUND_TRIPS)
            && self.max < largest
            && !self.held
            && budget.has_room();
    }

    /// How large the window had better be.
    fn wanted(
        &self,
        now: Instant,
        round_trip: Option<Duration>,
        read: u64,
        budget: &Budget,
    ) -> u32 {
        let proven = read >= PROVEN;
        let usual = if proven { INITIAL_WINDOW } else { 0 };
        let Some(round_trip) = round_trip else {
            return usual;
        };
        let most = if round_trip >= NEAR {
            u32::MAX
        } else if proven && budget.streams() <= NEAR_STREAMS {
            NEAR_WINDOW
        } else {
            return usual;
        };
        let fast = self.passed(now) < round_trip.saturating_mul(FAST_ROUND_TRIPS);
        if fast && self.max < INITIAL_WINDOW && self.spent < self.max / GROWTH {
            INITIAL_WINDOW.min(most)
        } else if fast {
            self.max
                .max(INITIAL_WINDOW)
                .saturating_mul(GROWTH)
                .min(most)
        } else {
            usual
        }
    }

    /// Since the first byte came after credit last went to the peer.
    fn passed(&self, now: Instant) -> Duration {
        self.since
            .map_or(Duration::MAX, |since| now.saturating_duration_since(since))
    }

    /// Whether the peer is to be told of new credit.
    pub(crate) fn is_due(&self) -> bool {
        self.outgrown || (self.spent > 0 && self.spent >= self.max / 2)
    }

    /// Takes the credit to grant now, having adapted the window first. So much was `read` of the stream in all.
    pub(crate) fn grant(
        &mut self,
        now: Instant,
        round_trip: Option<Duration>,
        largest: u32,
        read: u64,
        budget: &mut Budget,
    ) -> u32 {
        let over = budget.over();
        if over > 0 {
            // Others need the room: give back less than was read.
            let shrink = over.min(self.max - budget.first).min(self.spent);
            self.max -= shrink;
            self.spent -= shrink;
            budget.give_back(shrink);
        } else if !self.held {
            let wanted = self.wanted(now, round_trip, read, budget).min(largest);
            let extra = budget.take(wanted.saturating_sub(self.max));
            self.max += extra;
            self.spent += extra;
        }
        self.since = None;
        self.outgrown = false;
        self.left += self.spent;
        std::mem::take(&mut self.spent)
    }
}

/// The receive windows of all streams of a session, in bytes.
///
/// Every stream has the `first` window because the protocol says so. What windows have beyond it
/// (`extra`) must leave room for new streams; when more of those come than there is room for,
/// larger windows shrink as they are used.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    /// The first window of each stream.
    first: u32,
    /// Streams opened by the peer and by this end.
    inbound: u64,
    outbound: u64,
    extra: u64,
    /// What there is memory for at present, in this session and in the pool that it shares with others.
    room: u64,
}

/// Streams that growing windows leave room for, in half of the budget: peers open a hundred at once, and a
/// window that has grown can not be taken back before they arrive.
const ROOM_FOR_STREAMS: u64 = 128;

impl Budget {
    pub(crate) fn new(limit: usize, first: u32) -> Self {
        Self {
            limit: limit as u64,
            first,
            inbound: 0,
            outbound: 0,
            extra: 0,
            room: u64::MAX,
        }
    }

    /// There is memory for so much.
    pub(crate) fn set_room(&mut self, room: u64) {
        self.room = room;
    }

    fn first_windows(&self, streams: u64) -> u64 {
        streams.saturating_mul(u64::from(self.first))
    }

    fn streams(&self) -> u64 {
        self.inbound + self.outbound
    }

    /// All windows together.
    pub(crate) fn used(&self) -> u64 {
        self.first_windows(self.streams()) + self.extra
    }

    /// What growing windows may use at most, for the present number of streams.
    fn growth_limit(&self) -> u64 {
        let room = self.first_windows(ROOM_FOR_STREAMS).min(self.limit / 2);
        self.limit - room
    }

    /// How much grown windows have to shrink.
    fn over(&self) -> u32 {
        let over = if self.room == 0 {
            self.extra
        } else {
            let over = self.used().saturating_sub(self.growth_limit());
            over.min(self.extra)
        };
        u32::try_from(over).unwrap_or(u32::MAX)
    }

    /// What windows may still grow by: half of the room, for others may want some before it is used.
    fn free(&self) -> u64 {
        let free = self.growth_limit().saturating_sub(self.used());
        free.min(self.room / 2)
    }

    fn has_room(&self) -> bool {
        self.free() > 0
    }

    /// Takes up to `wanted` for a window to grow.
    pub(crate) fn take(&mut self, wanted: u32) -> u32 {
        let extra = wanted.min(u32::try_from(self.free()).unwrap_or(u32::MAX));
        self.extra += u64::from(extra);
        extra
    }

    fn give_back(&mut self, extra: u32) {
        debug_assert!(
            u64::from(extra) <= self.extra,
            "only what was taken is given back"
        );
        self.extra = self.extra.saturating_sub(u64::from(extra));
    }

    /// Counts a stream that the peer opens.
    pub(crate) fn admit_inbound(&mut self) {
        self.inbound += 1;
    }

    /// Counts a stream that this end opens.
    pub(crate) fn admit_outbound(&mut self) {
        self.outbound += 1;
    }

    /// A stream with a window of `max` is gone.
    pub(crate) fn release(&mut self, inbound: bool, max: u32) {
        let count = if inbound {
            &mut self.inbound
        } else {
            &mut self.outbound
        };
        debug_assert!(*count > 0, "only counted streams are released");
        *count = count.saturating_sub(1);
        self.give_back(max - self.first);
    }
}

/// One, in the thousandths that an [`RateLimit`] counts in.
const ONE: i64 = 1000;

/// So many at once, and so many more a second.
#[derive(Debug)]
pub(crate) struct RateLimit {
    burst: i64,
    per_second: i64,
    /// Thousandths; below 0: what was taken beyond.
    left: i64,
    at: Instant,
}

impl RateLimit {
    pub(crate) fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        let burst = i64::from(burst) * ONE;
        Self {
            burst,
            per_second: per_second.into(),
            left: burst,
            at: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_millis();
        let gain = i64::try_from(passed)
            .unwrap_or(i64::MAX)
            .saturating_mul(self.per_second);
        if gain > 0 {
            self.left = self.left.saturating_add(gain).min(self.burst);
            self.at = now;
        }
    }

    /// Takes one; `None` when nothing is left.
    pub(crate) fn take(&mut self, now: Instant) -> Option<()> {
        self.fill(now);
        self.left = Some(self.left - ONE).filter(|left| *left >= 0)?;
        Some(())
    }

    /// Takes one, on credit where nothing is left; `None` when that is as much as it began with.
    pub(crate) fn overdraw(&mut self, now: Instant) -> Option<()> {
        self.fill(now);
        self.left = Some(self.left - ONE).filter(|left| *left >= -self.burst)?;
        Some(())
    }

    /// When there are `count` to take, if that is not now. Never where nothing comes.
    pub(crate) fn ready_at(&self, count: i64) -> Option<Instant> {
        let missing = count * ONE - self.left;
        let millis = (missing + self.per_second - 1).checked_div(self.per_second)?;
        let millis = u64::try_from(millis).ok().filter(|_| missing > 0)?;
        Some(self.at + Duration::from_millis(millis))
    }

    /// Whether there are `count` to take.
    pub(crate) fn has(&mut self, now: Instant, count: i64) -> bool {
        self.fill(now);
        self.left >= count * ONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u32 = 1 << 20;

    #[test]
    fn credit_goes_back_when_half_was_read() {
        let now = Instant::now();
        let mut budget = Budget::new(64 << 20, INITIAL_WINDOW);
        budget.admit_outbound();
        let mut window = RecvWindow::new(INITIAL_WINDOW);
        window.take(now, 200_000).unwrap();
        window.read(131_071);
        assert!(!window.is_due());
        window.read(1);
        assert!(window.is_due());
        assert_eq!(
            window.grant(now, None, 16 * MIB, PROVEN, &mut budget),
            131_072
        );
        assert_eq!(window.left(), INITIAL_WINDOW - 200_000 + 131_072);
        assert!(
            window.take(now, INITIAL_WINDOW).is_none(),
            "not more than was granted"
        );
    }

    #[test]
    fn a_window_grows_only_where_the_path_needs_it_and_the_budget_has_room() {
        let start = Instant::now();
        let round_trip = Some(Duration::from_millis(50));
        let mut budget = Budget::new(64 << 20, INITIAL_WINDOW);
        budget.admit_outbound();
        let mut window = RecvWindow::new(INITIAL_WINDOW);
        let use_half = |window: &mut RecvWindow, now, budget: &mut Budget| {
            let half = window.max() / 2;
            window.take(now, half).unwrap();
            window.read(half as usize);
            window.grant(now, round_trip, 16 * MIB, PROVEN, budget)
        };
        // Slow use: stays.
        window.take(start, window.max() / 2).unwrap();
        window.read(window.max() as usize / 2);
        let later = start + Duration::from_secs(1);
        window.grant(later, round_trip, 16 * MIB, PROVEN, &mut budget);
        assert_eq!(window.max(), INITIAL_WINDOW);
        // Fast use: grows up to the largest.
        let mut now = start + Duration::from_secs(1);
        for _ in 0..12 {
            now += Duration::from_millis(60);
            use_half(&mut window, now, &mut budget);
        }
        assert_eq!(window.max(), 16 * MIB);
        assert_eq!(budget.used(), u64::from(16 * MIB));
        // More streams come than there is room for: it shrinks as it is used.
        let admitted = 193;
        for _ in 0..admitted {
            budget.admit_inbound();
        }
        now += Duration::from_millis(60);
        use_half(&mut window, now, &mut budget);
        assert!(window.max() < 16 * MIB);
        budget.release(false, window.max());
        for _ in 0..admitted {
            budget.release(true, INITIAL_WINDOW);
        }
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_sender_that_starts_gets_a_larger_window_before_half_of_it_is_read() {
        let now = Instant::now();
        let round_trip = Some(Duration::from_millis(50));
        let mut budget = Budget::new(64 << 20, INITIAL_WINDOW);
        budget.admit_outbound();
        let after = |passed, round_trip, largest, budget: &mut Budget| {
            let mut window = RecvWindow::new(INITIAL_WINDOW);
            window.take(now, INITIAL_WINDOW / 8).unwrap();
            window.read(INITIAL_WINDOW as usize / 8);
            window.look_ahead(now + passed, round_trip, largest, budget);
            window.is_due().then(|| {
                window.grant(now + passed, round_trip, largest, 0, budget);
                window.max()
            })
        };
        let soon = Duration::from_millis(60);
        let late = Duration::from_millis(120);
        let near = Some(Duration::from_micros(200));
        assert_eq!(after(late, round_trip, 16 * MIB, &mut budget), None);
        assert_eq!(after(soon, None, 16 * MIB, &mut budget), None);
        assert_eq!(after(soon, near, 16 * MIB, &mut budget), None);
        assert_eq!(after(soon, round_trip, INITIAL_WINDOW, &mut budget), None);
        assert_eq!(
            after(soon, round_trip, 16 * MIB, &mut budget),
            Some(2 * MIB)
        );
    }

    #[test]
    fn on_a_near_path_the_windows_of_few_streams_grow_a_little() {
        let start = Instant::now();
        let near = Some(Duration::from_micros(200));
        let window_of_one_among = |streams: usize| {
            let mut budget = Budget::new(64 << 20, INITIAL_WINDOW);
            for _ in 0..streams {
                budget.admit_outbound();
            }
            let mut window = RecvWindow::new(INITIAL_WINDOW);
            let mut now = start;
            for _ in 0..8 {
                let half = window.max() / 2;
                window.take(now, half).unwrap();
                window.read(half as usize);
                now += Duration::from_micros(300);
                window.grant(now, near, 16 * MIB, PROVEN, &mut budget);
            }
            window.max()
        };
        assert_eq!(window_of_one_among(1), NEAR_WINDOW);
        assert_eq!(window_of_one_among(4), NEAR_WINDOW);
        assert_eq!(window_of_one_among(5), INITIAL_WINDOW);
    }

    #[test]
    fn grown_windows_leave_room_for_a_hundred_openings_at_once() {
        let mut budget = Budget::new(64 << 20, INITIAL_WINDOW);
        budget.admit_inbound();
        let mut grown = 0;
        loop {
            let more = budget.take(8 << 20);
            if more == 0 {
                break;
            }
            grown += more;
        }
        assert!(
            grown >= 16 << 20,
            "{grown}: one far stream has all it may use"
        );
        for _ in 0..127 {
            budget.admit_inbound();
        }
        assert!(budget.used() <= 64 << 20, "{} bytes", budget.used());
    }

    #[test]
    fn an_allowance_refills_with_time() {
        let start = Instant::now();
        let mut allowance = RateLimit::new(3, 2, start);
        for _ in 0..3 {
            allowance.take(start).unwrap();
        }
        assert!(allowance.take(start).is_none());
        let later = start + Duration::from_millis(500);
        assert!(allowance.take(later).is_some());
        assert!(allowance.take(later).is_none());
        let much_later = start + Duration::from_secs(100);
        for _ in 0..3 {
            allowance.take(much_later).unwrap();
        }
        assert!(
            allowance.take(much_later).is_none(),
            "never more than the burst"
        );
    }

    #[test]
    fn an_allowance_can_be_overdrawn_by_as_much_and_is_paid_back_with_time() {
        let start = Instant::now();
        let mut allowance = RateLimit::new(3, 2, start);
        assert_eq!(allowance.ready_at(1), None, "now");
        for _ in 0..6 {
            allowance.overdraw(start).unwrap();
        }
        assert!(allowance.overdraw(start).is_none());
        assert!(!allowance.has(start, 0));
        let paid = start + Duration::from_millis(1500);
        assert_eq!(allowance.ready_at(0), Some(paid));
        assert_eq!(
            allowance.ready_at(1),
            Some(start + 2 * Duration::from_secs(1))
        );
        let before = start + Duration::from_millis(1499);
        assert!(!allowance.has(before, 0));
        assert!(allowance.has(paid, 0) && !allowance.has(paid, 1));
        assert!(allowance.take(paid).is_none());
        let mut never = RateLimit::new(1, 0, start);
        never.overdraw(start).unwrap();
        assert_eq!(never.ready_at(1), None);
        assert!(!never.has(start + Duration::from_secs(1000), 1));
    }
}
