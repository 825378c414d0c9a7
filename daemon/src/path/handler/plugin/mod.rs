//! Plugins: files that were read, compiled or loaded, and checked; and the instances that are made of them.
//!
//! The one place that knows which kinds there are. Fed by the files of `plugins-dir`; feeds the handlers' runners. It deliberately
//! knows nothing of how each kind runs.

mod compiler;
mod error;
mod file;

use std::io;
use std::sync::Arc;
use std::time::Duration;

pub use self::compiler::Compiler;
pub use self::error::LoadError;
pub use self::file::{Kind, PluginFile, PluginHash};
use super::Publish;
use super::call::{Call, CallError, Run, StartError};
use super::host::Host;
use super::native::NativeError;
use super::native::{self, Natives};
use super::wasm::{self, WasmEngine};
use crate::control::config::model::Handler;
use crate::path::kv::Transaction;

/// What a handler can be called for. At least one of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exports {
    /// It handles messages.
    pub on_message: bool,
    /// It runs on a schedule, and on silence.
    pub on_schedule: bool,
}

/// Makes plugins of files. Cheap to clone.
#[derive(Clone)]
pub struct Loader {
    wasm: WasmEngine,
    /// None where native plugins are not permitted.
    native: Option<Arc<Natives>>,
}

impl Loader {
    /// With the engine that compiles components. It loads no native plugins.
    pub fn new(wasm: WasmEngine) -> Loader {
        Loader { wasm, native: None }
    }

    /// Loads native plugins too.
    pub fn permitting_native(self, native: Natives) -> Loader {
        Loader { native: Some(Arc::new(native)), ..self }
    }

    /// As of a daemon for these handlers, but outside of one: nothing is left of the copies of native plugins. A handler has one only where
    /// the configuration permits that.
    ///
    /// # Errors
    /// There is no directory for them.
    pub fn passing<'a>(wasm: WasmEngine, handlers: impl IntoIterator<Item = &'a Handler>) -> io::Result<Loader> {
        let native = |handler: &Handler| file::kind_by_name(&handler.plugin) == Some(Kind::NativeLibrary);
        let loader = Loader::new(wasm);
        if !handlers.into_iter().any(native) {
            return Ok(loader);
        }
        Ok(loader.permitting_native(Natives::passing()?))
    }

    /// Compiles or loads a plugin, and checks it. Blocks, for seconds where a component is large and not in the cache: call it off the
    /// runtime's threads.
    ///
    /// # Errors
    /// Says in a plain sentence without a subject why the file is not a handler that this version runs.
    pub fn load(&self, file: &PluginFile) -> Result<Plugin, LoadError> {
        let code = match file.kind()? {
            Kind::Component => Code::Wasm(self.wasm.load(file)?),
            Kind::NativeLibrary => {
                let native = self.native.as_ref().ok_or(NativeError::NotPermitted)?;
                Code::Native(native.load(file)?)
            }
        };
        Ok(Plugin { code, hash: file.hash() })
    }

    /// No native plugin is loaded any more.
    pub fn close(&self) {
        if let Some(native) = &self.native {
            native.close();
        }
    }

    /// Waits until instances of native plugins that are gone have destroyed their state: each within its call deadline, and no longer than
    /// this. Cancellation safe.
    pub async fn ended(&self, at_most: Duration) {
        if let Some(native) = &self.native {
            native.ended(at_most).await;
        }
    }
}

/// What can make instances of a handler. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Plugin {
    code: Code,
    hash: PluginHash,
}

/// Of each kind.
#[derive(Clone, Debug)]
enum Code {
    Wasm(wasm::Plugin),
    Native(native::Plugin),
}

impl Plugin {
    /// Of what no file holds.
    #[cfg(test)]
    pub(super) fn of_native(plugin: native::Plugin) -> Plugin {
        Plugin { code: Code::Native(plugin), hash: PluginFile::new(b"native".to_vec()).hash() }
    }

    /// The SHA-256 of its file: its version for people and for reloads.
    pub fn hash(&self) -> PluginHash {
        self.hash
    }

    /// The same plugin as what this file, which has the same bytes, is loaded as: nothing is loaded, but the file must be what its name says.
    ///
    /// # Errors
    /// It is not, as [`Loader::load`] says too.
    pub fn of(&self, file: &PluginFile) -> Result<Plugin, LoadError> {
        debug_assert!(file.hash() == self.hash, "these are other bytes");
        file.kind().map(|_| self.clone())
    }

    /// What it can be called for.
    pub fn exports(&self) -> Exports {
        match &self.code {
            Code::Wasm(plugin) => plugin.exports(),
            Code::Native(plugin) => plugin.exports(),
        }
    }
}

/// One instance of a handler, of any kind.
pub enum Instance {
    /// A component's.
    Wasm(wasm::PlacedInstance),
    /// A native library's.
    Native(Box<native::Instance>),
}

impl Instance {
    /// Makes an instance and runs its `init`, all within one call deadline. Cancel safe: a start that is dropped leaves nothing behind, but
    /// a thread where native code does not end.
    ///
    /// # Errors
    /// It refuses or fails in one of the ways of a call; the texts leave out the handler's name.
    pub async fn start(plugin: &Plugin, host: Arc<Host>) -> Result<Instance, StartError> {
        match &plugin.code {
            Code::Wasm(plugin) => Ok(Instance::Wasm(wasm::PlacedInstance::start(plugin, host).await?)),
            Code::Native(plugin) => Ok(Instance::Native(Box::new(native::Instance::start(plugin, host).await?))),
        }
    }

    /// Has it handle a message. Gives the publishes in the order of its calls.
    ///
    /// Not cancel safe: after a call that was dropped, as after an error whose [`CallError::keeps_instance`] is false, the instance must be
    /// dropped too.
    ///
    /// # Errors
    /// It returned an error, or did not return.
    pub async fn call(&mut self, call: Call<'_>) -> Result<Vec<Publish>, CallError> {
        match self {
            Instance::Wasm(instance) => instance.call(call).await,
            Instance::Native(instance) => instance.call(call).await,
        }
    }

    /// Has it do what a schedule asks for. Otherwise as [`Self::call`].
    ///
    /// # Errors
    /// As there.
    pub async fn run(&mut self, run: Run<'_>) -> Result<Vec<Publish>, CallError> {
        match self {
            Instance::Wasm(instance) => instance.run(run).await,
            Instance::Native(instance) => instance.run(run).await,
        }
    }

    /// Takes out what the last call read and wrote, whatever it returned: its writes take effect with its publishes.
    pub fn take_kv(&mut self) -> Transaction {
        match self {
            Instance::Wasm(instance) => instance.take_kv(),
            Instance::Native(instance) => instance.take_kv(),
        }
    }
}
