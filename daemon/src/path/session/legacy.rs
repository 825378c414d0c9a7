//! What a session leaves to the one that takes its place.
//!
//! Owns: the rule for the messages of lost connections that no CONNACK has decided about. Made at a session's end, taken by the
//! session that follows it, whose CONNACK then decides; handed on by the session's owner, which looks into nothing. It knows
//! nothing of messages that are in a call, nor of what waits to be published: that stands in no session.

use std::sync::{Arc, Weak};

use super::Wish;
use super::ack::Standing;
use super::connection::Core;
use super::cover::is_same_session;
use crate::control::config::model::Broker;
use crate::path::dispatch::HandlerQueue;

/// What a session leaves to the one that takes its place; the default where there was none. Messages in it wait until that one
/// decides; there are none where none takes its place.
#[derive(Default)]
#[must_use]
pub struct Legacy {
    /// What was commanded.
    pub(super) wish: Wish,
    /// Lost connections whose unstarted messages wait for the next CONNACK.
    pub(super) lost: Vec<Arc<Standing>>,
    /// Where they may wait.
    pub(super) queues: Vec<Weak<HandlerQueue>>,
}

impl Legacy {
    /// Of a session that has ended. `successor`: the broker as it is from now on, unless it is removed.
    pub(super) fn of(core: &Core, wish: Wish, successor: Option<&Broker>) -> Legacy {
        match successor {
            // Nobody will learn what becomes of the broker's session. It has them until that expires.
            None => core.decide_lost(true),
            Some(broker) if !resumes(&core.broker, broker) => core.decide_lost(false),
            Some(_) => {
                let (lost, queues) = core.hand_over_lost();
                return Legacy { wish, lost, queues };
            }
        }
        Legacy { wish, ..Legacy::default() }
    }
}

/// Whether the next connection may resume the broker's session, so that its CONNACK is to be waited for. Another session never
/// brings these messages again, and what a clean one begins with is empty (MQTT 5 §3.1.2.4 [MQTT-3.1.2-4]).
fn resumes(before: &Broker, after: &Broker) -> bool {
    !after.clean_session && is_same_session(before, after)
}
