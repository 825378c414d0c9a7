//! Sessions that are steered, against a broker that does what a test says, packet by packet.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use rumqttc::{
    ConnAck, Connect, ConnectReturnCode, Packet, PubAck, Publish as WirePublish, QoS, SubAck, SubscribeReasonCode,
    UnsubAck,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::failure::Failure;
use super::*;
use crate::brokers::BrokerNames;
use crate::control::config::load;
use crate::control::config::model::{Config, OutboxLimits};
use crate::message::{Outgoing, Qos};
use crate::path::dispatch::{HandlerQueue, Job, ParallelLimit, Turn, Work};
use crate::path::handler::Publish;
use crate::path::outbox::{Completion, Submitted};
use crate::path::receipt::{Outcome, Progress, Receipt};
use crate::path::router::{RouteTable, of_broker};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::received::{Limits, ReceivedRing};
use crate::telemetry::trace::Tracer;
use crate::topic::TopicName;

/// How long anything may take that is to happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a test looks for what must not happen.
const SILENCE: Duration = Duration::from_millis(200);

/// Longer than any test: a grace period that must not be used up.
const ENDLESS: Duration = Duration::from_secs(600);

const PLANT: BrokerId = BrokerId(0);

async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// A listening port.
struct Listener(TcpListener);

impl Listener {
    async fn new() -> Listener {
        Listener(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port"))
    }

    fn port(&self) -> u16 {
        self.0.local_addr().expect("is bound").port()
    }

    /// The next connection with its CONNECT, which is not answered.
    async fn meet(&self) -> (Peer, Connect) {
        let (stream, _) = soon("the session connects", self.0.accept()).await.expect("accepts");
        stream.set_nodelay(true).expect("is a socket");
        let mut peer = Peer { stream, bytes: BytesMut::new() };
        match peer.packet().await {
            Packet::Connect(connect) => (peer, connect),
            packet => panic!("no CONNECT but {packet:?}"),
        }
    }

    /// The next connection, let in.
    async fn accept(&self, session_present: bool) -> Peer {
        let (mut peer, _) = self.meet().await;
        peer.let_in(session_present).await;
        peer
    }

    /// The next connection, let in and granted one SUBSCRIBE.
    async fn accept_and_grant(&self, session_present: bool) -> Peer {
        let mut peer = self.accept(session_present).await;
        peer.grant().await;
        peer
    }

    async fn nobody_comes(&self) {
        assert!(tokio::time::timeout(SILENCE, self.0.accept()).await.is_err(), "the session connects");
    }
}

/// The broker's side of one connection, on 3.1.1.
struct Peer {
    stream: TcpStream,
    bytes: BytesMut,
}

impl Peer {
    async fn read(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.bytes, usize::MAX) {
                Ok(packet) => return Some(packet),
                Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("no packet: {error}"),
            }
            if soon("a packet", self.stream.read_buf(&mut self.bytes)).await.expect("reads") == 0 {
                return None;
            }
        }
    }

    async fn packet(&mut self) -> Packet {
        self.read().await.expect("the connection stands")
    }

    async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, usize::MAX).expect("is a packet");
        self.stream.write_all(&bytes).await.expect("writes");
    }

    async fn let_in(&mut self, session_present: bool) {
        self.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, session_present))).await;
    }

    /// The next packet is a SUBSCRIBE: its identifier and filters.
    async fn asked(&mut self) -> (u16, Vec<String>) {
        match self.packet().await {
            Packet::Subscribe(packet) => (packet.pkid, packet.filters.into_iter().map(|filter| filter.path).collect()),
            packet => panic!("no SUBSCRIBE but {packet:?}"),
        }
    }

    async fn answer(&mut self, packet: u16, codes: Vec<SubscribeReasonCode>) {
        self.send(Packet::SubAck(SubAck::new(packet, codes))).await;
    }

    /// Grants the next SUBSCRIBE at QoS 1: its filters.
    async fn grant(&mut self) -> Vec<String> {
        let (packet, filters) = self.asked().await;
        self.answer(packet, vec![SubscribeReasonCode::Success(QoS::AtLeastOnce); filters.len()]).await;
        filters
    }

    /// Answers the next UNSUBSCRIBE: its filters.
    async fn give_back(&mut self) -> Vec<String> {
        match self.packet().await {
            Packet::Unsubscribe(packet) => {
                self.send(Packet::UnsubAck(UnsubAck::new(packet.pkid))).await;
                packet.topics
            }
            packet => panic!("no UNSUBSCRIBE but {packet:?}"),
        }
    }

    /// With QoS 1, or with 0 where the packet identifier is 0.
    async fn publish(&mut self, packet: u16, topic: &str) {
        let qos = if packet == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        let mut publish = WirePublish::new(topic, qos, "x");
        publish.pkid = packet;
        self.send(Packet::Publish(publish)).await;
    }

    /// The next packet is a publish with QoS 1: its topic. It is acknowledged.
    async fn take(&mut self) -> String {
        match self.packet().await {
            Packet::Publish(publish) => {
                self.send(Packet::PubAck(PubAck::new(publish.pkid))).await;
                publish.topic
            }
            packet => panic!("no PUBLISH but {packet:?}"),
        }
    }

    async fn acknowledged(&mut self, expected: u16) {
        match self.packet().await {
            Packet::PubAck(puback) => assert_eq!(puback.pkid, expected),
            packet => panic!("no PUBACK but {packet:?}"),
        }
    }

    /// The client says goodbye, and nothing else before.
    async fn goodbye(mut self) {
        let packet = self.packet().await;
        assert!(matches!(packet, Packet::Disconnect), "no DISCONNECT but {packet:?}");
    }
}

/// A session, and what stands around it.
struct World {
    session: Arc<Session>,
    /// Of a session that takes the place of this one.
    following: Option<SessionParts>,
    config: Config,
    queue: Arc<HandlerQueue>,
    outboxes: Arc<Outboxes>,
    metrics: Metrics,
    meters: Arc<BrokerMeters>,
    progress: Arc<Progress>,
    stop: CancellationToken,
    folder: TempDir,
}

/// A configuration with a broker at this port, and a subscription with the handler for each filter.
fn configuration(folder: &Path, port: u16, keys: &str, filters: &[&str]) -> Config {
    let file = folder.join("tidegate.toml");
    let mut text = format!(
        "state-dir = \"{}\"\n[handlers.h]\nplugin = \"h.wasm\"\n[brokers.plant]\naddress = \"127.0.0.1\"\nport = {port}\n\
         protocol = \"3.1.1\"\n{keys}\n",
        folder.display(),
    );
    for filter in filters {
        text += &format!("[[subscriptions]]\nbroker = \"plant\"\ntopic = \"{filter}\"\nqos = 1\non-message = \"h\"\n");
    }
    std::fs::write(&file, text).expect("writes");
    load(&file).unwrap_or_else(|problems| panic!("{problems}")).config
}

fn routes(
    config: &Config,
    queue: &Arc<HandlerQueue>,
    metrics: &Metrics,
    meters: &Arc<BrokerMeters>,
) -> Arc<BrokerRoutes> {
    let subscriptions = of_broker(&config.subscriptions, PLANT);
    Arc::new(BrokerRoutes {
        heard: subscriptions.iter().map(|_| None).collect(),
        queues: subscriptions.iter().map(|_| Some(Arc::clone(queue))).collect(),
        limit: ParallelLimit::new(None),
        last_message: subscriptions.iter().map(|one| metrics.subscription("plant", &one.name)).collect(),
        meters: Arc::clone(meters),
        table: RouteTable::new(Arc::clone(&config.brokers[0]), subscriptions),
    })
}

impl World {
    fn start(port: u16, keys: &str, filters: &[&str], grace: Duration) -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let config = configuration(folder.path(), port, keys, filters);
        let metrics = Metrics::new().expect("families are well formed");
        let meters = metrics.broker("plant");
        let queue = HandlerQueue::new(Arc::clone(&config.handlers[0]), metrics.handler("h"), None);
        let queue = Arc::new(queue);
        let outboxes = Arc::new(Outboxes::new());
        outboxes.add(PLANT, "plant".into(), OutboxLimits::default(), Arc::clone(&meters));
        let received = ReceivedRing::new(Limits { messages: 0, bytes: 0 });
        let tracer = Tracer::new(BrokerNames::default());
        let (progress, stop, tap) = (Arc::<Progress>::default(), CancellationToken::new(), Tap::new());
        let router = Arc::new(Router::new(Arc::clone(&progress), received, tracer, tap.clone()));
        let parts = |wish| SessionParts {
            id: PLANT,
            config: Arc::clone(&config.brokers[0]),
            routes: routes(&config, &queue, &metrics, &meters),
            state_dir: folder.path().to_owned(),
            router: Arc::clone(&router),
            outboxes: Arc::clone(&outboxes),
            meters: Arc::clone(&meters),
            tap: tap.clone(),
            grace: watch::channel(grace).1,
            wish,
        };
        let session = Arc::new(spawn(parts(Wish::default()), &stop));
        let following = parts(Wish::default());
        World { session, following: Some(following), config, queue, outboxes, metrics, meters, progress, stop, folder }
    }

    /// Another session takes the place of the one that has ended.
    fn follow(&mut self, wish: Wish, auto_connect: bool) {
        let parts = self.following.take().expect("one follows");
        let config = Arc::new(Broker { auto_connect, ..(*parts.config).clone() });
        self.session = Arc::new(spawn(SessionParts { wish, config, ..parts }, &self.stop));
    }

    /// Other subscriptions from now on.
    fn subscribe(&mut self, filters: &[&str]) {
        let port = self.config.brokers[0].port.get();
        self.config = configuration(self.folder.path(), port, "", filters);
        self.session.route(routes(&self.config, &self.queue, &self.metrics, &self.meters));
    }

    /// The next call of the handler.
    async fn next(&self, what: &str) -> (Turn, Job) {
        match soon(what, self.queue.next(0)).await {
            Work::Call(turn, job, _) => (turn, job),
            Work::End | Work::Run(..) => panic!("the queue goes on, with messages"),
        }
    }

    async fn until(&self, what: &str, is: impl FnMut(&SessionStatus) -> bool) -> SessionStatus {
        soon(what, self.session.status().wait_for(is)).await.expect("the session lives").clone()
    }

    async fn connected(&self) {
        self.until("all is granted", |status| status.state == SessionState::Connected && status.pending() == 0).await;
    }

    /// Publishes with QoS 1 as a handler's call does.
    fn publish(&self, topic: &str) {
        let receipt = Receipt::new(Arc::clone(&self.meters), Arc::clone(&self.progress), Qos::AtMostOnce, None);
        let part = receipt.split(1).next().expect("a receipt of one part has one");
        let meters = self.metrics.handler("h");
        let completion = Completion::new(part, Instant::now(), meters);
        let message = Outgoing {
            topic: TopicName::new(topic).expect("is one"),
            payload: Bytes::from_static(b"x"),
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: None,
            hops: None,
        };
        let submitted = self.outboxes.submit(vec![Publish { broker: PLANT, message }].into(), completion, || {});
        assert!(matches!(submitted, Submitted::Done), "there is room");
    }

    fn disconnect(&self) -> JoinHandle<Disconnected> {
        let session = Arc::clone(&self.session);
        tokio::spawn(async move { session.disconnect().await.expect("no other session takes its place") })
    }

    fn connect(&self) -> JoinHandle<Result<Opened, ConnectError>> {
        let session = Arc::clone(&self.session);
        tokio::spawn(async move { session.connect().await })
    }

    fn reset(&self) -> JoinHandle<Result<(), ResetError>> {
        let session = Arc::clone(&self.session);
        tokio::spawn(async move { session.reset().await })
    }

    fn state(&self) -> SessionState {
        self.session.status().borrow().state
    }

    /// The connection is to end by command, and its tasks have had a turn to learn it.
    async fn ends(&self) {
        let core = &self.session.core;
        soon("the command is heard", async {
            while !core.steering.leaves() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// The metrics have this line, now or soon.
    async fn metric(&self, line: &str) {
        let has = async {
            loop {
                let page = String::from_utf8(self.metrics.render().expect("renders")).expect("is UTF-8");
                if page.lines().any(|other| other == line) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        soon(line, has).await;
    }
}

async fn done<T>(what: &str, task: JoinHandle<T>) -> T {
    soon(what, task).await.expect("does not panic")
}

#[tokio::test]
async fn subscriptions_change_on_a_live_session_while_publishes_flow() {
    let listener = Listener::new().await;
    let mut world = World::start(listener.port(), "", &["a", "b"], ENDLESS);
    let mut peer = listener.accept(false).await;
    assert_eq!(peer.grant().await, ["a", "b"]);
    // Publishing has begun, and the first subscribing is over.
    world.publish("first");
    assert_eq!(peer.take().await, "first");
    world.subscribe(&["b", "c"]);
    assert_eq!(world.session.routes().table.subscriptions().len(), 2);
    let (packet, filters) = peer.asked().await;
    assert_eq!(filters, ["c"]);
    let status = world.until("c is pending", |status| status.pending() == 1).await;
    assert_eq!(status.subscriptions[0], (Arc::from("plant:b"), Standing::Granted(Qos::AtLeastOnce)));
    assert_eq!(status.subscriptions[1], (Arc::from("plant:c"), Standing::Pending));
    // The SUBACK is awaited: publishes go out, messages come in by the new routes.
    world.publish("out");
    assert_eq!(peer.take().await, "out");
    peer.publish(1, "b").await;
    let (_turn, job) = world.next("the message of b").await;
    assert_eq!(&*job.subscription.name, "plant:b");
    job.part.end(Outcome::Handled);
    peer.acknowledged(1).await;
    peer.answer(packet, vec![SubscribeReasonCode::Success(QoS::AtLeastOnce)]).await;
    assert_eq!(peer.give_back().await, ["a"]);
    world.connected().await;
    listener.nobody_comes().await;
    world.metric("tidegate_broker_connects_total{broker=\"plant\",result=\"accepted\"} 1").await;
}

#[tokio::test]
async fn a_message_of_a_subscription_that_is_gone_is_not_handled() {
    let listener = Listener::new().await;
    let mut world = World::start(listener.port(), "", &["a", "b"], ENDLESS);
    let mut peer = listener.accept_and_grant(false).await;
    world.connected().await;
    world.subscribe(&["b"]);
    assert_eq!(peer.give_back().await, ["a"]);
    peer.publish(1, "a").await;
    peer.acknowledged(1).await;
    world.metric("tidegate_messages_finished_total{broker=\"plant\",outcome=\"unmatched\"} 1").await;
}

#[tokio::test]
async fn a_refusal_is_told_with_its_reason() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a", "b"], ENDLESS);
    let mut peer = listener.accept(false).await;
    let (packet, _) = peer.asked().await;
    peer.answer(packet, vec![SubscribeReasonCode::Failure, SubscribeReasonCode::Success(QoS::AtMostOnce)]).await;
    let status = world.until("all is answered", |status| status.pending() == 0).await;
    let refused: Vec<_> = status.refused().collect();
    assert_eq!(refused, [(&Arc::from("plant:a"), "the broker's access rules refuse it")]);
    assert_eq!(status.subscriptions[1].1, Standing::Granted(Qos::AtMostOnce));
}

#[tokio::test]
async fn a_disconnect_finishes_what_is_in_hand_and_takes_nothing_more() {
    let listener = Listener::new().await;
    let close = "close = { topic = \"state\", message = \"bye\", qos = 1 }";
    let world = World::start(listener.port(), close, &["a"], ENDLESS);
    let mut peer = listener.accept_and_grant(false).await;
    peer.publish(7, "a").await;
    let (_turn, job) = world.next("the message").await;
    let disconnecting = world.disconnect();
    world.ends().await;
    // What is in hand may publish to this very broker; what comes now is left to it.
    world.publish("sent while it ends");
    assert_eq!(peer.take().await, "sent while it ends");
    peer.publish(8, "a").await;
    world.publish("after that");
    assert_eq!(peer.take().await, "after that");
    assert!(!disconnecting.is_finished());
    job.part.end(Outcome::Handled);
    peer.acknowledged(7).await;
    assert_eq!(peer.take().await, "state");
    peer.goodbye().await;
    assert_eq!(done("disconnect", disconnecting).await, Disconnected { was_connected: true });
    assert_eq!(world.state(), SessionState::Disconnected);
    world.session.auto_connect(true);
    listener.nobody_comes().await;
    world.metric("tidegate_messages_received_total{broker=\"plant\",qos=\"1\"} 1").await;
    assert_eq!(done("disconnect", world.disconnect()).await, Disconnected { was_connected: false });
}

#[tokio::test]
async fn a_disconnect_waits_for_messages_that_need_no_acknowledgement_too() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], ENDLESS);
    let mut peer = listener.accept_and_grant(false).await;
    peer.publish(0, "a").await;
    let (_turn, job) = world.next("the message").await;
    let disconnecting = world.disconnect();
    world.ends().await;
    // What it publishes would connect the broker by force if that came after the end.
    world.publish("by the call");
    assert_eq!(peer.take().await, "by the call");
    world.metric("tidegate_messages_published_total{broker=\"plant\",qos=\"1\"} 1").await;
    assert!(tokio::time::timeout(SILENCE, peer.packet()).await.is_err(), "it ends before the call");
    job.part.end(Outcome::Handled);
    peer.goodbye().await;
    done("disconnect", disconnecting).await;
    listener.nobody_comes().await;
}

#[tokio::test]
async fn a_disconnect_waits_for_what_is_on_its_way_to_the_broker() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], ENDLESS);
    let mut peer = listener.accept_and_grant(false).await;
    world.publish("out");
    let Packet::Publish(publish) = peer.packet().await else { panic!("no PUBLISH") };
    let disconnecting = world.disconnect();
    assert!(tokio::time::timeout(SILENCE, peer.packet()).await.is_err(), "it ends before the acknowledgement");
    peer.send(Packet::PubAck(PubAck::new(publish.pkid))).await;
    peer.goodbye().await;
    done("disconnect", disconnecting).await;
    world.metric("tidegate_outbox_messages{broker=\"plant\"} 0").await;
}

#[tokio::test]
async fn what_is_not_started_in_time_is_left_to_the_broker() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], Duration::from_millis(50));
    let mut peer = listener.accept_and_grant(false).await;
    peer.publish(1, "a").await;
    peer.publish(2, "a").await;
    world.metric("tidegate_messages_received_total{broker=\"plant\",qos=\"1\"} 2").await;
    let (turn, job) = world.next("the first message").await;
    let disconnecting = world.disconnect();
    peer.goodbye().await;
    assert_eq!(done("disconnect", disconnecting).await, Disconnected { was_connected: true });
    world.metric("tidegate_messages_finished_total{broker=\"plant\",outcome=\"returned\"} 1").await;
    listener.nobody_comes().await;
    job.part.end(Outcome::Handled);
    drop(turn);
    soon("nothing holds up a stop", world.progress.idle()).await;
}

#[tokio::test]
async fn something_new_to_publish_connects_by_force_and_what_waited_does_not() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "auto-connect = false", &["a"], Duration::from_millis(50));
    world.publish("first");
    let mut peer = listener.accept_and_grant(false).await;
    let packet = peer.packet().await;
    assert!(matches!(packet, Packet::Publish(_)), "{packet:?}");
    // It is not acknowledged, and so waits again.
    let disconnecting = world.disconnect();
    peer.goodbye().await;
    done("disconnect", disconnecting).await;
    listener.nobody_comes().await;
    assert_eq!(world.state(), SessionState::Disconnected);
    world.publish("second");
    let mut peer = listener.accept(true).await;
    assert_eq!([peer.take().await, peer.take().await], ["first", "second"]);
    drop(peer);
    world.until("it rests", |status| status.state == SessionState::Idle).await;
}

#[tokio::test]
async fn a_command_connects_for_one_attempt_and_says_why_not() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "auto-connect = false", &[], ENDLESS);
    let connecting = world.connect();
    let (mut peer, _) = listener.meet().await;
    peer.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::ServiceUnavailable, false))).await;
    let error = done("connect", connecting).await.expect_err("it is refused").to_string();
    assert_eq!(error, "the broker says that it is unavailable at the moment: server unavailable");
    let status = world.session.status().borrow().clone();
    assert_eq!((status.state, status.last_error), (SessionState::Idle, Some(error)));
    listener.nobody_comes().await;

    let connecting = world.connect();
    let peer = listener.accept(false).await;
    assert_eq!(done("connect", connecting).await, Ok(Opened::New));
    assert_eq!(done("connect", world.connect()).await, Ok(Opened::Already));
    // Without auto-connect a lost connection is left at that.
    drop(peer);
    world.until("it rests", |status| status.state == SessionState::Idle).await;
    listener.nobody_comes().await;
    world.session.auto_connect(true);
    listener.accept(true).await;
}

#[tokio::test]
async fn a_command_does_not_wait_for_the_backoff() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &[], ENDLESS);
    let (mut peer, _) = listener.meet().await;
    peer.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::NotAuthorized, false))).await;
    let waits = |status: &SessionStatus| matches!(status.state, SessionState::Waiting { .. });
    let SessionState::Waiting { until } = world.until("it waits", waits).await.state else { unreachable!("it waits") };
    assert!(until > Instant::now() + PATIENCE, "an attempt by itself comes too soon to be told apart");
    let connecting = world.connect();
    let (mut peer, _) = listener.meet().await;
    peer.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::BadUserNamePassword, false))).await;
    let refused = done("connect", connecting).await.expect_err("it is refused");
    assert_eq!(refused, ConnectError::Failed(Failure::Credentials));
    world.until("it goes on waiting", waits).await;
}

#[tokio::test]
async fn a_disconnect_ends_an_attempt_and_the_waiting_for_the_next() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &[], ENDLESS);
    let (mut peer, _) = listener.meet().await;
    let both = async { tokio::join!(world.session.connect(), world.session.disconnect()) };
    let (connected, disconnected) = soon("both are answered", both).await;
    assert_eq!(connected, Err(ConnectError::Disconnected));
    assert_eq!(disconnected, Ok(Disconnected { was_connected: false }));
    assert_eq!(world.state(), SessionState::Disconnected);
    assert!(peer.read().await.is_none(), "the connection is closed");

    let connecting = world.connect();
    let (mut peer, _) = listener.meet().await;
    peer.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::NotAuthorized, false))).await;
    done("connect", connecting).await.expect_err("it is refused");
    world.until("it waits", |status| matches!(status.state, SessionState::Waiting { .. })).await;
    assert_eq!(done("disconnect", world.disconnect()).await, Disconnected { was_connected: false });
    assert_eq!(world.state(), SessionState::Disconnected);
}

#[tokio::test]
async fn a_reset_makes_the_broker_forget_the_session_and_is_no_loss() {
    let listener = Listener::new().await;
    let will = "will = { topic = \"state\", message = \"lost\" }";
    let world = World::start(listener.port(), will, &["a"], ENDLESS);
    let (mut peer, connect) = listener.meet().await;
    assert!(!connect.clean_session && connect.last_will.is_some());
    peer.let_in(false).await;
    peer.grant().await;
    world.connected().await;
    let resetting = world.reset();
    peer.goodbye().await;
    let (mut peer, connect) = listener.meet().await;
    assert!(connect.clean_session && connect.last_will.is_none());
    peer.let_in(false).await;
    peer.goodbye().await;
    let (mut peer, connect) = listener.meet().await;
    assert!(!connect.clean_session && connect.last_will.is_some());
    peer.let_in(false).await;
    assert_eq!(done("reset", resetting).await, Ok(()));
    assert_eq!(peer.grant().await, ["a"]);
    world.connected().await;
    world.metric("tidegate_broker_sessions_lost_total{broker=\"plant\"} 0").await;

    let disconnecting = world.disconnect();
    peer.goodbye().await;
    done("disconnect", disconnecting).await;
    let record = world.folder.path().join("sessions/plant.json");
    assert!(record.exists());
    let resetting = world.reset();
    listener.accept(false).await.goodbye().await;
    assert_eq!(done("reset", resetting).await, Ok(()));
    assert!(!record.exists());
    world.until("it is as before", |status| status.state == SessionState::Disconnected).await;
    listener.nobody_comes().await;
}

#[tokio::test]
async fn a_reset_runs_what_the_broker_no_longer_has() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], Duration::from_millis(50));
    let mut peer = listener.accept_and_grant(false).await;
    peer.publish(1, "a").await;
    peer.publish(2, "a").await;
    world.metric("tidegate_messages_received_total{broker=\"plant\",qos=\"1\"} 2").await;
    let (turn, job) = world.next("the first message").await;
    let resetting = world.reset();
    peer.goodbye().await;
    listener.accept(false).await.goodbye().await;
    let _peer = listener.accept(false).await;
    assert_eq!(done("reset", resetting).await, Ok(()));
    job.part.end(Outcome::Handled);
    drop(turn);
    let (_turn, job) = world.next("the second message").await;
    job.part.end(Outcome::Handled);
    world.metric("tidegate_messages_finished_total{broker=\"plant\",outcome=\"handled\"} 2").await;
}

#[tokio::test]
async fn a_reset_that_does_not_reach_the_broker_says_that_nothing_was_forgotten() {
    // A port that is taken, and nothing listens.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
    let port = socket.local_addr().expect("is bound").port();
    let world = World::start(port, "auto-connect = false", &[], ENDLESS);
    let error = done("reset", world.reset()).await.expect_err("nothing listens").to_string();
    assert_eq!(error, "nothing listens at this address and port (connection refused); nothing was forgotten");
    world.until("it is as before", |status| status.state == SessionState::Idle).await;
}

#[tokio::test]
async fn a_session_ends_alone_and_then_refuses_commands() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], ENDLESS);
    let peer = listener.accept_and_grant(false).await;
    world.connected().await;
    let session = Arc::clone(&world.session);
    let ending = tokio::spawn(async move { session.end(false).await });
    peer.goodbye().await;
    done("end", ending).await;
    assert!(!world.stop.is_cancelled());
    assert_eq!(done("connect", world.connect()).await, Err(ConnectError::Ended));
    assert_eq!(done("reset", world.reset()).await, Err(ResetError::Ended));
    assert_eq!(soon("disconnect", world.session.disconnect()).await, Err(Ended));
    listener.nobody_comes().await;
}

#[tokio::test]
async fn a_stop_of_the_gateway_ends_every_session() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], ENDLESS);
    let mut peer = listener.accept_and_grant(false).await;
    // Not finished: the gateway has waited for its messages before, as long as it may.
    peer.publish(1, "a").await;
    let (_turn, _job) = world.next("the message").await;
    world.stop.cancel();
    peer.goodbye().await;
    soon("the session ends", world.session.ended()).await;
}

#[tokio::test]
async fn an_attempt_that_auto_connect_makes_is_of_no_command() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], ENDLESS);
    let (mut peer, _) = listener.meet().await;
    let connecting = world.connect();
    let visit = soon("visit", world.session.visit()).await;
    assert_eq!(visit.map(|_| ()), Err(VisitError::Kept(Kept::Auto)));
    peer.let_in(false).await;
    assert_eq!(done("connect", connecting).await, Ok(Opened::Already));
    peer.grant().await;
    world.connected().await;
}

#[tokio::test]
async fn a_visit_sends_what_waits_and_leaves_all_as_it_was() {
    // More than fits into the window: the rest is not on its way when the visit ends.
    const MESSAGES: usize = 100;
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "", &["a"], ENDLESS);
    let peer = listener.accept_and_grant(false).await;
    let disconnecting = world.disconnect();
    peer.goodbye().await;
    done("disconnect", disconnecting).await;
    let session = Arc::clone(&world.session);
    let visiting = tokio::spawn(async move { session.visit().await });
    let mut peer = listener.accept(true).await;
    let visit = done("visit", visiting).await.expect("nothing else wants it");
    let joined = soon("visit", world.session.visit()).await;
    assert_eq!(joined.map(|_| ()), Err(VisitError::Kept(Kept::Connected)));
    (0..MESSAGES).for_each(|number| world.publish(&number.to_string()));
    let leaving = tokio::spawn(visit.leave());
    world.ends().await;
    for number in 0..MESSAGES {
        assert_eq!(peer.take().await, number.to_string());
    }
    peer.goodbye().await;
    assert!(done("leave", leaving).await);
    assert_eq!(world.state(), SessionState::Disconnected);
    listener.nobody_comes().await;
    // As before, something new to publish connects it.
    world.publish("new");
    assert_eq!(listener.accept(true).await.take().await, "new");
}

#[tokio::test]
async fn a_visit_that_is_given_up_or_fails_leaves_all_as_it_was() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "auto-connect = false", &[], ENDLESS);
    let session = Arc::clone(&world.session);
    let visiting = tokio::spawn(async move { session.visit().await });
    let (mut peer, _) = listener.meet().await;
    visiting.abort();
    assert!(peer.read().await.is_none(), "nobody waits for the attempt any more");
    world.until("it rests", |status| status.state == SessionState::Idle).await;

    done("disconnect", world.disconnect()).await;
    let session = Arc::clone(&world.session);
    let visiting = tokio::spawn(async move { session.visit().await.map(|_| ()) });
    let (mut peer, _) = listener.meet().await;
    peer.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::BadUserNamePassword, false))).await;
    let error = VisitError::NotConnected(ConnectError::Failed(Failure::Credentials));
    assert_eq!(done("visit", visiting).await, Err(error));
    world.until("it is as before", |status| status.state == SessionState::Disconnected).await;
    listener.nobody_comes().await;
}

#[tokio::test]
async fn a_visit_ends_no_connection_that_a_command_has_asked_for() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "auto-connect = false", &[], ENDLESS);
    let session = Arc::clone(&world.session);
    let visiting = tokio::spawn(async move { session.visit().await });
    let (mut peer, _) = listener.meet().await;
    let connecting = world.connect();
    tokio::task::yield_now().await;
    peer.let_in(false).await;
    let visit = done("visit", visiting).await.expect("it came first");
    assert_eq!(done("connect", connecting).await, Ok(Opened::Already));
    assert!(!soon("leave", visit.leave()).await);
    assert_eq!(world.state(), SessionState::Connected);
    assert!(tokio::time::timeout(SILENCE, peer.read()).await.is_err(), "it is disconnected");
}

#[tokio::test]
async fn what_is_offered_while_a_disconnect_drains_and_not_sent_connects_again() {
    let listener = Listener::new().await;
    let world = World::start(listener.port(), "auto-connect = false", &["a"], ENDLESS);
    world.publish("out");
    let mut peer = listener.accept_and_grant(false).await;
    let Packet::Publish(publish) = peer.packet().await else { panic!("no PUBLISH") };
    let disconnecting = world.disconnect();
    world.ends().await;
    assert_eq!(world.session.while_connected(|| ()), None);
    // Nothing is in hand, so that it is not sent any more.
    world.publish("new");
    assert!(tokio::time::timeout(SILENCE, peer.packet()).await.is_err(), "it is sent, or the connection ends");
    peer.send(Packet::PubAck(PubAck::new(publish.pkid))).await;
    peer.goodbye().await;
    done("disconnect", disconnecting).await;
    assert_eq!(listener.accept(true).await.take().await, "new");
}

#[tokio::test]
async fn the_session_that_follows_keeps_what_was_commanded() {
    let listener = Listener::new().await;
    let mut world = World::start(listener.port(), "", &["a"], ENDLESS);
    world.publish("out");
    let mut peer = listener.accept_and_grant(false).await;
    let Packet::Publish(publish) = peer.packet().await else { panic!("no PUBLISH") };
    let disconnecting = world.disconnect();
    world.ends().await;
    let session = Arc::clone(&world.session);
    let ending = tokio::spawn(async move { session.end(false).await });
    peer.send(Packet::PubAck(PubAck::new(publish.pkid))).await;
    peer.goodbye().await;
    done("disconnect", disconnecting).await;
    let wish = done("end", ending).await;
    world.follow(wish, true);
    world.until("it stays so", |status| status.state == SessionState::Disconnected).await;
    listener.nobody_comes().await;
}

#[tokio::test]
async fn the_session_that_follows_a_connected_one_connects_by_itself() {
    let listener = Listener::new().await;
    let mut world = World::start(listener.port(), "", &["a"], ENDLESS);
    let peer = listener.accept_and_grant(false).await;
    world.connected().await;
    let session = Arc::clone(&world.session);
    let ending = tokio::spawn(async move { session.end(false).await });
    peer.goodbye().await;
    let wish = done("end", ending).await;
    world.follow(wish, false);
    listener.accept(true).await;
}
