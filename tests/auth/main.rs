//! Who may connect and what they may do, over sockets, with both versions and every driver.

mod acl;
#[path = "../common/mod.rs"]
mod common;
mod folder;
mod foreign;
mod passwords;
mod tokens;
