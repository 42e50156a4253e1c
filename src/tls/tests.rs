//! Tests of configuration, verification and errors.
