//! QR codes on a terminal: two rows of dots in one row of characters.

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

use crate::exit::{Code, Failure};

/// The code, dark on light also where the terminal is light on dark, with the margin that readers need.
pub(crate) fn of(text: &str) -> Result<String, Failure> {
    let code = QrCode::new(text.as_bytes())
        .map_err(|e| Failure::new(Code::Other, format!("this does not fit a QR code: {e}")))?;
    let image = code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build();
    Ok(format!("{image}\n"))
}
