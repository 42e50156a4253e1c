//! Tables that tests make, each with its text file: what a reader looks at must be what the code does.

/// Compares a table with its text file below `src/`, or writes that anew where `CEPA_WRITE_TABLE` is set. `tests` is the filter
/// that runs the test.
#[track_caller]
pub(crate) fn matches_file(at: &str, tests: &str, made: &str, known: &str) {
    if std::env::var_os("CEPA_WRITE_TABLE").is_some() {
        std::fs::write(format!("{}/src/{at}", env!("CARGO_MANIFEST_DIR")), made).unwrap();
    }
    for (made, known) in made.lines().zip(known.lines()) {
        assert_eq!(
            made, known,
            "`CEPA_WRITE_TABLE=1 cargo test -p cepa --lib {tests}` writes src/{at} anew: look at what changed"
        );
    }
    assert!(made == known, "src/{at} has more lines, or fewer");
}
