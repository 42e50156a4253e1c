//! The `cepa` command-line tool.
fn main() {}
