//! Whether a back-end is worth asking: one that failed a few times in a row is left alone for a while, and twice as
//! long each time; then one question tries it again.
//!
//! ```text
//!   closed ──(failures in a row)──► open ──(its time is over)──► one question ──► closed, or open for longer
//! ```

use crate::limits::{AUTH_CIRCUIT_FAILURES, AUTH_CIRCUIT_MS_MAX, AUTH_CIRCUIT_MS_MIN};
use crate::time::Moment;

/// What is known of a back-end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Circuit {
    /// Questions in a row that got no answer.
    failures: u32,
    /// It is left alone until then.
    open_until: Moment,
    /// For how long it is left alone; 0 = it is not.
    open_ms: u64,
    /// A question tries it again.
    trying: bool,
}

impl Circuit {
    /// Whether it may be asked now. While it is left alone, one question is let through each time that is over.
    pub fn admits(&mut self, now: Moment) -> bool {
        if self.open_ms == 0 {
            return true;
        }
        let over = now >= self.open_until;
        if over {
            // Others wait for what becomes of this one, and not for ever.
            self.open_until = now.plus_ms(self.open_ms);
            self.trying = true;
        }
        over
    }

    /// It answered. Whether it was left alone before.
    pub fn succeeded(&mut self) -> bool {
        std::mem::take(self).open_ms != 0
    }

    /// It did not answer. For how many milliseconds it is left alone, where that begins now or anew.
    pub fn failed(&mut self, now: Moment) -> Option<u64> {
        self.failures = self.failures.saturating_add(1);
        // Those that were under way when it was left alone say nothing new.
        let known = self.open_ms != 0 && !self.trying;
        if self.failures < AUTH_CIRCUIT_FAILURES || known {
            return None;
        }
        self.trying = false;
        self.open_ms = (2 * self.open_ms).clamp(AUTH_CIRCUIT_MS_MIN, AUTH_CIRCUIT_MS_MAX);
        self.open_until = now.plus_ms(self.open_ms);
        Some(self.open_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Circuit {
        let mut circuit = Circuit::default();
        for _ in 1..AUTH_CIRCUIT_FAILURES {
            assert_eq!(circuit.failed(Moment(50)), None);
        }
        assert!(circuit.admits(Moment(50)));
        assert_eq!(circuit.failed(Moment(50)), Some(AUTH_CIRCUIT_MS_MIN));
        circuit
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_question_tries_again() {
        let mut circuit = opened();
        assert!(!circuit.admits(Moment(50)));
        let over = Moment(50 + AUTH_CIRCUIT_MS_MIN);
        assert!(circuit.admits(over));
        assert!(!circuit.admits(over), "one alone");
        assert!(circuit.succeeded());
        assert!(circuit.admits(over) && circuit.admits(over));
        assert!(!circuit.succeeded());
    }

    #[test]
    fn an_answer_in_between_forgets_earlier_failures() {
        let mut circuit = Circuit::default();
        for _ in 0..10 * AUTH_CIRCUIT_FAILURES {
            assert_eq!(circuit.failed(Moment(1)), None);
            circuit.succeeded();
        }
        assert!(circuit.admits(Moment(1)));
    }

    #[test]
    fn the_time_doubles_up_to_a_bound_and_stragglers_do_not_double_it() {
        let mut circuit = opened();
        let (mut now, mut expected) = (Moment(50), AUTH_CIRCUIT_MS_MIN);
        for _ in 0..20 {
            // They were asked before it was left alone.
            for _ in 0..100 {
                assert_eq!(circuit.failed(now), None);
            }
            now = now.plus_ms(expected);
            assert!(circuit.admits(now));
            expected = (2 * expected).min(AUTH_CIRCUIT_MS_MAX);
            assert_eq!(circuit.failed(now), Some(expected));
        }
        assert_eq!(expected, AUTH_CIRCUIT_MS_MAX);
    }
}
