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
    /// The number of the newest offer of which something is still to be published to the broker; 0 if there is none.
    pub(super) newest_open: u64,
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

/// What a command to connect comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It is connected, and stays so.
    Already,
    /// It is to be connected without this command too.
    Joins,
    /// The connection will be this command's.
    New,
}

/// Why a connection cannot be made for one purpose alone: something else wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is connected.
    Connected,
    /// It is being connected, or another command wants it to be.
    Connecting,
    /// `auto-connect` wants it to be connected.
    Auto,
}

/// The number of a visit: of a connection for one purpose alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VisitId(u64);

/// A connection for one purpose alone, from the command to its end.
#[derive(Clone, Copy, Debug)]
struct Visit {
    id: VisitId,
    /// What [`Intent::away`] was before.
    before: Option<u64>,
}

/// What was commanded, for the session that takes the place of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// As [`Intent::away`].
    away: Option<u64>,
    /// As [`Intent::asked`].
    asked: bool,
}

/// What is wanted of one session's connection.
#[derive(Clone, Debug)]
pub(super) struct Intent {
    /// `auto-connect`.
    auto: bool,
    /// Disconnected by command, when this was the number of the newest offer: what is offered later connects by force.
    away: Option<u64>,
    /// Connected by command, and neither an attempt nor a connection has ended by itself since.
    asked: bool,
    /// For whom alone the connection is wanted, as long as nobody else has asked for it.
    visit: Option<Visit>,
    /// Visits so far.
    visits: u64,
    /// The broker is to forget the session.
    reset: bool,
    link: Link,
    /// An attempt is to be made, and no command since has put that in doubt.
    due: bool,
    /// The present connection or attempt is to end, whatever is wanted after it.
    leave: bool,
    /// Before it ends what waits to be published is sent.
    delivers: bool,
    /// The session is given up.
    ending: bool,
}

impl Intent {
    /// Of a session that has no connection yet. `wish`: of the session before it.
    pub(super) fn new(auto: bool, wish: Wish) -> Intent {
        Intent {
            auto,
            away: wish.away,
            asked: wish.asked,
            visit: None,
            visits: 0,
            reset: false,
            link: Link::None,
            due: false,
            leave: false,
            delivers: false,
            ending: false,
        }
    }

    /// Whether it is connected and stays so.
    pub(super) fn is_connected(&self) -> bool {
        self.link == Link::Up && !self.leave
    }

    /// `brokers connect`.
    pub(super) fn connect(&mut self) -> Asked {
        // Whatever the connection was made for: now it is wanted by somebody who will not end it.
        self.visit = None;
        if self.is_connected() {
            return Asked::Already;
        }
        let joins = self.kept().is_some();
        (self.away, self.asked) = (None, true);
        if joins { Asked::Joins } else { Asked::New }
    }

    /// `brokers disconnect`, when this is the number of the newest offer. Whether it was connected.
    pub(super) fn disconnect(&mut self, newest: u64) -> bool {
        (self.away, self.asked, self.visit) = (Some(newest), false, None);
        self.part(false);
        self.link == Link::Up
    }

    /// Connects for one purpose alone, unless something else wants the connection.
    pub(super) fn visit(&mut self) -> Result<VisitId, Kept> {
        if let Some(kept) = self.kept() {
            return Err(kept);
        }
        self.visits += 1;
        let id = VisitId(self.visits);
        self.visit = Some(Visit { id, before: self.away.take() });
        self.asked = true;
        Ok(id)
    }

    /// The visit is over: all is as before it, unless something else wants the connection by now. Whether it is as before.
    pub(super) fn leave(&mut self, visit: VisitId) -> bool {
        let Some(Visit { before, .. }) = self.visit.take_if(|present| present.id == visit) else { return false };
        if before.is_none() && self.auto {
            return false;
        }
        (self.away, self.asked) = (before, false);
        self.part(true);
        true
    }

    /// The visit's connection stays.
    pub(super) fn stay(&mut self, visit: VisitId) {
        self.visit.take_if(|present| present.id == visit);
    }

    /// `brokers reset-session`. Whether it was connected, and so is to be again afterwards.
    pub(super) fn reset(&mut self) -> bool {
        self.reset = true;
        let connected = self.is_connected();
        if connected {
            (self.asked, self.visit) = (true, None);
        }
        self.part(false);
        connected
    }

    /// The session is given up: its connection ends, where it `delivers` after what waits to be published. Commands that come later
    /// count for [`Self::wish`].
    pub(super) fn end(&mut self, delivers: bool) {
        self.asked |= self.is_connected() && self.visit.is_none();
        self.ending = true;
        self.part(delivers);
    }

    /// What was commanded, for the session that follows this one.
    pub(super) fn wish(&self) -> Wish {
        match self.visit {
            Some(visit) => Wish { away: visit.before, asked: false },
            None => Wish { away: self.away, asked: self.asked },
        }
    }

    /// `auto-connect` is this from now on. A connection that stands is not ended by it, and a command outlives it.
    pub(super) fn auto_connect(&mut self, auto: bool) {
        self.auto = auto;
    }

    /// An attempt is about to begin, as [`Self::next`] said. False if a command came in between.
    pub(super) fn opening(&mut self) -> bool {
        if !std::mem::take(&mut self.due) {
            return false;
        }
        self.link = Link::Opening;
        true
    }

    /// It led to a connection.
    pub(super) fn opened(&mut self) {
        self.link = Link::Up;
    }

    /// The attempt failed, or the connection ended. Whether by itself, and not because it was to end.
    pub(super) fn closed(&mut self) -> bool {
        let attempt = std::mem::replace(&mut self.link, Link::None) == Link::Opening;
        self.delivers = false;
        if std::mem::take(&mut self.leave) {
            return false;
        }
        let asked = std::mem::take(&mut self.asked);
        if asked
            && attempt
            && let Some(visit) = self.visit.take()
        {
            // Its only attempt: nothing was sent that would need another.
            self.away = visit.before;
        }
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

    /// Whether what waits to be published is sent before that.
    pub(super) fn delivers(&self) -> bool {
        self.delivers
    }

    /// What to do while there is no connection.
    pub(super) fn next(&mut self, facts: Facts) -> Next {
        self.due = false;
        if facts.stopped || self.ending {
            return Next::End;
        }
        if self.reset {
            return Next::Reset;
        }
        if let Some(newest) = self.away {
            // What was sent while the connection ended needs no other one.
            if facts.newest_open <= newest {
                return Next::Down { offered: facts.offered };
            }
            // By force: from now on it is as if it had never been disconnected.
            self.away = None;
        }
        if self.asked || self.auto || facts.unsent || facts.undecided {
            self.due = true;
            Next::Connect { at_once: self.asked }
        } else {
            Next::Rest
        }
    }

    /// Whether another connection is made by itself, as things stand.
    pub(super) fn retries(&self, facts: Facts) -> bool {
        !facts.stopped && self.away.is_none() && (self.auto || facts.unsent || facts.undecided)
    }

    /// Who wants the connection, whatever is commanded now.
    fn kept(&self) -> Option<Kept> {
        if self.is_connected() {
            Some(Kept::Connected)
        } else if self.auto && self.away.is_none() {
            Some(Kept::Auto)
        } else if self.asked || (self.link == Link::Opening && !self.leave) {
            Some(Kept::Connecting)
        } else {
            None
        }
    }

    /// Ends what there is, or what is about to begin.
    fn part(&mut self, delivers: bool) {
        self.due = false;
        self.leave = self.link != Link::None;
        self.delivers = self.leave && delivers;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CALM: Facts = Facts { offered: 0, newest_open: 0, unsent: false, undecided: false, stopped: false };
    const AT_ONCE: Next = Next::Connect { at_once: true };
    const IN_TIME: Next = Next::Connect { at_once: false };

    /// Facts with this newest offer, which is still to be published.
    fn open(newest: u64) -> Facts {
        Facts { offered: newest, newest_open: newest, unsent: true, ..CALM }
    }

    fn new(auto: bool) -> Intent {
        Intent::new(auto, Wish::default())
    }

    fn connected(auto: bool) -> Intent {
        let mut intent = new(auto);
        assert_eq!(intent.connect(), if auto { Asked::Joins } else { Asked::New });
        open_up(&mut intent);
        assert_eq!(intent.connect(), Asked::Already);
        assert!(!intent.leaves());
        intent
    }

    /// An attempt is due at once, and leads to a connection.
    #[track_caller]
    fn open_up(intent: &mut Intent) {
        assert_eq!(intent.next(CALM), AT_ONCE);
        assert!(intent.opening());
        intent.opened();
    }

    #[test]
    fn auto_connect_connects_for_ever_and_without_it_only_what_there_is_to_do() {
        for (auto, lost) in [(true, IN_TIME), (false, Next::Rest)] {
            assert_eq!(new(auto).next(CALM), lost);
            let mut intent = connected(auto);
            assert!(intent.closed());
            assert_eq!(intent.next(CALM), lost);
        }
        let mut intent = new(false);
        assert_eq!(intent.next(Facts { unsent: true, ..CALM }), IN_TIME);
        assert_eq!(intent.next(Facts { undecided: true, ..CALM }), IN_TIME);
        intent.auto_connect(true);
        assert_eq!(intent.next(CALM), IN_TIME);
    }

    #[test]
    fn a_command_connects_at_once_and_for_one_attempt() {
        for (auto, failed) in [(true, IN_TIME), (false, Next::Rest)] {
            let mut intent = new(auto);
            intent.connect();
            assert_eq!(intent.next(CALM), AT_ONCE);
            assert!(intent.opening());
            assert!(intent.closed());
            assert_eq!(intent.next(CALM), failed);
        }
    }

    #[test]
    fn an_attempt_is_of_the_command_that_caused_it_alone() {
        let mut intent = new(false);
        assert_eq!((intent.connect(), intent.connect()), (Asked::New, Asked::Joins));
        assert_eq!(intent.next(CALM), AT_ONCE);
        assert!(intent.opening());
        assert_eq!((intent.connect(), intent.visit()), (Asked::Joins, Err(Kept::Connecting)));
        intent.opened();
        assert_eq!((intent.connect(), intent.visit()), (Asked::Already, Err(Kept::Connected)));

        // By itself: at the start, or for something to publish.
        let mut intent = new(true);
        assert_eq!((intent.visit(), intent.connect()), (Err(Kept::Auto), Asked::Joins));
        let mut intent = new(false);
        assert_eq!(intent.next(open(1)), IN_TIME);
        assert!(intent.opening());
        assert_eq!((intent.visit(), intent.connect()), (Err(Kept::Connecting), Asked::Joins));

        // Disconnected by command, auto-connect wants nothing.
        let mut intent = new(true);
        intent.disconnect(0);
        assert_eq!(intent.connect(), Asked::New);
    }

    #[test]
    fn disconnected_by_command_it_stays_so_until_a_command_or_something_new_to_publish() {
        let mut intent = connected(true);
        assert!(intent.disconnect(3));
        assert!(intent.leaves() && !intent.delivers());
        assert!(!intent.closed(), "it was to end");
        intent.auto_connect(false);
        intent.auto_connect(true);
        let waiting = Facts { undecided: true, ..open(3) };
        assert_eq!(intent.next(waiting), Next::Down { offered: 3 });
        assert_eq!(intent.next(open(4)), IN_TIME);
        assert_eq!(intent.next(waiting), IN_TIME, "force has lifted it");

        let mut intent = new(true);
        assert!(!intent.disconnect(0));
        assert_eq!(intent.next(CALM), Next::Down { offered: 0 });
        assert_eq!(intent.connect(), Asked::New);
        assert_eq!(intent.next(CALM), AT_ONCE);
    }

    #[test]
    fn what_is_offered_while_it_ends_connects_again_unless_it_was_sent() {
        let mut intent = connected(false);
        intent.disconnect(3);
        // Two more come, and the connection takes them along; what waited before still does.
        assert!(!intent.closed());
        assert_eq!(intent.next(Facts { newest_open: 2, ..open(5) }), Next::Down { offered: 5 });

        let mut intent = connected(false);
        intent.disconnect(3);
        assert!(!intent.closed());
        assert_eq!(intent.next(open(4)), IN_TIME);
    }

    #[test]
    fn a_connection_that_is_to_end_ends_before_it_is_made_again() {
        let mut intent = connected(false);
        assert!(intent.disconnect(0));
        assert!(!intent.is_connected());
        assert_eq!(intent.connect(), Asked::New);
        assert!(intent.leaves());
        assert!(!intent.closed());
        assert_eq!(intent.next(CALM), AT_ONCE);

        let mut intent = new(true);
        assert_eq!(intent.next(CALM), IN_TIME);
        assert!(intent.opening());
        assert!(!intent.disconnect(0));
        assert_eq!(intent.connect(), Asked::New);
        intent.opened();
        assert!(intent.leaves());
        assert!(!intent.closed());
        assert_eq!(intent.next(CALM), AT_ONCE);
    }

    #[test]
    fn a_reset_leaves_it_as_it_was() {
        let mut intent = connected(false);
        assert!(intent.reset());
        assert!(intent.leaves());
        assert!(!intent.closed());
        assert_eq!(intent.next(CALM), Next::Reset);
        intent.was_reset();
        assert_eq!(intent.next(CALM), AT_ONCE);

        let mut intent = connected(true);
        intent.disconnect(0);
        intent.closed();
        assert!(!intent.reset());
        assert_eq!(intent.next(CALM), Next::Reset);
        intent.was_reset();
        assert_eq!(intent.next(CALM), Next::Down { offered: 0 });
    }

    #[test]
    fn a_command_that_comes_before_the_attempt_counts() {
        let mut intent = new(true);
        assert_eq!(intent.next(CALM), IN_TIME);
        assert!(!intent.disconnect(0));
        assert!(!intent.opening());
        assert_eq!(intent.next(CALM), Next::Down { offered: 0 });

        let mut intent = new(false);
        let visit = intent.visit().expect("nothing wants it");
        assert_eq!(intent.next(CALM), AT_ONCE);
        assert!(intent.leave(visit));
        assert!(!intent.opening());
        assert_eq!(intent.next(CALM), Next::Rest);
    }

    /// Idle without auto-connect, and disconnected by command with it when the newest offer was 3.
    fn unwanted() -> [(Intent, Next); 2] {
        let mut away = connected(true);
        away.disconnect(3);
        away.closed();
        [(new(false), Next::Rest), (away, Next::Down { offered: 0 })]
    }

    #[test]
    fn after_a_visit_all_is_as_before() {
        for (mut intent, before) in unwanted() {
            let visit = intent.visit().expect("nothing wants it");
            open_up(&mut intent);
            assert_eq!(intent.visit(), Err(Kept::Connected));
            assert!(intent.leave(visit));
            assert!(intent.leaves() && intent.delivers());
            assert!(!intent.leave(visit), "it is over");
            assert!(!intent.closed());
            assert_eq!(intent.next(CALM), before);
            // What was offered since and was not sent connects again.
            assert_eq!(intent.next(open(4)), IN_TIME);
        }
        // The attempt fails: nobody has to say that the visit is over.
        for (mut intent, before) in unwanted() {
            let visit = intent.visit().expect("nothing wants it");
            assert_eq!(intent.next(CALM), AT_ONCE);
            assert!(intent.opening());
            assert!(intent.closed());
            assert_eq!(intent.next(CALM), before);
            assert!(!intent.leave(visit));
        }
        // A lost connection is made again while the visitor has something to send, and ends with the visit too.
        for (mut intent, before) in unwanted() {
            let visit = intent.visit().expect("nothing wants it");
            open_up(&mut intent);
            assert!(intent.closed());
            assert_eq!(intent.next(open(4)), IN_TIME);
            assert!(intent.opening());
            assert!(intent.closed(), "it fails, and is tried again");
            assert_eq!(intent.next(open(4)), IN_TIME);
            assert!(intent.opening());
            intent.opened();
            assert!(intent.leave(visit));
            assert!(!intent.closed());
            assert_eq!(intent.next(CALM), before);
        }
    }

    #[test]
    fn a_visit_ends_no_connection_that_somebody_else_wants() {
        for (mut intent, _) in unwanted() {
            let visit = intent.visit().expect("nothing wants it");
            open_up(&mut intent);
            assert_eq!(intent.connect(), Asked::Already);
            assert!(!intent.leave(visit) && !intent.leaves());
        }
        let mut intent = new(false);
        let visit = intent.visit().expect("nothing wants it");
        assert_eq!(intent.connect(), Asked::Joins);
        open_up(&mut intent);
        assert!(!intent.leave(visit) && !intent.leaves());

        let mut intent = new(false);
        let visit = intent.visit().expect("nothing wants it");
        open_up(&mut intent);
        intent.auto_connect(true);
        assert!(!intent.leave(visit) && !intent.leaves());

        let mut intent = new(false);
        let visit = intent.visit().expect("nothing wants it");
        open_up(&mut intent);
        intent.stay(visit);
        assert!(!intent.leave(visit) && !intent.leaves());
    }

    #[test]
    fn a_visit_that_is_over_ends_no_later_one() {
        let mut intent = new(false);
        let first = intent.visit().expect("nothing wants it");
        intent.connect();
        intent.disconnect(0);
        let second = intent.visit().expect("nothing wants it");
        open_up(&mut intent);
        assert!(!intent.leave(first) && !intent.leaves());
        assert!(intent.leave(second) && intent.leaves());
    }

    #[test]
    fn the_session_that_follows_takes_over_what_was_commanded() {
        let followed = |mut intent: Intent, auto| {
            intent.end(false);
            if intent.leaves() {
                assert!(!intent.closed());
            }
            assert_eq!(intent.next(CALM), Next::End);
            Intent::new(auto, intent.wish())
        };
        for auto in [true, false] {
            let idle = if auto { IN_TIME } else { Next::Rest };
            assert_eq!(followed(new(auto), auto).next(CALM), idle);
            assert_eq!(followed(connected(auto), auto).next(CALM), AT_ONCE);
            let mut asked = new(auto);
            asked.connect();
            assert_eq!(followed(asked, auto).next(CALM), AT_ONCE);
            // While the connection ends, and afterwards.
            let mut draining = connected(auto);
            draining.disconnect(3);
            let mut next = followed(draining, auto);
            assert_eq!(next.next(open(3)), Next::Down { offered: 3 });
            assert_eq!(next.next(open(4)), IN_TIME);
        }
        for (mut intent, before) in unwanted() {
            let auto = intent.auto;
            intent.visit().expect("nothing wants it");
            open_up(&mut intent);
            assert_eq!(followed(intent, auto).next(CALM), before);
        }
        // Commands that come while it ends count too.
        let mut intent = connected(true);
        intent.end(false);
        assert!(!intent.is_connected());
        assert!(intent.disconnect(0));
        assert_eq!(Intent::new(true, intent.wish()).next(CALM), Next::Down { offered: 0 });
        assert_eq!(intent.connect(), Asked::New);
        assert_eq!(Intent::new(true, intent.wish()).next(CALM), AT_ONCE);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Connect,
        Disconnect,
        Visit,
        Leave,
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
            2 => Just(Event::Visit),
            2 => Just(Event::Leave),
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
    #[derive(Debug)]
    struct Observer {
        auto: bool,
        /// The latest of connect and disconnect was disconnect, at this newest offer, and no later one has lifted it.
        away: Option<u64>,
        /// Connect was commanded, and neither did an attempt or a connection end by itself nor was disconnect commanded since.
        asked: bool,
        /// There is a visit that nobody else has made his own: what was `away` before.
        visit: Option<Option<u64>>,
        reset: bool,
        link: Link,
        leave: bool,
    }

    impl Observer {
        fn is_wanted(&self) -> bool {
            self.asked || self.link != Link::None && !self.leave || self.auto && self.away.is_none()
        }

        fn closed(&mut self, by_itself: bool) {
            if by_itself {
                // A visit's first attempt.
                if self.asked
                    && self.link == Link::Opening
                    && let Some(before) = self.visit.take()
                {
                    self.away = before;
                }
                self.asked = false;
            }
            (self.link, self.leave) = (Link::None, false);
        }
    }

    proptest! {
        #[test]
        fn whatever_happens_commands_hold(auto: bool, events in prop::collection::vec(event(), 0..60)) {
            let mut intent = new(auto);
            let mut facts = CALM;
            let mut seen =
                Observer { auto, away: None, asked: false, visit: None, reset: false, link: Link::None, leave: false };
            let mut latest = None;
            for event in events {
                match event {
                    Event::Connect => {
                        let expected = match (seen.link == Link::Up && !seen.leave, seen.is_wanted()) {
                            (true, _) => Asked::Already,
                            (false, true) => Asked::Joins,
                            (false, false) => Asked::New,
                        };
                        prop_assert_eq!(intent.connect(), expected);
                        seen.visit = None;
                        if expected != Asked::Already {
                            (seen.away, seen.asked) = (None, true);
                        }
                    }
                    Event::Disconnect => {
                        prop_assert_eq!(intent.disconnect(facts.offered), seen.link == Link::Up);
                        (seen.away, seen.asked, seen.leave) = (Some(facts.offered), false, seen.link != Link::None);
                        seen.visit = None;
                    }
                    Event::Visit => {
                        let visit = intent.visit();
                        prop_assert_eq!(visit.is_err(), seen.is_wanted(), "{:?}", visit);
                        if let Ok(visit) = visit {
                            (seen.visit, seen.asked, latest) = (Some(seen.away.take()), true, Some(visit));
                        }
                    }
                    Event::Leave => {
                        let Some(visit) = latest.take() else { continue };
                        let before = seen.visit.take();
                        let leaves = before.is_some_and(|before| before.is_some() || !seen.auto);
                        prop_assert_eq!(intent.leave(visit), leaves);
                        if leaves && let Some(before) = before {
                            (seen.away, seen.asked, seen.leave) = (before, false, seen.link != Link::None);
                        }
                    }
                    Event::Reset => {
                        let again = seen.link == Link::Up && !seen.leave;
                        prop_assert_eq!(intent.reset(), again);
                        if again {
                            (seen.asked, seen.visit) = (true, None);
                        }
                        (seen.reset, seen.leave) = (true, seen.link != Link::None);
                    }
                    Event::Auto(auto) => {
                        intent.auto_connect(auto);
                        seen.auto = auto;
                    }
                    Event::Offer => {
                        let newest = facts.offered + 1;
                        (facts.offered, facts.newest_open, facts.unsent) = (newest, newest, true);
                    }
                    Event::Sent if seen.link == Link::Up => (facts.newest_open, facts.unsent) = (0, false),
                    Event::Sent => {}
                    Event::Undecided(undecided) => facts.undecided = undecided,
                    Event::Fail if seen.link != Link::None => {
                        prop_assert_eq!(intent.closed(), !seen.leave);
                        seen.closed(!seen.leave);
                    }
                    Event::Step if seen.link != Link::None => {
                        prop_assert_eq!(intent.leaves(), seen.leave);
                        if seen.leave {
                            intent.closed();
                            seen.closed(false);
                        } else if seen.link == Link::Opening {
                            intent.opened();
                            seen.link = Link::Up;
                        }
                    }
                    Event::Step => {
                        let next = intent.next(facts);
                        if !seen.reset {
                            seen.away = seen.away.filter(|newest| facts.newest_open <= *newest);
                        }
                        match next {
                            _ if seen.reset => prop_assert_eq!(next, Next::Reset),
                            _ if seen.away.is_some() => {
                                prop_assert_eq!(next, Next::Down { offered: facts.offered });
                            }
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
                prop_assert_eq!(intent.clone().next(Facts { stopped: true, ..facts }), Next::End);
            }
        }

        /// Whatever came before it, and however its connections fare.
        #[test]
        fn a_visit_leaves_no_trace(
            auto: bool,
            events in prop::collection::vec(event(), 0..30),
            fails in prop::collection::vec(any::<bool>(), 0..6),
        ) {
            let mut intent = new(auto);
            let mut facts = CALM;
            for event in events {
                match event {
                    Event::Connect => _ = intent.connect(),
                    Event::Disconnect => _ = intent.disconnect(facts.offered),
                    Event::Visit => {
                        if let Ok(visit) = intent.visit() {
                            intent.leave(visit);
                        }
                    }
                    Event::Reset => _ = intent.reset(),
                    Event::Auto(auto) => intent.auto_connect(auto),
                    Event::Offer => facts = Facts { newest_open: facts.offered + 1, offered: facts.offered + 1, ..facts },
                    Event::Undecided(undecided) => facts.undecided = undecided,
                    Event::Step => step(&mut intent, facts, false),
                    Event::Fail => step(&mut intent, facts, true),
                    Event::Sent | Event::Leave => {}
                }
            }
            let mut without = intent.clone();
            if let Ok(visit) = intent.visit() {
                fails.into_iter().for_each(|fails| step(&mut intent, facts, fails));
                intent.leave(visit);
                settle(&mut intent, facts);
                settle(&mut without, facts);
                prop_assert_eq!(intent.next(facts), without.next(facts));
            }
        }
    }

    /// What the supervisor does next; `fails`: the attempt or the connection.
    fn step(intent: &mut Intent, facts: Facts, fails: bool) {
        match intent.link {
            Link::None => match intent.next(facts) {
                Next::Reset => intent.was_reset(),
                Next::Connect { .. } => assert!(intent.opening()),
                _ => {}
            },
            _ if fails || intent.leaves() => _ = intent.closed(),
            Link::Opening => intent.opened(),
            Link::Up => {}
        }
    }

    /// What is to end has ended, and the broker has forgotten what it is to forget.
    fn settle(intent: &mut Intent, facts: Facts) {
        if intent.leaves() {
            step(intent, facts, false);
        }
        intent.was_reset();
    }
}
