//! A handler that misbehaves in the way that its configuration asks for, so that scenarios can watch what the daemon does.
//!
//! Fed by the scenario tests, through `[handlers.NAME.config]`. Deliberately one plugin for all faults: what differs between
//! two handlers of a scenario is then the fault alone.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use tidegate_sdk::log::Level;
use tidegate_sdk::{
    Message, OrFail, Outgoing, Qos, Result, Run, Trigger, clock, config, error, info, kv, publish, reject, retry,
};

/// `[handlers.NAME.config]`.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Config {
    /// What goes wrong.
    mode: Mode,
    /// It goes wrong only for payloads that contain this text; other messages are echoed.
    trigger: Option<String>,
    /// It goes wrong only in the first so many attempts at a message, which is then echoed; or in the first so many runs.
    attempts: Option<u32>,
    /// `slow`, `hold`, `interval`, `count` and `version`: how long a call takes. `retry`: the least delay that is asked for. Milliseconds.
    #[serde(default)]
    ms: u64,
    /// `many`: publishes of one call. `shout`: lines.
    #[serde(default)]
    count: u32,
    /// `many`: bytes of each payload. `shout`: of each line. `excuse`: of the reason.
    #[serde(default)]
    bytes: usize,
    /// `denied`: the topic that is tried.
    #[serde(default = "default_topic")]
    topic: String,
    /// `denied`: the broker that is tried. What is echoed: the broker that gets it. Absent, the message's own.
    broker: Option<String>,
    /// What is echoed: another broker that gets it too.
    also: Option<String>,
    /// `flaky`: how many of all calls ask for a retry, 0 to 1.
    #[serde(default)]
    fails: f64,
    /// `flaky`: how many of all calls panic, 0 to 1.
    #[serde(default)]
    traps: f64,
    /// `flaky`: which calls those are.
    #[serde(default)]
    seed: u32,
    /// `denied`: the call still returns ok.
    #[serde(default)]
    then_ok: bool,
    /// In the version of this name `init` returns an error.
    refuses_in: Option<String>,
    /// In the version of this name it panics once it has done what it does, for the payloads that it goes wrong for.
    panics_in: Option<String>,
}

/// Which version this is: a scenario writes another name over it in the plugin's file.
static VERSION: [u8; 24] = *b"guest-version:original  ";

fn version() -> &'static str {
    // So that what is read is what the file has.
    let version = std::hint::black_box(&VERSION);
    std::str::from_utf8(version).ok().and_then(|text| text.strip_prefix("guest-version:")).map_or("", str::trim_end)
}

fn default_topic() -> String {
    "forbidden/topic".into()
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    /// Publishes the payload to `out/TOPIC` with the message's QoS: well-behaved.
    Echo,
    /// Never returns.
    Loop,
    /// Panics.
    Trap,
    /// Allocates for ever.
    Memory,
    /// Overflows its stack.
    Recurse,
    /// Returns a rejection, after a publish that must not leave.
    Reject,
    /// Asks for a retry, after a publish that must not leave.
    Retry,
    /// Panics or asks for a retry in some calls, after a publish that must not leave. Which ones follows from topic, payload and
    /// attempt: a message that fails now may work the next time.
    Flaky,
    /// Spins for `ms`, then publishes the payload and the version's name, apart by a space.
    Version,
    /// Spins for `ms`, then echoes.
    Slow,
    /// Says so in the log, spins for `ms`, then echoes.
    Hold,
    /// Spins for `ms`, then publishes its first and last moment, `START END` in nanoseconds since the Unix epoch.
    Interval,
    /// Publishes where it is not allowed to and logs the refusal.
    Denied,
    /// Publishes `count` messages of `bytes` bytes to `out/TOPIC/N`.
    Many,
    /// As `many`, but overlooks every refusal and returns ok.
    Reckless,
    /// Writes each kind of log line, then echoes.
    Log,
    /// Writes `count` lines of `bytes` bytes to the log, then echoes.
    Shout,
    /// Rejects with a reason of `bytes` bytes.
    Excuse,
    /// Adds one to what it remembers under the key `count`, with `ms` of spinning in between, and publishes the sum and the payload,
    /// apart by a space.
    Count,
    /// Echoes only what it does not remember, by its payload, and remembers it.
    Once,
    /// Does what the payload says with what it remembers, and publishes the answers: see [`remember`].
    Kv,
    /// `init` reads and writes what the handler remembers, and logs what came of it; then as `kv`.
    InitKv,
    /// `init` returns an error.
    InitFails,
    /// `init` publishes; the refusal is its error.
    InitPublishes,
    /// `init` never returns.
    SpinInit,
    /// `init` panics.
    InitTraps,
}

fn init() -> Result {
    let config: &Config = config()?;
    if config.refuses_in.as_deref() == Some(version()) {
        return Err(reject("this version refuses to start"));
    }
    match config.mode {
        Mode::InitFails => Err(reject("this handler refuses to start")),
        Mode::InitPublishes => Ok(publish(Outgoing::new(config.topic.clone(), "from init"))?),
        Mode::SpinInit => spin(),
        Mode::InitTraps => panic!("asked to panic in init"),
        Mode::InitKv => {
            let read = format!(
                "{:?}",
                kv::get("a").map(|value| value.map(|value| String::from_utf8_lossy(&value).into_owned()))
            );
            let written = format!("{:?}", kv::set("a", "from init"));
            info!(read, written; "kv in init");
            Ok(())
        }
        _ => Ok(()),
    }
}

fn handle(message: &Message) -> Result {
    let config: &Config = config()?;
    let recovered = config.attempts.is_some_and(|attempts| message.attempt > attempts);
    let spared =
        recovered || config.trigger.as_deref().is_some_and(|trigger| !contains(&message.payload, trigger.as_bytes()));
    if spared {
        return echo(config, message);
    }
    let done = misbehave(config, message);
    assert!(config.panics_in.as_deref() != Some(version()), "asked to panic in this version");
    done
}

fn misbehave(config: &Config, message: &Message) -> Result {
    match config.mode {
        Mode::Echo | Mode::InitFails | Mode::InitPublishes | Mode::SpinInit | Mode::InitTraps => echo(config, message),
        Mode::Loop => spin(),
        Mode::Trap => panic!("asked to panic"),
        Mode::Memory => hoard(),
        Mode::Recurse => Err(reject(format!("the stack held {} calls", recurse(1)))),
        Mode::Reject => {
            echo(config, message)?;
            Err(reject("asked to reject"))
        }
        Mode::Retry => {
            echo(config, message)?;
            let error = retry("asked to retry");
            Err(if config.ms > 0 { error.after(Duration::from_millis(config.ms)) } else { error })
        }
        Mode::Flaky => flaky(config, message),
        Mode::Version => tell_version(config, message),
        Mode::Slow => {
            spin_for(config.ms);
            echo(config, message)
        }
        Mode::Hold => {
            info!("holding");
            spin_for(config.ms);
            echo(config, message)
        }
        Mode::Interval => {
            let start = clock::now();
            spin_for(config.ms);
            interval(message, start, clock::now())
        }
        Mode::Denied => denied(config),
        Mode::Many => many(config, message),
        Mode::Reckless => {
            (0..config.count).for_each(|_| _ = many(&Config { count: 1, ..config.clone() }, message));
            Ok(())
        }
        Mode::Shout => {
            let line = "x".repeat(config.bytes);
            (0..config.count).for_each(|_| tidegate_sdk::log::write(Level::Info, &line, &[]));
            echo(config, message)
        }
        Mode::Excuse => Err(reject("x".repeat(config.bytes))),
        Mode::Log => {
            log_in_every_way(message);
            echo(config, message)
        }
        Mode::Count => count(config, message),
        Mode::Once => once(config, message),
        Mode::Kv | Mode::InitKv => remember(config, message),
    }
}

fn echo(config: &Config, message: &Message) -> Result {
    let mut echo = Outgoing::new(format!("out/{}", message.topic), message.payload.clone()).qos(message.qos);
    echo.broker = config.broker.clone();
    if let Some(also) = &config.also {
        let mut other = echo.clone();
        other.broker = Some(also.clone());
        publish(other)?;
    }
    publish(echo)?;
    Ok(())
}

fn tell_version(config: &Config, message: &Message) -> Result {
    spin_for(config.ms);
    let text = format!("{} {}", message.text()?, version());
    let mut outgoing = Outgoing::new(format!("out/{}", message.topic), text).qos(message.qos);
    outgoing.broker = config.broker.clone();
    publish(outgoing)?;
    Ok(())
}

fn count(config: &Config, message: &Message) -> Result {
    let count = kv::get_json::<u64>("count")?.unwrap_or(0) + 1;
    spin_for(config.ms);
    kv::set_json("count", &count)?;
    let text = format!("{count} {}", message.text()?);
    let mut outgoing = Outgoing::new(format!("out/{}", message.topic), text).qos(message.qos);
    outgoing.broker = config.broker.clone();
    publish(outgoing)?;
    Ok(())
}

fn once(config: &Config, message: &Message) -> Result {
    let key = message.text()?;
    if kv::get(key)?.is_some() {
        return Ok(());
    }
    kv::set(key, "")?;
    echo(config, message)
}

/// Commands apart by `;`, words by spaces: `set KEY VALUE [MILLISECONDS]`, `fill KEY BYTES`, `get KEY`, `delete KEY`, `keys PREFIX [LIMIT]`,
/// `hold MILLISECONDS`, `reject`. What they answer is published in their order, apart by `;`.
fn remember(config: &Config, message: &Message) -> Result {
    let mut answers = Vec::new();
    for command in message.text()?.split(';') {
        let words: Vec<&str> = command.split(' ').collect();
        let number = |text: &str| text.parse::<u64>().or_reject("the guest takes a number here");
        let answer = match words[..] {
            ["set", key, value] => kv::set(key, value).map(|()| "ok".to_owned()),
            ["set", key, value, ttl] => {
                kv::set_with_ttl(key, value, Duration::from_millis(number(ttl)?)).map(|()| "ok".to_owned())
            }
            ["fill", key, bytes] => kv::set(key, vec![b'x'; usize::try_from(number(bytes)?).or_reject("too many")?])
                .map(|()| "ok".to_owned()),
            ["get", key] => kv::get(key)
                .map(|value| value.map_or("none".to_owned(), |value| String::from_utf8_lossy(&value).into_owned())),
            ["delete", key] => kv::delete(key).map(|()| "ok".to_owned()),
            ["keys", prefix] => kv::keys(prefix, 1_000).map(|keys| keys.join(",")),
            ["keys", prefix, limit] => {
                kv::keys(prefix, u32::try_from(number(limit)?).or_reject("too many")?).map(|keys| keys.join(","))
            }
            ["hold", milliseconds] => {
                info!("holding");
                spin_for(number(milliseconds)?);
                Ok("held".to_owned())
            }
            ["reject"] => return Err(reject("asked to reject")),
            _ => return Err(reject(format!("the guest does not know the command {command:?}"))),
        };
        answers.push(answer.unwrap_or_else(|error| error.to_string()));
    }
    let mut answer = Outgoing::new(format!("out/{}", message.topic), answers.join(";")).qos(message.qos);
    answer.broker = config.broker.clone();
    publish(answer)?;
    Ok(())
}

fn flaky(config: &Config, message: &Message) -> Result {
    echo(config, message)?;
    let chance = chance(config.seed, message);
    assert!(chance >= config.traps, "asked to panic now and then");
    if chance < config.traps + config.fails { Err(retry("asked to retry now and then")) } else { Ok(()) }
}

/// Uniform in 0..1, the same for the same attempt at the same message.
fn chance(seed: u32, message: &Message) -> f64 {
    let mut hasher = DefaultHasher::new();
    (seed, &message.topic, &message.payload, message.attempt).hash(&mut hasher);
    let bits = u32::try_from(hasher.finish() >> 32).expect("32 bits are left");
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the daemon must log these too")]
fn log_in_every_way(message: &Message) {
    info!(topic = message.topic, attempt = message.attempt; "a line with fields");
    error!("a line without fields");
    println!("a line on standard output");
    eprintln!("a line on standard error");
}

fn interval(message: &Message, start: SystemTime, end: SystemTime) -> Result {
    let nanos = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let payload = format!("{} {}", nanos(start), nanos(end));
    publish(Outgoing::new(format!("out/{}", message.topic), payload).qos(message.qos))?;
    Ok(())
}

fn denied(config: &Config) -> Result {
    let mut outgoing = Outgoing::new(config.topic.clone(), "must not leave");
    outgoing.broker = config.broker.clone();
    match publish(outgoing) {
        Ok(()) => Err(reject("the publish was taken")),
        Err(error) => {
            error!(topic = config.topic, reason = error; "publish refused");
            if config.then_ok { Ok(()) } else { Err(error.into()) }
        }
    }
}

fn many(config: &Config, message: &Message) -> Result {
    for number in 0..config.count {
        let topic = format!("out/{}/{number}", message.topic);
        publish(Outgoing::new(topic, vec![b'x'; config.bytes]).qos(message.qos))?;
    }
    Ok(())
}

/// Spins where no optimiser sees the end.
fn spin() -> ! {
    loop {
        std::hint::black_box(());
    }
}

fn spin_for(milliseconds: u64) {
    let end = clock::monotonic() + Duration::from_millis(milliseconds);
    while clock::monotonic() < end {
        std::hint::spin_loop();
    }
}

/// Allocates until the daemon says no.
fn hoard() -> ! {
    let mut hoard = Vec::new();
    loop {
        hoard.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

/// Not a tail call: the result is still needed after the inner one.
#[expect(unconditional_recursion, reason = "that is the fault")]
fn recurse(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    recurse(depth + 1) + std::hint::black_box(frame)[0]
}

fn contains(payload: &[u8], part: &[u8]) -> bool {
    part.is_empty() || payload.windows(part.len()).any(|window| window == part)
}

/// Runs of this instance.
static RUNS: AtomicU32 = AtomicU32::new(0);

/// On a schedule and on silence: publishes `TRIGGER DUE`, in nanoseconds since the Unix epoch, to `out/run/NAME`.
fn run(run: &Run) -> Result {
    let config: &Config = config()?;
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    let recovered = config.attempts.is_some_and(|attempts| number >= attempts);
    match config.mode {
        Mode::Slow | Mode::Hold => spin_for(config.ms),
        Mode::Trap if !recovered => panic!("asked to panic"),
        Mode::Reject if !recovered => {
            report(config, run)?;
            return Err(reject("asked to reject"));
        }
        Mode::Retry if !recovered => {
            report(config, run)?;
            return Err(retry("asked to retry"));
        }
        _ => {}
    }
    report(config, run)
}

fn report(config: &Config, run: &Run) -> Result {
    let trigger = match run.trigger {
        Trigger::Schedule => "schedule",
        Trigger::Silence => "silence",
    };
    let due = run.due.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let mut report = Outgoing::new(format!("out/run/{}", run.name), format!("{trigger} {due}")).qos(Qos::AtLeastOnce);
    report.broker = config.broker.clone();
    publish(report)?;
    Ok(())
}

tidegate_sdk::handler!(handle, on_schedule = run, init = init);

#[cfg(test)]
mod tests {
    use tidegate_sdk::serde_json::{Value, json};
    use tidegate_sdk::testing::{Host, message};

    use super::*;

    #[track_caller]
    fn check(config: Value, payload: &str, expected: Result<&[&str]>) {
        let outcome = Host::new().config(&config).call(handle, &message("t", payload));
        let sent: Vec<_> = outcome.sent().iter().map(|sent| sent.topic.as_str()).collect();
        assert_eq!(outcome.result.clone().map(|()| &*sent), expected);
    }

    #[test]
    fn a_trigger_spares_other_messages() {
        let config = json!({ "mode": "reject", "trigger": "bad" });
        check(config.clone(), "good", Ok(&["out/t"]));
        check(config, "a bad one", Err(reject("asked to reject")));
    }

    #[test]
    fn a_flaky_handler_fails_as_often_as_asked_for_and_recovers() {
        let config = json!({ "mode": "flaky", "fails": 0.2, "seed": 7 });
        let works = |number: u32, attempt| {
            let mut message = message("t", number.to_string());
            message.attempt = attempt;
            let outcome = Host::new().config(&config).call(handle, &message);
            assert!(outcome.result.is_ok() || outcome.result == Err(retry("asked to retry now and then")));
            outcome.result.is_ok()
        };
        let failed: Vec<_> = (0..1000).filter(|number| !works(*number, 1)).collect();
        assert!((150..250).contains(&failed.len()), "{}", failed.len());
        assert!(failed.iter().all(|number| !works(*number, 1)), "the same attempt ends the same");
        assert!(failed.iter().all(|number| (2..20).any(|attempt| works(*number, attempt))));
    }

    #[test]
    #[should_panic(expected = "asked to panic now and then")]
    fn a_flaky_handler_panics_when_asked_to() {
        let config = json!({ "mode": "flaky", "traps": 1.0 });
        let _never = Host::new().config(&config).call(handle, &message("t", ""));
    }

    #[test]
    fn it_remembers_what_it_is_told_to() {
        let script = "set a 1;get a;get b;keys ;delete a;get a;fill c 3;get c;keys  1";
        let outcome = Host::new().config(&json!({ "mode": "kv" })).call(handle, &message("t", script));
        assert_eq!(outcome.sent()[0].payload, b"ok;1;none;a;ok;none;ok;xxx;c");
        let counted = Host::new().config(&json!({ "mode": "count" })).remembers("count", "41");
        assert_eq!(counted.call(handle, &message("t", "x")).sent()[0].payload, b"42 x");
        let once = Host::new().config(&json!({ "mode": "once" }));
        assert_eq!(once.call(handle, &message("t", "x")).sent().len(), 1);
        assert_eq!(once.remembers("x", "").call(handle, &message("t", "x")).sent(), []);
    }

    #[test]
    fn harmless_modes_do_what_they_say() {
        check(json!({ "mode": "echo" }), "", Ok(&["out/t"]));
        check(json!({ "mode": "slow" }), "", Ok(&["out/t"]));
        check(json!({ "mode": "retry" }), "", Err(retry("asked to retry")));
        check(json!({ "mode": "many", "count": 2 }), "", Ok(&["out/t/0", "out/t/1"]));
        check(json!({ "mode": "reckless", "count": 3 }), "", Ok(&["out/t/0", "out/t/0", "out/t/0"]));
        check(json!({ "mode": "shout", "count": 3, "bytes": 5 }), "", Ok(&["out/t"]));
        check(json!({ "mode": "excuse", "bytes": 3 }), "", Err(reject("xxx")));
        check(json!({ "mode": "denied" }), "", Err(reject("the publish was taken")));
        let error = Host::new().config(&json!({ "mode": "init-fails" })).run(init).result;
        assert_eq!(error, Err(reject("this handler refuses to start")));
    }
}
