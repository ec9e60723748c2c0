//! The ACL file of mosquitto, read as it is.
//!
//! `topic` lines stand below the `user` that they are about, and above the first one they are about clients without a
//! user name; `pattern` lines are about all. What is denied is denied wherever it stands, and what a user's own lines
//! decide comes before patterns. A subscription must be covered by what may be read: mosquitto takes any and keeps the
//! messages back.

use super::pattern::Pattern;
use super::{Action, QOS_ANY, Rule, Who};
use crate::limits::{ACL_RULES_MAX, AUTH_NAME_BYTES_MAX};

pub(super) fn read(text: &str) -> Result<Vec<Rule>, String> {
    let mut who = Who { anonymous: Some(true), ..Who::default() };
    // By what comes first.
    let mut kinds: [Vec<Rule>; 4] = Default::default();
    for (number, line) in text.lines().enumerate() {
        let fault = |what: String| format!("line {}: {what}", number + 1);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let rest = rest.trim();
        match word {
            "user" if !rest.is_empty() && rest.len() <= AUTH_NAME_BYTES_MAX => {
                who = Who { users: vec![rest.into()], ..Who::default() };
            }
            "topic" | "pattern" => {
                let pattern = word == "pattern";
                let of = if pattern { Who::default() } else { who.clone() };
                let rule = rule(of, rest, pattern).map_err(fault)?;
                kinds[2 * usize::from(pattern) + usize::from(rule.allow)].push(rule);
            }
            _ => {
                let what = format!("expected user NAME, topic FILTER or pattern FILTER, got {line:?}");
                return Err(fault(what));
            }
        }
    }
    let rules: Vec<Rule> = kinds.into_iter().flatten().collect();
    if rules.len() > ACL_RULES_MAX {
        return Err(format!("expected at most {ACL_RULES_MAX} rules, got {}", rules.len()));
    }
    Ok(rules)
}

/// What is behind `topic` or `pattern`.
fn rule(who: Who, text: &str, names: bool) -> Result<Rule, String> {
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    let (allow, action, filter) = match word {
        "read" => (true, Action::Subscribe, rest.trim()),
        "write" => (true, Action::Publish, rest.trim()),
        "readwrite" => (true, Action::All, rest.trim()),
        "deny" => (false, Action::All, rest.trim()),
        _ => (true, Action::All, text),
    };
    let pattern = Pattern::read(filter, false, names);
    let pattern = pattern.ok_or_else(|| format!("expected a topic filter, got {filter:?}"))?;
    Ok(Rule { allow, action, who, filters: vec![pattern], qos: QOS_ANY, retain: None })
}
