//! `tidegate recv`: RouterOS' `/iot mqtt subscriptions recv`, live and into a file too.

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::Asking;
use super::follow::{Arrival, Feed, until_interrupted};
use super::payload::shown;
use crate::cli::client::{Client, Failure, Request};
use crate::cli::console::{Console, unwritten};
use crate::cli::table::{Look, MAX_CELL, table};
use crate::cli::{DONE, NO};
use crate::control::admin::resource::{Received, ReceivedList};
use crate::printable::printable;

/// The arguments of `recv`.
#[derive(Args)]
pub struct Recv {
    #[command(flatten)]
    pub asking: Asking,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the last messages received, oldest first, whether handled or not
    #[command(after_help = "\
Example:  tidegate recv list --topic 'sensors/#' --last 10
RouterOS: /iot mqtt subscriptions recv print")]
    List(List),
    /// Forget the messages that are kept
    #[command(after_help = "RouterOS: /iot mqtt subscriptions recv clear")]
    Clear,
    /// Show messages as they come, until interrupted
    #[command(after_help = "\
With --json it prints an object a line. Exit code 0 after SIGINT or SIGTERM, 3 when the daemon ends first. Messages that \
came faster than they could be shown are counted on standard error.")]
    Follow(Chosen),
    /// Record messages to a file as they come, an object of JSON a line, until interrupted
    #[command(after_help = "\
Each line is in the file before the next message is taken. Exit code 0 after SIGINT or SIGTERM, 1 if messages came faster \
than they could be recorded, which are counted on standard error; 3 when the daemon ends first.")]
    Record(Record),
}

/// Which messages.
#[derive(Args)]
struct Chosen {
    /// Only those of this broker
    #[arg(long, value_name = "NAME")]
    broker: Option<String>,
    /// Only those whose topic this filter matches
    #[arg(long, value_name = "FILTER", allow_hyphen_values = true)]
    topic: Option<String>,
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    chosen: Chosen,
    /// Only so many, the last ones
    #[arg(long, value_name = "COUNT")]
    last: Option<u32>,
}

#[derive(Args)]
struct Record {
    /// The file, which must not exist yet, and which only its owner may read
    file: PathBuf,
    /// Write at the end of a file that exists
    #[arg(long)]
    append: bool,
    #[command(flatten)]
    chosen: Chosen,
}

impl Recv {
    /// Does it.
    ///
    /// # Errors
    /// The file cannot be written, or the client's errors.
    pub async fn run(self, client: &Client<'_>, console: &mut Console<'_>) -> Result<u8, Failure> {
        let json = self.asking.json;
        let look = console.look;
        match self.command {
            Command::List(List { chosen, last }) => {
                let last = last.map(|last| last.to_string());
                let request = chosen.query(Request::get(&["received"])).query("last", last.as_deref());
                let answer = client.send(request).await?;
                console.show(json, &answer, |list: ReceivedList| listed(look, list))
            }
            Command::Clear => {
                let answer = client.send(Request::delete(&["received"])).await?;
                console.done(json, &answer, "the received messages are forgotten")
            }
            Command::Follow(chosen) => {
                let stop = until_interrupted()?;
                let feed = Feed::open(client, chosen.query(Request::get(&["received", "stream"]))).await?;
                follow(feed, console, json, stop).await
            }
            Command::Record(record) => {
                let stop = until_interrupted()?;
                if !record.append && record.file.exists() {
                    return Err(exists(&record.file));
                }
                let feed = Feed::open(client, record.chosen.query(Request::get(&["received", "stream"]))).await?;
                let file = record.open()?;
                record_to(feed, console, &record.file, file, stop).await
            }
        }
    }
}

impl Chosen {
    fn query(&self, request: Request) -> Request {
        request.query("broker", self.broker.as_deref()).query("topic", self.topic.as_deref())
    }
}

impl Record {
    /// Opened only once messages come, so that a daemon that is not there leaves no empty file.
    fn open(&self) -> Result<File, Failure> {
        let mut options = OpenOptions::new();
        // Payloads may be nobody else's business.
        options.mode(0o600);
        if self.append {
            options.append(true).create(true)
        } else {
            options.write(true).create_new(true)
        };
        options.open(&self.file).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => exists(&self.file),
            _ => Failure::No(format!("{}: {error}; name a file that can be written", self.file.display())),
        })
    }
}

fn exists(file: &Path) -> Failure {
    Failure::WrongUse(format!("{} exists already; name another file, or add --append", file.display()))
}

async fn follow(
    mut feed: Feed<Received>,
    console: &mut Console<'_>,
    json: bool,
    stop: impl Future<Output = ()>,
) -> Result<u8, Failure> {
    tokio::pin!(stop);
    loop {
        let arrival = tokio::select! {
            biased;
            () = &mut stop => return Ok(DONE),
            arrival = feed.next() => arrival?,
        };
        let line = match arrival {
            Arrival::Missed(count) => {
                console.notice(format_args!("warning: {count} messages came too fast to be shown"));
                continue;
            }
            Arrival::Item { raw, .. } if json => raw,
            Arrival::Item { item, .. } => followed(&item),
        };
        match console.line(line) {
            // `head` has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(DONE),
            written => written.map_err(|error| unwritten(&error))?,
        }
    }
}

async fn record_to(
    mut feed: Feed<Received>,
    console: &mut Console<'_>,
    name: &Path,
    mut file: impl Write,
    stop: impl Future<Output = ()>,
) -> Result<u8, Failure> {
    console.notice(format_args!("recording to {}; end it with Ctrl-C", name.display()));
    let mut recorded = 0_u64;
    let mut missed = 0_u64;
    tokio::pin!(stop);
    let end = loop {
        let arrival = tokio::select! {
            biased;
            () = &mut stop => break Ok(()),
            arrival = feed.next() => arrival,
        };
        match arrival {
            Ok(Arrival::Missed(count)) => missed += count,
            Ok(Arrival::Item { raw, .. }) => {
                // In one write, so that a line is whole or is not there.
                let written = file.write_all(format!("{raw}\n").as_bytes()).and_then(|()| file.flush());
                if let Err(error) = written {
                    let room = format!("{}: {error}; make room, and record again", name.display());
                    break Err(Failure::No(room));
                }
                recorded += 1;
            }
            Err(failure) => break Err(failure),
        }
    };
    let messages = if recorded == 1 { "message" } else { "messages" };
    console.notice(format_args!("{recorded} {messages} recorded"));
    if missed > 0 {
        console.notice(format_args!("warning: {missed} more came too fast to be recorded"));
    }
    end?;
    Ok(if missed > 0 { NO } else { DONE })
}

fn listed(look: Look, list: ReceivedList) -> String {
    // RouterOS' columns in its order.
    let rows = list.messages.into_iter().map(|message| {
        let data = shown(&message.data, message.encoding);
        [message.broker, message.topic, data, message.time]
    });
    table(look, ["BROKER", "TOPIC", "DATA", "TIME"], rows)
}

fn followed(message: &Received) -> String {
    let Received { time, broker, topic, data, encoding, .. } = message;
    format!("{time} {broker} {}  {}", printable(topic, MAX_CELL), printable(&shown(data, *encoding), MAX_CELL))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::{Value, json};

    use super::super::testing::{check_refused, check_request, check_shown, run, run_against};
    use super::*;
    use crate::cli::client::testing::{Scripted, ScriptedDaemon};

    fn message(sequence: u64, data: &str, encoding: &str) -> Value {
        json!({
            "sequence": sequence, "time": "2026-01-02T03:04:05.678Z", "broker": "plant", "topic": "my/test",
            "qos": 1, "retain": false, "dup": false, "data": data, "encoding": encoding,
        })
    }

    fn stream(messages: &[Value], missed: Option<u64>) -> Scripted {
        let missed = missed.map(|count| format!("event: missed\ndata: {{\"count\":{count}}}\n\n")).unwrap_or_default();
        let messages = messages.iter().map(|message| format!("id: {}\ndata: {message}\n\n", message["sequence"]));
        Scripted::events(&format!(":\n\n{missed}{}", messages.collect::<String>()))
    }

    #[test]
    fn filters_go_along() {
        let check = |arguments: &str, line: &str| check_request(arguments, b"", line, Value::Null);
        check("recv list", "GET /api/v1/received");
        let all = "GET /api/v1/received?broker=b&topic=%2B%2F%23&last=3";
        check("recv list --broker b --topic +/# --last 3", all);
        check("recv clear", "DELETE /api/v1/received");
        check("recv follow --topic t", "GET /api/v1/received/stream?topic=t");
        check("recv record /nonexistent/file --broker b", "GET /api/v1/received/stream?broker=b");
        check_refused("recv list --last=-1", 2, "--last");
    }

    #[test]
    fn messages_have_routeros_columns() {
        let messages = [message(1, "test-message", "utf-8"), message(2, "a\nb", "utf-8"), message(3, "AP8=", "base64")];
        let list = json!({"messages": messages, "gone": 0});
        let output = "\
BROKER  TOPIC    DATA          TIME
plant   my/test  test-message  2026-01-02T03:04:05.678Z
plant   my/test  a\\nb          2026-01-02T03:04:05.678Z
plant   my/test  0x00ff        2026-01-02T03:04:05.678Z
";
        check_shown("recv list", &list, output);
        check_shown("recv list", &json!({"messages": [], "gone": 7}), "BROKER  TOPIC  DATA  TIME\n");

        let list = json!({"messages": [message(1, &"x".repeat(3_000), "utf-8"), message(2, "y", "utf-8")], "gone": 0});
        let (ran, _) = run_against("recv list", b"", vec![Scripted::json(&list)]);
        let lines: Vec<usize> = ran.output.lines().map(|line| line.chars().count()).collect();
        let wide = "plant   my/test  ".len() + 80 + "  2026-01-02T03:04:05.678Z".len();
        assert_eq!(lines[1..], [wide, wide], "{}", ran.output);
        let (ran, _) = run_against("recv list --json", b"", vec![Scripted::json(&list)]);
        assert_eq!(serde_json::from_str::<Value>(&ran.output).expect("JSON"), list, "nothing is cut short");
    }

    #[test]
    fn following_shows_each_message_and_says_when_the_daemon_ends() {
        let messages = [message(4, "x", "utf-8")];
        let (ran, _) = run_against("recv follow", b"", vec![stream(&messages, Some(3))]);
        assert_eq!(ran.code, 3);
        assert_eq!(ran.output, "2026-01-02T03:04:05.678Z plant my/test  x\n");
        let said: Vec<&str> = ran.notices.lines().collect();
        assert_eq!(said[0], "warning: 3 messages came too fast to be shown");
        assert!(said[1].contains("the stream has ended"), "{said:?}");

        let (ran, _) = run_against("recv follow --json", b"", vec![stream(&messages, None)]);
        assert_eq!(serde_json::from_str::<Value>(&ran.output).expect("a line of JSON"), messages[0]);
    }

    #[test]
    fn a_recording_holds_a_line_a_message() {
        let daemon = ScriptedDaemon::start(vec![
            stream(&[message(1, "x", "utf-8"), message(2, "y", "utf-8")], None),
            stream(&[message(5, "z", "utf-8")], Some(2)),
        ]);
        let file = daemon.folder().join("recording");
        let name = file.display().to_string();
        let ran = run(["recv", "record", &name], b"", &daemon.socket());
        assert_eq!((ran.code, ran.output.as_str()), (3, ""), "the daemon ended");
        assert!(ran.notices.contains("2 messages recorded\n"), "{ran:?}");

        let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{mode:o}");

        // It is there now: nothing is asked of the daemon.
        let ran = run(["recv", "record", &name], b"", &daemon.socket());
        assert_eq!(ran.code, 2);
        assert!(ran.notices.contains("exists already; name another file, or add --append"), "{ran:?}");

        let ran = run(["recv", "record", &name, "--append"], b"", &daemon.socket());
        assert!(ran.notices.contains("1 message recorded\nwarning: 2 more came too fast to be recorded\n"), "{ran:?}");
        let text = std::fs::read_to_string(&file).expect("was written");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines, [message(1, "x", "utf-8"), message(2, "y", "utf-8"), message(5, "z", "utf-8")]);
        daemon.asked();
    }

    #[test]
    fn a_daemon_that_is_not_there_leaves_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("recording");
        let ran = run(["recv", "record", &file.display().to_string()], b"", &folder.path().join("no.sock"));
        assert_eq!((ran.code, file.exists()), (3, false));
    }

    /// Records from a stream without end until it is interrupted, which the first message does.
    async fn interrupted(missed: Option<u64>, file: &mut Vec<u8>) -> (u8, String) {
        let Scripted(whole) = stream(&[message(1, "x", "utf-8")], missed);
        let open = whole.strip_suffix("0\r\n\r\n").expect("its end").to_owned();
        let daemon = ScriptedDaemon::start(vec![Scripted(open)]);
        let socket = daemon.socket();
        let environment = |name: &str| (name == "TIDEGATE_SOCKET").then(|| socket.clone().into_os_string());
        let client = Client::new(Default::default(), &environment);
        let feed = Feed::open(&client, Request::get(&["received", "stream"])).await.expect("a stream");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let mut notices = Vec::new();
        let mut console = Console {
            input: &mut std::io::empty(),
            output: &mut std::io::sink(),
            notices: &mut notices,
            look: Look::default(),
            environment: &environment,
        };
        let mut stop = Some(stop);
        let file = Interrupting(file, &mut || {
            stop.take().map(|stop| stop.send(()));
        });
        let done = record_to(feed, &mut console, Path::new("f"), file, async { drop(stopped.await) }).await;
        daemon.asked();
        (done.expect("no failure"), String::from_utf8(notices).expect("text"))
    }

    /// A file that interrupts the recording once something is written to it.
    struct Interrupting<'a>(&'a mut Vec<u8>, &'a mut dyn FnMut());

    impl Write for Interrupting<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            (self.1)();
            Ok(())
        }
    }

    #[tokio::test]
    async fn an_interruption_ends_a_recording_well_unless_messages_were_missed() {
        let mut file = Vec::new();
        let (code, said) = interrupted(None, &mut file).await;
        assert_eq!((code, said.ends_with("1 message recorded\n")), (0, true), "{said}");
        assert!(file.ends_with(b"\n"));
        let (code, said) = interrupted(Some(4), &mut file).await;
        assert_eq!(code, 1);
        assert!(said.ends_with("1 message recorded\nwarning: 4 more came too fast to be recorded\n"), "{said}");
    }

    #[test]
    fn a_full_disk_is_told() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let daemon = ScriptedDaemon::start(vec![stream(&[message(1, "x", "utf-8")], None)]);
        let socket = daemon.socket();
        let environment = |name: &str| (name == "TIDEGATE_SOCKET").then(|| socket.clone().into_os_string());
        let client = Client::new(Default::default(), &environment);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut notices = Vec::new();
        let done = runtime.block_on(async {
            let feed = Feed::open(&client, Request::get(&["received", "stream"])).await?;
            let mut console = Console {
                input: &mut std::io::empty(),
                output: &mut std::io::sink(),
                notices: &mut notices,
                look: Look::default(),
                environment: &environment,
            };
            record_to(feed, &mut console, Path::new("f"), Full, std::future::pending()).await
        });
        let failure = done.expect_err("nothing can be written");
        assert_eq!(failure.code(), 1);
        assert!(failure.lines()[0].contains("make room"), "{failure:?}");
        daemon.asked();
    }
}
