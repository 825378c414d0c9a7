//! How connections to brokers begin and end, as the labels of their metrics tell it.
//!
//! Owns the label values; [`BrokerMeters`](super::BrokerMeters) counts by them. Which of them a connection comes to is decided in
//! `path/session/`.

/// How an attempt to connect ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectResult {
    /// CONNACK with success.
    Accepted,
    /// CONNACK with a refusal: credentials, client identifier, quota.
    Refused,
    /// No CONNACK: unreachable, reset, no answer in time, not MQTT.
    Failed,
}

impl ConnectResult {
    /// All results, in the order of `BrokerMeters::connects`.
    pub const ALL: [ConnectResult; 3] = [ConnectResult::Accepted, ConnectResult::Refused, ConnectResult::Failed];

    /// The value of the label `result`.
    pub fn label(self) -> &'static str {
        match self {
            ConnectResult::Accepted => "accepted",
            ConnectResult::Refused => "refused",
            ConnectResult::Failed => "failed",
        }
    }
}

/// Why a connection ended that the broker had accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// The broker closed it without a word.
    Closed,
    /// The broker or the network reset it.
    Reset,
    /// The broker's DISCONNECT, with another reason than those below.
    Disconnected,
    /// Another client with the same client identifier.
    TakenOver,
    /// No PINGRESP.
    KeepAlive,
    /// A write did not end.
    WriteStuck,
    /// No SUBACK or UNSUBACK.
    SubscribeUnanswered,
    /// No acknowledgement of a publish.
    PublishUnanswered,
    /// A packet beyond `max-packet` came.
    PacketTooLarge,
    /// More unacknowledged messages came than there is memory for.
    ReceiveWindow,
    /// The broker broke the protocol.
    Protocol,
    /// Another failure of the network.
    Network,
    /// A defect of the gateway.
    Defect,
    /// The gateway stopped.
    Stopped,
}

impl DisconnectReason {
    /// All reasons, in the order of `BrokerMeters::disconnects`.
    pub const ALL: [DisconnectReason; 14] = [
        DisconnectReason::Closed,
        DisconnectReason::Reset,
        DisconnectReason::Disconnected,
        DisconnectReason::TakenOver,
        DisconnectReason::KeepAlive,
        DisconnectReason::WriteStuck,
        DisconnectReason::SubscribeUnanswered,
        DisconnectReason::PublishUnanswered,
        DisconnectReason::PacketTooLarge,
        DisconnectReason::ReceiveWindow,
        DisconnectReason::Protocol,
        DisconnectReason::Network,
        DisconnectReason::Defect,
        DisconnectReason::Stopped,
    ];

    /// The value of the label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            DisconnectReason::Closed => "closed",
            DisconnectReason::Reset => "reset",
            DisconnectReason::Disconnected => "disconnected",
            DisconnectReason::TakenOver => "taken_over",
            DisconnectReason::KeepAlive => "keep_alive",
            DisconnectReason::WriteStuck => "write_stuck",
            DisconnectReason::SubscribeUnanswered => "subscribe_unanswered",
            DisconnectReason::PublishUnanswered => "publish_unanswered",
            DisconnectReason::PacketTooLarge => "packet_too_large",
            DisconnectReason::ReceiveWindow => "receive_window",
            DisconnectReason::Protocol => "protocol",
            DisconnectReason::Network => "network",
            DisconnectReason::Defect => "defect",
            DisconnectReason::Stopped => "stopped",
        }
    }
}
