//! The version of its plugin that a handler runs, and the swap to another one.
//!
//! Owns: which version is current. Written by the change task alone; read by each call. Calls in progress end on the version that they
//! began with.

use std::sync::{Arc, Mutex, PoisonError};

use super::StartError;
use super::needs::NotExported;
use super::plugin::{LoadError, Plugin};

/// Why a handler does not run a version.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// The file holds no plugin.
    #[error("it {0}")]
    Load(#[from] LoadError),
    /// An instance of it does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It does not export what the configuration calls it for.
    #[error(transparent)]
    NotExported(#[from] NotExported),
}

impl VersionError {
    /// What is said of a version whose file cannot be loaded.
    pub fn reason_of(error: &LoadError) -> String {
        format!("it {error}")
    }
}

/// One version of a handler's plugin.
pub struct Version {
    /// What runs.
    pub plugin: Plugin,
    /// Higher than those before; the first is 0.
    pub(super) number: u64,
}

/// The versions of one handler.
pub(super) struct Versions {
    current: Mutex<Arc<Version>>,
}

impl Versions {
    /// The first version.
    pub(super) fn new(plugin: Plugin) -> Versions {
        Versions { current: Mutex::new(Arc::new(Version { plugin, number: 0 })) }
    }

    /// The version that calls begin with now.
    pub(super) fn current(&self) -> Arc<Version> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A version that is to follow the current one.
    pub(super) fn next(&self, plugin: Plugin) -> Arc<Version> {
        Arc::new(Version { plugin, number: self.current().number + 1 })
    }

    /// Calls begin with this version from now on; the one before.
    pub(super) fn swap(&self, version: Arc<Version>) -> Arc<Version> {
        std::mem::replace(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner), version)
    }
}
