//! The router that this machine sends to whatever is in none of its networks, as the system's table says: who may map a port for it.

use std::net::Ipv4Addr;

/// Bytes of the table that are read: a machine with more routes than fit in there is none behind a home router.
const MOST: u64 = 64 << 10;

/// The router on the way by the network of this address, if there is one.
#[cfg(target_os = "linux")]
pub(super) fn gateway() -> Option<Ipv4Addr> {
    use std::io::Read as _;
    let mut table = String::new();
    let file = std::fs::File::open("/proc/net/route").ok()?;
    file.take(MOST).read_to_string(&mut table).ok()?;
    default_of(&table)
}

/// Other systems say it in other ways.
#[cfg(not(target_os = "linux"))]
pub(super) fn gateway() -> Option<Ipv4Addr> {
    let _ = (MOST, default_of as fn(&str) -> _);
    None
}

/// The gateway of the default route with the least metric: in each line the interface, the destination, the gateway, flags, two counters,
/// the metric, and the mask; addresses as the machine has them in memory (proc(5)).
fn default_of(table: &str) -> Option<Ipv4Addr> {
    let ways = table.lines().skip(1).filter_map(|line| {
        let words: Vec<_> = line.split_ascii_whitespace().take(8).collect();
        let [_, to, by, _, _, _, metric, mask] = words[..] else {
            return None;
        };
        let hex = |word| u32::from_str_radix(word, 16).ok();
        let (to, by, mask) = (hex(to)?, hex(by)?, hex(mask)?);
        let metric: u32 = metric.parse().ok()?;
        let is_one = to == 0 && mask == 0 && by != 0;
        is_one.then(|| (metric, Ipv4Addr::from(by.to_ne_bytes())))
    });
    ways.min_by_key(|(metric, _)| *metric).map(|(_, by)| by)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    fn line(to: Ipv4Addr, by: Ipv4Addr, metric: u32, bits: u32) -> String {
        let [to, by] = [to, by].map(|it| u32::from_ne_bytes(it.octets()));
        format!("eth0\t{to:08X}\t{by:08X}\t0003\t0\t0\t{metric}\t{bits:08X}\t0\t0\t0\n")
    }

    #[test]
    fn the_default_route_with_the_least_metric_is_taken() {
        let at = |n| Ipv4Addr::new(192, 168, 1, n);
        let none = Ipv4Addr::UNSPECIFIED;
        let table = [
            HEAD.to_owned(),
            line(none, at(1), 600, 0),
            line(none, at(2), 100, 0),
            // A network of its own, one behind another router, and a route without any.
            line(at(0), none, 0, 0x00ff_ffff),
            line(Ipv4Addr::new(10, 0, 0, 0), at(3), 0, 0xff),
            line(none, none, 0, 0),
        ];
        assert_eq!(default_of(&table.concat()), Some(at(2)));
        assert_eq!(default_of(HEAD), None);
        assert_eq!(default_of("no table"), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = default_of(&format!("{HEAD}{text}"));
        }
    }
}
