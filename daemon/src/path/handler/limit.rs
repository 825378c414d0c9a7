//! The limits of a call beside its deadline and its memory, each with the sentence that tells it.
//!
//! Pure words: value and key of a limit stand in its sentence, or that no key raises it. Made by what counts publishes and by each
//! kind's instances; told by the errors of calls and starts.

/// A limit that a call went past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// Messages of one call.
    #[error("the call publishes more than max-publishes = {0} messages")]
    Publishes(usize),
    /// Topics, payloads and properties of one call's publishes, in bytes.
    #[error("the call publishes more than max-publish-bytes = {0} bytes")]
    PublishBytes(usize),
    /// Bytes that one host function takes from the guest, or the guest returns: what the keys permit to come that way.
    #[error(
        "the handler passes more than {0} bytes to the daemon at once, which is twice max-publish-bytes or twice allow.kv, whichever is \
         larger, and 4 MiB at least"
    )]
    Passed(usize),
    /// Bytes of call stack.
    #[error("the handler needs more than {0} bytes of call stack, as by endless recursion; no key raises that")]
    CallStack(usize),
    /// Elements of an instance's tables, all together.
    #[error("the handler needs more than {0} table elements; no key raises that")]
    TableElements(usize),
    /// Tables of an instance.
    #[error("the handler needs more than {0} tables; no key raises that")]
    Tables(usize),
    /// Core instances of an instance.
    #[error("the handler needs more than {0} core instances; no key raises that")]
    CoreInstances(usize),
    /// Linear memories of an instance.
    #[error("the handler needs more than {0} linear memories; no key raises that")]
    Memories(usize),
}
