//! The options of a serial line, of this machine or behind a serial server: text to settings.
use super::keys::{DATA, FLOW, LEVEL, LINE, PARITY, STOP, YES_NO};
use super::options::{Opt, Wrong, digits, host_port, option_list, path_of, split, wrong};
use super::socket;
use super::types::{
    DataBits, FlowControl, ModemLine, Parity, Rfc2217Settings, Rs485, Rs485Mode, SerialLock,
    SerialSettings, StopBits, Target,
};

pub(super) fn serial(text: &str, start: usize) -> Result<Target, Wrong> {
    let (path, options, end) = split(text, start);
    let path = path_of(
        path,
        start,
        "the path of a serial device, as in serial:/dev/ttyUSB0",
    )?;
    let mut s = SerialSettings::default();
    let (mut rs485, mut mode) = ("keep", Rs485Mode::default());
    let options = option_list(options, end, "serial")?;
    for option in &options {
        if take(&mut s, option)? {
            continue;
        }
        match option.key {
            "lock" => {
                s.lock = match option.value {
                    "yes" => SerialLock::Yes,
                    "no" => SerialLock::No,
                    path if path.contains('/') => {
                        let path = path_of(path, option.value_at, "the path of a lock file")?;
                        SerialLock::At(Box::new(path))
                    }
                    _ => return wrong(option.value_at, "lock=yes|no, or the path of a lock file"),
                }
            }
            "exclusive" => s.exclusive = option.word(YES_NO)? == "yes",
            "rs485" => rs485 = option.word(LINE)?,
            "rts-on-send" => mode.rts_on_send = option.word(LEVEL)? == "high",
            "rts-before" => mode.rts_before = milliseconds(option)?,
            "rts-after" => mode.rts_after = milliseconds(option)?,
            // option_list lets only the scheme's keys through: this is "rx-during-tx".
            _ => mode.rx_during_tx = option.word(YES_NO)? == "yes",
        }
    }
    s.rs485 = match rs485 {
        "on" => Rs485::On(mode),
        "off" => Rs485::Off,
        _ => Rs485::Keep,
    };
    fits_rs485(&s, &options)?;
    Ok(Target::Serial { path, settings: s })
}

/// A line behind a serial server.
pub(super) fn rfc2217(text: &str, start: usize) -> Result<Target, Wrong> {
    let (host, port, options, at) = host_port(text, start, "192.0.2.1:2217")?;
    if !options.is_empty() && !options.starts_with([',', '?']) {
        return wrong(at, "the end of the address, or \",\" before options");
    }
    let mut tcp = socket::TcpOptions::default();
    let mut line = SerialSettings::default();
    for option in option_list(options, at, "rfc2217")? {
        if !take(&mut line, &option)? {
            // option_list lets only the scheme's keys through.
            tcp.take(&option)?;
        }
    }
    let tcp = tcp.finish()?;
    Ok(Target::Rfc2217 {
        host: host.to_owned(),
        port,
        settings: Box::new(Rfc2217Settings { tcp, line }),
    })
}

/// The options that every serial line has, wherever it is; false for one that is none of these.
fn take(s: &mut SerialSettings, option: &Opt<'_>) -> Result<bool, Wrong> {
    match option.key {
        "baud" => {
            let fits = |baud: &u32| (50..=20_000_000).contains(baud);
            let Some(baud) = digits(option.value).filter(fits) else {
                return wrong(option.value_at, "a baud rate, 50 to 20000000");
            };
            s.baud = baud;
        }
        "data" => {
            s.data = match option.word(DATA)? {
                "5" => DataBits::Five,
                "6" => DataBits::Six,
                "7" => DataBits::Seven,
                _ => DataBits::Eight,
            }
        }
        "parity" => {
            s.parity = match option.word(PARITY)? {
                "odd" => Parity::Odd,
                "even" => Parity::Even,
                _ => Parity::None,
            }
        }
        "stop" => {
            s.stop = match option.word(STOP)? {
                "2" => StopBits::Two,
                _ => StopBits::One,
            }
        }
        "flow" => {
            s.flow = match option.word(FLOW)? {
                "hw" => FlowControl::Hardware,
                "sw" => FlowControl::Software,
                _ => FlowControl::None,
            }
        }
        "mtu" => s.mtu = Some(option.mtu()?),
        "duplex" => s.duplex = option.duplex()?,
        key @ ("dtr" | "rts") => {
            let line = match option.word(LINE)? {
                "on" => ModemLine::On,
                "off" => ModemLine::Off,
                _ => ModemLine::Keep,
            };
            *(if key == "dtr" { &mut s.dtr } else { &mut s.rts }) = line;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// A delay of the RTS line.
fn milliseconds(option: &Opt<'_>) -> Result<u8, Wrong> {
    let Some(ms) = digits(option.value).filter(|ms| *ms <= Rs485Mode::MAX_DELAY) else {
        return wrong(
            option.value_at,
            format!("milliseconds, 0 to {}", Rs485Mode::MAX_DELAY),
        );
    };
    Ok(ms)
}

/// RS-485 has RTS for itself, and what it alone has means nothing without it.
fn fits_rs485(s: &SerialSettings, options: &[Opt<'_>]) -> Result<(), Wrong> {
    let on = matches!(s.rs485, Rs485::On(_));
    for option in options {
        let expected = match option.key {
            key @ ("rts-on-send" | "rts-before" | "rts-after" | "rx-during-tx") if !on => {
                format!("rs485=on beside {key}, which is a part of it")
            }
            "flow" if on && s.flow == FlowControl::Hardware => {
                "another flow control with rs485=on, which has the RTS line for itself".to_owned()
            }
            "rts" if on && s.rts != ModemLine::Keep => {
                "no rts= with rs485=on, which has that line for itself".to_owned()
            }
            _ => continue,
        };
        return wrong(option.value_at, expected);
    }
    Ok(())
}
