//! What `-v` and `RUST_LOG` show: the library's spans and events, as lines on standard error beside those that the tool says
//! of itself, and in the same form ([`say`](crate::say)). Without either nothing subscribes, and an event costs a look at
//! one variable.
//!
//! As text: the time where standard error is no terminal, the level, where it happened, what, and its fields. Fields of the
//! spans around an event are shown as its own, the innermost first, so that each line names its peer.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _};

use cepa::transports::text::clean;
use cepa::transports::{Endpoint, Target, TransportError};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry};

use crate::exit::{Code, Failure};
use crate::say::{Now, is_json, json, put};

/// Which names the environment filter has.
const VARIABLE: &str = "RUST_LOG";

/// Most bytes of a line.
const LINE: usize = 16 * 1024;

/// Begins to show what is wanted: by `-v` the library's events, by `-vv` all of them; without, what `RUST_LOG` names. Tells whether
/// anything is. `says_events`: the command says itself what happens at its node, and `-v` does not say it twice.
pub(crate) fn start(verbose: u8, says_events: bool) -> Result<bool, Failure> {
    let once = if says_events { ",cepa::node=off" } else { "" };
    let filter = match (verbose, std::env::var_os(VARIABLE)) {
        (0, None) => return Ok(false),
        (0, Some(wanted)) => {
            let wanted = wanted.to_string_lossy();
            if wanted.trim().is_empty() {
                return Ok(false);
            }
            EnvFilter::try_new(&*wanted).map_err(|e| {
                let why =
                    format!("{VARIABLE}: {e}; set it to cepa=debug, for example, or unset it");
                Failure::new(Code::Usage, why)
            })?
        }
        (1, _) => EnvFilter::new(format!("cepa=debug{once}")),
        _ => EnvFilter::new(format!("cepa=trace{once}")),
    };
    let lines = Lines {
        stamped: !io::stderr().is_terminal(),
    };
    // Only a second one in this process would fail.
    let _ = Registry::default().with(filter).with(lines).try_init();
    Ok(true)
}

/// A dial begins; of a command no more is shown than that it is one.
pub(crate) fn dialling(address: &Endpoint) {
    tracing::debug!(target: "cepa::dial", address = shown(address), "dialling");
}

pub(crate) fn dial_failed(address: &Endpoint, error: &TransportError) {
    let error = format!("{:?}", error.kind());
    tracing::debug!(target: "cepa::dial", address = shown(address), error, "the dial failed");
}

fn shown(address: &Endpoint) -> String {
    match address.target() {
        Target::Exec { .. } => format!("{}:…", address.scheme()),
        // What runs there is a command, too.
        Target::Ssh { .. } => {
            let whole = address.target().to_string();
            whole.split(',').next().unwrap_or_default().to_owned()
        }
        _ => address.to_string(),
    }
}

struct Lines {
    stamped: bool,
}

/// What a span or an event says of itself.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn add(&mut self, name: &'static str, value: Value) {
        match (name, value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => {
                self.others.retain(|(other, _)| *other != name);
                self.others.push((name, value));
            }
        }
    }

    /// What is around it says more of it, but nothing else.
    fn extend(&mut self, around: &[(&'static str, Value)]) {
        for (name, value) in around {
            if self.others.iter().all(|(other, _)| other != name) {
                self.others.push((name, value.clone()));
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field.name(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // Microseconds are enough.
        self.add(field.name(), ((value * 1e6).round() / 1e6).into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), value.into());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(around) = span.extensions().get::<Fields>() {
                fields.extend(&around.others);
            }
        }
        let (level, target) = (event.metadata().level().as_str(), event.metadata().target());
        put(if is_json() {
            fields.extend(&[("target", target.into())]);
            json(level, &fields.message, fields.others)
        } else {
            text(self.stamped, level, target, &fields)
        });
    }
}

fn text(stamped: bool, level: &str, target: &str, fields: &Fields) -> String {
    let mut line = format!("{level:>5} {target}: {}", fields.message);
    for (name, value) in &fields.others {
        let _ = match value {
            // A peer's words can't look like another field.
            Value::String(text) if text.contains([' ', '=', '"']) => {
                write!(line, " {name}={text:?}")
            }
            Value::String(text) => write!(line, " {name}={text}"),
            value => write!(line, " {name}={value}"),
        };
    }
    let line = clean(&line, LINE);
    if stamped {
        format!("{Now} {line}")
    } else {
        line.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_with_a_space_stands_in_quotes_and_nothing_in_it_moves_the_cursor() {
        let mut fields = Fields::default();
        fields.add("message", "it happened".into());
        fields.add("service", "a b=\u{1b}[2J".into());
        fields.add("seconds", 1.5.into());
        fields.extend(&[("service", "other".into()), ("peer", "abc".into())]);
        let line = text(false, "DEBUG", "cepa::x", &fields);
        assert_eq!(
            line,
            r#"DEBUG cepa::x: it happened service="a b=\u{1b}[2J" seconds=1.5 peer=abc"#
        );
    }
}
