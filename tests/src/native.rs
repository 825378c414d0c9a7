//! Native plugins that a scenario writes itself, in C.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::Home;

/// The beginning of a plugin: what each needs.
pub const HEAD: &str = "#include \"tidegate.h\"\nstatic const tg_host *host;\n";

/// A whole plugin whose `on_message` has this body. It finds `call` and `message`.
pub fn plugin(on_message: &str) -> String {
    format!(
        "{HEAD}static tg_status on_message(void *state, tg_call *call, const tg_message *message) {{\n\
         (void)state; (void)call; (void)message;\n{on_message}\n}}\n{}",
        entry("tidegate_plugin_v1", "on_message")
    )
}

/// The end of a plugin: an entry point of this name, and a table with this `on_message`.
pub fn entry(name: &str, on_message: &str) -> String {
    format!(
        "static const tg_plugin plugin = {{ sizeof(tg_plugin), TG_MINOR, TG_LITERAL(\"made\"), TG_LITERAL(\"1\"), \
         NULL, {on_message}, NULL, NULL }};\n\
         TG_EXPORT const tg_plugin *{name}(const tg_host *table);\n\
         TG_EXPORT const tg_plugin *{name}(const tg_host *table) {{ host = table; return &plugin; }}\n"
    )
}

/// What the compiler makes of this source: a shared library, in bytes.
///
/// # Panics
/// There is no C compiler (`CC`, else `cc`), or it refuses.
#[track_caller]
pub fn library(source: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (text, made) = (folder.path().join("plugin.c"), folder.path().join("plugin.so"));
    fs::write(&text, source).expect("the folder is ours");
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("is in the workspace").join("sdk/c");
    let mut command = Command::new(&compiler);
    command.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-unused-variable", "-O1", "-fPIC", "-shared", "-o"]);
    let ran = command.arg(&made).arg("-I").arg(header).arg(&text).output();
    let ran = ran.unwrap_or_else(|error| panic!("{compiler}: {error}; native plugins need a C compiler: set CC"));
    assert!(ran.status.success(), "{}\n{source}", String::from_utf8_lossy(&ran.stderr));
    fs::read(made).expect("was made")
}

impl Home {
    /// Puts a plugin in its place at once, as a rename does: nobody sees half of it.
    pub fn install(&self, name: &str, content: &[u8]) -> PathBuf {
        let place = self.path().join("plugins").join(name);
        let new = self.path().join(name).with_extension("new");
        fs::write(&new, content).expect("the folder is ours");
        fs::rename(new, &place).expect("the folder is ours");
        place
    }
}
