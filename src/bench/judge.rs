//! What was lost: for each publisher and each receiver, what was acknowledged against what arrived.

use super::plan::{Kind, Plan};
use super::sequences::Sequences;
use super::tally::{Fates, Tally};
use crate::message::QoS;

/// The outcome of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// Deliveries of acknowledged messages that did not come.
    pub lost_acknowledged: u64,
    /// Deliveries of QoS 0 messages that did not come.
    pub lost_qos0: u64,
    /// Messages of QoS 1 and 2 that were not acknowledged until the end.
    pub unacknowledged: u64,
    /// Numbers that are missing between the first and the last message from publishers of other runs.
    pub gaps: u64,
    /// What makes the run fail, one line each.
    pub failures: Vec<String>,
}

/// Joins what the workers saw; messages that two of them got, but only one should have, are duplicates.
pub fn join(plan: &Plan, all: Vec<Fates>, tally: &mut Tally) -> Fates {
    let mut sum = Fates::default();
    for fates in all {
        sum.sent.extend(fates.sent);
        sum.acknowledged.extend(fates.acknowledged);
        for (route, set) in fates.received {
            match sum.received.get_mut(&route) {
                Some(mine) => tally.duplicates += mine.merge(&set),
                None => drop(sum.received.insert(route, set)),
            }
        }
    }
    debug_assert!(sum.sent.len() <= plan.clients() as usize);
    sum
}

/// Judges a run.
pub fn judge(plan: &Plan, fates: &Fates, tally: &Tally) -> Verdict {
    let mut verdict = Verdict::default();
    let nothing = Sequences::default();
    for flow in &plan.flows {
        if flow.kind == Kind::In {
            verdict.gaps += fates.received.values().map(Sequences::gaps).sum::<u64>();
        }
        for publisher in flow.pubs.clone() {
            let sent = u64::from(fates.sent.get(&publisher).copied().unwrap_or_default());
            let acknowledged = fates.acknowledged.get(&publisher).unwrap_or(&nothing);
            if flow.qos > QoS::AtMostOnce {
                verdict.unacknowledged += sent - acknowledged.len().min(sent);
            }
            for scope in flow.scopes(publisher) {
                let received = fates.received.get(&(scope, u64::from(publisher))).unwrap_or(&nothing);
                if flow.qos == QoS::AtMostOnce {
                    verdict.lost_qos0 += sent - received.len().min(sent);
                } else {
                    verdict.lost_acknowledged += acknowledged.missing_in(received);
                }
            }
        }
    }
    let exactly_once = plan.flows.iter().all(|flow| flow.qos == QoS::ExactlyOnce);
    let at_most_once = plan.flows.iter().all(|flow| flow.qos == QoS::AtMostOnce);
    let duplicates = if exactly_once || at_most_once { tally.duplicates } else { 0 };
    let checks = [
        (verdict.lost_acknowledged, "acknowledged and not delivered"),
        (duplicates, "delivered more than once"),
        (tally.out_of_order, "out of order"),
        (tally.misrouted, "delivered to a client that did not ask for it"),
        (tally.corrupt, "changed on the way"),
        (tally.disconnects, "connections that ended and should not have"),
        (tally.refused_filters, "filters that were refused"),
    ];
    let failed = checks.iter().filter(|(count, _)| *count > 0);
    verdict.failures = failed.map(|(count, what)| format!("{count} {what}")).collect();
    verdict
}
