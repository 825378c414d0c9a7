//! Writes each message to a file, as a line of JSON: a native plugin, since a component has no files.
//!
//! Owns: the file, open for as long as its instance lives. A call returns once its line is on the disk, so that the message is acknowledged
//! no earlier; one that is handled again, after a crash or for another attempt, is written again. On a schedule it publishes how large
//! the file is.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tidegate_native::{Message, OrFail, Outgoing, Qos, Result, Run, config, info, publish, serde_json};

/// `[handlers.NAME.config]`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Config {
    /// The file. Its folder must exist, and permit the daemon's user to write.
    file: PathBuf,
    /// Where its size goes.
    #[serde(default = "default_topic")]
    topic: String,
}

fn default_topic() -> String {
    "journal".into()
}

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    /// Milliseconds since the Unix epoch.
    received: u64,
    broker: &'a str,
    topic: &'a str,
    #[serde(flatten)]
    payload: Payload<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Payload<'a> {
    /// UTF-8.
    Text(&'a str),
    /// Anything else.
    Bytes(&'a [u8]),
}

/// What is published of the file.
#[derive(Serialize)]
struct Size<'a> {
    file: &'a str,
    bytes: u64,
}

struct Journal {
    file: File,
}

fn start() -> Result<Journal> {
    let Config { file: path, .. } = config()?;
    // Lines of several instances do not mix: each is written at the end, at once.
    let file = OpenOptions::new().create(true).append(true).open(path);
    let file = file.or_reject(&format!("cannot open {}", path.display()))?;
    info!(file = path.display(); "the journal is open");
    Ok(Journal { file })
}

fn handle(journal: &mut Journal, message: &Message) -> Result {
    let since = message.received.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let payload = message.text().map_or(Payload::Bytes(&message.payload), Payload::Text);
    let line = Line { received: since.as_millis() as u64, broker: &message.broker, topic: &message.topic, payload };
    let mut line = serde_json::to_vec(&line)?;
    line.push(b'\n');
    // A disk that is full now may have room later.
    journal.file.write_all(&line).or_retry("cannot write to the journal")?;
    journal.file.sync_data().or_retry("the journal does not reach the disk")
}

fn run(journal: &mut Journal, _: &Run) -> Result {
    let Config { file, topic } = config()?;
    let bytes = journal.file.metadata().or_retry("cannot look at the journal")?.len();
    let size = Size { file: &file.to_string_lossy(), bytes };
    publish(Outgoing::json(topic, &size)?.qos(Qos::AtLeastOnce))?;
    Ok(())
}

tidegate_native::handler!(handle, on_schedule = run, state = start);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_native::serde_json::json;
    use tidegate_native::testing::{Host, message, scheduled};

    use super::*;

    #[test]
    fn each_message_is_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("journal");
        let config = json!({ "file": file });
        let mut warm = message("a/b", "21.5");
        warm.received += Duration::from_millis(7);
        let write = || {
            let mut journal = start()?;
            handle(&mut journal, &warm)?;
            handle(&mut journal, &message("a/\"c\"", [0xff, 0]))
        };
        // Twice, as after a restart: what is there stays.
        for _ in 0..2 {
            assert_eq!(Host::new().config(&config).run(write).result, Ok(()));
        }
        let lines = concat!(
            r#"{"received":7,"broker":"test","topic":"a/b","text":"21.5"}"#,
            "\n",
            r#"{"received":0,"broker":"test","topic":"a/\"c\"","bytes":[255,0]}"#,
            "\n"
        );
        assert_eq!(std::fs::read_to_string(&file).unwrap(), [lines, lines].concat());

        let size = || run(&mut start()?, &scheduled("hourly"));
        let outcome = Host::new().config(&config).run(size);
        let expected = format!(r#"{{"file":"{}","bytes":{}}}"#, file.display(), 2 * lines.len());
        assert_eq!(outcome.sent(), [Outgoing::new("journal", expected).qos(Qos::AtLeastOnce)]);
    }

    #[test]
    fn a_file_that_cannot_be_opened_refuses_the_handler() {
        let folder = tempfile::tempdir().unwrap();
        let outcome = Host::new().config(&json!({ "file": folder.path() })).run(|| start().map(|_| ()));
        let words = outcome.result.expect_err("it is a folder").to_string();
        assert!(words.starts_with(&format!("cannot open {}: ", folder.path().display())), "{words}");
    }
}
