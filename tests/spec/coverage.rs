//! Whether every statement is tested, or says why it cannot be.
//!
//! One table per statement in `coverage.toml`:
//!
//! ```toml
//! ["5.0"."MQTT-3.1.0-2"]
//! bound = "server"          # or "client", or "both"
//! tests = ["mqtt_3_1_0_2_v5_a_second_connect_is_a_protocol_error"]
//!
//! ["5.0"."MQTT-3.1.2-20"]
//! bound = "client"
//! reason = "client"         # or "unobservable: " and why
//! ```

use crate::SUITES;
use crate::harness::{Case, Suite};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;
use toml::de::{DeTable, DeValue};

/// A section of a standard, and its first and last statement.
pub type Section = (&'static str, u32, u32);

/// Ordinary tests, which need no broker.
pub const TESTS: &[(&str, fn())] = &[
    ("coverage_names_every_statement_and_its_tests", every_statement_is_covered),
    ("coverage_of_choices_names_their_cases", every_choice_is_covered),
    ("coverage_sees_what_it_looks_for", the_check_sees_what_it_looks_for),
];

/// What a coverage file says of a statement.
#[derive(Clone, Default, PartialEq, Debug)]
struct Entry {
    bound: String,
    tests: Vec<String>,
    reason: Option<String>,
}

type Entries = BTreeMap<String, Entry>;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/spec/coverage.toml")
}

fn text() -> String {
    std::fs::read_to_string(path()).unwrap_or_default()
}

/// What the text says of each standard that it names.
fn parse(text: &str) -> BTreeMap<String, Entries> {
    let table = DeTable::parse(text).unwrap_or_else(|error| panic!("coverage.toml: {error}"));
    let standards = table.into_inner().into_iter().map(|(standard, value)| {
        let DeValue::Table(statements) = value.get_ref() else { panic!("{standard:?}: expected a table") };
        (standard.get_ref().to_string(), entries(statements))
    });
    standards.collect()
}

fn entries(statements: &DeTable<'_>) -> Entries {
    let mut entries = Entries::new();
    for (id, value) in statements {
        let id = id.get_ref().to_string();
        let DeValue::Table(fields) = value.get_ref() else { panic!("{id}: expected a table") };
        let mut entry = Entry::default();
        for (name, value) in fields {
            match (&**name.get_ref(), value.get_ref()) {
                ("bound", DeValue::String(text)) => entry.bound = text.to_string(),
                ("reason", DeValue::String(text)) => entry.reason = Some(text.to_string()),
                ("tests", DeValue::Array(list)) => {
                    entry
                        .tests
                        .extend(list.iter().filter_map(|test| test.get_ref().as_str().map(str::to_owned)));
                }
                (name, _) => panic!("{id}: expected bound, tests or reason, got {name}"),
            }
        }
        entries.insert(id, entry);
    }
    entries
}

/// The ids of a standard's statements.
fn statements(suite: &Suite) -> BTreeSet<String> {
    let all = suite.statements.iter();
    all.flat_map(|(section, first, last)| (*first..=*last).map(move |n| format!("MQTT-{section}-{n}")))
        .collect()
}

/// The names of the cases of each statement, and each name that stands there twice.
fn registered(suite: &Suite) -> (BTreeMap<String, Vec<String>>, Vec<String>) {
    let (mut names, mut twice) = (BTreeMap::<String, Vec<String>>::new(), Vec::new());
    for case in suite.cases() {
        for id in case.ids {
            let (of, name) = (names.entry(format!("MQTT-{id}")).or_default(), suite.name(id, case));
            if of.contains(&name) {
                twice.push(name);
            } else {
                of.push(name);
            }
        }
    }
    (names, twice)
}

fn faults(
    standard: &str,
    statements: &BTreeSet<String>,
    entries: &Entries,
    registered: &BTreeMap<String, Vec<String>>,
) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |id: &str, text: &str| faults.push(format!("{standard} {id}: {text}"));
    let ids = |keys: BTreeSet<&String>| keys.into_iter().cloned().collect::<BTreeSet<String>>();
    for id in statements.difference(&ids(entries.keys().collect())) {
        fault(id, "it is missing");
    }
    for id in ids(entries.keys().chain(registered.keys()).collect()).difference(statements) {
        fault(id, "the standard has no such statement");
    }
    for (id, entry) in entries {
        let empty = Vec::new();
        let cases = registered.get(id).unwrap_or(&empty);
        for test in entry.tests.iter().filter(|test| !cases.contains(test)) {
            fault(id, &format!("there is no test {test}"));
        }
        for test in cases.iter().filter(|test| !entry.tests.contains(test)) {
            fault(id, &format!("it does not name its test {test}"));
        }
        if !["server", "client", "both"].contains(&&*entry.bound) {
            fault(id, "expected bound to be server, client or both");
        }
        match (&entry.reason, entry.tests.is_empty()) {
            (None, true) => fault(id, "it has neither a test nor a reason"),
            (Some(_), false) => fault(id, "it has tests and a reason for none"),
            (Some(reason), true) => {
                let why = reason.strip_prefix("unobservable: ").is_some_and(|why| why.len() > 20);
                if !(why || reason == "client" && entry.bound == "client") {
                    fault(
                        id,
                        "expected the reason client, where it binds the client alone, or unobservable and why",
                    );
                }
            }
            (None, false) => {}
        }
    }
    faults
}

fn every_statement_is_covered() {
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path(), blessed(&text())).expect("the coverage file can be written");
    }
    let (mut all, mut said) = (Vec::new(), parse(&text()));
    for suite in SUITES {
        let (names, twice) = registered(suite);
        let entries = said.remove(suite.standard).unwrap_or_default();
        all.extend(twice.into_iter().map(|name| format!("{name}: registered twice")));
        all.extend(faults(suite.standard, &statements(suite), &entries, &names));
    }
    all.extend(said.into_keys().map(|standard| format!("{standard}: there are no cases of this standard")));
    assert!(all.is_empty(), "\n{}\n(BLESS=1 writes the names of tests)\n", all.join("\n"));
}

/// Each row of the table in `etc/MQTT.md` names a case; a row without one is shown by another test.
fn every_choice_is_covered() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("etc/MQTT.md");
    let text = std::fs::read_to_string(path).expect("the page is there");
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 20, "the table was found");
    for row in rows {
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let Some(name) = last.split('`').nth(1) else { continue };
        let known = SUITES.iter().flat_map(Suite::cases).any(|case| case.what == name);
        assert!(known, "etc/MQTT.md: expected the name of a case, got {name}");
    }
}

/// The text with the names of the registered cases; who is bound and why stays as it is.
fn blessed(text: &str) -> String {
    let said = parse(text);
    let mut out: String =
        text.lines().take_while(|line| line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    for suite in SUITES {
        let (names, _) = registered(suite);
        for (section, first, last) in suite.statements {
            for id in (*first..=*last).map(|n| format!("MQTT-{section}-{n}")) {
                let entry =
                    said.get(suite.standard).and_then(|all| all.get(&id)).cloned().unwrap_or_default();
                let bound = if entry.bound.is_empty() { "server" } else { &entry.bound };
                let _ = write!(out, "\n[\"{}\".\"{id}\"]\nbound = \"{bound}\"\n", suite.standard);
                match (names.get(&id), entry.reason) {
                    (Some(tests), _) => {
                        let tests: String = tests.iter().map(|test| format!("    \"{test}\",\n")).collect();
                        let _ = writeln!(out, "tests = [\n{tests}]");
                    }
                    (None, Some(reason)) => {
                        let _ = writeln!(out, "reason = \"{reason}\"");
                    }
                    (None, None) => {}
                }
            }
        }
    }
    out
}

/// The report: for each standard how many statements are tested on either ground, have a reason for no test, or
/// neither; with `--nocapture` each of the latter two. And the cases that one ground alone runs.
pub fn summary() -> String {
    let mut text = String::new();
    let mut said = parse(&self::text());
    for suite in SUITES {
        let entries = said.remove(suite.standard).unwrap_or_default();
        let all = statements(suite);
        let tested_by = |wanted: &dyn Fn(&Case) -> bool| {
            let cases = suite.cases().filter(|case| wanted(case));
            let ids: BTreeSet<String> =
                cases.flat_map(|case| case.ids).map(|id| format!("MQTT-{id}")).collect();
            ids.intersection(&all).cloned().collect::<BTreeSet<_>>()
        };
        let tested = tested_by(&|_| true);
        let [sockets, simulation] = [true, false].map(|on| tested_by(&|case| case.runs_on(on)).len());
        let untested: Vec<_> = all
            .difference(&tested)
            .map(|id| (id, entries.get(id).and_then(|entry| entry.reason.as_deref()).unwrap_or("missing")))
            .collect();
        let count = |start: &str| untested.iter().filter(|(_, reason)| reason.starts_with(start)).count();
        let (client, unobservable) = (count("client"), count("unobservable"));
        let _ = writeln!(
            text,
            "coverage of MQTT {}: {} statements: {} tested by {} cases ({sockets} on sockets, {simulation} on the \
             simulation), {} reasoned ({client} bind the client alone, {unobservable} cannot be observed), {} missing",
            suite.standard,
            all.len(),
            tested.len(),
            suite.cases().count(),
            client + unobservable,
            count("missing"),
        );
        if std::env::args().any(|arg| arg == "--nocapture") {
            for (id, reason) in untested {
                let _ = writeln!(text, "  {id}: {reason}");
            }
        }
        for case in suite.cases() {
            if let Some(only) = case.only {
                let _ = writeln!(text, "  {} runs on {only:?} alone", case.what);
            }
        }
    }
    text.trim_end().to_owned()
}

fn the_check_sees_what_it_looks_for() {
    let ids: BTreeSet<String> = ["MQTT-1-1", "MQTT-1-2"].map(str::to_owned).into();
    let cases = BTreeMap::from([("MQTT-1-1".to_owned(), vec!["a".to_owned()])]);
    let good = "[\"5.0\".\"MQTT-1-1\"]\nbound = \"server\"\ntests = [\"a\"]\n\
                [\"5.0\".\"MQTT-1-2\"]\nbound = \"client\"\nreason = \"client\"\n";
    let check = |text: &str| {
        let entries = parse(text).remove("5.0").unwrap_or_default();
        faults("5.0", &ids, &entries, &cases)
    };
    assert_eq!(check(good), [] as [&str; 0]);
    let wrong = [
        (good.replace("MQTT-1-2", "MQTT-1-3"), 2, "MQTT-1-2: it is missing"),
        (good.replace("\"a\"", "\"b\""), 2, "no test b"),
        (good.replace("\"client\"\nreason", "\"server\"\nreason"), 1, "expected the reason"),
        (good.replace("reason = \"client\"", "reason = \"unobservable: \""), 1, "expected the reason"),
        (good.replace("tests = [\"a\"]", ""), 2, "neither a test"),
        (good.replace("bound = \"server\"", "bound = \"nobody\""), 1, "expected bound"),
        (good.replace("tests = [\"a\"]", "tests = [\"a\"]\nreason = \"client\""), 1, "tests and a reason"),
    ];
    for (text, count, expected) in wrong {
        let found = check(&text);
        assert_eq!(found.len(), count, "{text}: {found:?}");
        assert!(found.iter().any(|fault| fault.contains(expected)), "{expected}: {found:?}");
    }
}
