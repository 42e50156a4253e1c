//! RS-485 by the system's driver: it switches the transceiver from receiving to sending and back, which no
//! program does in time.
//!
//! Few devices can do it, and drivers take of the settings what they know. So nothing of this is a failure: a
//! port that refuses goes on as it is, and what was not done is said ([`Stream::remarks`](crate::Stream::remarks)).
use std::os::fd::OwnedFd;

use crate::endpoint::{Endpoint, Rs485, Rs485Mode};

/// Sets the mode of the port behind a descriptor. The remark, if there is one, is one line.
pub(crate) fn set(endpoint: &Endpoint, port: Option<OwnedFd>, wanted: Rs485) -> Option<String> {
    let why = match (wanted, port) {
        (Rs485::Keep, _) => return None,
        (_, None) => "the device cannot be asked for it while another program has it".to_owned(),
        (wanted, Some(port)) => system::set(port, wanted)?,
    };
    Some(format!("{endpoint}: {why}"))
}

/// What was made of the wish, where it is another mode.
fn differs(wanted: Rs485Mode, got: Rs485) -> Option<String> {
    match got {
        Rs485::On(mode) if mode == wanted => None,
        Rs485::On(mode) => Some(format!("the driver made {mode} of {wanted}")),
        Rs485::Keep | Rs485::Off => Some(format!("the driver accepted {wanted}, but did nothing")),
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use serial2::SerialPort;
    use serial2::rs4xx::{Rs485Config, TransceiverMode};

    use super::differs;
    use crate::endpoint::{Rs485, Rs485Mode};
    use crate::error::describe;

    pub(super) fn set(port: OwnedFd, wanted: Rs485) -> Option<String> {
        let port = SerialPort::from(port);
        let mode = match wanted {
            Rs485::On(mode) => TransceiverMode::Rs485(config(mode)),
            // What is not there is off already.
            Rs485::Keep | Rs485::Off => {
                let _ = port.set_rs4xx_mode(TransceiverMode::Default);
                return None;
            }
        };
        let Rs485::On(wanted) = wanted else {
            return None;
        };
        if let Err(error) = port.set_rs4xx_mode(mode) {
            return Some(format!(
                "RS-485 is unsupported by this device or its driver ({}); the line is used as it is",
                describe(&error)
            ));
        }
        // A driver that takes a mode and can't show it is believed.
        let got = port.get_rs4xx_mode().ok()?;
        differs(wanted, shown(&got))
    }

    fn config(mode: Rs485Mode) -> Rs485Config {
        let ms = |ms: u8| Duration::from_millis(u64::from(ms));
        let mut config = Rs485Config::new();
        config.set_invert_rts(!mode.rts_on_send);
        config.set_delay_before_send(ms(mode.rts_before));
        config.set_delay_after_send(ms(mode.rts_after));
        config.set_full_duplex(mode.rx_during_tx);
        config
    }

    fn shown(mode: &TransceiverMode) -> Rs485 {
        let TransceiverMode::Rs485(config) = mode else {
            return Rs485::Off;
        };
        let ms = |time: Duration| u8::try_from(time.as_millis()).unwrap_or(u8::MAX);
        Rs485::On(Rs485Mode {
            rts_on_send: !config.get_invert_rts(),
            rts_before: ms(config.get_delay_before_send()),
            rts_after: ms(config.get_delay_after_send()),
            rx_during_tx: config.get_full_duplex(),
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_is_asked_for_is_what_the_system_is_given() {
            for n in 0..16 {
                let mode = Rs485Mode {
                    rts_on_send: n & 1 == 0,
                    rts_before: if n & 2 == 0 { 0 } else { 100 },
                    rts_after: if n & 4 == 0 { 0 } else { 7 },
                    rx_during_tx: n & 8 == 0,
                };
                let reported = TransceiverMode::Rs485(config(mode));
                assert_eq!(shown(&reported), Rs485::On(mode));
            }
            assert_eq!(shown(&TransceiverMode::Default), Rs485::Off);
            assert_eq!(shown(&TransceiverMode::Rs422), Rs485::Off);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::os::fd::OwnedFd;

    use crate::endpoint::Rs485;

    pub(super) fn set(_: OwnedFd, wanted: Rs485) -> Option<String> {
        matches!(wanted, Rs485::On(_))
            .then(|| "RS-485 is unsupported on this system; the line is used as it is".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_driver_made_of_it_is_reported() {
        let wanted = Rs485Mode {
            rts_before: 3,
            ..Rs485Mode::default()
        };
        let got = Rs485Mode::default();
        assert_eq!(differs(wanted, Rs485::On(wanted)), None);
        assert_eq!(
            differs(wanted, Rs485::On(got)).as_deref(),
            Some("the driver made rs485=on of rs485=on,rts-before=3")
        );
        assert!(
            differs(wanted, Rs485::Off).is_some_and(|reported| reported.contains("did nothing"))
        );
    }
}
