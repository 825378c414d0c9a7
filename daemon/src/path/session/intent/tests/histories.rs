//! What is wanted of a connection, whatever happens, against what an observer remembers.

use proptest::prelude::*;

use super::*;

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
