//! Setters for configurations whose fields are public and may become more: a struct that is `non_exhaustive` can't be written
//! as a literal elsewhere, not even with `..Default::default()`, so each field has a method for chains beside it.
//!
//! A macro, so that it is one line a field; `tests/library.rs` reads the sources and finds a field that has none.

/// `with_field` for each field of a configuration.
macro_rules! setters {
    ($config:ident { $($with:ident => $field:ident: $type:ty,)* }) => {
        impl $config { $(
            #[doc = concat!("The same with another [`", stringify!($field), "`](field@Self::", stringify!($field), ").")]
            #[must_use]
            pub fn $with(mut self, $field: $type) -> Self {
                self.$field = $field;
                self
            }
        )* }
    };
}
