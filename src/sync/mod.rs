//! The rings between shards and the only atomics of the broker.
