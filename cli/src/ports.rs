//! `cepa ports`: the serial ports of this machine.

use std::path::Path;

use cepa::transports::text::clean;
use cepa::transports::{self, Port};
use serde_json::{Value, json};

use crate::args;
use crate::exit::{self, Code, Failure, say};

pub(crate) fn run(args: &args::Ports) -> Result<(), Failure> {
    let ports = transports::ports().map_err(|e| {
        Failure::new(
            Code::Local,
            format!("cannot read /sys/class/tty, where the ports are listed: {e}"),
        )
    })?;
    if args.json {
        return exit::print_json(&format!(
            "{}\n",
            Value::Array(ports.iter().map(json).collect())
        ));
    }
    if ports.is_empty() {
        say("found no serial ports; plug one in, or give this machine or container access to it");
        return Ok(());
    }
    exit::print(&table(&ports))
}

/// Longest cell in bytes; a string of USB has at most 126 characters.
const MOST_CELL: usize = 512;

fn path(path: &Path) -> String {
    clean(&path.to_string_lossy(), MOST_CELL).into_owned()
}

/// What an adapter says of itself.
fn device(port: &Port) -> String {
    let parts = [&port.manufacturer, &port.product, &port.usb_id];
    let words = parts.into_iter().flatten();
    let words: Vec<_> = words.map(|word| clean(word, MOST_CELL)).collect();
    words.join(" ")
}

fn table(ports: &[Port]) -> String {
    let mut rows = vec![["PORT", "DRIVER", "BY-ID", "DEVICE"].map(str::to_owned)];
    let or_dash = |text: String| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text
        }
    };
    rows.extend(ports.iter().map(|port| {
        [
            path(&port.path),
            or_dash(port.driver.clone().unwrap_or_default()),
            or_dash(port.by_id.as_deref().map(path).unwrap_or_default()),
            or_dash(device(port)),
        ]
    }));
    let mut width = [0; 4];
    for row in &rows {
        for (width, cell) in width.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(width)
            .map(|(cell, width)| format!("{cell:width$}"));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

fn json(port: &Port) -> Value {
    json!({
        "path": port.path.to_string_lossy(),
        "by_id": port.by_id.as_deref().map(Path::to_string_lossy),
        "driver": port.driver,
        "usb_id": port.usb_id,
        "manufacturer": port.manufacturer,
        "product": port.product,
        "serial_number": port.serial_number,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter() -> Port {
        let mut port = Port::default();
        port.path = "/dev/ttyUSB0".into();
        port.by_id = Some("/dev/serial/by-id/usb-A".into());
        port.driver = Some("ftdi_sio".to_owned());
        port.usb_id = Some("0403:6001".to_owned());
        port.product = Some("evil\u{1b}[2J".to_owned());
        port
    }

    #[test]
    fn a_table_has_a_row_a_port_and_no_controls() {
        let mut plain = Port::default();
        plain.path = "/dev/ttyS0".into();
        assert_eq!(
            table(&[plain, adapter()]),
            "PORT          DRIVER    BY-ID                    DEVICE\n\
             /dev/ttyS0    -         -                        -\n\
             /dev/ttyUSB0  ftdi_sio  /dev/serial/by-id/usb-A  evil\\u{1b}[2J 0403:6001\n"
        );
    }

    #[test]
    fn json_has_every_field() {
        assert_eq!(
            json(&adapter()),
            json!({
                "path": "/dev/ttyUSB0",
                "by_id": "/dev/serial/by-id/usb-A",
                "driver": "ftdi_sio",
                "usb_id": "0403:6001",
                "manufacturer": null,
                "product": "evil\u{1b}[2J",
                "serial_number": null,
            })
        );
    }
}
