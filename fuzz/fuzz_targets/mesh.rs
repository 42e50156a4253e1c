//! Messages of relays and addresses of peers come from anybody. Whatever the bytes: the decoders end, do not
//! panic, and what they accept they write so that it means the same.
#![no_main]

use cepa::node::PeerAddr;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    cepa::protocols::fuzz(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    // An id that is right: the rest would hardly ever be reached.
    for text in [
        text.to_owned(),
        format!("cepa://mfzwi3dbonzgc3tlmvzwi3dbonzgc3tlmvzwi3dbonzgc3tlmvza{text}"),
    ] {
        match text.parse::<PeerAddr>() {
            Ok(address) => {
                let printed = address.to_string();
                let again: PeerAddr = printed.parse().expect("what was printed parses");
                assert_eq!(again, address, "the print means the same: {printed:?}");
            }
            Err(error) => assert!(!error.to_string().contains('\n'), "{error:?}"),
        }
    }
});
