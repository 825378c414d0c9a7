//! `watch-config`: the configuration's files are read again when they change.
//!
//! Owns: the watch of these files, as long as the configuration that runs asks for it. Fed by `control/watch`, which tells of files that
//! whoever writes them is done with; feeds the reload (`reload.rs`). Files that interpolations read are not watched.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::change::blocking;
use super::reload::Trigger;
use super::{Live, Running};
use crate::control::watch::{CONFIGURATION, Sight, Wanted, Watch};

/// The key that asks for it.
const KEY: &str = "watch-config";

/// Watches whenever that is configured. Never ends; cancel safe.
pub async fn watch_configuration(live: Live) {
    let mut running = live.watch();
    while let Ok(file) = until(&mut running, true).await {
        match wanted(&file).and_then(|wanted| Watch::start(KEY, CONFIGURATION, wanted)) {
            Ok((_watch, sight)) => tokio::select! {
                () = reload_at_each(&live, sight) => {}
                _ = until(&mut running, false) => {}
            },
            Err(error) => {
                tracing::error!(%error, "the configuration's files cannot be watched: watch-config has no effect until it is set anew");
                // An error means that the gateway has ended, which the next look finds.
                let _ = until(&mut running, false).await;
            }
        }
    }
    // The gateway has ended, which ends this too.
    std::future::pending().await
}

/// Waits until the configuration asks for the watch, or does not. The main file.
async fn until(running: &mut watch::Receiver<Arc<Running>>, asks: bool) -> Result<PathBuf, watch::error::RecvError> {
    let found = running.wait_for(|running| running.loaded.config.watch_config == asks).await;
    found.map(|running| running.file.clone())
}

/// The file, and `conf.d` beside it.
fn wanted(file: &Path) -> io::Result<Wanted> {
    let file = std::path::absolute(file)?;
    let folder = file.parent().unwrap_or(Path::new("/")).join("conf.d");
    Ok(Wanted { files: [file].into(), folders: vec![(folder, "toml")] })
}

async fn reload_at_each(live: &Live, mut sight: Sight) {
    while sight.next().await.is_some() {
        if changed(live).await {
            live.reload_unasked(Trigger::Watch).await;
        }
    }
}

/// Whether the files are not those that run. After a reload that failed they count as others until one has succeeded.
async fn changed(live: &Live) -> bool {
    if live.last_reload().is_some_and(|last| !last.successful) {
        return true;
    }
    let running = live.running();
    // An error means that the daemon ends.
    !blocking(move || running.loaded.sources.are_as_read(&running.file)).await.unwrap_or(true)
}
