//! The statements of MQTT 3.1.1.

use crate::harness::Suite;

/// Their cases.
pub const SUITE: Suite =
    Suite { standard: "3.1.1", tag: "v311", statements: &[], coverage: "v3/coverage.toml", files: &[] };
