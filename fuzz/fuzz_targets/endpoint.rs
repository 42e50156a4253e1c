//! Addresses come from command lines, files and, later, from peers. Whatever the text: the parser ends,
//! does not panic, and what it accepts it prints so that the print means the same and prints the same.
#![no_main]

use cepa_transports::Endpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match text.parse::<Endpoint>() {
        Ok(endpoint) => {
            let printed = endpoint.revealed().to_string();
            let again: Endpoint = printed.parse().expect("what was printed parses");
            assert_eq!(again, endpoint, "the print means the same: {printed:?}");
            assert_eq!(
                again.revealed().to_string(),
                printed,
                "a print of a print is the same"
            );
        }
        Err(error) => {
            let line = error.to_string();
            assert!(
                !line.is_empty() && !line.contains('\n'),
                "an error is one line: {line:?}"
            );
        }
    }
});
