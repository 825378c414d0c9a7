//! A daemon in memory for the tests of plugins: it writes down what it is asked, and answers from what it was given.
//!
//! The call that a plugin gets is this daemon itself. Shared with the tests of `tidegate-native`.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr;
use std::rc::Rc;

use tidegate_abi::{
    ANY_DELAY, Bytes, Call, FOREVER, Grows, Host, MINOR, Message, Outgoing, OutgoingView, Pair, Pairs, Plugin,
    PropertiesView, Readings, Run, Status, read, write,
};

/// The daemon of one instance.
#[derive(Default)]
pub struct Fake {
    /// What it was asked, each in words, in order.
    pub asked: Vec<String>,
    /// What the handler remembers.
    pub kv: BTreeMap<String, Vec<u8>>,
    /// Its configuration, key by key.
    pub config: BTreeMap<String, String>,
    /// What every publish and every use of kv ends with, if not well.
    pub refusal: Option<(Status, &'static str)>,
    /// Why the call failed, and when to try again, as the plugin says.
    pub error: Option<(String, u64)>,
    last: String,
    /// What was given to the plugin, until the callback returns.
    given: Vec<Rc<[u8]>>,
    lists: Vec<Rc<[Bytes]>>,
}

impl Fake {
    /// Remembering these values, with this configuration.
    pub fn new(kv: &[(&str, &str)], config: &[(&str, &str)]) -> Fake {
        let kv = kv.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
        let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Fake { kv, config, ..Fake::default() }
    }

    /// Ending every publish and every use of kv so.
    pub fn refusing(status: Status, words: &'static str) -> Fake {
        Fake { refusal: Some((status, words)), ..Fake::default() }
    }

    /// Has a plugin begin an instance.
    pub fn create(&mut self, plugin: &Plugin) -> (Status, *mut c_void) {
        let create = plugin.create.expect("it has states");
        let mut state = ptr::null_mut();
        // SAFETY: the call and the place for the state live until it returns.
        let status = self.during(|call| unsafe { create(call, &raw mut state) });
        (status, state)
    }

    /// Has it handle a message.
    ///
    /// # Safety
    /// The state is one that the plugin made, or null where it makes none; all that the message points to lives.
    pub unsafe fn message(&mut self, plugin: &Plugin, state: *mut c_void, message: &Message) -> Status {
        let on_message = plugin.on_message.expect("it handles messages");
        // SAFETY: as asked of the caller.
        self.during(|call| unsafe { on_message(state, call, message) })
    }

    /// Has it run.
    ///
    /// # Safety
    /// As of [`Self::message`].
    pub unsafe fn run(&mut self, plugin: &Plugin, state: *mut c_void, run: &Run) -> Status {
        let on_schedule = plugin.on_schedule.expect("it runs");
        // SAFETY: as asked of the caller.
        self.during(|call| unsafe { on_schedule(state, call, run) })
    }

    /// What was asked since the last time.
    pub fn take_asked(&mut self) -> Vec<String> {
        std::mem::take(&mut self.asked)
    }

    fn during(&mut self, callback: impl FnOnce(*mut Call) -> Status) -> Status {
        self.error = None;
        let status = callback((&raw mut *self).cast());
        // As the daemon may: nothing that was given is left.
        self.given.clear();
        self.lists.clear();
        status
    }

    /// Keeps bytes until the callback returns.
    fn give(&mut self, bytes: &[u8]) -> Bytes {
        self.given.push(Rc::from(bytes));
        self.given.last().map_or(Bytes::ABSENT, |given| Bytes::of(given))
    }

    fn ask(&mut self, words: String) -> Status {
        self.asked.push(words);
        match self.refusal {
            Some((status, words)) => {
                words.clone_into(&mut self.last);
                status
            }
            None => Status::OK,
        }
    }
}

/// The daemon behind a call.
///
/// # Safety
/// The call was made by [`Fake::during`], and nothing else of it is borrowed.
unsafe fn fake<'a>(call: *mut Call) -> &'a mut Fake {
    // SAFETY: as asked of the caller.
    unsafe { &mut *call.cast::<Fake>() }
}

/// # Safety
/// As of [`Bytes::get`].
unsafe fn shown<'a>(bytes: Bytes) -> &'a str {
    // SAFETY: as asked of the caller.
    unsafe { bytes.text() }.expect("it is text")
}

fn properties(properties: &PropertiesView<'_>) -> String {
    let user = properties.user.clone().collect::<Result<Vec<_>, _>>().expect("they are texts");
    format!(
        "{:?} {:?} {:?} {:?} {} {user:?}",
        properties.content_type,
        properties.response_topic,
        properties.correlation_data,
        properties.message_expiry,
        properties.utf8_payload
    )
}

unsafe extern "C" fn log_enabled(call: *mut Call, level: u32) -> u32 {
    // SAFETY: the plugin gives back the call that it was given.
    unsafe { fake(call) }.asked.push(format!("log_enabled {level}"));
    (level >= 2).into()
}

unsafe extern "C" fn log(call: *mut Call, level: u32, message: Bytes, fields: *const Pair, field_count: usize) {
    // SAFETY: the plugin lends all of it.
    let message = unsafe { shown(message) };
    // SAFETY: as before.
    let fields = unsafe { Pairs::of(fields, field_count) }.expect("they are an array");
    let fields = fields.collect::<Result<Vec<_>, _>>().expect("they are texts");
    // SAFETY: the plugin gives back the call that it was given.
    unsafe { fake(call) }.asked.push(format!("log {level} {message} {fields:?}"));
}

unsafe extern "C" fn publish(call: *mut Call, message: *const Outgoing) -> Status {
    // SAFETY: the plugin lends it.
    let view = unsafe { OutgoingView::of(message) }.expect("it is sound");
    let OutgoingView { topic, payload, qos, retain, broker, properties: given } = view;
    let payload = String::from_utf8_lossy(payload).into_owned();
    let given = given.as_ref().map_or(String::new(), |given| format!(" {}", properties(given)));
    // SAFETY: the plugin gives back the call that it was given.
    let fake = unsafe { fake(call) };
    fake.ask(format!("publish {topic} {payload:?} {qos} {retain} {broker:?}{given}"))
}

unsafe extern "C" fn kv_get(call: *mut Call, key: Bytes, value: *mut Bytes) -> Status {
    // SAFETY: the plugin lends the key.
    let key = unsafe { shown(key) };
    // SAFETY: the plugin gives back the call that it was given.
    let fake = unsafe { fake(call) };
    let status = fake.ask(format!("kv_get {key}"));
    let found = fake.kv.get(key).cloned();
    let given = found.as_ref().map_or(Bytes::ABSENT, |found| fake.give(found));
    // SAFETY: the plugin gives room for it.
    unsafe { value.write(given) };
    if status == Status::OK && found.is_none() { Status::NOT_FOUND } else { status }
}

unsafe extern "C" fn kv_set(call: *mut Call, key: Bytes, value: Bytes, ttl_ms: u64) -> Status {
    // SAFETY: the plugin lends both.
    let (key, value) = unsafe { Pair { key, value }.texts() }.expect("they are texts");
    let ttl = if ttl_ms == FOREVER { String::new() } else { format!(" for {ttl_ms} ms") };
    // SAFETY: the plugin gives back the call that it was given.
    let fake = unsafe { fake(call) };
    let status = fake.ask(format!("kv_set {key} {value}{ttl}"));
    if status == Status::OK {
        fake.kv.insert(key.to_owned(), value.as_bytes().to_vec());
    }
    status
}

unsafe extern "C" fn kv_delete(call: *mut Call, key: Bytes) -> Status {
    // SAFETY: the plugin lends the key.
    let key = unsafe { shown(key) };
    // SAFETY: the plugin gives back the call that it was given.
    let fake = unsafe { fake(call) };
    let status = fake.ask(format!("kv_delete {key}"));
    if status == Status::OK {
        fake.kv.remove(key);
    }
    status
}

unsafe extern "C" fn kv_keys(
    call: *mut Call,
    prefix: Bytes,
    after: Bytes,
    limit: u32,
    keys: *mut *const Bytes,
    key_count: *mut usize,
) -> Status {
    // SAFETY: the plugin lends both.
    let prefix = unsafe { shown(prefix) };
    // SAFETY: as before.
    let after = unsafe { after.text_or_absent() }.expect("it is text");
    // SAFETY: the plugin gives back the call that it was given.
    let fake = unsafe { fake(call) };
    let status = fake.ask(format!("kv_keys {prefix} {after:?} {limit}"));
    let found = fake.kv.keys().filter(|key| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after));
    let found = found.take(limit as usize).cloned().collect::<Vec<_>>();
    let given: Rc<[Bytes]> = found.iter().map(|key| fake.give(key.as_bytes())).collect();
    // SAFETY: the plugin gives room for it.
    unsafe { keys.write(given.as_ptr()) };
    // SAFETY: as before.
    unsafe { key_count.write(given.len()) };
    fake.lists.push(given);
    status
}

unsafe extern "C" fn config_get(call: *mut Call, key: Bytes, value: *mut Bytes) -> Status {
    // SAFETY: the plugin lends the key.
    let key = unsafe { shown(key) };
    // SAFETY: the plugin gives back the call that it was given.
    let fake = unsafe { fake(call) };
    let found = fake.config.get(key).cloned();
    let given = found.as_ref().map_or(Bytes::ABSENT, |found| fake.give(found.as_bytes()));
    // SAFETY: the plugin gives room for it.
    unsafe { value.write(given) };
    if found.is_some() { Status::OK } else { Status::NOT_FOUND }
}

unsafe extern "C" fn config_json(call: *mut Call) -> Bytes {
    // SAFETY: the plugin gives back the call that it was given.
    let fake = unsafe { fake(call) };
    let entries = fake.config.iter().map(|(key, value)| format!("{key:?}:{value:?}")).collect::<Vec<_>>();
    let json = format!("{{{}}}", entries.join(","));
    fake.give(json.as_bytes())
}

unsafe extern "C" fn system_read(call: *mut Call, readings: *mut Readings) -> Status {
    // SAFETY: the plugin gives back the call that it was given.
    let fake = unsafe { fake(call) };
    let status = fake.ask("system_read".to_owned());
    let [model, serial_number, os_version] = [&b"box"[..], b"7", b"Test 1"].map(|text| fake.give(text));
    let known = Readings {
        size: Readings::LEAST,
        cpu_load: 5,
        used_memory: 100,
        free_memory: 200,
        uptime: 300,
        model,
        serial_number,
        os_version,
    };
    // SAFETY: the plugin gives room for as much as its size says.
    unsafe { write(readings, &known) }.expect("there is room");
    status
}

unsafe extern "C" fn set_error(call: *mut Call, words: Bytes, after_ms: u64) {
    // SAFETY: the plugin lends the words.
    let words = unsafe { shown(words) }.to_owned();
    // SAFETY: the plugin gives back the call that it was given.
    unsafe { fake(call) }.error = Some((words, after_ms));
}

unsafe extern "C" fn last_error(call: *mut Call) -> Bytes {
    // SAFETY: the plugin gives back the call that it was given.
    let fake = unsafe { fake(call) };
    let last = std::mem::take(&mut fake.last);
    fake.give(last.as_bytes())
}

/// The table of its functions.
pub static HOST: Host = Host {
    size: size_of::<Host>() as u32,
    minor: MINOR,
    log_enabled: Some(log_enabled),
    log: Some(log),
    publish: Some(publish),
    kv_get: Some(kv_get),
    kv_set: Some(kv_set),
    kv_delete: Some(kv_delete),
    kv_keys: Some(kv_keys),
    config_get: Some(config_get),
    config_json: Some(config_json),
    system_read: Some(system_read),
    set_error: Some(set_error),
    last_error: Some(last_error),
};

/// Has an entry point give its plugin.
///
/// # Safety
/// It is one, of a plugin that keeps the header's promises.
pub unsafe fn enter(entry: tidegate_abi::Entry) -> Plugin {
    // SAFETY: as asked of the caller.
    let table = unsafe { entry(&raw const HOST) };
    // SAFETY: as asked of the caller.
    unsafe { read(table) }.expect("it is sound")
}

/// A message on this topic, as a broker named `test` brings it.
pub fn message<'a>(topic: &'a str, payload: &'a str) -> Message {
    Message {
        size: size_of::<Message>() as u32,
        attempt: 1,
        received: 1_000_000_000,
        qos: 1,
        retain: 0,
        dup: 0,
        reserved: [0; 5],
        broker: Bytes::of_text("test"),
        subscription: Bytes::of_text("all"),
        topic: Bytes::of_text(topic),
        payload: Bytes::of_text(payload),
        captures: ptr::null(),
        capture_count: 0,
        properties: ptr::null(),
    }
}

/// Why a call failed, with [`ANY_DELAY`] as none.
pub fn failure(fake: &Fake) -> Option<(&str, Option<u64>)> {
    let (words, after) = fake.error.as_ref()?;
    Some((words, (*after != ANY_DELAY).then_some(*after)))
}
