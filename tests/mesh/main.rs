//! Nodes and relays: services and who may open them, one session a pair, circuits through honest relays and
//! through others.

mod access;
mod bad_input;
mod circuits;
mod dishonest;
mod fleet;
mod forward;
mod introductions;
mod membrane;
mod nodes;
mod relay_keys;
mod relay_returns;
mod relay_shares;
mod relays;
mod reports;
mod resolve;
mod sealed;
mod shutdown;
mod support;
