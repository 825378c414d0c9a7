//! stub

/// Whether a message may still be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its connection stands, or its session is gone and no other copy will come: run it.
    Open,
    /// Its connection is lost and the next CONNACK has not come yet: wait.
    Undecided,
    /// The session was resumed: the broker sends it again, discard this copy.
    Returned,
}

/// The right to acknowledge one message on the connection that brought it.
pub struct AckToken;

impl AckToken {
    /// Whether the message may still be started.
    pub fn fate(&self) -> Fate { unimplemented!() }
    /// The message needs no further delivery: acknowledges it as soon as all that came before it on its connection are
    /// settled too (MQTT-4.6.0-2). Without effect once the connection is gone.
    pub fn settle(&self) { unimplemented!() }
}

/// What one copy of a message says about the wire filters that brought it.
pub struct WireCopy<'a>(&'a ());

impl WireCopy<'_> {
    /// Whether the broker has granted (not refused) this subscription; the place counts the broker's subscriptions in the
    /// order of the configuration.
    pub fn granted(&self, _subscription: usize) -> bool { unimplemented!() }
    /// Whether this copy is the one that this subscription's filter on the wire brought: by identifier on protocol 5,
    /// always where the copy has no known identifier.
    pub fn carries(&self, _subscription: usize) -> bool { unimplemented!() }
}
