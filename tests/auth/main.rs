//! Who may connect and what they may do, over sockets, with both versions and every driver.

mod acl;
mod backend;
#[path = "../common/mod.rs"]
mod common;
mod folder;
mod foreign;
mod http;
mod passwords;
mod rights;
mod scram;
mod tokens;
