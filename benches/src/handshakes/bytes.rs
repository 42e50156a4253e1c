//! How many bytes a mutual handshake takes, both directions together, with ALPN as in a session.
//!
//! What the server says to prove that it took the client (a byte of data in a record) is left out: a session has
//! its binding and its ping there.

use std::sync::Arc;

use cepa::Side;
use cepa::identity::{AcceptAny, Identity, KeyKind};
use cepa::onion::Onion;
use cepa::stack::{ALPN_MUX, ALPN_SMALL};
use cepa::tls::{KeyForm, TlsConfig};
use cepa::transports::meter::{Meter, Metered};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{judged, report};
use crate::Outcome;
use crate::measure::number;

const X25519: u16 = 0x001d;
const X25519_MLKEM768: u16 = 0x11ec;
const AES_128_GCM: u16 = 0x1301;

/// A record with one byte of data.
const BYTE: u64 = 23;

pub(crate) fn run() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let of = |kind, form, group| runtime.block_on(most(kind, form, group));
    let raw = of(KeyKind::Ed25519, KeyForm::RawPublicKey, X25519)?;
    judged("ed25519-raw-x25519", raw, "B", 830.0);
    let certificate = of(KeyKind::P256, KeyForm::Certificate, X25519)?;
    judged("p256-certificate-x25519", certificate, "B", 1300.0);
    let both = of(KeyKind::Ed25519, KeyForm::Certificate, X25519)?;
    report("ed25519-certificate-x25519", both, "B");
    let hybrid = of(KeyKind::Ed25519, KeyForm::RawPublicKey, X25519_MLKEM768)?;
    report("ed25519-raw-x25519mlkem768", hybrid, "B");
    Ok(())
}

/// The most of several: an ECDSA signature is 70 to 72 bytes long, by chance.
async fn most(kind: KeyKind, form: KeyForm, group: u16) -> Outcome<f64> {
    let mut most = 0;
    for _ in 0..8 {
        let client = Identity::generate(kind)?.with_minimal_certificate()?;
        let server = Identity::generate(kind)?.with_minimal_certificate()?;
        let config = |identity: &Identity| -> Outcome<TlsConfig> {
            let config = TlsConfig::builder(identity, Arc::new(AcceptAny))
                .groups(&[group])
                .suites(&[AES_128_GCM])
                .alpn(&[ALPN_SMALL, ALPN_MUX])
                .key_form(form);
            Ok(config.build()?)
        };
        most = most.max(shake(&config(&client)?, &config(&server)?).await?);
    }
    Ok(number(usize::try_from(most)?))
}

async fn shake(client: &TlsConfig, server: &TlsConfig) -> Outcome<u64> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let meter = Meter::new();
    let mut near = Onion::new(Metered::new(near, meter.clone()));
    let mut far = Onion::new(far);
    tokio::try_join!(
        async {
            near.push(Side::Client, client).await?;
            near.read_u8().await?;
            Outcome::Ok(())
        },
        async {
            far.push(Side::Server, server).await?;
            far.write_u8(0).await?;
            far.flush().await?;
            Outcome::Ok(())
        }
    )?;
    Ok(meter.bytes_in() + meter.bytes_out() - BYTE)
}
