//! Topic names and topic filters as types that cannot hold a bad value.
