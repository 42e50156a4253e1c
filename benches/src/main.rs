//! Benches of cepa beside its rivals: interleaved in one run, so that only ratios need to be read.
fn main() {}
