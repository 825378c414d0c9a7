//! Which publish a broker keeps ending its connections over.
//!
//! Pure. Fed by the outbox with each connection that its broker ended while publishes were unacknowledged, and with what
//! was delivered. A publish that a broker cannot stomach would be sent again on every connection, and hold up all that
//! follows; but what is unacknowledged at a loss is mostly innocent, for acknowledgements may be lost with the connection
//! and up to a window of publishes is on its way. So nothing is given up that was not sent *alone*, again and again. It
//! knows neither why a connection ended nor how long it stood: who feeds it leaves out losses that no publish can cause.

/// Losses with the same oldest unacknowledged publish after which publishes are sent one at a time.
const LOSSES_BEFORE_TRIAL: u32 = 3;

/// Losses after which a publish is given up, those before the trial included.
const LOSSES: u32 = 5;

/// How often the patience doubles: see [`Suspicion::patience`].
const DOUBLINGS: u32 = 2;

/// What follows from a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    None,
    /// From now on publishes are sent one at a time, until the suspects are through.
    Trial,
    /// The suspect is given up, after so many losses.
    GivenUp(u32),
}

/// Suspects among the publishes to one broker. `E` numbers them in the order of sending.
#[derive(Debug)]
pub struct Suspicion<E> {
    /// The oldest unacknowledged publish of the last loss, and the number of losses in a row that it was so.
    head: Option<(E, u32)>,
    /// While publishes are sent one at a time: the last suspect.
    trial: Option<E>,
    /// Publishes given up since the broker last acknowledged one.
    given_up: u32,
}

impl<E> Default for Suspicion<E> {
    fn default() -> Suspicion<E> {
        Suspicion { head: None, trial: None, given_up: 0 }
    }
}

impl<E: Copy + Ord> Suspicion<E> {
    /// Whether only one publish may be on its way.
    pub fn is_on_trial(&self) -> bool {
        self.trial.is_some()
    }

    /// The broker ended a connection while `oldest` was its oldest unacknowledged publish and `newest` the last one that
    /// was handed over.
    pub fn lost(&mut self, oldest: E, newest: E) -> Verdict {
        let losses = match self.head {
            Some((head, losses)) if head == oldest => losses.saturating_add(1),
            _ => 1,
        };
        self.head = Some((oldest, losses));
        if self.trial.is_some() && losses >= self.patience() {
            self.given_up = self.given_up.saturating_add(1);
            return Verdict::GivenUp(losses);
        }
        if self.trial.is_none() && losses >= LOSSES_BEFORE_TRIAL {
            self.trial = Some(newest.max(oldest));
            return Verdict::Trial;
        }
        Verdict::None
    }

    /// A publish reached its end; `oldest` is the first one that has not.
    pub fn ended(&mut self, acknowledged: bool, oldest: Option<E>) {
        if acknowledged {
            self.given_up = 0;
        }
        if self.trial.is_some_and(|last| oldest.is_none_or(|oldest| oldest > last)) {
            self.trial = None;
        }
    }

    /// Losses after which a publish is given up. More when others were given up and none was acknowledged since: the fault
    /// may lie with the broker, or with something in front of it that lets clients in and has no broker behind it.
    fn patience(&self) -> u32 {
        LOSSES << self.given_up.min(DOUBLINGS)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_head_of_five_losses_in_a_row_is_given_up_the_last_two_alone() {
        let mut suspicion = Suspicion::default();
        assert_eq!([(); 2].map(|()| suspicion.lost(7, 9)), [Verdict::None; 2]);
        assert!(!suspicion.is_on_trial());
        assert_eq!(suspicion.lost(7, 9), Verdict::Trial);
        assert!(suspicion.is_on_trial());
        assert_eq!(suspicion.lost(7, 7), Verdict::None);
        assert_eq!(suspicion.lost(7, 7), Verdict::GivenUp(5));
        suspicion.ended(false, Some(8));
        assert!(suspicion.is_on_trial(), "8 and 9 are suspects too");
        suspicion.ended(true, Some(9));
        suspicion.ended(true, None);
        assert!(!suspicion.is_on_trial());
    }

    #[test]
    fn losses_with_different_heads_are_no_row() {
        let mut suspicion = Suspicion::default();
        for head in [1, 1, 2, 2, 3, 3, 4, 4, 1, 1] {
            assert_eq!(suspicion.lost(head, 9), Verdict::None);
        }
    }

    #[test]
    fn patience_doubles_while_nothing_is_acknowledged() {
        let mut suspicion = Suspicion::default();
        let mut losses_of = |suspect: u32, acknowledged: bool| {
            let losses = (1..).find(|_| matches!(suspicion.lost(suspect, 99), Verdict::GivenUp(_)));
            suspicion.ended(false, Some(suspect + 1));
            if acknowledged {
                suspicion.ended(true, Some(suspect + 1));
            }
            losses.expect("is given up")
        };
        let losses = [1, 2, 3, 4, 5, 6].map(|suspect| losses_of(suspect, suspect == 4));
        assert_eq!(losses, [5, 10, 20, 20, 5, 10]);
    }

    /// How one connection goes, beside what guilty publishes do to it.
    #[derive(Clone, Debug)]
    struct Fortune {
        /// Publishes that may be on their way, off a trial.
        window: usize,
        /// Acknowledgements that are lost with the connection.
        unseen: usize,
        /// The connection ends after so many publishes for a reason of its own, which the daemon tells from the broker's.
        breaks: Option<usize>,
    }

    fn fortune() -> impl Strategy<Value = Fortune> {
        let breaks = prop_oneof![3 => Just(None), 1 => (0_usize..5).prop_map(Some)];
        (1_usize..9, 0_usize..9, breaks).prop_map(|(window, unseen, breaks)| Fortune { window, unseen, breaks })
    }

    /// A broker that ends the connection at each guilty publish, and acknowledges what came before.
    struct World {
        suspicion: Suspicion<u32>,
        waiting: VecDeque<u32>,
        guilty: BTreeSet<u32>,
        given_up: Vec<u32>,
    }

    impl World {
        /// One connection.
        fn connect(&mut self, fortune: &Fortune) {
            let mut left = fortune.breaks.unwrap_or(usize::MAX);
            loop {
                let window = if self.suspicion.is_on_trial() { 1 } else { fortune.window };
                let sent = window.min(self.waiting.len()).min(left);
                if sent == 0 {
                    return;
                }
                left -= sent;
                let sent: Vec<u32> = self.waiting.iter().copied().take(sent).collect();
                let taken = sent.iter().position(|publish| self.guilty.contains(publish));
                let Some(taken) = taken else {
                    self.acknowledge(sent.len());
                    continue;
                };
                self.acknowledge(taken.saturating_sub(fortune.unseen));
                let newest = *sent.last().expect("something was sent");
                let oldest = self.waiting[0];
                if matches!(self.suspicion.lost(oldest, newest), Verdict::GivenUp(_)) {
                    self.given_up.push(oldest);
                    self.waiting.pop_front();
                    self.suspicion.ended(false, self.waiting.front().copied());
                }
                return;
            }
        }

        fn acknowledge(&mut self, count: usize) {
            for _ in 0..count {
                self.waiting.pop_front();
                self.suspicion.ended(true, self.waiting.front().copied());
            }
        }
    }

    proptest! {
        /// Whatever is lost with a connection: the innocent are delivered, the guilty given up, and neither takes for ever.
        #[test]
        fn exactly_the_guilty_are_given_up_after_a_bounded_number_of_connections(
            count in 1_u32..40,
            guilty in prop::collection::btree_set(0_u32..40, 0..6),
            fortunes in prop::collection::vec(fortune(), 1..400),
        ) {
            let guilty: BTreeSet<u32> = guilty.into_iter().filter(|publish| *publish < count).collect();
            let waiting = (0..count).collect();
            let mut world = World {
                suspicion: Suspicion::default(), waiting, guilty: guilty.clone(), given_up: Vec::new(),
            };
            // A guilty publish ends at most so many connections: three for each of the window before it, and its patience.
            let bound = guilty.len() * (3 * 8 + (5 << DOUBLINGS) as usize) + 1;
            let good = || fortunes.iter().filter(|fortune| fortune.breaks.is_none());
            let mut connections = 0;
            for fortune in &fortunes {
                connections += usize::from(fortune.breaks.is_none());
                world.connect(fortune);
            }
            for fortune in good().cycle().take(if good().next().is_some() { bound } else { 0 }) {
                if world.waiting.is_empty() { break }
                connections += 1;
                world.connect(fortune);
            }
            prop_assert!(world.given_up.iter().all(|publish| guilty.contains(publish)), "{:?}", world.given_up);
            if good().next().is_some() {
                prop_assert!(world.waiting.is_empty(), "{:?} after {connections} connections", world.waiting);
                prop_assert_eq!(world.given_up, guilty.into_iter().collect::<Vec<_>>());
                prop_assert!(!world.suspicion.is_on_trial());
            }
        }
    }
}
