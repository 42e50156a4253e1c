//! What comes on a path: the frames are taken out of the bytes where they stand, and the data is left.
//!
//! ```text
//!   read    [ack][data 80 |..............][data 9000 |........          at most AHEAD bytes behind a frame at hand
//!   left    [..............][........                                   moved to the front, in the reader's own buffer
//! ```
//!
//! So a small message is had with one read of the path, and not with one for the header and one for the rest; and of bulk, where
//! moving would cost, no more than that is moved. Behind a long frame another one is expected, and its header is read alone: the
//! reader would else be handed a few bytes of it, and then the rest.

use std::time::{Duration, Instant};

use super::super::error::{OverReason, SessionLost, Violation};
use super::super::frame::{Frame, Input};
use super::{Engine, Over};

/// Bytes that are read behind the frame at hand, whatever they are: a small message and its header, or as much as a mux has room
/// for while little comes. More would be moved than a read saves.
const AHEAD: usize = 2 << 10;

/// Behind a frame of more data than this another one is expected.
const LONG: u32 = 4 << 10;

/// What the data at hand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// For the application, so many bytes at most.
    Fresh(usize),
    /// So many bytes are known from a former path.
    Double(usize),
}

/// What some bytes came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Came {
    /// So many bytes of data for the application, now at the beginning.
    pub(crate) data: usize,
    /// There were frames that are no data.
    pub(crate) frames: bool,
}

impl Engine {
    /// Where bytes that come are put together.
    pub(crate) fn input(&mut self) -> Option<&mut Input> {
        self.path.as_mut().map(|path| &mut path.input)
    }

    /// As many bytes are to be read at once, at most.
    pub(crate) fn wanted(&self) -> usize {
        match &self.path {
            Some(path) if path.bulk && path.input.data() == 0 => path.input.missing(),
            Some(path) => path.input.data() as usize + AHEAD,
            None => AHEAD,
        }
    }

    /// These bytes came. Moves the data for the application to their beginning. A peer that breaks the protocol with them
    /// ends the session; the data in front of that counts.
    pub(crate) fn handle_bytes(&mut self, now: Instant, bytes: &mut [u8]) -> Came {
        let (mut came, mut at) = (Came::default(), 0);
        self.handle_heard(now);
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let handled = match self.input() {
                Some(input) if input.data() > 0 => self.data_came(now, rest.len()),
                Some(input) => match input.take(rest) {
                    Ok((n, None)) => Ok((n, false)),
                    Ok((n, Some(frame))) => {
                        came.frames |= !matches!(frame, Frame::Data(_));
                        self.handle_frame(now, frame).map(|()| (n, false))
                    }
                    Err(violation) => Err(violation),
                },
                None => break,
            };
            match handled {
                Ok((n, fresh)) => {
                    if fresh {
                        if at != came.data {
                            bytes.copy_within(at..at + n, came.data);
                        }
                        came.data += n;
                    }
                    at += n;
                }
                Err(violation) => self.violated(violation),
            }
            if self.over.is_some() {
                break;
            }
        }
        came
    }

    /// So many bytes came where data is due. Says how many of them are data, and whether it is for the application.
    fn data_came(&mut self, now: Instant, n: usize) -> Result<(usize, bool), Violation> {
        let data = self.data_next()?;
        let (Data::Fresh(most) | Data::Double(most)) = data;
        let n = n.min(most);
        self.handle_data(now, data, n);
        Ok((n, matches!(data, Data::Fresh(_))))
    }

    /// Bytes came.
    pub(crate) fn handle_heard(&mut self, now: Instant) {
        if let Some(path) = &mut self.path {
            self.hurried |= path.asked.is_some() || path.broken.is_some();
            path.hear(now);
        }
    }

    /// What the data is that comes next; asked when its header or a part of it was read.
    pub(crate) fn data_next(&self) -> Result<Data, Violation> {
        let Some(path) = &self.path else {
            return Ok(Data::Double(0));
        };
        let left = path.input.data() as usize;
        let known = self.received - u64::from(self.peer_ended);
        match usize::try_from(known.saturating_sub(path.in_at)) {
            Ok(0) if self.peer_ended => Err(Violation::BehindEnd),
            Ok(0) => Ok(Data::Fresh(left)),
            Ok(double) => Ok(Data::Double(left.min(double))),
            Err(_) => Ok(Data::Double(left)),
        }
    }

    /// So many bytes of [`data_next`](Self::data_next) were read.
    pub(crate) fn handle_data(&mut self, now: Instant, data: Data, n: usize) {
        let Some(path) = &mut self.path else {
            return;
        };
        path.input.data_filled(n);
        path.in_at += n as u64;
        let double = matches!(data, Data::Double(_));
        self.hurried |= double || self.unreported_since.is_none() || !self.proposals.is_empty();
        match data {
            Data::Fresh(_) => {
                self.received += n as u64;
                self.unreported_since.get_or_insert(now);
            }
            Data::Double(_) => self.counters.doubled += n as u64,
        }
    }

    /// A frame came; of data its header.
    pub(crate) fn handle_frame(&mut self, now: Instant, frame: Frame) -> Result<(), Violation> {
        let Some(path) = &mut self.path else {
            return Ok(());
        };
        self.hurried |= !matches!(frame, Frame::Data(_));
        match frame {
            Frame::Data(length) => {
                path.bulk = length > LONG;
                self.data_next()?;
            }
            Frame::Ack(reported) => {
                let (least, most) = (self.acked, path.out_at);
                if !(least..=most).contains(&reported) {
                    return Err(Violation::Acknowledged {
                        reported,
                        least,
                        most,
                    });
                }
                self.counters.acks += 1;
                self.acknowledge(now, reported);
            }
            Frame::Ping(value) => path.pong = Some(value),
            Frame::Pong(value) => path.handle_pong(now, value),
            Frame::End => {
                let known = self.received - u64::from(self.peer_ended);
                if path.in_at < known {
                    return Err(Violation::EarlyEnd);
                }
                if path.in_at > known {
                    return Err(Violation::BehindEnd);
                }
                path.in_at += 1;
                if !self.peer_ended {
                    self.peer_ended = true;
                    self.received += 1;
                    self.unreported_since.get_or_insert(now);
                }
            }
            Frame::Park(seconds) => {
                self.peer_park = Some(Duration::from_secs(seconds.into()));
            }
            Frame::Over(reason) => {
                let reason = OverReason::from_code(reason);
                self.finish(Over::Lost(SessionLost::GivenUpByPeer { reason }));
            }
        }
        Ok(())
    }
}
