//! Rules as they are written in TOML: tables `[[rule]]`, each with `allow` or `deny` and what narrows it.

use super::pattern::Pattern;
use super::{Action, Network, QOS_ANY, Rule, Who};
use crate::limits::{ACL_RULES_MAX, AUTH_NAME_BYTES_MAX};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

type Value<'a> = Spanned<DeValue<'a>>;

pub(super) fn read(text: &str) -> Result<Vec<Rule>, String> {
    let line = |offset: usize| 1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count();
    let table = DeTable::parse(text).map_err(|error| {
        format!("line {}: {}", line(error.span().map_or(0, |span| span.start)), error.message())
    })?;
    let mut rules = Vec::new();
    for (name, value) in table.get_ref() {
        let at = line(name.span().start);
        let DeValue::Array(items) = value.get_ref() else {
            return Err(format!("line {at}: expected tables [[rule]], got {}", name.get_ref()));
        };
        if *name.get_ref() != "rule" {
            return Err(format!("line {at}: expected tables [[rule]], got {}", name.get_ref()));
        }
        if items.len() > ACL_RULES_MAX {
            return Err(format!("expected at most {ACL_RULES_MAX} rules, got {}", items.len()));
        }
        for item in items.iter() {
            let at = line(item.span().start);
            let DeValue::Table(table) = item.get_ref() else {
                return Err(format!("line {at}: expected a table [[rule]]"));
            };
            rules.push(
                rule(table).map_err(|(offset, what)| format!("line {}: {what}", offset.map_or(at, line)))?,
            );
        }
    }
    Ok(rules)
}

/// Where, if not at the table itself, and what.
type Fault = (Option<usize>, String);

fn rule(table: &DeTable) -> Result<Rule, Fault> {
    let mut verdict = None;
    let mut rule = Rule {
        allow: false,
        action: Action::All,
        who: Who::default(),
        filters: Vec::new(),
        qos: QOS_ANY,
        retain: None,
    };
    for (name, value) in table.iter() {
        let fault =
            |expected: &str| (Some(value.span().start), format!("{}: expected {expected}", name.get_ref()));
        match &**name.get_ref() {
            word @ ("allow" | "deny") => {
                rule.action = action(value).ok_or_else(|| fault("\"publish\", \"subscribe\" or \"all\""))?;
                if verdict.replace(word == "allow").is_some() {
                    return Err((None, "expected allow or deny, got both".to_owned()));
                }
            }
            "user" => rule.who.users = names(value).ok_or_else(|| fault("a user name, or a list of them"))?,
            "client" => {
                rule.who.clients =
                    names(value).ok_or_else(|| fault("a client identifier, or a list of them"))?;
            }
            "address" => {
                let networks =
                    texts(value).and_then(|texts| texts.iter().map(|t| Network::read(t)).collect());
                rule.who.networks = networks
                    .ok_or_else(|| fault("an address or a network such as 10.0.0.0/8, or a list of them"))?;
            }
            "anonymous" => {
                let DeValue::Boolean(flag) = value.get_ref() else { return Err(fault("true or false")) };
                rule.who.anonymous = Some(*flag);
            }
            "topics" => {
                rule.filters = patterns(value).ok_or_else(|| {
                    fault("topic filters, or { eq = FILTER } for those that mean themselves")
                })?;
            }
            "qos" => rule.qos = qos(value).ok_or_else(|| fault("0, 1 or 2, or a list of them"))?,
            "retain" => {
                let DeValue::Boolean(flag) = value.get_ref() else { return Err(fault("true or false")) };
                rule.retain = Some(*flag);
            }
            other => {
                let known = "allow, deny, user, client, address, anonymous, topics, qos, retain";
                return Err((Some(name.span().start), format!("expected one of {known}, got {other}")));
            }
        }
    }
    rule.allow = verdict.ok_or((None, "expected allow or deny, got neither".to_owned()))?;
    if rule.retain.is_some() && rule.action == Action::Subscribe {
        return Err((None, "retain: expected it on a rule about publishing".to_owned()));
    }
    Ok(rule)
}

fn action(value: &Value) -> Option<Action> {
    let DeValue::String(text) = value.get_ref() else { return None };
    match &**text {
        "publish" => Some(Action::Publish),
        "subscribe" => Some(Action::Subscribe),
        "all" => Some(Action::All),
        _ => None,
    }
}

/// One text or several, at least one.
fn texts<'a>(value: &'a Value) -> Option<Vec<&'a str>> {
    let one = |value: &'a Value| match value.get_ref() {
        DeValue::String(text) => Some(&**text),
        _ => None,
    };
    match value.get_ref() {
        DeValue::Array(items) if !items.is_empty() => items.iter().map(one).collect(),
        _ => one(value).map(|text| vec![text]),
    }
}

fn names(value: &Value) -> Option<Vec<Box<str>>> {
    let fits = |text: &&str| !text.is_empty() && text.len() <= AUTH_NAME_BYTES_MAX;
    let texts = texts(value)?;
    texts.iter().all(fits).then(|| texts.into_iter().map(Into::into).collect())
}

fn patterns(value: &Value) -> Option<Vec<Pattern>> {
    let one = |value: &Value| match value.get_ref() {
        DeValue::String(text) => Pattern::read(text, false, true),
        DeValue::Table(table) => {
            let mut entries = table.iter();
            let (Some((name, value)), None) = (entries.next(), entries.next()) else { return None };
            match (&**name.get_ref(), value.get_ref()) {
                ("eq", DeValue::String(text)) => Pattern::read(text, true, true),
                _ => None,
            }
        }
        _ => None,
    };
    match value.get_ref() {
        DeValue::Array(items) if !items.is_empty() => items.iter().map(one).collect(),
        DeValue::Array(_) => None,
        _ => one(value).map(|pattern| vec![pattern]),
    }
}

fn qos(value: &Value) -> Option<u8> {
    let one = |value: &Value| match value.get_ref() {
        DeValue::Integer(n) => match n.as_str() {
            "0" => Some(1),
            "1" => Some(2),
            "2" => Some(4),
            _ => None,
        },
        _ => None,
    };
    match value.get_ref() {
        DeValue::Array(items) if !items.is_empty() => {
            items.iter().try_fold(0, |bits, item| Some(bits | one(item)?))
        }
        _ => one(value),
    }
}
