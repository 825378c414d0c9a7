//! The task of one session: makes connections, watches over each, and waits in between.
//!
//! Owns: the tasks of its connection, the backoff and the status. Every connection gets a new rumqttc client and event
//! loop: a reused one loses publishes and mixes up packet identifiers. It takes part in no traffic itself, and nothing it
//! does can hold up another session.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::SessionState;
use super::backoff::Backoff;
use super::connection::{Connection, Core, Deadlines};
use super::cover::Begun;
use super::failure::{Failure, shortened};
use super::feeder::{self, CLOSE_DEADLINE};
use super::link::Welcome;
use super::poller;
use super::report::Report;
use crate::control::config::secret::Secret;
use crate::message::Qos;

/// How often the deadlines of a connection are checked.
const TICK: Duration = Duration::from_secs(1);

/// How long a stop waits for a broker to close the connection after DISCONNECT.
const DISCONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// A connection that a broker closes sooner was perhaps taken over: on 3.1.1 it cannot say so, on 5 not every one does.
const SOON: Duration = Duration::from_secs(2);

/// Runs a session until `stop` fires and its connection is closed.
pub(super) async fn run(core: Arc<Core>, stop: CancellationToken) {
    let mut session = Supervisor {
        report: Report::new(Arc::clone(&core.broker)),
        backoff: Backoff::default(),
        expect_releases: false,
        core,
        stop,
    };
    session.announce();
    session.core.cover.load().await;
    while session.wanted().await {
        let ended = session.connect().await;
        if !session.stop.is_cancelled() {
            session.wait(ended).await;
        }
    }
    session.set_state(SessionState::Idle);
}

/// How an attempt ended.
struct Ended {
    failure: Failure,
    /// How long the connection stood; none if it was never accepted.
    up: Option<Duration>,
}

struct Supervisor {
    core: Arc<Core>,
    stop: CancellationToken,
    backoff: Backoff,
    report: Report,
    /// The last connection ended because of a QoS 2 message that an earlier client had received.
    expect_releases: bool,
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

    /// Resolves once a connection is wanted; false when the gateway stops.
    async fn wanted(&self) -> bool {
        if self.stop.is_cancelled() {
            return false;
        }
        if self.core.broker.auto_connect || self.core.has_undecided() {
            return true;
        }
        self.set_state(SessionState::Idle);
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = self.core.outboxes.ready(self.core.id) => true,
        }
    }

    /// One connection, from its beginning to its end.
    async fn connect(&mut self) -> Ended {
        self.set_state(SessionState::Connecting);
        self.report.attempt();
        let password = tokio::select! {
            password = self.password() => password,
            () = self.stop.cancelled() => Err(Failure::Stopped),
        };
        let password = match password {
            Ok(password) => password,
            Err(failure) => return Ended { failure, up: None },
        };
        self.core.cover.connecting().await;
        let (connection, link) = Connection::open(&self.core, password, self.expect_releases);
        let (accepted, connected) = oneshot::channel();
        let mut polling = tokio::spawn(poller::run(Arc::clone(&connection), link, accepted));
        let welcome = tokio::select! {
            biased;
            welcome = connected => welcome.ok(),
            () = self.stop.cancelled() => {
                connection.standing.end(Failure::Stopped);
                None
            }
        };
        let Some(welcome) = welcome else {
            let failure = outcome(polling.await);
            self.clear_up(&connection);
            self.core.cover.settle().await;
            return Ended { failure, up: None };
        };
        let since = Instant::now();
        self.accepted(&welcome);
        let mut feeding = Some(tokio::spawn(feeder::run(Arc::clone(&connection), welcome, self.stop.clone())));
        let failure = self.watch(&connection, &welcome, &mut polling, &mut feeding).await;
        self.join_feeder(&mut feeding).await;
        self.clear_up(&connection);
        self.core.cover.settle().await;
        if self.stop.is_cancelled() {
            self.report.stopped(connection.goodbye.load(Ordering::Relaxed), &failure);
        }
        Ended { failure, up: Some(since.elapsed()) }
    }

    /// The password, read anew for each connection so that a changed file takes effect.
    async fn password(&self) -> Result<Option<Secret>, Failure> {
        let broker = Arc::clone(&self.core.broker);
        // Reading a file may take long, on a network file system for instance.
        let read =
            tokio::task::spawn_blocking(move || broker.password.as_ref().map(|source| source.read()).transpose());
        match read.await {
            Ok(Ok(password)) => Ok(password),
            Ok(Err(error)) => Err(Failure::Password(shortened(&error.to_string()))),
            Err(_) => Err(Failure::Defect),
        }
    }

    fn accepted(&mut self, welcome: &Welcome) {
        self.report.connected(welcome.session_present, self.core.cover.begun() == Begun::Lost);
        self.core.status.send_modify(|status| {
            status.state = SessionState::Connected;
            status.last_error = None;
            status.refused.clear();
            status.granted = 0;
            status.pending = self.core.subscriptions.len();
        });
    }

    /// Watches over a connection until it has ended, by itself or because the gateway stops; why it did.
    async fn watch(
        &self,
        connection: &Arc<Connection>,
        welcome: &Welcome,
        polling: &mut JoinHandle<Failure>,
        feeding: &mut Option<JoinHandle<()>>,
    ) -> Failure {
        let mut deadlines = Deadlines::new(&self.core.broker, welcome, Instant::now());
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                biased;
                ended = &mut *polling => return outcome(ended),
                () = self.stop.cancelled() => break,
                // It ends before the poller only when it panics: nothing would be sent any more.
                () = self.join_feeder(feeding), if feeding.is_some() => connection.standing.end(Failure::Defect),
                _ = ticks.tick() => deadlines.check(connection, Instant::now()),
            }
        }
        connection.closing.store(true, Ordering::Relaxed);
        // The feeder says the close message and hands DISCONNECT over; then the broker closes the connection.
        let patience = async {
            let _ = tokio::time::timeout(CLOSE_DEADLINE + DISCONNECT_DEADLINE, self.join_feeder(feeding)).await;
            tokio::time::sleep(DISCONNECT_DEADLINE).await;
        };
        tokio::select! {
            ended = &mut *polling => outcome(ended),
            () = patience => {
                connection.standing.end(Failure::Stopped);
                outcome(polling.await)
            }
        }
    }

    /// Waits for the feeder's end, unless that was done before. Cancellation safe.
    async fn join_feeder(&self, feeding: &mut Option<JoinHandle<()>>) {
        if let Some(task) = feeding {
            if task.await.is_err() {
                error!(broker = %self.core.broker.name, "the session's feeder ended unexpectedly");
            }
            *feeding = None;
        }
    }

    /// What follows from the end of a connection, once neither of its tasks runs any more.
    fn clear_up(&self, connection: &Connection) {
        let core = &self.core;
        core.outboxes.connection_lost(core.id);
        core.meters.connected.set(0);
        core.meters.ack_stalled.set(0.0);
        if connection.standing.is_undecided() {
            core.lost().push(Arc::clone(&connection.standing));
        }
    }

    /// Waits before the next attempt.
    async fn wait(&mut self, ended: Ended) {
        let Ended { mut failure, up } = ended;
        match up {
            Some(up) => self.backoff.ended(up),
            None => {
                self.backoff.failed();
                self.core.meters.connect(failure.connect_result());
            }
        }
        let broker = &self.core.broker;
        if failure == Failure::Closed && up.is_some_and(|up| up < SOON) {
            failure = Failure::ClosedSoon(broker.client_id.clone());
        }
        self.expect_releases = failure == Failure::ForeignRelease;
        let delay = self.backoff.delay(failure.pace(), random());
        self.report.failed(&failure, up, delay);
        self.core.status.send_modify(|status| {
            status.state = SessionState::Waiting { until: Instant::now() + delay };
            status.last_error = Some(failure.to_string());
        });
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn set_state(&self, state: SessionState) {
        self.core.status.send_modify(|status| status.state = state);
    }
}

/// Why a poller ended.
fn outcome(ended: Result<Failure, tokio::task::JoinError>) -> Failure {
    ended.unwrap_or(Failure::Defect)
}

/// Uniform in 0..1.
fn random() -> f64 {
    // Without randomness the delays lose their jitter, nothing else.
    let bits = getrandom::u64().unwrap_or(u64::MAX / 2);
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}
