//! The thread on which plugins are compiled and loaded, one after the other, whoever asks.
//!
//! Owns: the thread. Fed by the start, by changes of the configuration and by reloads through a bounded channel, in which they wait for
//! their turn; it waits for nobody. It ends once nobody can ask any more.

use std::io;
use std::panic::{self, AssertUnwindSafe};
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
                    let _ = answer.send(compiled(&loader, &file));
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

/// A panic, which is a defect of the daemon or of its compiler, costs one plugin and not the thread.
fn compiled(loader: &Loader, file: &PluginFile) -> Result<Plugin, LoadError> {
    outliving(|| loader.load(file))
}

fn outliving<T>(load: impl FnOnce() -> Result<T, LoadError>) -> Result<T, LoadError> {
    // What a panic leaves half done is inside of the engine, which is made for that.
    panic::catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|_| {
        let reason = "its compilation panicked, which is a defect of the daemon; the log says where";
        Err(LoadError::Prepare(reason.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        let error = outliving::<()>(|| panic!("asked to")).expect_err("panics").to_string();
        assert!(error.starts_with("cannot be prepared to run: its compilation panicked"), "{error}");
        assert!(outliving(|| Ok(())).is_ok());
    }
}
