//! Tells the program which compiler built it, for `rustc_version` of the HTTP API.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=etc/build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = Command::new(rustc).arg("--version").output().ok();
    let told = told.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    println!("cargo::rustc-env=RINGMQ_RUSTC_VERSION={}", told.trim());
}
