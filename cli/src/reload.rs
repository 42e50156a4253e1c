//! `cepa reload`: has a running node read its configuration file again, and says what came of it.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::args::Reload;
use crate::control::Asked;
use crate::exit::{self, Code, Failure};

pub(crate) async fn run(args: Reload) -> Result<(), Failure> {
    let asked = Asked::at(&args.control, &json!({ "reload": {} })).await?;
    let done = asked.only().await?;
    let words = |list: &str| -> Vec<&str> {
        let all = done[list].as_array().into_iter().flatten();
        all.filter_map(Value::as_str).collect()
    };
    let (changed, later, failed) = (words("changed"), words("restart_for"), words("failed"));
    let mut text = format!("reloaded {}\n", done["reloaded"].as_str().unwrap_or("it"));
    for line in &changed {
        let _ = writeln!(text, "  {line}");
    }
    if changed.is_empty() && later.is_empty() && failed.is_empty() {
        text += "  nothing has changed\n";
    }
    exit::print(&text)?;
    let later = later.join(", ");
    let why = match (failed.is_empty(), later.is_empty()) {
        (true, true) => return Ok(()),
        (true, false) => format!("restart the node to apply {later}; the rest was taken over"),
        (false, later_is_empty) => {
            let failed = failed.join("; ");
            let later = if later_is_empty {
                String::new()
            } else {
                format!(", and restart the node to apply {later}")
            };
            format!("{failed}; the rest was taken over. Mend that, and reload again{later}")
        }
    };
    Err(Failure::new(Code::Other, why))
}
