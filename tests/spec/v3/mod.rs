//! The statements of MQTT 3.1.1, and what 3.1 has of its own.

mod client;
mod connect;
mod delivery;
mod ending;
mod flags;
mod publish;
mod retained;
mod session;
mod strings;
mod subscribe;
mod topics;
mod v31;
mod will;

use crate::coverage::Section;
use crate::harness::Suite;

/// Their cases.
pub const SUITE: Suite = Suite {
    standard: "3.1.1",
    tag: "v311",
    statements: STATEMENTS,
    files: &[
        connect::CASES,
        delivery::CASES,
        ending::CASES,
        flags::CASES,
        publish::CASES,
        retained::CASES,
        session::CASES,
        strings::CASES,
        subscribe::CASES,
        topics::CASES,
        v31::CASES,
        will::CASES,
    ],
};

/// The 141 statements of the standard of 29 October 2014.
const STATEMENTS: &[Section] = &[
    ("1.5.3", 1, 3),
    ("2.2.2", 1, 2),
    ("2.3.1", 1, 7),
    ("3.1.0", 1, 2),
    ("3.1.2", 1, 24),
    ("3.1.3", 1, 11),
    ("3.1.4", 1, 5),
    ("3.2.0", 1, 1),
    ("3.2.2", 1, 6),
    ("3.3.1", 1, 12),
    ("3.3.2", 1, 3),
    ("3.3.4", 1, 1),
    ("3.3.5", 1, 2),
    ("3.6.1", 1, 1),
    ("3.8.1", 1, 1),
    ("3.8.3", 1, 4),
    ("3.8.4", 1, 6),
    ("3.9.3", 1, 2),
    ("3.10.1", 1, 1),
    ("3.10.3", 1, 2),
    ("3.10.4", 1, 6),
    ("3.12.4", 1, 1),
    ("3.14.1", 1, 1),
    ("3.14.4", 1, 3),
    ("4.1.0", 1, 2),
    ("4.3.1", 1, 1),
    ("4.3.2", 1, 2),
    ("4.3.3", 1, 2),
    ("4.4.0", 1, 1),
    ("4.5.0", 1, 2),
    ("4.6.0", 1, 6),
    ("4.7.1", 1, 3),
    ("4.7.2", 1, 1),
    ("4.7.3", 1, 4),
    ("4.8.0", 1, 2),
    ("6.0.0", 1, 4),
    ("7.0.0", 1, 2),
    ("7.1.1", 1, 1),
    ("7.1.2", 1, 1),
];
