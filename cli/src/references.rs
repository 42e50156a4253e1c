//! What one peer gives another to reach a third or itself: introductions, tickets and short codes.

#[cfg(feature = "files")]
pub(crate) use cepa::protocols::code::CodeTextError;
pub(crate) use cepa::protocols::code::ShortCode;
pub(crate) use cepa::protocols::introduction::Introduction;
pub(crate) use cepa::protocols::ticket::Ticket;
