//! What is wanted of a connection: by examples. Whatever happens is in `histories.rs`.

mod histories;

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
