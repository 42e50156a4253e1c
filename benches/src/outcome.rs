//! How anything here ends: with its result, or with whatever failed, as a sentence.

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Outcome<T> = Result<T, Failure>;
