//! In which order what calls did is written to the disk: what read or overwrites something goes after who wrote it.
//!
//! Pure: no clock, no I/O, no lock. Fed by `admission.rs` with each commit when its call is accepted, and again when nothing else
//! holds it back; it tells which may be submitted then. The store writes in the order of submission, so that a commit which was
//! submitted holds back nobody any more. It knows only hashes of what is read and written.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use smallvec::SmallVec;

use super::effects::Touch;

/// Commits in progress, known by `I`, which is never used again.
pub struct Order<I> {
    commits: HashMap<I, InProgress<I>>,
    /// Who is in progress and writes this, in the order of beginning: each waits for the one before it.
    writers: HashMap<Touch, SmallVec<[I; 1]>>,
}

struct InProgress<I> {
    /// Commits that have to be submitted before.
    behind: usize,
    ready: bool,
    writes: SmallVec<[Touch; 4]>,
    /// Who waits for it; some of them may be gone.
    before: SmallVec<[I; 1]>,
}

impl<I> Default for Order<I> {
    fn default() -> Order<I> {
        Order { commits: HashMap::new(), writers: HashMap::new() }
    }
}

impl<I: Copy + Eq + Hash> Order<I> {
    /// A commit begins, behind all that began before and write what it reads or writes.
    pub fn begin(&mut self, id: I, reads: &[Touch], writes: SmallVec<[Touch; 4]>) {
        let mut behind: SmallVec<[I; 4]> = SmallVec::new();
        for touch in reads.iter().chain(&writes) {
            // The last one alone: it waits for those before it, and is gone where they are.
            if let Some(last) = self.writers.get(touch).and_then(|writers| writers.last())
                && !behind.contains(last)
            {
                behind.push(*last);
            }
        }
        for other in &behind {
            if let Some(commit) = self.commits.get_mut(other) {
                commit.before.push(id);
            }
        }
        for touch in &writes {
            let writers = self.writers.entry(*touch).or_default();
            if writers.last() != Some(&id) {
                writers.push(id);
            }
        }
        let commit = InProgress { behind: behind.len(), ready: false, writes, before: SmallVec::new() };
        self.commits.insert(id, commit);
    }

    /// Nothing but others holds a commit back any more. Adds those that are to be submitted now, in this order.
    pub fn ready(&mut self, id: I, submitted: &mut Vec<I>) {
        let Some(commit) = self.commits.get_mut(&id) else { return };
        commit.ready = true;
        if commit.behind == 0 {
            submitted.push(id);
            self.leaves(id, submitted);
        }
    }

    /// A commit is not made after all, and neither is what rests on it: all of them, itself first.
    pub fn cancel(&mut self, id: I) -> Vec<I> {
        let (mut cancelled, mut next) = (Vec::new(), VecDeque::from([id]));
        while let Some(id) = next.pop_front() {
            // Who waits for two of them is met twice.
            let Some(commit) = self.commits.remove(&id) else { continue };
            self.writes_no_more(id, &commit.writes);
            next.extend(commit.before);
            cancelled.push(id);
        }
        cancelled
    }

    /// A commit is in progress no more, and neither is what waited for it alone.
    fn leaves(&mut self, id: I, submitted: &mut Vec<I>) {
        let mut next = VecDeque::from([id]);
        while let Some(id) = next.pop_front() {
            let Some(commit) = self.commits.remove(&id) else { continue };
            self.writes_no_more(id, &commit.writes);
            for other in commit.before {
                let Some(waiting) = self.commits.get_mut(&other) else { continue };
                waiting.behind -= 1;
                if waiting.behind == 0 && waiting.ready {
                    submitted.push(other);
                    next.push_back(other);
                }
            }
        }
    }

    fn writes_no_more(&mut self, id: I, writes: &[Touch]) {
        for touch in writes {
            let Some(writers) = self.writers.get_mut(touch) else { continue };
            writers.retain(|writer| *writer != id);
            if writers.is_empty() {
                self.writers.remove(touch);
            }
        }
    }

    /// Whether nothing is in progress.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.commits.is_empty() && self.writers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Begin(Vec<u8>, Vec<u8>),
        Ready(prop::sample::Index),
        Cancel(prop::sample::Index),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let touches = || prop::collection::vec(0_u8..5, 0..4);
        let step = prop_oneof![
            6 => (touches(), touches()).prop_map(|(reads, writes)| Step::Begin(reads, writes)),
            6 => any::<prop::sample::Index>().prop_map(Step::Ready),
            1 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        ];
        prop::collection::vec(step, 0..80)
    }

    /// A naive account: a list in the order of beginning.
    #[derive(Default)]
    struct Model {
        open: Vec<Known>,
    }

    struct Known {
        id: usize,
        reads: Vec<u8>,
        writes: Vec<u8>,
        ready: bool,
    }

    impl Model {
        fn place(&self, id: usize) -> usize {
            self.open.iter().position(|known| known.id == id).expect("is in progress")
        }

        fn rests_on(&self, later: usize, earlier: usize) -> bool {
            let (later, earlier) = (&self.open[later], &self.open[earlier]);
            later.reads.iter().chain(&later.writes).any(|touch| earlier.writes.contains(touch))
        }

        fn may_go(&self, place: usize) -> bool {
            self.open[place].ready && (0..place).all(|earlier| !self.rests_on(place, earlier))
        }

        /// Each of them could go when it did, and nothing else can go now.
        fn went(&mut self, submitted: &[usize]) {
            for id in submitted {
                let place = self.place(*id);
                assert!(self.may_go(place), "{id} overtakes what it rests on");
                self.open.remove(place);
            }
            assert!((0..self.open.len()).all(|place| !self.may_go(place)), "held back for nothing");
        }

        fn cancelled(&mut self, id: usize) -> Vec<usize> {
            let mut gone = vec![self.place(id)];
            for place in gone[0] + 1..self.open.len() {
                if gone.iter().any(|earlier| self.rests_on(place, *earlier)) {
                    gone.push(place);
                }
            }
            let ids: Vec<usize> = gone.iter().map(|place| self.open[*place].id).collect();
            self.open.retain(|known| !ids.contains(&known.id));
            ids
        }

        fn pick(&self, index: prop::sample::Index) -> Option<usize> {
            (!self.open.is_empty()).then(|| self.open[index.index(self.open.len())].id)
        }
    }

    fn touches(of: &[u8]) -> SmallVec<[Touch; 4]> {
        of.iter().map(Touch::of).collect()
    }

    proptest! {
        /// Whatever happens: a commit goes once it is ready and all that it rests on went, no sooner and no later; one that is
        /// cancelled takes along what rests on it and nothing else; and nothing is remembered of what is over.
        #[test]
        fn a_commit_goes_after_what_it_rests_on_and_waits_for_nothing_else(steps in steps()) {
            let (mut order, mut model) = (Order::default(), Model::default());
            for (id, step) in steps.into_iter().enumerate() {
                let mut submitted = Vec::new();
                match step {
                    Step::Begin(reads, writes) => {
                        order.begin(id, &touches(&reads), touches(&writes));
                        model.open.push(Known { id, reads, writes, ready: false });
                    }
                    Step::Ready(index) => {
                        let Some(id) = model.pick(index) else { continue };
                        let place = model.place(id);
                        model.open[place].ready = true;
                        order.ready(id, &mut submitted);
                    }
                    Step::Cancel(index) => {
                        let Some(id) = model.pick(index) else { continue };
                        let mut cancelled = order.cancel(id);
                        prop_assert_eq!(cancelled[0], id);
                        cancelled.sort_unstable();
                        prop_assert_eq!(cancelled, model.cancelled(id));
                    }
                }
                model.went(&submitted);
            }
            for known in model.open {
                order.cancel(known.id);
            }
            prop_assert!(order.is_empty());
        }
    }
}
