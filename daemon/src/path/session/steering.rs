//! The commands to one session on their way to its supervisor, and the answers on their way back.
//!
//! Owns: the intent (`intent.rs`) behind a lock, and who waits for what. Fed by the session's owner from any task; the
//! supervisor is told that something changed, asks the intent, and answers once what it did can be seen in the status. It
//! makes no connection itself.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::failure::Failure;
use super::intent::{Asked, Facts, Intent, Kept, Next, VisitId, Wish};

/// What `connect` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It made the connection.
    New,
    /// It was connected, or was to be connected without this command too.
    Already,
}

/// Why a session is not connected by command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The attempt failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// Another command was quicker.
    #[error("it was disconnected by another command meanwhile")]
    Disconnected,
    /// The broker was changed or removed, or the gateway stops.
    #[error("its session has ended")]
    Ended,
}

/// Why there is no connection for one purpose alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VisitError {
    /// Something else wants the connection, which would not be for that purpose alone.
    Kept(Kept),
    /// It cannot be made.
    NotConnected(ConnectError),
}

/// The session has ended, and another one may have taken its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended;

/// Why the broker's session is not reset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResetError {
    /// The broker cannot be asked, or refuses.
    #[error("{0}; nothing was forgotten")]
    Unreached(Failure),
    /// It was asked.
    #[error("{0}; whether the broker has forgotten the session is not known, reset it again")]
    Unanswered(Failure),
    /// It has forgotten the session, and was to be connected again.
    #[error("the broker has forgotten the session, but is not connected again: {0}")]
    NotConnected(ConnectError),
    /// The broker was changed or removed, or the gateway stops.
    #[error("its session has ended")]
    Ended,
}

/// What waits to be answered, and the answer.
type Answered<T> = (oneshot::Sender<T>, T);
type Connecting = oneshot::Sender<Result<Opened, ConnectError>>;
/// Who waits for a connection, and what it will have found when that has come.
type Asking = (Connecting, Opened);
type Resetting = oneshot::Sender<Result<(), ResetError>>;

/// Between a session's owner and its supervisor.
pub(super) struct Steering {
    state: Mutex<State>,
    /// Told at every command. The supervisor is the only one that waits for it.
    changed: Notify,
}

struct State {
    intent: Intent,
    /// The supervisor has ended.
    over: bool,
    /// What was commanded was handed over to another session: commands have no effect any more.
    handed_over: bool,
    /// Wait for the end of an attempt.
    connects: Vec<Asking>,
    /// Wait for the reset.
    resets: Vec<Resetting>,
    /// Wait for the end of the connection, and for the supervisor to look after it.
    disconnects: Vec<oneshot::Sender<()>>,
    /// Those of them that the supervisor has looked after.
    disconnected: Vec<oneshot::Sender<()>>,
    /// Answers that are to be given once the status shows what they tell.
    connected: Vec<Answered<Result<Opened, ConnectError>>>,
    reset: Vec<Answered<Result<(), ResetError>>>,
}

impl State {
    /// Those who wait for an attempt learn why it failed, or that there is a connection.
    fn answer_connects(&mut self, error: Option<&ConnectError>) {
        let answered = self.connects.drain(..).map(|(waiter, opened)| match error {
            Some(error) => (waiter, Err(error.clone())),
            None => (waiter, Ok(opened)),
        });
        self.connected.extend(answered);
    }

    fn wait_for_connection(&mut self, opened: Opened) -> Answer<Result<Opened, ConnectError>> {
        let (sender, answer) = oneshot::channel();
        self.connects.push((sender, opened));
        answer
    }

    fn wait_for_end(&mut self) -> Answer<()> {
        let (sender, answer) = oneshot::channel();
        self.disconnects.push(sender);
        answer
    }
}

/// What a command waits for.
pub(super) type Answer<T> = oneshot::Receiver<T>;

impl Steering {
    /// Of a session whose supervisor has not begun.
    pub(super) fn new(auto_connect: bool, wish: Wish) -> Steering {
        let state = State {
            intent: Intent::new(auto_connect, wish),
            over: false,
            handed_over: false,
            connects: Vec::new(),
            resets: Vec::new(),
            disconnects: Vec::new(),
            disconnected: Vec::new(),
            connected: Vec::new(),
            reset: Vec::new(),
        };
        Steering { state: Mutex::new(state), changed: Notify::new() }
    }

    /// `brokers connect`; none if it is connected.
    pub(super) fn connect(&self) -> Option<Answer<Result<Opened, ConnectError>>> {
        self.command(|state| {
            let opened = match state.intent.connect() {
                Asked::Already => return None,
                Asked::Joins => Opened::Already,
                Asked::New => Opened::New,
            };
            Some(state.wait_for_connection(opened))
        })
    }

    /// Connects for one purpose alone.
    pub(super) fn visit(&self) -> Result<(VisitId, Answer<Result<Opened, ConnectError>>), Kept> {
        self.command(|state| state.intent.visit().map(|visit| (visit, state.wait_for_connection(Opened::New))))
    }

    /// That purpose is served: the end of the connection, where nothing else wants it.
    pub(super) fn leave(&self, visit: VisitId) -> Option<Answer<()>> {
        self.command(|state| state.intent.leave(visit).then(|| state.wait_for_end()))
    }

    /// That purpose needs the connection for longer than anybody waits.
    pub(super) fn stay(&self, visit: VisitId) {
        self.lock().intent.stay(visit);
    }

    /// Does this if it is connected and stays so: no command comes in between.
    pub(super) fn while_connected<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        self.lock().intent.is_connected().then(act)
    }

    /// `brokers disconnect`, when this is the number of the newest offer: whether it was connected, and the end of that.
    pub(super) fn disconnect(&self, newest: u64) -> Result<(bool, Answer<()>), Ended> {
        self.command(|state| {
            if state.handed_over {
                return Err(Ended);
            }
            let connected = state.intent.disconnect(newest);
            state.answer_connects(Some(&ConnectError::Disconnected));
            Ok((connected, state.wait_for_end()))
        })
    }

    /// The session is given up, where it `delivers` after what waits to be published. Who waits for a connection learns it at its
    /// end.
    pub(super) fn end(&self, delivers: bool) {
        self.command(|state| state.intent.end(delivers));
    }

    /// What was commanded, once the supervisor has ended. Commands fail from now on.
    pub(super) fn hand_over(&self) -> Wish {
        let mut state = self.lock();
        state.handed_over = true;
        state.intent.wish()
    }

    /// `brokers reset-session`: the reset, and the connection after it where there was one before.
    #[expect(clippy::type_complexity, reason = "two answers, of which one may not be waited for")]
    pub(super) fn reset(&self) -> (Answer<Result<(), ResetError>>, Option<Answer<Result<Opened, ConnectError>>>) {
        self.command(|state| {
            let again = state.intent.reset().then(|| state.wait_for_connection(Opened::Already));
            let (sender, answer) = oneshot::channel();
            state.resets.push(sender);
            (answer, again)
        })
    }

    /// `auto-connect` is this from now on.
    pub(super) fn auto_connect(&self, auto: bool) {
        self.command(|state| state.intent.auto_connect(auto));
    }

    /// Resolves once there was a command since the last call. For the supervisor alone.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What to do while there is no connection.
    pub(super) fn next(&self, facts: Facts) -> Next {
        let state = &mut *self.lock();
        state.disconnected.append(&mut state.disconnects);
        state.intent.next(facts)
    }

    /// Whether another connection is made by itself, as things stand.
    pub(super) fn retries(&self, facts: Facts) -> bool {
        self.lock().intent.retries(facts)
    }

    /// Whether the present connection or attempt is to end.
    pub(super) fn leaves(&self) -> bool {
        self.lock().intent.leaves()
    }

    /// Whether what waits to be published is sent before that.
    pub(super) fn delivers(&self) -> bool {
        self.lock().intent.delivers()
    }

    /// An attempt is about to begin. False if a command came since [`Self::next`].
    pub(super) fn opening(&self) -> bool {
        self.lock().intent.opening()
    }

    /// It led to a connection, which the status shows.
    pub(super) fn opened(&self) {
        let mut state = self.lock();
        state.intent.opened();
        // One that is to end at once is not what was asked for after that.
        if !state.intent.leaves() {
            state.answer_connects(None);
        }
        drop(state);
        self.answer();
    }

    /// The attempt failed, or the connection ended.
    pub(super) fn closed(&self, failure: &Failure) {
        let mut state = self.lock();
        if state.intent.closed() {
            state.answer_connects(Some(&ConnectError::Failed(failure.clone())));
        }
    }

    /// The broker has forgotten the session, or why it has not.
    pub(super) fn was_reset(&self, result: &Result<(), ResetError>) {
        let mut state = self.lock();
        state.intent.was_reset();
        let answered: Vec<_> = state.resets.drain(..).map(|waiter| (waiter, result.clone())).collect();
        state.reset.extend(answered);
    }

    /// The supervisor has ended: whoever waits learns it by the end of its channel, and so does whoever comes later.
    pub(super) fn over(&self) {
        let mut state = self.lock();
        state.over = true;
        state.connects.clear();
        state.resets.clear();
        state.disconnects.clear();
        drop(state);
        self.answer();
    }

    /// Gives the answers that are due, once the status shows what they tell.
    pub(super) fn answer(&self) {
        let (disconnected, connected, reset) = {
            let state = &mut *self.lock();
            let take = (&mut state.disconnected, &mut state.connected, &mut state.reset);
            (std::mem::take(take.0), std::mem::take(take.1), std::mem::take(take.2))
        };
        // An error means that nobody waits any more.
        disconnected.into_iter().for_each(|waiter| _ = waiter.send(()));
        connected.into_iter().for_each(|(waiter, answer)| _ = waiter.send(answer));
        reset.into_iter().for_each(|(waiter, answer)| _ = waiter.send(answer));
    }

    /// Changes the intent and tells the supervisor. Once that has ended, who waits learns it at once.
    fn command<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let told = change(&mut state);
        let over = state.over;
        drop(state);
        if over {
            self.over();
        }
        self.changed.notify_one();
        told
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock leaves nothing half done that a later holder could see.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
