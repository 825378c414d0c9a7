//! What a plugin's call of a host function works on: the call in progress of this thread.
//!
//! Owned by the thread of an instance. Whatever handle a plugin passes, nothing is read through it: it is compared with the one that this
//! thread gives out, so that one of another thread, or of an instance that has ended, is a refusal; one that was kept from an earlier call of
//! the same instance stands for the call in progress. What a call publishes and writes is shared with the
//! instance, which takes it away when it stops waiting: from then on nothing that the plugin does has an effect.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tidegate_abi::{Call, Fault, Status};

use crate::path::handler::host::{CallState, Host};

thread_local! {
    /// What the library's code on this thread was called with.
    static CURRENT: Cell<*const Caller> = const { Cell::new(ptr::null()) };
}

/// The call in progress; none before it, after it, and once nobody waits for it.
pub(super) type Effects = Arc<Mutex<Option<CallState>>>;

/// What a plugin said of how its call ends.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) said: Option<String>,
    pub(super) after: Option<Duration>,
}

/// Why a host function does not do what it was asked.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: Status,
    pub(super) words: String,
}

impl Refusal {
    /// An argument is not what the header asks for.
    pub(super) fn invalid(argument: &str, fault: Fault) -> Refusal {
        Refusal { status: Status::INVALID, words: format!("{argument} {fault}") }
    }
}

/// What host functions of one instance work on.
pub(super) struct Caller {
    host: Arc<Host>,
    effects: Effects,
    words: RefCell<Words>,
    last_error: RefCell<String>,
    /// What the call in progress was lent.
    lent: RefCell<Lent>,
}

/// Memory that a plugin may look at until its callback returns. Moving an element moves none of what it owns.
#[derive(Default)]
struct Lent {
    values: Vec<Bytes>,
    texts: Vec<Arc<str>>,
    /// What earlier functions failed with.
    words: Vec<String>,
    lists: Vec<(Vec<String>, Vec<tidegate_abi::Bytes>)>,
}

/// While this is there, host functions that are called on this thread work on its caller.
pub(super) struct Entered(());

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(ptr::null());
    }
}

impl Caller {
    /// Of one instance.
    pub(super) fn new(host: Arc<Host>, effects: Effects) -> Caller {
        Caller { host, effects, words: RefCell::default(), last_error: RefCell::default(), lent: RefCell::default() }
    }

    /// Host functions work on this from now on. It must stay where it is, and be there for as long as what is returned.
    pub(super) fn enter(&self) -> Entered {
        CURRENT.set(self);
        Entered(())
    }

    /// What the plugin gets as its call.
    pub(super) fn handle(&self) -> *mut Call {
        ptr::from_ref(self).cast_mut().cast()
    }

    /// The handler's grants.
    pub(super) fn host(&self) -> &Host {
        &self.host
    }

    /// A callback has returned: what it was lent is gone, and what it said is given out.
    pub(super) fn end(&self) -> Words {
        *self.lent.borrow_mut() = Lent::default();
        self.last_error.take();
        self.words.take()
    }

    /// What the plugin says of how its call is going to end. The last one counts.
    pub(super) fn says(&self, words: Words) {
        *self.words.borrow_mut() = words;
    }

    /// Why the last function failed that did.
    pub(super) fn last_error(&self) -> tidegate_abi::Bytes {
        tidegate_abi::Bytes::of_text(&self.last_error.borrow())
    }

    /// Lends a value until the callback returns.
    pub(super) fn lend(&self, value: Bytes) -> tidegate_abi::Bytes {
        let lent = tidegate_abi::Bytes::of(&value);
        self.lent.borrow_mut().values.push(value);
        lent
    }

    /// Lends a text until the callback returns.
    pub(super) fn lend_text(&self, text: &Arc<str>) -> tidegate_abi::Bytes {
        self.lent.borrow_mut().texts.push(Arc::clone(text));
        tidegate_abi::Bytes::of_text(text)
    }

    /// Lends a list of texts until the callback returns: where its elements are, and how many.
    pub(super) fn lend_list(&self, texts: Vec<String>) -> (*const tidegate_abi::Bytes, usize) {
        let elements: Vec<_> = texts.iter().map(|text| tidegate_abi::Bytes::of_text(text)).collect();
        let list = (elements.as_ptr(), elements.len());
        self.lent.borrow_mut().lists.push((texts, elements));
        list
    }

    /// Works on the call in progress.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn effects<T>(&self, work: impl FnOnce(&mut CallState) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let mut effects = self.effects.lock().unwrap_or_else(PoisonError::into_inner);
        let state = effects.as_mut().ok_or_else(|| Refusal {
            status: Status::INVALID,
            words: "the call is over: its deadline has passed, or its callback has returned".to_owned(),
        })?;
        work(state)
    }

    /// The status of what was done, and the words of why it was not.
    fn finish(&self, done: Result<(), Refusal>) -> Status {
        match done {
            Ok(()) => Status::OK,
            // No failure: of the last one the words stay.
            Err(Refusal { status: Status::NOT_FOUND, .. }) => Status::NOT_FOUND,
            Err(Refusal { status, words }) => {
                // The plugin may look at the words that it was given before until its callback returns.
                let before = self.last_error.replace(words);
                self.lent.borrow_mut().words.push(before);
                status
            }
        }
    }
}

/// Works on the caller of this thread; `otherwise` where the plugin passes another call than it was given here. No panic gets out.
pub(super) fn with<T>(call: *mut Call, otherwise: T, work: impl FnOnce(&Caller) -> T) -> T {
    let current = CURRENT.get();
    if current.is_null() || !ptr::addr_eq(current, call) {
        return otherwise;
    }
    // SAFETY: who set it keeps the caller where it is until it is null again, which the same thread does.
    let caller = unsafe { &*current };
    // What a panic leaves behind belongs to one call, which fails.
    catch_unwind(AssertUnwindSafe(|| work(caller))).unwrap_or(otherwise)
}

/// As [`with`], for what may be refused in words.
pub(super) fn answer(call: *mut Call, work: impl FnOnce(&Caller) -> Result<(), Refusal>) -> Status {
    with(call, Status::INVALID, |caller| caller.finish(work(caller)))
}
