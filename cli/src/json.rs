//! The little JSON (RFC 8259) that `--json` prints: objects of texts, numbers and lists, written by hand
//! because nothing is ever read.

use std::fmt::Write as _;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(&'static str, Json)>),
}

impl Json {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The value, or null.
    pub(crate) fn or_null(value: Option<impl Into<Self>>) -> Self {
        value.map_or(Self::Null, Into::into)
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            // There is no infinity in JSON.
            Self::Number(n) if !n.is_finite() => out.push_str("null"),
            Self::Number(n) => {
                let _ = write!(out, "{n}");
            }
            Self::Text(text) => quote(text, out),
            Self::List(list) => {
                out.push('[');
                for (i, value) in list.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { "," });
                    value.write(out);
                }
                out.push(']');
            }
            Self::Object(fields) => {
                out.push('{');
                for (i, (name, value)) in fields.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { "," });
                    quote(name, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

impl From<String> for Json {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<f64> for Json {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl std::fmt::Display for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = String::new();
        self.write(&mut out);
        f.write_str(&out)
    }
}

/// RFC 8259 section 7: quotes, backslashes and controls are escaped.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_the_rfc_has_them() {
        let value = Json::Object(vec![
            (
                "a",
                Json::List(vec![Json::Number(1.0), Json::Number(0.25), Json::Null]),
            ),
            ("b", Json::text("\"\\\n\u{1f}ü")),
            ("c", Json::Object(vec![])),
            ("d", Json::Number(f64::INFINITY)),
        ]);
        assert_eq!(
            value.to_string(),
            r#"{"a":[1,0.25,null],"b":"\"\\\u000a\u001fü","c":{},"d":null}"#
        );
    }
}
