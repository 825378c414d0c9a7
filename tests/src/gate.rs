//! A native plugin that stands still until a scenario lets it go on: what is to happen during a call happens then, however long it takes.
//!
//! Both wait for each other by two files: the plugin makes one when it has come to the gate, and goes on once the other is there.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::native::{HEAD, library};
use crate::wait;

/// In a call for a message: stands if its payload begins with `w`.
pub const AT_W: &str = "if (message->payload.len > 0 && message->payload.ptr[0] == 'w') stand();\n";

/// Ends a call for a message: rejects it.
pub const REJECT: &str = "return tg_reject(host, call, \"no\");\n";

/// Ends a call for a message: publishes its payload to `out/` and its topic, with QoS 1, to its own broker.
pub const ECHO: &str = r#"
    char topic[256];
    int len = snprintf(topic, sizeof topic, "out/%.*s", (int)message->topic.len, (const char *)message->topic.ptr);
    if (len < 0 || (size_t)len >= sizeof topic) return tg_reject(host, call, "the topic is too long");
    tg_outgoing out = tg_publish_to(tg_of(topic, (size_t)len), message->payload);
    out.qos = TG_AT_LEAST_ONCE;
    return tg_check(host, call, host->publish(call, &out));
"#;

/// The two files.
pub struct Gate {
    folder: TempDir,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate::new()
    }
}

impl Gate {
    /// A gate that is shut, and to which nobody has come.
    pub fn new() -> Gate {
        Gate { folder: tempfile::Builder::new().prefix("tidegate-gate-").tempdir().expect("a temporary folder") }
    }

    fn reached(&self) -> PathBuf {
        self.folder.path().join("reached")
    }

    fn opened(&self) -> PathBuf {
        self.folder.path().join("open")
    }

    /// The plugin, in bytes: what `create` does before it returns ok, and what a call for a message does, in C. Both may `stand()`.
    #[track_caller]
    pub fn plugin(&self, create: &str, on_message: &str) -> Vec<u8> {
        let (reached, open) = (self.reached(), self.opened());
        library(&format!(
            "#define _GNU_SOURCE\n#include <fcntl.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <time.h>\n\
             #include <unistd.h>\n{HEAD}\n\
             static inline void stand(void) {{\n\
                 int file = open(\"{}\", O_WRONLY | O_CREAT | O_APPEND, 0600);\n\
                 if (file < 0 || close(file) != 0) abort();\n\
                 struct timespec pause = {{ 0, 5000000 }};\n\
                 while (access(\"{}\", F_OK) != 0) nanosleep(&pause, NULL);\n\
             }}\n\
             static tg_status create(tg_call *call, void **state) {{ (void)call; (void)state; {create} return TG_OK; }}\n\
             static tg_status on_message(void *state, tg_call *call, const tg_message *message) {{\n\
                 (void)state; (void)message;\n{on_message}\n\
             }}\n\
             static const tg_plugin plugin = {{ sizeof(tg_plugin), TG_MINOR, TG_LITERAL(\"made\"), TG_LITERAL(\"1\"),\n\
                 create, on_message, NULL, NULL }};\n\
             TG_EXPORT const tg_plugin *tidegate_plugin_v1(const tg_host *table);\n\
             TG_EXPORT const tg_plugin *tidegate_plugin_v1(const tg_host *table) {{ host = table; return &plugin; }}\n",
            reached.display(),
            open.display(),
        ))
    }

    /// Waits until somebody has come to it.
    #[track_caller]
    pub fn wait_reached(&self) {
        wait::until_true("the plugin has come to the gate", || self.reached().exists());
    }

    /// Lets whoever stands there go on, and whoever comes.
    pub fn open(&self) {
        fs::write(self.opened(), "").expect("the folder is ours");
    }
}
