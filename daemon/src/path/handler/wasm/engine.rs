//! The engine: one compiler, one linker and one epoch for all handlers of the daemon.
//!
//! Owns: wasmtime's configuration, the compile cache, the compiling threads, the ticker and the threads for guests on probation. Made once at start, or by `check` without a cache;
//! loads plugins.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmtime::component::Linker;
use wasmtime::{Cache, CacheConfig, Config, Engine, InstanceAllocationStrategy, Strategy};

use super::aside::Aside;
use super::compilers::Compilers;
use super::imports;
use super::limits::MAX_WASM_STACK;
use super::load::Plugin;
use super::state::State;
use super::ticker::Ticker;
use crate::path::handler::plugin::{LoadError, PluginFile};

/// Stack of a call, in bytes: what a guest leaves is for host functions, which log and format.
const ASYNC_STACK: usize = 2 * MAX_WASM_STACK;

/// Bytes that the compile cache may take; past it the least recently used files go.
const MAX_CACHE_BYTES: u64 = 512 * 1024 * 1024;

/// Runs WebAssembly. Cheap to clone; the last clone, plugin and instance end it.
#[derive(Clone)]
pub struct WasmEngine {
    shared: Arc<Shared>,
}

struct Shared {
    linker: Linker<State>,
    compilers: Compilers,
    ticker: Arc<Ticker>,
    aside: Arc<Aside>,
}

impl WasmEngine {
    /// Starts the engine. Compiled code is cached in `cache`, a directory that is made with mode 0700; with none, every
    /// load compiles.
    ///
    /// # Errors
    /// The cache's directory cannot be used or trusted, or the operating system lacks what the engine needs.
    pub fn new(cache: Option<&Path>) -> Result<WasmEngine, EngineError> {
        let mut config = configuration();
        config.cache(cache.map(open_cache).transpose()?);
        let failed = |error: wasmtime::Error| EngineError::Engine(format!("{error:#}"));
        let engine = Engine::new(&config).map_err(failed)?;
        let mut linker = Linker::new(&engine);
        imports::add_to_linker(&mut linker).map_err(failed)?;
        let ticker = Arc::new(Ticker::start(&engine).map_err(EngineError::Ticker)?);
        let compilers = Compilers::start().map_err(EngineError::Compilers)?;
        Ok(WasmEngine { shared: Arc::new(Shared { linker, compilers, ticker, aside: Arc::new(Aside::new()) }) })
    }

    /// Compiles and checks a component, and resolves its imports. Blocks, for seconds where it is large and not in the cache: call it off
    /// the runtime's threads. What it keeps every core busy with steps back behind everything else.
    ///
    /// # Errors
    /// Says in a plain sentence without a subject why the file is not a handler that this version runs.
    pub fn load(&self, file: &PluginFile) -> Result<Plugin, LoadError> {
        let Shared { linker, compilers, ticker, aside } = &*self.shared;
        compilers.run(
            || Plugin::load(linker, (ticker, aside), file.bytes()),
            |took| {
                let path = file.path().map(|path| tracing::field::display(path.display()));
                let (version, bytes, seconds) = (file.hash(), file.bytes().len(), took.as_secs());
                tracing::warn!(path, %version, bytes, seconds, "compiling a plugin takes long");
            },
        )
    }

    /// For tests that look at what is provided.
    #[cfg(test)]
    pub(super) fn linker(&self) -> &Linker<State> {
        &self.shared.linker
    }
}

fn configuration() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .parallel_compilation(true)
        // The pooling allocator fixes sizes when the engine is made, which a changed max-memory must not depend on.
        .allocation_strategy(InstanceAllocationStrategy::OnDemand)
        .memory_init_cow(true)
        .epoch_interruption(true)
        .consume_fuel(false)
        .max_wasm_stack(MAX_WASM_STACK)
        .async_stack_size(ASYNC_STACK)
        // Traps are told in words; frames of a stripped guest say nothing, and collecting them takes longer than a call.
        .wasm_backtrace_max_frames(None)
        // Fewest proposals: what no guest language needs by default stays off.
        .wasm_memory64(false)
        .wasm_tail_call(false)
        .wasm_relaxed_simd(false);
    config
}

/// Cached code runs as the daemon, so nobody else may write there.
fn open_cache(directory: &Path) -> Result<Cache, EngineError> {
    let failed = |source| EngineError::CacheDirectory { path: directory.to_owned(), source };
    // Recursive also means that an existing directory is no error.
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let path = directory.canonicalize().map_err(failed)?;
    let metadata = path.metadata().map_err(failed)?;
    if metadata.permissions().mode() & 0o022 != 0 {
        return Err(EngineError::CacheWritable { path });
    }
    // Fails for a directory of another user.
    std::fs::set_permissions(&path, Permissions::from_mode(0o700)).map_err(failed)?;

    let mut config = CacheConfig::new();
    config.with_directory(&path).with_files_total_size_soft_limit(MAX_CACHE_BYTES);
    Cache::new(config).map_err(|error| EngineError::Engine(format!("{error:#}")))
}

/// Why WebAssembly cannot be run at all.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The cache's directory cannot be made, read or restricted.
    #[error("the compile cache {} cannot be used", path.display())]
    CacheDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may have planted code in the cache.
    #[error(
        "the compile cache {} may be written by other users, so code in it cannot be trusted; remove the directory",
        path.display()
    )]
    CacheWritable {
        /// The directory.
        path: PathBuf,
    },
    /// Wasmtime refuses.
    #[error("the WebAssembly engine does not start: {0}")]
    Engine(String),
    /// The threads that compile do not start.
    #[error("the threads that compile handlers do not start")]
    Compilers(#[source] rayon::ThreadPoolBuildError),
    /// The thread that interrupts guests does not start.
    #[error("the thread that interrupts handlers does not start")]
    Ticker(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("exists").permissions().mode() & 0o777
    }

    #[test]
    fn the_cache_is_for_the_daemon_alone() {
        let state = tempfile::tempdir().expect("a directory");
        let cache = state.path().join("cache/compiled");
        drop(WasmEngine::new(Some(&cache)).expect("makes the directory"));
        assert_eq!(mode(&cache), 0o700);

        std::fs::set_permissions(&cache, Permissions::from_mode(0o755)).expect("is ours");
        drop(WasmEngine::new(Some(&cache)).expect("others could only read"));
        assert_eq!(mode(&cache), 0o700);

        std::fs::set_permissions(&cache, Permissions::from_mode(0o770)).expect("is ours");
        let error = WasmEngine::new(Some(&cache)).err().expect("others could write");
        assert!(error.to_string().ends_with("code in it cannot be trusted; remove the directory"), "{error}");
    }

    #[test]
    fn a_cache_that_cannot_be_made_is_named() {
        let state = tempfile::tempdir().expect("a directory");
        let file = state.path().join("file");
        std::fs::write(&file, "").expect("writes");
        let error = WasmEngine::new(Some(&file.join("cache"))).err().expect("is below a file");
        assert_eq!(error.to_string(), format!("the compile cache {}/cache cannot be used", file.display()));
    }
}
