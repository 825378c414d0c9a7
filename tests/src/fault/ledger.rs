//! The checker: what came out, against what went in.
//!
//! Fed by a [`Collector`](super::Collector) with every message that came out, in order. It knows the flow that went in, shares
//! no code with the daemon and asks it nothing. [`Ledger::verdict`] judges.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::{Flow, PAUSE};
use crate::client::message::Message;

/// How many examples of one fault a verdict tells.
const EXAMPLES: usize = 10;

/// What of a flow came out.
pub struct Ledger {
    flow: Flow,
    /// What an output's topic has before its input's.
    prefix: String,
    /// Whether an output's payload has a count before its input's.
    counted: bool,
    state: Mutex<State>,
    changed: Condvar,
}

/// Written by the collector.
struct State {
    /// How often each place of the flow came.
    times: Vec<u32>,
    /// For each topic the highest place that came.
    highest: Vec<Option<usize>>,
    /// Places of which at least one came.
    distinct: usize,
    /// All that came.
    came: usize,
    /// The places that came with each count.
    counts: BTreeMap<u64, BTreeSet<usize>>,
    disorder: Vec<String>,
    foreign: Vec<String>,
    since: Instant,
    /// When something last came for the first time.
    moved: Instant,
}

impl Ledger {
    /// For a flow whose outputs have the topics of their inputs behind `prefix`, such as `out/`, and their payloads.
    pub fn new(flow: &Flow, prefix: &str) -> Arc<Ledger> {
        Ledger::begin(flow, prefix, false)
    }

    /// As [`Ledger::new`], with a count and a space before each payload.
    pub fn counted(flow: &Flow, prefix: &str) -> Arc<Ledger> {
        Ledger::begin(flow, prefix, true)
    }

    fn begin(flow: &Flow, prefix: &str, counted: bool) -> Arc<Ledger> {
        let now = Instant::now();
        let state = State {
            times: vec![0; flow.count()],
            highest: vec![None; flow.topics()],
            distinct: 0,
            came: 0,
            counts: BTreeMap::new(),
            disorder: Vec::new(),
            foreign: Vec::new(),
            since: now,
            moved: now,
        };
        let (flow, prefix) = (flow.clone(), prefix.to_owned());
        Arc::new(Ledger { flow, prefix, counted, state: Mutex::new(state), changed: Condvar::new() })
    }

    /// The flow that goes in.
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// The topic filter of what comes out.
    pub fn filter(&self) -> String {
        format!("{}{}", self.prefix, self.flow.filter())
    }

    /// Takes what came next.
    pub fn take(&self, message: &Message) {
        let (place, count) = (self.place(message), self.count(message));
        let mut state = self.lock();
        state.take(message, place);
        if let (Some((_, place)), Some(count)) = (place, count) {
            state.counts.entry(count).or_default().insert(place);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The topic and the place in the flow of an output.
    fn place(&self, message: &Message) -> Option<(usize, usize)> {
        let payload = if self.counted { split(&message.payload)?.1 } else { &message.payload };
        message.topic.strip_prefix(&self.prefix).and_then(|topic| self.flow.place(topic, payload))
    }

    /// The count that an output begins with.
    fn count(&self, message: &Message) -> Option<u64> {
        self.counted.then(|| split(&message.payload)).flatten().map(|(count, _)| count)
    }

    /// For each count how many inputs came with it, in the order of counts.
    pub fn counts(&self) -> Vec<(u64, usize)> {
        self.lock().counts.iter().map(|(count, places)| (*count, places.len())).collect()
    }

    /// Outputs with a lower count than an earlier input of their topic: the count went back.
    pub fn back(&self) -> Vec<String> {
        let state = self.lock();
        let counts = state.counts.iter().flat_map(|(count, places)| places.iter().map(move |place| (*place, *count)));
        let mut highest = vec![0; self.flow.topics()];
        let mut back = Vec::new();
        for (place, count) in counts.collect::<BTreeMap<usize, u64>>() {
            let (topic, number) = (place % self.flow.topics(), place / self.flow.topics());
            if count < highest[topic] {
                back.push(format!("{}/{topic} number {number}: {count} after {}", self.flow.name(), highest[topic]));
            }
            highest[topic] = highest[topic].max(count);
        }
        back
    }

    /// Inputs with more outputs than what passed the connections explains: one for each time that the input was sent to the
    /// daemon, and one for each further connection over which the daemon sent the output. On the disk each of those that were made
    /// for an input that was sent several times is kept, and may be sent over each of these connections.
    pub(super) fn unexplained(
        &self,
        source: &[(usize, Message)],
        target: &[(usize, Message)],
        on_disk: bool,
    ) -> Vec<String> {
        let mut most = vec![0; self.flow.count()];
        for (_, input) in source {
            if let Some((_, place)) = self.flow.place(&input.topic, &input.payload) {
                most[place] += 1;
            }
        }
        let sent = target.iter().filter_map(|(connection, output)| Some((self.place(output)?.1, *connection)));
        let sent: BTreeSet<(usize, usize)> = sent.collect();
        let made = most.clone();
        let mut before = None;
        for (place, _) in sent {
            let further = if on_disk { made[place] } else { 1 };
            most[place] += if before == Some(place) { further } else { 0 };
            before = Some(place);
        }
        let state = self.lock();
        let over = (0..most.len()).filter(|place| state.times[*place] > most[*place]);
        over.map(|place| {
            let (topic, number) = (place % self.flow.topics(), place / self.flow.topics());
            format!("{}/{topic} number {number}: {} times, not {}", self.flow.name(), state.times[place], most[place])
        })
        .collect()
    }

    /// How many inputs have an output.
    pub fn distinct(&self) -> usize {
        self.lock().distinct
    }

    /// How many outputs came beyond the first of each input.
    pub fn duplicates(&self) -> usize {
        self.lock().duplicates()
    }

    /// How many inputs have no output yet.
    pub fn missing(&self) -> usize {
        self.flow.count() - self.distinct()
    }

    /// Those of these inputs that have no output yet.
    pub fn lacking(&self, inputs: &[Message]) -> Vec<String> {
        let place = |input: &Message| self.flow.place(&input.topic, &input.payload).expect("only the flow is sent").1;
        self.lock().missing(inputs.iter().map(place), &self.flow)
    }

    /// Waits until so many inputs have an output.
    ///
    /// # Panics
    /// None came for the first time for [`PAUSE`].
    #[track_caller]
    pub fn wait_distinct(&self, count: usize) {
        // A closure would hide the caller.
        match self.reach(count) {
            Ok(()) => {}
            Err(stuck) => panic!("{}", stuck.tell(false)),
        }
    }

    /// As [`Ledger::wait_distinct`], for who can tell more about it.
    ///
    /// # Errors
    /// None came for the first time for [`PAUSE`]: which are missing.
    pub(super) fn reach(&self, count: usize) -> Result<(), Stuck> {
        let mut state = self.lock();
        let begin = Instant::now();
        while state.distinct < count {
            let Some(left) = PAUSE.checked_sub(state.moved.max(begin).elapsed()) else {
                let passed = |place: &usize| state.highest[place % self.flow.topics()] > Some(*place);
                return Err(Stuck {
                    count,
                    distinct: state.distinct,
                    lost: state.missing((0..count).filter(passed), &self.flow),
                    missing: state.missing(0..count, &self.flow),
                });
            };
            state = self.changed.wait_timeout(state, left).expect("no thread panics with the lock").0;
        }
        Ok(())
    }

    /// Waits until there may be room for this place: fewer than `ahead` inputs before it have no output yet. False when
    /// `limit` has passed.
    pub(super) fn wait_room(&self, place: usize, ahead: usize, limit: Duration) -> bool {
        let full = |state: &mut State| place >= state.distinct + ahead;
        let (_state, waited) =
            self.changed.wait_timeout_while(self.lock(), limit, full).expect("no thread panics with the lock");
        !waited.timed_out()
    }

    /// Judges what came so far: each input must have an output.
    pub fn verdict(&self) -> Verdict {
        self.verdict_until(self.flow.count())
    }

    /// As [`Ledger::verdict`], for a flow of which no more was sent than so many messages.
    pub fn verdict_until(&self, inputs: usize) -> Verdict {
        let state = self.lock();
        Verdict {
            inputs,
            came: state.came,
            distinct: state.distinct,
            duplicates: state.duplicates(),
            missing: state.missing(0..inputs, &self.flow),
            disorder: state.disorder.clone(),
            foreign: state.foreign.clone(),
            took: state.moved - state.since,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with the lock")
    }
}

impl State {
    fn take(&mut self, message: &Message, place: Option<(usize, usize)>) {
        self.came += 1;
        let Some((topic, place)) = place else {
            self.foreign.push(format!("{message:?}"));
            return;
        };
        self.times[place] += 1;
        if self.times[place] > 1 {
            return;
        }
        self.distinct += 1;
        self.moved = Instant::now();
        // First occurrences alone: what was sent twice may come again after anything.
        if let Some(before) = self.highest[topic].filter(|highest| *highest > place) {
            let (number, before) = (place / self.highest.len(), before / self.highest.len());
            self.disorder.push(format!("{}: {number} came for the first time after {before}", message.topic));
        }
        self.highest[topic] = self.highest[topic].max(Some(place));
    }

    fn duplicates(&self) -> usize {
        self.came - self.distinct - self.foreign.len()
    }

    fn missing(&self, places: impl Iterator<Item = usize>, flow: &Flow) -> Vec<String> {
        let missing = places.filter(|place| self.times[*place] == 0);
        missing
            .map(|place| format!("{}/{} number {}", flow.name(), place % flow.topics(), place / flow.topics()))
            .collect()
    }
}

/// Nothing new came for [`PAUSE`].
pub(super) struct Stuck {
    count: usize,
    distinct: usize,
    /// Inputs without an output though later ones of their topic have theirs: they will not come any more.
    lost: Vec<String>,
    /// Inputs without an output.
    missing: Vec<String>,
}

impl Stuck {
    /// What is lost, or that everything stands still. With `nothing_left`, when nobody has anything left that could come, what
    /// is missing is lost.
    pub(super) fn tell(&self, nothing_left: bool) -> String {
        let Stuck { count, distinct, lost, missing } = self;
        let begin = format!("{count} outputs: nothing new for {PAUSE:?} after {distinct}");
        match (nothing_left, lost.is_empty()) {
            (true, _) => format!("{begin}; lost: {}", shown(missing)),
            (false, false) => format!("{begin}; lost: {}", shown(lost)),
            (false, true) => format!("{begin}; stands still before {}", shown(missing)),
        }
    }
}

/// What the checker found.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Messages that were sent.
    pub inputs: usize,
    /// Messages that came out.
    pub came: usize,
    /// Inputs that have an output.
    pub distinct: usize,
    /// Outputs beyond the first of each input.
    pub duplicates: usize,
    /// Inputs without an output.
    pub missing: Vec<String>,
    /// First occurrences out of order.
    pub disorder: Vec<String>,
    /// Outputs that no input has.
    pub foreign: Vec<String>,
    /// From the start of the ledger until the last new output.
    pub took: Duration,
}

impl Verdict {
    /// What is wrong; empty when each input has its output, in the order of its topic, and nothing else came.
    pub fn faults(&self) -> Vec<String> {
        let lists =
            [("without an output", &self.missing), ("out of order", &self.disorder), ("never sent", &self.foreign)];
        let found = lists.into_iter().filter(|(_, list)| !list.is_empty());
        found.map(|(what, list)| format!("{} {what}: {}", list.len(), shown(list))).collect()
    }

    /// Holds that nothing is wrong.
    ///
    /// # Panics
    /// Something is.
    #[track_caller]
    pub fn hold(&self) {
        let faults = self.faults();
        assert!(faults.is_empty(), "{self}; {}", faults.join("; "));
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { inputs, distinct, duplicates, .. } = self;
        let seconds = self.took.as_secs_f64();
        let rate = if seconds > 0.0 { *distinct as f64 / seconds } else { 0.0 };
        write!(f, "{inputs} in, {distinct} out, {duplicates} duplicates, {seconds:.1} s, {rate:.0} msg/s")
    }
}

/// A count, and what follows it.
fn split(payload: &[u8]) -> Option<(u64, &[u8])> {
    let space = payload.iter().position(|byte| *byte == b' ')?;
    let count = std::str::from_utf8(&payload[..space]).ok()?.parse().ok()?;
    Some((count, &payload[space + 1..]))
}

pub(super) fn shown(list: &[String]) -> String {
    let more = list.len().saturating_sub(EXAMPLES);
    let examples = list[..list.len() - more].join(", ");
    if more > 0 { format!("{examples} and {more} more") } else { examples }
}

/// The checker checked: each fault that it looks for, made by hand.
#[cfg(test)]
mod tests {
    use super::*;

    fn output(place: usize) -> Message {
        let message = flow().message(place);
        Message { topic: format!("out/{}", message.topic), ..message }
    }

    fn flow() -> Flow {
        Flow::new("in", 3, 9)
    }

    #[track_caller]
    fn check(came: &[Message], expected: &[&str]) -> Verdict {
        let ledger = Ledger::new(&flow(), "out/");
        came.iter().for_each(|message| ledger.take(message));
        assert_eq!(ledger.distinct() + ledger.missing(), 9);
        let verdict = ledger.verdict();
        assert_eq!(verdict.faults(), expected);
        verdict
    }

    #[test]
    fn everything_in_order_is_right() {
        let verdict = check(&(0..9).map(output).collect::<Vec<_>>(), &[]);
        assert_eq!((verdict.came, verdict.duplicates), (9, 0));
        verdict.hold();
    }

    #[test]
    fn topics_may_pass_each_other() {
        check(&[0, 3, 6, 2, 5, 8, 1, 4, 7].map(output), &[]).hold();
    }

    #[test]
    fn a_lost_message_is_found() {
        check(&[0, 1, 2, 3, 5, 6, 7, 8].map(output), &["1 without an output: in/1 number 1"]);
    }

    #[test]
    #[should_panic(expected = "1 without an output: in/2 number 2")]
    fn a_lost_last_message_fails_a_row() {
        check(&(0..8).map(output).collect::<Vec<_>>(), &["1 without an output: in/2 number 2"]).hold();
    }

    #[test]
    fn two_swapped_messages_of_a_topic_are_found() {
        let swapped = [0, 1, 2, 6, 3, 4, 5, 7, 8].map(output);
        check(&swapped, &["1 out of order: out/in/0: 1 came for the first time after 2"]);
    }

    #[test]
    fn duplicates_are_counted_and_no_fault_wherever_they_come() {
        let verdict = check(&[0, 1, 2, 3, 0, 0, 4, 5, 6, 7, 8, 1].map(output), &[]);
        assert_eq!((verdict.came, verdict.distinct, verdict.duplicates), (12, 9, 3));
    }

    #[test]
    fn what_later_messages_passed_is_lost_and_the_rest_stands_still() {
        let stuck = |lost: &[&str]| Stuck {
            count: 9,
            distinct: 7,
            lost: lost.iter().map(ToString::to_string).collect(),
            missing: vec!["in/1 number 1".to_owned(), "in/2 number 2".to_owned()],
        };
        assert!(stuck(&["in/1 number 1"]).tell(false).ends_with("after 7; lost: in/1 number 1"));
        assert!(stuck(&[]).tell(false).ends_with("stands still before in/1 number 1, in/2 number 2"));
        assert!(stuck(&[]).tell(true).ends_with("; lost: in/1 number 1, in/2 number 2"));
    }

    #[test]
    fn a_duplicate_is_explained_by_another_delivery_or_another_connection_alone() {
        let ledger = Ledger::new(&flow(), "out/");
        [0, 0, 1, 1].map(output).iter().for_each(|message| ledger.take(message));
        let input = |place| (1, flow().message(place));
        let target = |second| [(1, output(0)), (1, output(0)), (1, output(1)), (second, output(1))];
        assert_eq!(ledger.unexplained(&[input(0), input(0), input(1)], &target(2), false), [""; 0]);
        let (source, over) = ([input(0), input(1)], ["in/0 number 0: 2 times, not 1", "in/1 number 0: 2 times, not 1"]);
        assert_eq!(ledger.unexplained(&source, &target(1), false), over);
    }

    #[test]
    fn on_the_disk_each_output_of_an_input_may_come_over_each_connection() {
        let ledger = Ledger::new(&flow(), "out/");
        [0; 4].map(output).iter().for_each(|message| ledger.take(message));
        let source = [(1, flow().message(0)), (2, flow().message(0))];
        let target = [(1, output(0)), (2, output(0))];
        assert_eq!(ledger.unexplained(&source, &target, true), [""; 0]);
        assert_eq!(ledger.unexplained(&source, &target, false), ["in/0 number 0: 4 times, not 3"]);
    }

    #[test]
    fn counts_are_told_with_the_inputs_that_came_with_them() {
        let ledger = Ledger::counted(&flow(), "out/");
        let output = |count: &str, place| {
            let plain = output(place);
            Message { payload: [count.as_bytes(), b" ", &plain.payload].concat(), ..plain }
        };
        for (count, place) in [("1", 0), ("2", 1), ("2", 2), ("2", 1), ("4", 0)] {
            ledger.take(&output(count, place));
        }
        assert_eq!(ledger.counts(), [(1, 1), (2, 2), (4, 1)]);
        assert_eq!((ledger.distinct(), ledger.duplicates()), (3, 2));
        ledger.take(&super::tests::output(3));
        ledger.take(&output("x", 4));
        assert_eq!(ledger.verdict().foreign.len(), 2, "no count");
        assert_eq!(ledger.counts().len(), 3);
    }

    #[test]
    fn a_count_that_goes_back_is_found_in_its_topic() {
        let ledger = Ledger::counted(&flow(), "out/");
        // Places 0, 3 and 6 are of one topic.
        for (count, place) in [(1, 0), (2, 3), (1, 1), (1, 4), (1, 6), (3, 7)] {
            let plain = output(place);
            ledger.take(&Message { payload: [format!("{count} ").as_bytes(), &plain.payload].concat(), ..plain });
        }
        assert_eq!(ledger.back(), ["in/0 number 2: 1 after 2"]);
    }

    #[test]
    fn a_duplicate_does_not_stand_for_a_lost_message() {
        check(&[0, 1, 2, 3, 4, 5, 6, 7, 7].map(output), &["1 without an output: in/2 number 2"]);
    }

    #[test]
    fn what_was_never_sent_or_is_damaged_is_found() {
        let mut came: Vec<_> = (0..9).map(output).collect();
        came.push(Message::new("out/in/0", "3 "));
        came[8].payload.push(b'!');
        let verdict = check(
            &came,
            &["1 without an output: in/2 number 2", &format!("2 never sent: {:?}, {:?}", came[8], came[9])],
        );
        assert_eq!(verdict.duplicates, 0);
    }
}
