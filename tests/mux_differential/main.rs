//! The same scripts over our mux and over the `yamux` crate: users of either see the same. `world` says
//! how; here random scripts are made for it, most of them of the kind that gets somewhere.
#![allow(clippy::cast_possible_truncation)] // patterns of bytes

mod world;

use proptest::prelude::*;

/// Scripts in which every stream that is opened is also heard of, written to and read.
fn scripts() -> impl Strategy<Value = Vec<u8>> {
    let op = prop_oneof![
        1 => Just(0u8),
        2 => Just(1u8),
        1 => Just(2u8),
        2 => Just(3u8),
        1 => Just(4u8),
        1 => Just(5u8),
        1 => Just(6u8),
        6 => Just(7u8),
    ];
    let step = (op, any::<bool>(), any::<u8>(), any::<u8>())
        .prop_map(|(op, end, which, value)| [op + if end { 128 + 2 } else { 0 }, which, value]);
    (any::<u8>(), prop::collection::vec(step, 0..400)).prop_map(|(mode, steps)| {
        let mut script = vec![mode];
        script.extend(steps.into_iter().flatten());
        script
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn users_of_either_implementation_see_the_same(script in scripts()) {
        world::run(&script);
    }

    #[test]
    fn whatever_the_script(script in prop::collection::vec(any::<u8>(), 0..1500)) {
        world::run(&script);
    }
}
