//! The task of one session: makes connections, watches over each, and waits in between.
//!
//! Owns: the backoff and the state that the status shows. Asks `steering.rs` what is wanted; `opening.rs` makes each attempt.
//! Every connection gets a link, an outlet and packet identifiers of its own. It takes part in no traffic itself, and nothing
//! it does can hold up another session.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::SessionState;
use super::backoff::Backoff;
use super::clean::clean_connection;
use super::connection::{Connection, Core, Phase};
use super::cover::Begun;
use super::deadlines::Deadlines;
use super::failure::Failure;
use super::feeder::CLOSE_DEADLINE;
use super::intent::{Facts, Next};
use super::opening::{DISCONNECT_DEADLINE, Open, clear_up, open, outcome};
use super::report::Report;
use super::steering::{ResetError, Steering};
use super::transport::Transport;
use crate::chance;
use crate::message::Qos;
use crate::telemetry::metrics::{ConnectResult, DisconnectReason};

/// How often the deadlines of a connection are checked.
const TICK: Duration = Duration::from_secs(1);

/// A connection that a broker closes sooner was perhaps taken over: on 3.1.1 it cannot say so, on 5 not every one does.
const SOON: Duration = Duration::from_secs(2);

/// Runs a session until `stop` fires and its connection is closed. `grace`: how long a disconnect by command waits for the
/// messages in hand.
pub(super) async fn run(core: Arc<Core>, grace: watch::Receiver<Duration>, stop: CancellationToken) {
    // Also when a panic ends the task: nobody is to wait for an answer that never comes.
    let _over = Over(Arc::clone(&core.steering));
    let mut session = Supervisor {
        report: Report::new(Arc::clone(&core.broker)),
        backoff: Backoff::default(),
        retry: None,
        last_error: None,
        transport: Arc::new(Transport::new(&core.broker, &core.meters)),
        grace,
        core,
        stop,
    };
    session.announce();
    session.core.cover.load().await;
    loop {
        let facts = session.facts().await;
        match session.core.steering.next(facts) {
            Next::End => break,
            Next::Down { offered } => session.down(offered).await,
            Next::Rest => session.rest().await,
            Next::Reset => session.reset().await,
            Next::Connect { at_once } => {
                if at_once || session.waited().await {
                    session.connect().await;
                }
            }
        }
    }
    if session.stop.is_cancelled() {
        // Nobody will learn what the broker does with them; it sends them again to the next daemon. At any other end it is told who
        // follows (`legacy.rs`).
        session.core.decide_lost(true);
    }
    session.show(SessionState::Idle);
}

/// Tells the session's owner that the supervisor has ended.
struct Over(Arc<Steering>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.over();
    }
}

struct Supervisor {
    core: Arc<Core>,
    stop: CancellationToken,
    grace: watch::Receiver<Duration>,
    backoff: Backoff,
    /// Before this time an attempt is made by command only.
    retry: Option<Instant>,
    /// Why there is no connection.
    last_error: Option<String>,
    transport: Arc<Transport>,
    report: Report,
}

impl Supervisor {
    /// What an operator should know before the first connection.
    fn announce(&self) {
        let broker = &self.core.broker;
        let own = [("will", &broker.will), ("birth", &broker.birth), ("close", &broker.close)];
        for (key, message) in own.iter().filter(|(key, _)| *key != "will" && !broker.clean_session) {
            if message.as_ref().is_some_and(|message| message.qos == Qos::ExactlyOnce) {
                info!(broker = %broker.name, key, "sent with QoS 1: QoS 2 needs clean-session = true");
            }
        }
    }

    async fn facts(&self) -> Facts {
        let core = &self.core;
        let unsent = tokio::select! {
            biased;
            () = core.outboxes.ready(core.id) => true,
            () = std::future::ready(()) => false,
        };
        // In this order: what is offered after the first look makes `down` return.
        let offered = core.outboxes.offered(core.id);
        let newest_open = core.outboxes.newest_open(core.id);
        Facts { offered, newest_open, unsent, undecided: core.has_undecided(), stopped: self.stop.is_cancelled() }
    }

    /// Disconnected by command. What was not started is left to the broker: it must not hold up a stop, nor wait here while
    /// other messages pass it.
    async fn down(&mut self, offered: u64) {
        let core = Arc::clone(&self.core);
        core.decide_lost(true);
        (self.retry, self.last_error, self.backoff) = (None, None, Backoff::default());
        self.show(SessionState::Disconnected);
        core.steering.answer();
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = core.steering.changed() => {}
            () = core.outboxes.offered_beyond(core.id, offered) => {}
        }
        self.report.wanted();
    }

    /// Nothing wants a connection.
    async fn rest(&mut self) {
        let core = Arc::clone(&self.core);
        self.show(SessionState::Idle);
        core.steering.answer();
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = core.steering.changed() => {}
            () = core.outboxes.ready(core.id) => {}
        }
        self.report.wanted();
    }

    /// Waits until the backoff permits the next attempt. False if there is something else to do before.
    async fn waited(&self) -> bool {
        let Some(until) = self.retry.filter(|until| *until > Instant::now()) else { return true };
        self.show(SessionState::Waiting { until });
        self.core.steering.answer();
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => true,
            () = self.core.steering.changed() => false,
            () = self.stop.cancelled() => false,
        }
    }

    /// One connection, from its beginning to its end.
    async fn connect(&mut self) {
        let core = Arc::clone(&self.core);
        if !core.steering.opening() {
            return;
        }
        self.show(SessionState::Connecting);
        core.steering.answer();
        self.report.attempt();
        let abort = CancellationToken::new();
        let mut opening = pin!(open(Arc::clone(&core), Arc::clone(&self.transport), abort.clone()));
        let opened = loop {
            tokio::select! {
                biased;
                opened = &mut opening => break opened,
                () = self.stop.cancelled(), if !abort.is_cancelled() => abort.cancel(),
                () = core.steering.changed(), if !abort.is_cancelled() => {
                    if core.steering.leaves() {
                        abort.cancel();
                    }
                }
            }
        };
        let failure = match opened {
            Ok(open) => self.hold(open).await,
            Err(failure) if abort.is_cancelled() => failure,
            Err(failure) => {
                core.meters.connect(failure.connect_result());
                self.backoff.failed();
                self.failed(failure, None).await
            }
        };
        core.steering.closed(&failure);
    }

    /// A connection that was accepted, to its end; why it ended.
    async fn hold(&mut self, mut open: Open) -> Failure {
        let core = Arc::clone(&self.core);
        let since = Instant::now();
        self.last_error = None;
        self.report.connected(open.welcome.session_present, core.cover.begun() == Begun::Lost);
        core.steering.opened();
        let failure = self.watch(&mut open).await;
        let (connection, parted) = (open.connection, self.parts());
        clear_up(&connection, (!parted).then_some(&failure)).await;
        if parted {
            self.report.stopped(connection.goodbye.is_cancelled(), &failure);
            core.meters.disconnect(DisconnectReason::Stopped);
            return failure;
        }
        core.meters.disconnect(failure.disconnect_reason());
        self.backoff.ended(since.elapsed());
        self.failed(failure, Some(since.elapsed())).await
    }

    /// Whether the present connection is to end.
    fn parts(&self) -> bool {
        self.stop.is_cancelled() || self.core.steering.leaves()
    }

    /// Watches over a connection until it has ended, by itself or because it is to; why it did.
    async fn watch(&self, open: &mut Open) -> Failure {
        let Open { connection, polling, welcome } = open;
        let mut deadlines = Deadlines::new(self.core.broker.keep_alive, welcome, Instant::now());
        let mut ticks = tokio::time::interval(TICK);
        let mut parting = pin!(self.part(connection));
        loop {
            tokio::select! {
                biased;
                ended = &mut *polling => return outcome(ended),
                () = &mut parting => break,
                _ = ticks.tick() => {
                    connection.check(&mut deadlines, Instant::now());
                    self.transport.tick();
                }
            }
        }
        connection.standing.end(Failure::Stopped);
        outcome(polling.await)
    }

    /// Resolves when a connection that is to end has had the time for it. By command: first what is in hand is finished. At a
    /// stop of the gateway that was done before. Then the feeder says the close message and hands DISCONNECT over, and the
    /// broker closes the connection.
    async fn part(&self, connection: &Connection) {
        while !self.parts() {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.core.steering.changed() => {}
            }
        }
        if !self.stop.is_cancelled() {
            connection.enter(Phase::Draining);
            let grace = *self.grace.borrow();
            tokio::select! {
                _ = tokio::time::timeout(grace, connection.goodbye.cancelled()) => {}
                () = self.stop.cancelled() => {}
            }
        }
        connection.enter(Phase::Leaving);
        let _ = tokio::time::timeout(CLOSE_DEADLINE + DISCONNECT_DEADLINE, connection.goodbye.cancelled()).await;
        tokio::time::sleep(DISCONNECT_DEADLINE).await;
    }

    /// Has the broker forget the session.
    async fn reset(&mut self) {
        let core = Arc::clone(&self.core);
        self.show(SessionState::Connecting);
        let result = clean_connection(&core.broker, Arc::clone(&self.transport), &self.stop).await;
        if let Err(failure) = result {
            core.meters.connect(failure.connect_result());
            self.last_error = Some(failure.to_string());
            let error = if failure.may_have_been_heard() { ResetError::Unanswered } else { ResetError::Unreached };
            return core.steering.was_reset(&Err(error(failure)));
        }
        core.meters.connect(ConnectResult::Accepted);
        core.meters.disconnect(DisconnectReason::Stopped);
        core.cover.was_reset().await;
        // No other copy of them will come.
        core.decide_lost(false);
        self.report.was_reset();
        core.steering.was_reset(&Ok(()));
    }

    /// There is no connection, or none any more: says so, and when the next attempt is due. Returns the failure as it was said.
    async fn failed(&mut self, mut failure: Failure, up: Option<Duration>) -> Failure {
        if failure == Failure::Closed && up.is_some_and(|up| up < SOON) {
            failure = Failure::ClosedSoon(self.core.broker.client_id.clone());
        }
        let delay = self.backoff.delay(failure.pace(), chance::random());
        let retries = self.core.steering.retries(self.facts().await);
        self.report.failed(&failure, up, retries.then_some(delay));
        (self.retry, self.last_error) = (Some(Instant::now() + delay), Some(failure.to_string()));
        failure
    }

    fn show(&self, state: SessionState) {
        self.core.status.send_modify(|status| {
            (status.state, status.last_error) = (state, self.last_error.clone());
        });
    }
}
