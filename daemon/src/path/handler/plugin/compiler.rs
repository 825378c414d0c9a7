//! The thread on which plugins are compiled and loaded, one after the other, whoever asks.
//!
//! Owns: the thread. Fed by the start, by changes of the configuration and by reloads through a bounded channel, in which they wait for
//! their turn; it waits for nobody. It ends once nobody can ask any more.

use std::io;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::{LoadError, Loader, Plugin, PluginFile};

/// Compilations that wait for the one under way; whoever asks for more waits to ask.
const WAITING: usize = 16;

/// A file to make a plugin of.
struct Compilation {
    file: Arc<PluginFile>,
    answer: oneshot::Sender<Result<Plugin, LoadError>>,
}

/// Compiles plugins. Cheap to clone.
#[derive(Clone)]
pub struct Compiler {
    compilations: mpsc::Sender<Compilation>,
}

impl Compiler {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(loader: Loader) -> io::Result<Compiler> {
        let (compilations, mut waiting) = mpsc::channel::<Compilation>(WAITING);
        std::thread::Builder::new().name("compiler".to_owned()).spawn(move || {
            while let Some(Compilation { file, answer }) = waiting.blocking_recv() {
                // Who asked may be gone, and then nobody needs it.
                if !answer.is_closed() {
                    let _ = answer.send(loader.load(&file));
                }
            }
        })?;
        Ok(Compiler { compilations })
    }

    /// Makes a plugin of a file. Takes seconds where a component is large and not in the cache. Cancel safe.
    ///
    /// # Errors
    /// Says in a plain sentence without a subject why the file is not a handler that this version runs.
    pub async fn compile(&self, file: Arc<PluginFile>) -> Result<Plugin, LoadError> {
        let cut = || LoadError::Prepare("the thread that compiles plugins has ended, the log says why".to_owned());
        let (answer, compiled) = oneshot::channel();
        self.compilations.send(Compilation { file, answer }).await.map_err(|_| cut())?;
        compiled.await.unwrap_or_else(|_| Err(cut()))
    }
}
