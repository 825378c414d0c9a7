//! The instances of one handler, by shard.
//!
//! Each is of a version of the plugin; one of an older version than is asked for is gone. A runner takes the instance of its shard out for
//! a call, and puts it back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::StartError;
use super::host::Host;
use super::plugin::Instance;
use super::versions::Version;
use crate::telemetry::metrics::HandlerMeters;

/// The instances of a handler, by shard.
pub(super) struct Instances(Vec<Mutex<Option<Counted>>>);

impl Instances {
    /// None yet.
    pub(super) fn new(count: usize) -> Instances {
        Instances((0..count).map(|_| Mutex::default()).collect())
    }

    /// Puts an instance in its place, unless one of a later version is there: a call may end after a swap.
    pub(super) fn put(&self, shard: usize, instance: Counted) {
        drop(self.replace(shard, instance));
    }

    /// As [`Self::put`], for many. Those that are in no place after it: their end frees memory, which takes time.
    pub(super) fn put_all(&self, instances: impl IntoIterator<Item = (usize, Counted)>) -> Vec<Counted> {
        instances.into_iter().filter_map(|(shard, instance)| self.replace(shard, instance)).collect()
    }

    /// The one that is in no place any more, if there is one.
    fn replace(&self, shard: usize, instance: Counted) -> Option<Counted> {
        let mut slot = self.slot(shard);
        match &*slot {
            Some(there) if there.version.number > instance.version.number => Some(instance),
            _ => slot.replace(instance),
        }
    }

    /// Takes the instance of a shard, if it is of this version. One of a later version stays: a call may begin before a swap, and get
    /// here after it.
    pub(super) fn take(&self, shard: usize, version: &Arc<Version>) -> Option<Counted> {
        let mut slot = self.slot(shard);
        let there = slot.take_if(|there| there.version.number <= version.number)?;
        drop(slot);
        Arc::ptr_eq(&there.version, version).then_some(there)
    }

    /// Takes out all that are there, with their shards.
    pub(super) fn take_all(&self) -> Vec<(usize, Counted)> {
        (0..self.0.len()).filter_map(|shard| Some((shard, self.slot(shard).take()?))).collect()
    }

    fn slot(&self, shard: usize) -> MutexGuard<'_, Option<Counted>> {
        self.0[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An instance that is counted for as long as it is there.
pub(super) struct Counted {
    pub(super) instance: Instance,
    version: Arc<Version>,
    meters: Arc<HandlerMeters>,
}

impl Counted {
    /// An instance of a version, ready to be called.
    ///
    /// # Errors
    /// It cannot be made, or its `init` fails.
    pub(super) async fn start(
        version: &Arc<Version>,
        host: &Arc<Host>,
        meters: &Arc<HandlerMeters>,
    ) -> Result<Counted, StartError> {
        let instance = Instance::start(&version.plugin, Arc::clone(host)).await?;
        meters.instances.inc();
        Ok(Counted { instance, version: Arc::clone(version), meters: Arc::clone(meters) })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.meters.instances.dec();
    }
}
