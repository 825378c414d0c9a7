//! The thread of one instance: the only one that is ever in that instance's code.
//!
//! Owns: the instance's state, from `create` to `destroy`, and all that a call was given, for as long as the library's code may look at it.
//! Fed by [`super::Instance`] with one call at a time; tells it how each ended. It waits for calls alone, and ends when its instance does,
//! or when it comes back from a call that nobody waits for any more.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use smallvec::SmallVec;
use tidegate_abi::{Bytes, Call, Message, Pair, Properties, Run, SCHEDULE, SILENCE, Status};
use tokio::sync::oneshot;

use super::caller::{Caller, Effects, Words};
use super::life::Life;
use super::process::Entered;
use crate::message;
use crate::path::handler::host::{Host, unix_nanos};
use crate::path::handler::plugin::Exports;

/// A callback that makes an instance's state.
type Create = unsafe extern "C" fn(call: *mut Call, state: *mut *mut c_void) -> Status;
/// A callback for a message.
type OnMessage = unsafe extern "C" fn(state: *mut c_void, call: *mut Call, message: *const Message) -> Status;
/// A callback for a run.
type OnSchedule = unsafe extern "C" fn(state: *mut c_void, call: *mut Call, run: *const Run) -> Status;
/// A callback that ends an instance's state.
type Destroy = unsafe extern "C" fn(state: *mut c_void);

/// What a plugin is called by.
#[derive(Clone, Copy)]
pub(super) struct Table {
    pub(super) create: Option<Create>,
    pub(super) on_message: Option<OnMessage>,
    pub(super) on_schedule: Option<OnSchedule>,
    pub(super) destroy: Option<Destroy>,
}

impl Table {
    /// What it can be called for.
    pub(super) fn exports(&self) -> Exports {
        Exports { on_message: self.on_message.is_some(), on_schedule: self.on_schedule.is_some() }
    }
}

/// What a call is for. Owned: the library's code may look at it for longer than anybody waits.
pub(super) enum Work {
    /// A message.
    Message { message: Arc<message::Message>, subscription: String, captures: Vec<String>, attempt: u32 },
    /// A run.
    Run { silence: bool, name: String, due: u64 },
}

/// A call.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) returned: oneshot::Sender<Returned>,
}

/// How a callback ended.
pub(super) struct Returned {
    pub(super) status: Status,
    /// What the plugin said of it.
    pub(super) words: Words,
}

/// The thread of one instance.
pub(super) struct Worker {
    pub(super) table: Table,
    pub(super) host: Arc<Host>,
    pub(super) effects: Effects,
    pub(super) life: Arc<Life>,
    pub(super) jobs: Receiver<Job>,
    pub(super) entered: Entered,
}

/// Tells the end of the thread, however it comes.
struct End {
    life: Arc<Life>,
    /// There until the end.
    entered: Option<Entered>,
}

impl Drop for End {
    fn drop(&mut self) {
        // Before it is told: who has waited for the end may end the process.
        drop(self.entered.take());
        self.life.ends();
    }
}

impl Worker {
    /// Makes the state, makes the calls as they come, and destroys the state.
    pub(super) fn run(self, created: oneshot::Sender<Returned>) {
        let Worker { table, host, effects, life, jobs, entered } = self;
        let _end = End { life: Arc::clone(&life), entered: Some(entered) };
        // Stays where it is until the thread ends.
        let caller = Caller::new(host, effects);
        let here = caller.enter();
        let mut state = ptr::null_mut();
        let status = match table.create {
            // SAFETY: the header has it called so: once, before all else, with a place for the state, on the thread of the instance.
            Some(create) => unsafe { create(caller.handle(), &raw mut state) },
            None => Status::OK,
        };
        let (made, wanted) = (status == Status::OK, life.comes_back());
        // Nobody may be there any more to hear of it.
        let _ = created.send(Returned { status, words: caller.end() });
        if !made {
            return;
        }
        while wanted && let Ok(Job { work, returned }) = jobs.recv() {
            if !life.goes_in() {
                break;
            }
            let status = make(&table, &caller, state, &work);
            if !life.comes_back() {
                break;
            }
            let _ = returned.send(Returned { status, words: caller.end() });
        }
        drop(here);
        if let Some(destroy) = table.destroy {
            // SAFETY: `create` returned ok, this is the thread of the instance, and no other callback runs or follows.
            unsafe { destroy(state) };
        }
    }
}

/// Makes one call.
fn make(table: &Table, caller: &Caller, state: *mut c_void, work: &Work) -> Status {
    match work {
        Work::Message { message, subscription, captures, attempt } => {
            // Asked before.
            let Some(on_message) = table.on_message else { return Status::INVALID };
            handle(on_message, caller, state, (message, subscription, captures, *attempt))
        }
        Work::Run { silence, name, due } => {
            let Some(on_schedule) = table.on_schedule else { return Status::INVALID };
            let run = Run {
                size: size_of::<Run>() as u32,
                trigger: if *silence { SILENCE } else { SCHEDULE },
                due: *due,
                name: Bytes::of_text(name),
            };
            // SAFETY: the header has it called so: after `create` returned ok, on the thread of the instance, with what lives until it returns.
            unsafe { on_schedule(state, caller.handle(), &raw const run) }
        }
    }
}

/// Has a message handled.
fn handle(
    on_message: OnMessage,
    caller: &Caller,
    state: *mut c_void,
    (message, subscription, captures, attempt): (&message::Message, &str, &[String], u32),
) -> Status {
    let broker = caller.host().broker(message.broker);
    let captures: SmallVec<[Bytes; 8]> = captures.iter().map(|capture| Bytes::of_text(capture)).collect();
    let user: SmallVec<[Pair; 4]> =
        message.properties.iter().flat_map(|properties| &properties.user).map(pair).collect();
    let properties = message.properties.as_ref().map(|properties| properties_of(properties, &user));
    let record = Message {
        size: size_of::<Message>() as u32,
        attempt,
        received: unix_nanos(message.received),
        qos: message.qos.number(),
        retain: message.retain.into(),
        dup: message.dup.into(),
        reserved: [0; 5],
        broker: Bytes::of_text(&broker),
        subscription: Bytes::of_text(subscription),
        topic: Bytes::of_text(message.topic.as_str()),
        payload: Bytes::of(&message.payload),
        captures: captures.as_ptr(),
        capture_count: captures.len(),
        properties: properties.as_ref().map_or(ptr::null(), ptr::from_ref),
    };
    // SAFETY: the header has it called so: after `create` returned ok, on the thread of the instance, with what lives until it returns.
    unsafe { on_message(state, caller.handle(), &raw const record) }
}

fn pair((key, value): &(String, String)) -> Pair {
    Pair { key: Bytes::of_text(key), value: Bytes::of_text(value) }
}

fn properties_of(properties: &message::Properties, user: &[Pair]) -> Properties {
    Properties {
        size: size_of::<Properties>() as u32,
        message_expiry: properties.message_expiry.unwrap_or_default(),
        has_message_expiry: properties.message_expiry.is_some().into(),
        utf8_payload: properties.utf8_payload.into(),
        reserved: [0; 6],
        content_type: Bytes::of_text_or_absent(properties.content_type.as_deref()),
        response_topic: Bytes::of_text_or_absent(properties.response_topic.as_deref()),
        correlation_data: Bytes::or_absent(properties.correlation_data.as_deref()),
        user: user.as_ptr(),
        user_count: user.len(),
    }
}
