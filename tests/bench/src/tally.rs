//! What came back: counted, and checked for value and order.
//!
//! Pure. Fed by the receiver with every result; asked by the measurements. Each topic's readings must come back one after
//! the other, each once.

use std::fmt;

use crate::readings::TOPICS;

/// Defects among the results of one phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defects {
    /// Results of no reading, or of one that was not sent.
    pub wrong: u64,
    /// Results that came before one that was sent earlier on their topic, or a second time.
    pub disordered: u64,
    /// Readings without a result; one fewer for each result that came twice, which [`Self::disordered`] tells.
    pub lost: u64,
    /// Readings after the last that came on their topic: lost, or later than anybody waited for.
    pub missing_at_the_end: u64,
}

impl fmt::Display for Defects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Defects { wrong, disordered, lost, missing_at_the_end } = self;
        write!(
            f,
            "{wrong} wrong, {disordered} out of order or twice, {lost} lost, {missing_at_the_end} of them at the end"
        )
    }
}

impl Defects {
    /// Whether there is one.
    pub fn any(self) -> bool {
        self != Defects::default()
    }
}

/// The results of all topics.
#[derive(Debug)]
pub struct Tally {
    /// Of each topic the number of the reading that must come next.
    next: [u64; TOPICS],
    /// Of each topic the first reading of this phase: what comes from before it is too late to count.
    first: [u64; TOPICS],
    /// Results of this phase.
    received: u64,
    wrong: u64,
    disordered: u64,
}

impl Tally {
    /// Before any phase.
    pub fn new() -> Tally {
        Tally { next: [0; TOPICS], first: [0; TOPICS], received: 0, wrong: 0, disordered: 0 }
    }

    /// Begins a phase whose first readings have these numbers.
    pub fn begin(&mut self, first: [u64; TOPICS]) {
        *self = Tally { next: first, first, ..Tally::new() };
    }

    /// A result came, of this reading where it is one. Whether it counts.
    pub fn receive(&mut self, topic: Option<usize>, reading: Option<u64>) -> bool {
        let (Some(topic), Some(reading)) = (topic, reading) else {
            self.wrong += 1;
            return false;
        };
        if reading < self.first[topic] {
            return false;
        }
        self.received += 1;
        if reading < self.next[topic] {
            self.disordered += 1;
        }
        self.next[topic] = self.next[topic].max(reading + 1);
        true
    }

    /// Whether the last reading of every topic has come, of those up to, not including, `end`.
    pub fn reached(&self, end: [u64; TOPICS]) -> bool {
        self.next.iter().zip(end).all(|(next, end)| *next >= end)
    }

    /// Results of this phase so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// What was wrong with this phase, in which the readings up to, not including, `end` were sent.
    pub fn defects(&self, end: [u64; TOPICS]) -> Defects {
        let sent: u64 = end.iter().zip(self.first).map(|(end, first)| end - first).sum();
        let beyond = self.next.iter().zip(end).filter(|(next, end)| *next > end).count() as u64;
        Defects {
            wrong: self.wrong + beyond,
            disordered: self.disordered,
            lost: sent.saturating_sub(self.received),
            missing_at_the_end: end.iter().zip(self.next).map(|(end, next)| end.saturating_sub(next)).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Readings of topic 3, numbered from 10, of which `sent` are sent.
    #[track_caller]
    fn check(readings: &[u64], sent: u64, expected: Defects) {
        let mut tally = Tally::new();
        tally.begin([10; TOPICS]);
        for reading in readings {
            tally.receive(Some(3), Some(*reading));
        }
        let mut end = [10; TOPICS];
        end[3] += sent;
        assert_eq!(tally.defects(end), expected);
    }

    #[test]
    fn each_once_and_in_order_is_right() {
        check(&[10, 11, 12], 3, Defects::default());
        assert!(!Defects::default().any());
    }

    #[test]
    fn what_is_missing_is_lost() {
        check(&[10, 12], 3, Defects { lost: 1, ..Defects::default() });
        check(&[], 3, Defects { lost: 3, missing_at_the_end: 3, ..Defects::default() });
        check(&[10, 11], 3, Defects { lost: 1, missing_at_the_end: 1, ..Defects::default() });
    }

    #[test]
    fn what_overtakes_or_comes_twice_is_out_of_order() {
        check(&[11, 10, 12], 3, Defects { disordered: 1, ..Defects::default() });
        check(&[10, 11, 11, 12], 3, Defects { disordered: 1, ..Defects::default() });
    }

    #[test]
    fn what_was_never_sent_is_wrong() {
        check(&[10, 11, 14], 2, Defects { wrong: 1, ..Defects::default() });
    }

    #[test]
    fn what_is_no_result_is_wrong() {
        let mut tally = Tally::new();
        tally.begin([0; TOPICS]);
        assert!(!tally.receive(Some(1), None));
        assert!(!tally.receive(None, Some(0)));
        assert_eq!(tally.defects([0; TOPICS]), Defects { wrong: 2, ..Defects::default() });
    }

    #[test]
    fn stragglers_of_an_earlier_phase_do_not_count() {
        check(&[9, 10, 8], 1, Defects::default());
    }
}
