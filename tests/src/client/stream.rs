//! A publisher that goes on through outages of its broker: what is not acknowledged is published again, in order.

use std::thread::{self, JoinHandle};

use super::message::Message;
use super::{Client, Protocol};
use crate::wait;

/// A publisher at work.
pub struct Stream {
    thread: JoinHandle<()>,
}

impl Stream {
    /// Begins to publish `messages`, all with QoS 1, in order.
    pub fn start(port: u16, protocol: Protocol, messages: Vec<Message>) -> Stream {
        assert!(messages.iter().all(|message| message.qos == 1), "QoS 1 is acknowledged in order, once");
        Stream { thread: thread::spawn(move || publish(port, protocol, &messages)) }
    }

    /// Waits until the broker has acknowledged every message.
    #[track_caller]
    pub fn finish(self) {
        self.thread.join().expect("every message is acknowledged in time");
    }
}

fn publish(port: u16, protocol: Protocol, messages: &[Message]) {
    let mut done = 0;
    while done < messages.len() {
        let client = wait::until("the publisher connects", || Client::options(port, protocol).connect());
        for message in &messages[done..] {
            if client.start(message).is_err() {
                break;
            }
        }
        // An error is the broken connection that the next round mends; acknowledgements come in order, so their number
        // says where to go on.
        let _ = client.shared.wait(wait::PATIENCE, |state| if state.open.is_empty() { Ok(()) } else { Err("open") });
        done += client.shared.lock().acknowledged;
    }
}
