//! Whether a session is to be connected: what the configuration wants, what was commanded, and what there is to do.
//!
//! Pure: no clock, no lock, no I/O. Fed by the session's owner (commands) and its supervisor (what became of them), which
//! asks what to do next. When an attempt that is due is made is the backoff's to say; how a connection ends, the supervisor's.

/// What a session is to do without a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The gateway stops, or the session is given up.
    End,
    /// Have the broker forget the session.
    Reset,
    /// Stay disconnected until a command, or until more than so many batches were offered to the outbox.
    Down { offered: u64 },
    /// Nothing wants a connection: wait until there is something to publish.
    Rest,
    /// Connect: at once because of a command, or when the backoff permits.
    Connect { at_once: bool },
}

/// What the session sees around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Batches of publishes that were ever offered to the broker's outbox.
    pub(super) offered: u64,
    /// The outbox has something to send.
    pub(super) unsent: bool,
    /// Messages of lost connections wait for the next CONNACK.
    pub(super) undecided: bool,
    /// The session is to end.
    pub(super) stopped: bool,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// There is none.
    None,
    /// An attempt is made.
    Opening,
    /// CONNACK has come.
    Up,
}

/// What is wanted of one session's connection.
#[derive(Debug)]
pub(super) struct Intent {
    /// `auto-connect`.
    auto: bool,
    /// Disconnected by command, when so many batches had been offered: what is offered later connects by force.
    away: Option<u64>,
    /// Connected by command, and neither an attempt nor a connection has ended by itself since.
    asked: bool,
    /// The broker is to forget the session.
    reset: bool,
    link: Link,
    /// The present connection or attempt is to end, whatever is wanted after it.
    leave: bool,
}

impl Intent {
    /// Of a session that has no connection yet.
    pub(super) fn new(auto: bool) -> Intent {
        Intent { auto, away: None, asked: false, reset: false, link: Link::None, leave: false }
    }

    /// `brokers connect`. Whether it is connected and stays so.
    pub(super) fn connect(&mut self) -> bool {
        if self.link == Link::Up && !self.leave {
            return true;
        }
        (self.away, self.asked) = (None, true);
        false
    }

    /// `brokers disconnect`. Whether it was connected.
    pub(super) fn disconnect(&mut self, offered: u64) -> bool {
        (self.away, self.asked) = (Some(offered), false);
        self.leave = self.link != Link::None;
        self.link == Link::Up
    }

    /// `brokers reset-session`. Whether it was connected, and so is to be again afterwards.
    pub(super) fn reset(&mut self) -> bool {
        self.reset = true;
        let connected = self.link == Link::Up && !self.leave;
        self.asked |= connected;
        self.leave = self.link != Link::None;
        connected
    }

    /// `auto-connect` is this from now on. A connection that stands is not ended by it, and a command outlives it.
    pub(super) fn auto_connect(&mut self, auto: bool) {
        self.auto = auto;
    }

    /// An attempt is about to begin, as [`Self::next`] said. False if a command came in between.
    pub(super) fn opening(&mut self) -> bool {
        if self.away.is_some() || self.reset {
            return false;
        }
        self.link = Link::Opening;
        true
    }

    /// It led to a connection.
    pub(super) fn opened(&mut self) {
        self.link = Link::Up;
    }

    /// The attempt failed, or the connection ended, when so many batches had been offered. Whether by itself, and not
    /// because it was to end.
    pub(super) fn closed(&mut self, offered: u64) -> bool {
        self.link = Link::None;
        if std::mem::take(&mut self.leave) {
            // What was offered while it ended could still be sent, or waits as what was offered before.
            self.away = self.away.map(|_| offered);
            return false;
        }
        self.asked = false;
        true
    }

    /// The broker has forgotten the session, or cannot be made to.
    pub(super) fn was_reset(&mut self) {
        self.reset = false;
    }

    /// Whether the present connection or attempt is to end.
    pub(super) fn leaves(&self) -> bool {
        self.leave
    }

    /// What to do while there is no connection.
    pub(super) fn next(&mut self, facts: Facts) -> Next {
        if facts.stopped {
            return Next::End;
        }
        if self.reset {
            return Next::Reset;
        }
        if let Some(offered) = self.away {
            if facts.offered <= offered {
                return Next::Down { offered };
            }
            // By force: from now on it is as if it had never been disconnected.
            self.away = None;
        }
        if self.asked || self.auto || facts.unsent || facts.undecided {
            Next::Connect { at_once: self.asked }
        } else {
            Next::Rest
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CALM: Facts = Facts { offered: 0, unsent: false, undecided: false, stopped: false };
    const AT_ONCE: Next = Next::Connect { at_once: true };
    const IN_TIME: Next = Next::Connect { at_once: false };

    fn connected(auto: bool) -> Intent {
        let mut intent = Intent::new(auto);
        assert!(!intent.connect() && intent.opening());
        intent.opened();
        assert!(intent.connect() && !intent.leaves());
        intent
    }

    #[test]
    fn auto_connect_connects_for_ever_and_without_it_only_what_there_is_to_do() {
        for (auto, lost) in [(true, IN_TIME), (false, Next::Rest)] {
            assert_eq!(Intent::new(auto).next(CALM), lost);
            let mut intent = connected(auto);
            assert!(intent.closed(0));
            assert_eq!(intent.next(CALM), lost);
        }
        let mut intent = Intent::new(false);
        assert_eq!(intent.next(Facts { unsent: true, ..CALM }), IN_TIME);
        assert_eq!(intent.next(Facts { undecided: true, ..CALM }), IN_TIME);
        intent.auto_connect(true);
        assert_eq!(intent.next(CALM), IN_TIME);
    }

    #[test]
    fn a_command_connects_at_once_and_for_one_attempt() {
        for (auto, failed) in [(true, IN_TIME), (false, Next::Rest)] {
            let mut intent = Intent::new(auto);
            assert!(!intent.connect());
            assert_eq!(intent.next(CALM), AT_ONCE);
            assert!(intent.opening());
            assert!(intent.closed(0));
            assert_eq!(intent.next(CALM), failed);
        }
    }

    #[test]
    fn disconnected_by_command_it_stays_so_until_a_command_or_something_new_to_publish() {
        let mut intent = connected(true);
        assert!(intent.disconnect(3));
        assert!(intent.leaves());
        assert!(!intent.closed(5), "it was to end");
        intent.auto_connect(false);
        intent.auto_connect(true);
        let waiting = Facts { offered: 5, unsent: true, undecided: true, stopped: false };
        assert_eq!(intent.next(waiting), Next::Down { offered: 5 });
        assert_eq!(intent.next(Facts { offered: 6, ..waiting }), IN_TIME);
        assert_eq!(intent.next(waiting), IN_TIME, "force has lifted it");

        let mut intent = Intent::new(true);
        assert!(!intent.disconnect(0));
        assert_eq!(intent.next(CALM), Next::Down { offered: 0 });
        assert!(!intent.connect());
        assert_eq!(intent.next(CALM), AT_ONCE);
    }

    #[test]
    fn a_connection_that_is_to_end_ends_before_it_is_made_again() {
        let mut intent = connected(false);
        assert!(intent.disconnect(0));
        assert!(!intent.connect());
        assert!(intent.leaves());
        assert!(!intent.closed(0));
        assert_eq!(intent.next(CALM), AT_ONCE);

        let mut intent = Intent::new(true);
        assert!(intent.opening());
        assert!(!intent.disconnect(0));
        assert!(!intent.connect());
        intent.opened();
        assert!(intent.leaves());
        assert!(!intent.closed(0));
        assert_eq!(intent.next(CALM), AT_ONCE);
    }

    #[test]
    fn a_reset_leaves_it_as_it_was() {
        let mut intent = connected(false);
        assert!(intent.reset());
        assert!(intent.leaves());
        assert!(!intent.closed(0));
        assert_eq!(intent.next(CALM), Next::Reset);
        intent.was_reset();
        assert_eq!(intent.next(CALM), AT_ONCE);

        let mut intent = connected(true);
        intent.disconnect(0);
        intent.closed(0);
        assert!(!intent.reset());
        assert_eq!(intent.next(CALM), Next::Reset);
        intent.was_reset();
        assert_eq!(intent.next(CALM), Next::Down { offered: 0 });
    }

    #[test]
    fn a_command_that_comes_before_the_attempt_counts() {
        let mut intent = Intent::new(true);
        assert_eq!(intent.next(CALM), IN_TIME);
        assert!(!intent.disconnect(0));
        assert!(!intent.opening());
        assert_eq!(intent.next(CALM), Next::Down { offered: 0 });
    }

    #[derive(Clone, Debug)]
    enum Event {
        Connect,
        Disconnect,
        Reset,
        Auto(bool),
        Offer,
        Sent,
        Undecided(bool),
        /// The supervisor does the next step.
        Step,
        /// The attempt or connection ends by itself.
        Fail,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            2 => Just(Event::Connect),
            2 => Just(Event::Disconnect),
            1 => Just(Event::Reset),
            1 => any::<bool>().prop_map(Event::Auto),
            1 => Just(Event::Offer),
            1 => Just(Event::Sent),
            1 => any::<bool>().prop_map(Event::Undecided),
            8 => Just(Event::Step),
            2 => Just(Event::Fail),
        ]
    }

    /// What an observer remembers of a history, to tell what must hold.
    struct Observer {
        auto: bool,
        /// The latest of connect and disconnect was disconnect, and nothing new was to be published since it took effect.
        away: bool,
        /// Connect was commanded, and neither did an attempt or a connection end by itself nor was disconnect commanded since.
        asked: bool,
        reset: bool,
        link: Link,
        leave: bool,
    }

    proptest! {
        #[test]
        fn whatever_happens_commands_hold(auto: bool, events in prop::collection::vec(event(), 0..60)) {
            let mut intent = Intent::new(auto);
            let mut facts = CALM;
            let mut seen = Observer { auto, away: false, asked: false, reset: false, link: Link::None, leave: false };
            for event in events {
                match event {
                    Event::Connect => {
                        let already = intent.connect();
                        prop_assert_eq!(already, seen.link == Link::Up && !seen.leave);
                        if !already {
                            (seen.away, seen.asked) = (false, true);
                        }
                    }
                    Event::Disconnect => {
                        prop_assert_eq!(intent.disconnect(facts.offered), seen.link == Link::Up);
                        (seen.away, seen.asked, seen.leave) = (true, false, seen.link != Link::None);
                    }
                    Event::Reset => {
                        let again = seen.link == Link::Up && !seen.leave;
                        prop_assert_eq!(intent.reset(), again);
                        seen.asked |= again;
                        (seen.reset, seen.leave) = (true, seen.link != Link::None);
                    }
                    Event::Auto(auto) => {
                        intent.auto_connect(auto);
                        seen.auto = auto;
                    }
                    Event::Offer => {
                        (facts.offered, facts.unsent) = (facts.offered + 1, true);
                        // While the connection ends it can still be sent.
                        seen.away &= seen.link != Link::None;
                    }
                    Event::Sent => facts.unsent &= seen.link != Link::Up,
                    Event::Undecided(undecided) => facts.undecided = undecided,
                    Event::Fail if seen.link != Link::None => {
                        prop_assert_eq!(intent.closed(facts.offered), !seen.leave);
                        seen.asked &= seen.leave;
                        (seen.link, seen.leave) = (Link::None, false);
                    }
                    Event::Step if seen.link != Link::None => {
                        prop_assert_eq!(intent.leaves(), seen.leave);
                        if seen.leave {
                            intent.closed(facts.offered);
                            (seen.link, seen.leave) = (Link::None, false);
                        } else if seen.link == Link::Opening {
                            intent.opened();
                            seen.link = Link::Up;
                        }
                    }
                    Event::Step => {
                        let next = intent.next(facts);
                        match next {
                            _ if seen.reset => prop_assert_eq!(next, Next::Reset),
                            _ if seen.away => prop_assert!(matches!(next, Next::Down { .. }), "{next:?}"),
                            _ if seen.asked => prop_assert_eq!(next, AT_ONCE),
                            _ if seen.auto || facts.unsent || facts.undecided => prop_assert_eq!(next, IN_TIME),
                            _ => prop_assert_eq!(next, Next::Rest),
                        }
                        if next == Next::Reset {
                            intent.was_reset();
                            seen.reset = false;
                        } else if matches!(next, Next::Connect { .. }) {
                            prop_assert!(intent.opening());
                            seen.link = Link::Opening;
                        }
                    }
                    Event::Fail => {}
                }
                prop_assert_eq!(intent.next(Facts { stopped: true, ..facts }), Next::End);
            }
        }
    }
}
