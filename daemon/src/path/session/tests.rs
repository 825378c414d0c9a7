//! Sessions that are steered, against a broker that does what a test says, packet by packet.
//!
//! Owns: that broker (`Listener`, `Peer`), and a session with what stands around it (`World`). What is tested stands in the files beside.

mod connecting;
mod disconnecting;
mod ending;
mod resetting;
mod subscribing;
mod visiting;

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
const PATIENCE: Duration = Duration::from_secs(40);

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
        let parts = || SessionParts {
            id: PLANT,
            config: Arc::clone(&config.brokers[0]),
            routes: routes(&config, &queue, &metrics, &meters),
            state_dir: folder.path().to_owned(),
            router: Arc::clone(&router),
            outboxes: Arc::clone(&outboxes),
            meters: Arc::clone(&meters),
            tap: tap.clone(),
            grace: watch::channel(grace).1,
            legacy: Legacy::default(),
        };
        let session = Arc::new(spawn(parts(), &stop));
        let following = parts();
        World { session, following: Some(following), config, queue, outboxes, metrics, meters, progress, stop, folder }
    }

    /// The session ends, and another one is to take its place, with the broker as it is changed.
    fn end(&self, change: impl FnOnce(&mut Broker)) -> JoinHandle<(Legacy, Broker)> {
        let (session, mut broker) = (Arc::clone(&self.session), (*self.config.brokers[0]).clone());
        change(&mut broker);
        tokio::spawn(async move { (session.end(false, Some(&broker)).await, broker) })
    }

    /// Another session takes the place of the one that has ended.
    fn follow(&mut self, (legacy, broker): (Legacy, Broker)) {
        let parts = self.following.take().expect("one follows");
        self.session = Arc::new(spawn(SessionParts { legacy, config: Arc::new(broker), ..parts }, &self.stop));
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

    /// Publishes with QoS 1 as a handler's call does. There is room.
    fn publish(&self, topic: &str) {
        assert!(matches!(self.submit(topic), Submitted::Done), "there is room");
    }

    /// The same where there is none.
    fn publish_later(&self, topic: &str) {
        let Submitted::Waits(room) = self.submit(topic) else { panic!("there is no room") };
        room.leave();
    }

    fn submit(&self, topic: &str) -> Submitted<'_> {
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
        self.outboxes.submit(vec![Publish { broker: PLANT, message }].into(), completion, || {})
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
