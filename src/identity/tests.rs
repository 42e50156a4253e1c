//! Tests of identities and trust.
