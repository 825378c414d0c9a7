//! What one live change does to a session, step by step; every order of events is `model.rs`.

use super::copies::Copied;
use super::machine::{Batch, Machine, Offer, Step};
use super::record::{Identity, Record};
use super::set::Wanted;
use crate::control::config::model::Protocol;
use crate::message::Qos;
use crate::path::session::status::Standing;
use crate::topic::testing::{filter, name};

fn wanted(filters: &[&str]) -> Vec<Wanted> {
    filters.iter().map(|text| Wanted { filter: filter(text), qos: Qos::AtLeastOnce, acts: true }).collect()
}

fn identity() -> Identity {
    serde_json::from_str(r#"{"address":"a","port":1,"client-id":"c"}"#).expect("is one")
}

/// A session on protocol 5 whose broker answers at once, refusing `refused`.
struct Session {
    machine: Machine,
    refused: &'static [&'static str],
    /// What was sent: `+` for SUBSCRIBE, with the identifier, `-` for UNSUBSCRIBE.
    sent: Vec<String>,
    identifiers: Vec<u32>,
    saved: Option<Record>,
}

impl Session {
    fn new(filters: &[&str], salt: u64) -> Session {
        let machine = Machine::new(Protocol::V5, Some(identity()), wanted(filters), salt);
        Session { machine, refused: &[], sent: Vec::new(), identifiers: Vec::new(), saved: None }
    }

    fn connect(&mut self, session_present: bool) {
        self.machine.connecting();
        self.machine.connected(Offer { session_present, identifiers: true, shares: true, wildcards: true });
        self.carry_out();
    }

    fn want(&mut self, filters: &[&str]) {
        self.machine.want(wanted(filters));
        self.carry_out();
    }

    fn carry_out(&mut self) {
        loop {
            match self.machine.next(Batch { subscribe: 1, unsubscribe: 1 }) {
                Step::Save(record) => self.saved = Some(record),
                Step::Subscribe(filters) => {
                    let filter = &filters[0];
                    self.sent.push(format!("+{}", filter.filter));
                    let refused = self.refused.contains(&filter.filter.as_str());
                    let answer = if refused { Err("not authorised") } else { Ok(filter.qos) };
                    self.identifiers.push(filter.identifier);
                    self.machine.subscribed(std::slice::from_ref(&filter.filter), &[answer]);
                }
                Step::Unsubscribe(filters) => {
                    self.sent.push(format!("-{}", filters[0]));
                    self.machine.unsubscribed(&filters, &[Ok(())]);
                }
                Step::Wait => panic!("nothing is owed"),
                Step::Done => return,
            }
        }
    }

    /// Whether a copy of a message that this wire filter brings runs for the subscription at this place.
    fn runs(&mut self, topic: &str, identifier: u32, place: usize) -> bool {
        let topic = name(topic);
        let copied = Copied { topic: &topic, identifiers: &[identifier], acknowledged: true, again: false };
        let copy = self.machine.arrived(&copied);
        !copy.decides(place) || copy.carries(place)
    }
}

#[test]
fn a_change_of_other_topics_makes_no_copy_run_twice() {
    let mut session = Session::new(&["a/#", "+/b"], 0);
    session.connect(false);
    let [deep, crossing] = session.identifiers[..] else { panic!("{:?}", session.sent) };
    let (deep, crossing) = if session.sent[0] == "+a/#" { (deep, crossing) } else { (crossing, deep) };
    let once = |session: &mut Session| {
        // The first subscription is served by `a/#`: its copy counts, whichever comes first.
        assert!(!session.runs("a/b", crossing, 0));
        assert!(session.runs("a/b", deep, 0));
    };
    once(&mut session);
    for filters in [&["a/#", "+/b", "z/z"][..], &["a/#", "+/b"], &["a/#", "+/b", "z/+"]] {
        session.want(filters);
        once(&mut session);
        session.connect(true);
        once(&mut session);
    }
    // The other copy was left to this one, and what decides now would leave this one to the other.
    session.want(&["+/b"]);
    assert!(session.runs("a/b", deep, 0));
    assert!(!session.runs("a/b", deep, 0));
}

#[test]
fn what_was_refused_is_asked_for_when_it_is_wanted_again() {
    let mut session = Session::new(&["a"], 0);
    session.connect(false);
    session.refused = &["b"];
    session.want(&["a", "b"]);
    session.want(&["a", "b", "c"]);
    assert_eq!(session.machine.standings().nth(1), Some(Standing::Refused("not authorised")));
    session.want(&["a", "c"]);
    session.refused = &[];
    session.want(&["a", "c", "b"]);
    assert_eq!(session.machine.standings().nth(2), Some(Standing::Granted(Qos::AtLeastOnce)));
    assert_eq!(session.sent, ["+a", "+b", "+c", "+b"]);

    // Also where the session had it, and it was never given back in between.
    session.refused = &["b"];
    session.connect(true);
    assert_eq!(session.machine.standings().nth(2), Some(Standing::Refused("not authorised")));
    session.refused = &[];
    session.machine.want(wanted(&["a", "c"]));
    session.want(&["a", "c", "b"]);
    assert_eq!(session.machine.standings().nth(2), Some(Standing::Granted(Qos::AtLeastOnce)));
}

#[test]
fn many_rounds_leave_nothing_behind_and_give_no_identifier_twice() {
    let mut session = Session::new(&["a"], 0);
    session.connect(false);
    for round in 0..500 {
        session.want(&["a", "b"]);
        session.refused = &["c"];
        session.want(&["a", "b", "c", &format!("d/{round}")]);
        session.want(&["a"]);
    }
    let record = session.saved.take().expect("it is recorded");
    assert_eq!(record.filters.len(), 1, "{record:?}");
    assert!(session.machine.known.len() <= 4, "{:?}", session.machine.known);

    // A later daemon gives others, also where the last records were not written.
    let older = Record { next_identifier: record.next_identifier.map(|next| next - 1), ..record };
    let mut later = Session::new(&["a", "b"], 1);
    assert!(later.machine.restore(&older));
    later.connect(true);
    let (kept, mut given) = (session.identifiers[0], session.identifiers);
    given.extend(later.identifiers.iter().filter(|identifier| **identifier != kept));
    let count = given.len();
    given.sort_unstable();
    given.dedup();
    assert_eq!((given.len(), later.identifiers.len()), (count, 2));
}
