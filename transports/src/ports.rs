//! The serial ports of this machine, as Linux lists them in `/sys/class/tty`.
//!
//! Every terminal has an entry there; one with hardware behind it has a `device`, and that has a driver.
//! The four or more `ttyS` that a PC's driver makes up without having found them are of type 0 (unknown)
//! and left out. What a USB adapter says of itself stands two or three folders further up. udev links each
//! port under `/dev/serial/by-id` by that: the one name that stays when adapters are plugged in another
//! order, which is why it is the one to write into an address.
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A serial port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Port {
    /// Its device, as in `/dev/ttyUSB0`.
    pub path: PathBuf,
    /// The name that stays with the adapter, where udev gives one.
    pub by_id: Option<PathBuf>,
    /// The kernel's driver.
    pub driver: Option<String>,
    /// Vendor and product number of a USB adapter, as in `0403:6001`.
    pub usb_id: Option<String>,
    /// Who made it, as a USB adapter says itself.
    pub manufacturer: Option<String>,
    /// What it is, as a USB adapter says itself.
    pub product: Option<String>,
    /// Its serial number, as a USB adapter says itself.
    pub serial_number: Option<String>,
}

/// Lists the serial ports, sorted by path. Ptys are none. Blocks for some reads of files that the
/// kernel makes up, which take no time worth mentioning.
///
/// # Errors
/// When `/sys` cannot be read, which a container may forbid. A system without `/sys/class/tty` has none.
pub fn ports() -> io::Result<Vec<Port>> {
    ports_below(Path::new("/"))
}

/// The same for the file system that begins at `root`.
fn ports_below(root: &Path) -> io::Result<Vec<Port>> {
    let entries = match fs::read_dir(root.join("sys/class/tty")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names = by_id(&root.join("dev/serial/by-id"));
    let mut ports = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Some(mut port) = port(&entry.path()) else {
            continue;
        };
        port.path = Path::new("/dev").join(entry.file_name());
        let name = names
            .iter()
            .find(|(_, device)| *device == entry.file_name());
        port.by_id = name.map(|(name, _)| Path::new("/dev/serial/by-id").join(name));
        ports.push(port);
    }
    ports.sort_by_key(|port| natural(&port.path));
    Ok(ports)
}

/// `ttyUSB10` comes behind `ttyUSB9`.
fn natural(path: &Path) -> (String, u64) {
    let text = path.to_string_lossy();
    let name = text.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = text.get(name.len()..).and_then(|n| n.parse().ok());
    (name.to_owned(), number.unwrap_or(0))
}

/// Links below that folder, and the names of the devices that they lead to.
fn by_id(folder: &Path) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    // Without udev there is no such folder.
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let link = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        Some((entry.file_name(), target.file_name()?.to_owned()))
    };
    entries.filter_map(link).collect()
}

fn port(entry: &Path) -> Option<Port> {
    let device = fs::canonicalize(entry.join("device")).ok()?;
    if text(&entry.join("type")).as_deref() == Some("0") {
        return None;
    }
    // Since Linux 6.5 a port of a UART stands two devices lower, whose drivers say nothing. Without any
    // driver it is no port.
    let drivers: Vec<String> = device
        .ancestors()
        .take(3)
        .filter_map(|folder| fs::read_link(folder.join("driver")).ok())
        .filter_map(|driver| Some(driver.file_name()?.to_string_lossy().into_owned()))
        .collect();
    let descriptive = drivers
        .iter()
        .find(|d| !matches!(d.as_str(), "port" | "ctrl"));
    let mut port = Port {
        driver: Some(descriptive.or(drivers.first())?.clone()),
        ..Port::default()
    };
    let usb = device
        .ancestors()
        .take(4)
        .find(|folder| folder.join("idVendor").exists());
    if let Some(usb) = usb {
        let ids = text(&usb.join("idVendor")).zip(text(&usb.join("idProduct")));
        port.usb_id = ids.map(|(vendor, product)| format!("{vendor}:{product}"));
        port.manufacturer = text(&usb.join("manufacturer"));
        port.product = text(&usb.join("product"));
        port.serial_number = text(&usb.join("serial"));
    }
    Some(port)
}

/// A line that the kernel makes up; what a device says may be anything.
fn text(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn file(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(root: &Path, path: &str, to: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(to, path).unwrap();
    }

    #[test]
    fn ports_with_hardware_are_found_by_all_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        // A console without hardware, a made-up port, a real one, and two adapters.
        fs::create_dir_all(root.join("sys/class/tty/tty1")).unwrap();
        for (name, kind) in [("ttyS0", "4"), ("ttyS1", "0")] {
            file(root, &format!("sys/class/tty/{name}/type"), kind);
            let device = format!("sys/devices/{name}");
            fs::create_dir_all(root.join(&device)).unwrap();
            link(root, &format!("{device}/driver"), "../../bus/serial8250");
            let to = format!("../../../../{device}");
            link(root, &format!("sys/class/tty/{name}/device"), &to);
        }
        for (name, product) in [("ttyUSB10", "later\n"), ("ttyUSB9", "FT232R USB UART\n")] {
            let usb = format!("sys/devices/usb{name}");
            file(root, &format!("{usb}/idVendor"), "0403\n");
            file(root, &format!("{usb}/idProduct"), "6001\n");
            file(root, &format!("{usb}/manufacturer"), "FTDI\n");
            file(root, &format!("{usb}/product"), product);
            file(root, &format!("{usb}/serial"), "A1\n");
            let device = format!("{usb}/1-1:1.0/{name}");
            fs::create_dir_all(root.join(&device)).unwrap();
            link(root, &format!("{device}/driver"), "../../bus/ftdi_sio");
            fs::create_dir_all(root.join(format!("sys/class/tty/{name}"))).unwrap();
            let to = format!("../../../../{device}");
            link(root, &format!("sys/class/tty/{name}/device"), &to);
        }
        link(root, "dev/serial/by-id/usb-FTDI_A1-if00", "../../ttyUSB9");
        let ports = ports_below(root).unwrap();
        let paths: Vec<_> = ports.iter().map(|p| p.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["/dev/ttyS0", "/dev/ttyUSB9", "/dev/ttyUSB10"]);
        assert_eq!(ports[0].driver.as_deref(), Some("serial8250"));
        assert_eq!(ports[0].usb_id, None);
        assert_eq!(
            ports[1],
            Port {
                path: "/dev/ttyUSB9".into(),
                by_id: Some("/dev/serial/by-id/usb-FTDI_A1-if00".into()),
                driver: Some("ftdi_sio".to_owned()),
                usb_id: Some("0403:6001".to_owned()),
                manufacturer: Some("FTDI".to_owned()),
                product: Some("FT232R USB UART".to_owned()),
                serial_number: Some("A1".to_owned()),
            }
        );
        assert_eq!(ports[2].by_id, None);
    }

    #[test]
    fn a_system_without_any_has_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ports_below(dir.path()).unwrap(), []);
    }
}
