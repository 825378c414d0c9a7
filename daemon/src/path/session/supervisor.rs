//! The task of one session: makes connections, watches over each, and waits in between.
//!
//! Owns: the tasks of its connection, the backoff and the status. Every connection gets a link, an outlet and
//! packet identifiers of its own. It takes part in no traffic itself, and nothing it does can hold up another session.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::SessionState;
use super::backoff::Backoff;
use super::connection::{Connection, Core};
use super::cover::Begun;
use super::deadlines::Deadlines;
use super::failure::{Failure, shortened};
use super::feeder::CLOSE_DEADLINE;
use super::packet::Welcome;
use super::poller;
use super::report::{self, Report};
use super::transport::Transport;
use crate::control::config::secret::Secret;
use crate::message::Qos;
use crate::telemetry::metrics::DisconnectReason;

/// How often the deadlines of a connection are checked.
const TICK: Duration = Duration::from_secs(1);

/// How long reading the password may take.
const FILE_DEADLINE: Duration = Duration::from_secs(5);

/// How long a stop waits for a broker to close the connection after DISCONNECT.
const DISCONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// A connection that a broker closes sooner was perhaps taken over: on 3.1.1 it cannot say so, on 5 not every one does.
const SOON: Duration = Duration::from_secs(2);

/// Runs a session until `stop` fires and its connection is closed.
pub(super) async fn run(core: Arc<Core>, stop: CancellationToken) {
    let mut session = Supervisor {
        report: Report::new(Arc::clone(&core.broker)),
        backoff: Backoff::default(),
        transport: Arc::new(Transport::new(&core.broker, &core.meters)),
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
        let connection = Arc::new(Connection::new(&self.core));
        let (accepted, connected) = oneshot::channel();
        let transport = Arc::clone(&self.transport);
        let run = poller::run(Arc::clone(&connection), transport, password, accepted, self.stop.clone());
        let mut polling = tokio::spawn(run);
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
            self.clear_up(&connection, &failure);
            self.core.cover.settle().await;
            return Ended { failure, up: None };
        };
        let since = Instant::now();
        self.report.connected(welcome.session_present, self.core.cover.begun() == Begun::Lost);
        let failure = self.watch(&connection, &welcome, &mut polling).await;
        self.clear_up(&connection, &failure);
        self.core.cover.settle().await;
        let reason = if self.stop.is_cancelled() {
            self.report.stopped(connection.goodbye.is_cancelled(), &failure);
            DisconnectReason::Stopped
        } else {
            failure.disconnect_reason()
        };
        self.core.meters.disconnect(reason);
        Ended { failure, up: Some(since.elapsed()) }
    }

    /// The password, read anew for each connection so that a changed file takes effect.
    async fn password(&self) -> Result<Option<Secret>, Failure> {
        let broker = Arc::clone(&self.core.broker);
        // Reading a file may take long, on a network file system for instance.
        let read =
            tokio::task::spawn_blocking(move || broker.password.as_ref().map(|source| source.read()).transpose());
        match tokio::time::timeout(FILE_DEADLINE, read).await {
            Ok(Ok(Ok(password))) => Ok(password),
            Ok(Ok(Err(error))) => Err(Failure::Password(shortened(&error.to_string()))),
            Ok(Err(_)) => Err(Failure::Defect),
            Err(_) => Err(Failure::Password(format!("its source gives nothing within {} s", FILE_DEADLINE.as_secs()))),
        }
    }

    /// Watches over a connection until it has ended, by itself or because the gateway stops; why it did.
    async fn watch(&self, connection: &Connection, welcome: &Welcome, polling: &mut JoinHandle<Failure>) -> Failure {
        let mut deadlines = Deadlines::new(self.core.broker.keep_alive, welcome, Instant::now());
        let mut ticks = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                biased;
                ended = &mut *polling => return outcome(ended),
                () = self.stop.cancelled() => break,
                _ = ticks.tick() => {
                    connection.check(&mut deadlines, Instant::now());
                    self.transport.tick();
                }
            }
        }
        connection.closing.store(true, Ordering::Relaxed);
        // The feeder says the close message and hands DISCONNECT over; then the broker closes the connection.
        let patience = async {
            let _ = tokio::time::timeout(CLOSE_DEADLINE + DISCONNECT_DEADLINE, connection.goodbye.cancelled()).await;
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

    /// What follows from the end of a connection, once neither of its tasks runs any more.
    fn clear_up(&self, connection: &Connection, failure: &Failure) {
        let core = &self.core;
        let blamed = if self.stop.is_cancelled() { None } else { connection.blamed(failure, Instant::now()) };
        if let Some(suspect) = core.outboxes.connection_lost(core.id, blamed) {
            report::suspected(&core.broker, &suspect);
        }
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
