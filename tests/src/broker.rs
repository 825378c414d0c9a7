//! The makes of broker that scenarios run against, and what differs between them.
//!
//! Fed by the scenarios `broker_*`, which run on every [`Make`]; what a make cannot do is a fact of its table, which a
//! scenario asserts, so that a broker that learns it fails the test and the documentation follows.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::client::{Client, Protocol};
use crate::embedded::Embedded;
use crate::mosquitto::{Mosquitto, Options};
use crate::nats::Nats;
use crate::process::Process;
use crate::rabbitmq::RabbitMq;
use crate::wait;

/// A running broker of any make. Dropping it ends it.
pub trait Broker {
    /// Its port on 127.0.0.1.
    fn port(&self) -> u16;

    /// Ends it as its operator does, and waits for its end: it saves what it keeps.
    fn stop(&mut self);

    /// Ends it as a power cut does: it saves nothing and says goodbye to nobody.
    fn kill(&mut self);

    /// Starts it again after [`Broker::kill`] or [`Broker::stop`], on the same port and with what it saved.
    fn restart(&mut self);

    /// Makes one that saves only now and then save everything now.
    fn save(&self) {}
}

impl dyn Broker + '_ {
    /// A new client with a session of this connection only.
    #[track_caller]
    pub fn client(&self, protocol: Protocol) -> Client {
        Client::connect(self.port(), protocol)
    }
}

/// A make of broker in one configuration: how it is started, and what holds of it.
#[derive(Clone, Copy)]
pub struct Make {
    /// Starts one.
    pub start: fn() -> Box<dyn Broker>,
    /// Whether it speaks MQTT 5.
    pub speaks_5: bool,
    /// Copies of a message to a client on 3.1.1 and on 5 with two filters that overlap.
    pub copies: [usize; 2],
    /// The answer to a SUBSCRIBE with QoS 2.
    pub grants_for_2: u8,
    /// Whether a publish with QoS 2 is taken; one that does not take it ends the connection.
    pub takes_2: bool,
    /// Whether retained messages come for a filter with wildcards too.
    pub retained_by_wildcard: bool,
    /// Whether `+` and `#` match the first level of a topic that begins with `$`, which [MQTT-4.7.2-1] forbids.
    pub wildcards_match_dollar: bool,
    /// Whether a client that subscribes to `#` gets what the broker's own parts say to each other.
    pub talks_to_itself: bool,
    /// Whether it keeps a session, and what is published meanwhile, for a client that comes back.
    pub keeps_sessions: bool,
    /// Whether it says DISCONNECT to clients of 3.1.1, which know no such packet from a broker.
    pub disconnects_3_1_1: bool,
    /// What outlives its own end.
    pub keeps: Keeps,
    /// Topic names that it does not take: a publish to one ends the connection, a filter is refused.
    pub refused_topics: &'static [&'static str],
    /// Topic names that come out as others.
    pub renamed_topics: &'static [(&'static str, &'static str)],
}

/// What of a broker outlives its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// Sessions, and every message that it has acknowledged or saved.
    Everything,
    /// Sessions; but messages on their way when a connection ends come later than others, and when the broker itself ends
    /// they may not come at all.
    Idle,
    /// Nothing.
    Nothing,
}

impl Make {
    /// Copies of a message to a client with two filters that overlap.
    pub fn copies(&self, protocol: Protocol) -> usize {
        match protocol {
            Protocol::V311 => self.copies[0],
            Protocol::V5 => self.copies[1],
        }
    }
}

/// Persistent, and as protocol 3.1.1 wants it.
pub const MOSQUITTO: Make = Make {
    start: || Box::new(mosquitto(false)),
    speaks_5: true,
    copies: [1, 2],
    grants_for_2: 2,
    takes_2: true,
    retained_by_wildcard: true,
    wildcards_match_dollar: false,
    talks_to_itself: false,
    keeps_sessions: true,
    keeps: Keeps::Everything,
    disconnects_3_1_1: false,
    refused_topics: &[],
    renamed_topics: &[],
};

/// Persistent, with `allow_duplicate_messages`.
pub const MOSQUITTO_WITH_DUPLICATES: Make = Make { start: || Box::new(mosquitto(true)), copies: [2, 2], ..MOSQUITTO };

/// With JetStream, which keeps everything.
pub const NATS: Make = Make {
    start: || Box::new(Nats::start()),
    speaks_5: false,
    copies: [2, 0],
    grants_for_2: 1,
    takes_2: false,
    wildcards_match_dollar: true,
    talks_to_itself: true,
    keeps: Keeps::Idle,
    refused_topics: &["in/a.b", "in/a b"],
    ..MOSQUITTO
};

/// With its MQTT plugin.
pub const RABBITMQ: Make = Make {
    start: || Box::new(RabbitMq::start()),
    speaks_5: false,
    copies: [1, 0],
    grants_for_2: 1,
    retained_by_wildcard: false,
    wildcards_match_dollar: true,
    renamed_topics: &[("in/a.b", "in/a/b"), ("in/a*b", "in/a+b")],
    ..MOSQUITTO
};

/// As in the demo: in memory.
pub const EMBEDDED: Make = Make {
    start: || Box::new(Embedded::start()),
    copies: [2, 2],
    keeps_sessions: false,
    keeps: Keeps::Nothing,
    disconnects_3_1_1: true,
    ..MOSQUITTO
};

fn mosquitto(duplicates: bool) -> Mosquitto {
    let extra = format!("allow_duplicate_messages {duplicates}");
    Mosquitto::with(Options { persistent: true, extra, ..Options::default() })
}

/// Waits for at most `limit` until a broker's process lets a client in; false when it has ended instead.
pub(crate) fn comes_up(
    name: &str,
    limit: Duration,
    process: &mut Process,
    connect: impl Fn() -> io::Result<Client>,
) -> bool {
    wait::until_within(limit, format!("{name} accepts connections"), || {
        if process.ended().is_some() {
            return Ok(false);
        }
        // Something else may listen on the port, and the process end a moment later.
        connect().map(|_| process.ended().is_none())
    })
}

/// A program from PATH, or from where Debian puts it.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // First where the scripts of RabbitMQ are: those of the same name in PATH change to the user of the system's broker.
    let first = [PathBuf::from("/usr/lib/rabbitmq/bin")].into_iter();
    let folders = first.chain(std::env::split_paths(&path)).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed: `cargo xtask test` installs what the scenarios need"))
}

/// Writes a file of a broker's folder.
pub(crate) fn write(file: PathBuf, text: &str) {
    fs::write(file, text).expect("the folder is ours");
}

/// Makes of each function `fn promise(make: &Make, protocol: Protocol)` a test for every make of broker and every protocol
/// that it speaks.
#[macro_export]
macro_rules! on_every_broker {
    ($($promise:ident),+ $(,)?) => {$(
        mod $promise {
            use $crate::Protocol::{V5, V311};
            use $crate::broker;

            #[test]
            fn on_mosquitto_3_1_1() {
                super::$promise(&broker::MOSQUITTO, V311);
            }
            #[test]
            fn on_mosquitto_5() {
                super::$promise(&broker::MOSQUITTO, V5);
            }
            #[test]
            fn on_nats_3_1_1() {
                super::$promise(&broker::NATS, V311);
            }
            #[test]
            fn on_embedded_3_1_1() {
                super::$promise(&broker::EMBEDDED, V311);
            }
            #[test]
            fn on_embedded_5() {
                super::$promise(&broker::EMBEDDED, V5);
            }
            #[test]
            #[ignore = "long: RabbitMQ takes about ten seconds to start"]
            fn on_rabbitmq_3_1_1() {
                super::$promise(&broker::RABBITMQ, V311);
            }
        }
    )+};
}

/// As [`on_every_broker`], with mosquitto alone, which sends a copy for each filter.
#[macro_export]
macro_rules! with_duplicates {
    ($($promise:ident),+ $(,)?) => {
        mod with_duplicates {$(
            mod $promise {
                use $crate::Protocol::{V5, V311};
                use $crate::broker::MOSQUITTO_WITH_DUPLICATES;

                #[test]
                fn on_mosquitto_3_1_1() {
                    super::super::$promise(&MOSQUITTO_WITH_DUPLICATES, V311);
                }
                #[test]
                fn on_mosquitto_5() {
                    super::super::$promise(&MOSQUITTO_WITH_DUPLICATES, V5);
                }
            }
        )+}
    };
}
