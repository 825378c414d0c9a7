//! A handler gets a new version of its plugin every 200 ms under load: nothing is lost, each topic stays in order, versions never go
//! back, each that is put in time runs, and neither memory nor the disk keeps what is over.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tidegate_tests::component::{component, padded};
use tidegate_tests::fault::{Bench, On, PATIENT, Row, STUCK, Setup};
use tidegate_tests::{Config, Daemon, wait};

/// Between two versions.
const EVERY: Duration = Duration::from_millis(200);

/// Bytes of a plugin: what is kept of each version shows.
const PLUGIN: usize = 2 << 20;

/// Versions that come before the daemon's memory is looked at for the first time.
const FIRST: u64 = 3;

/// What the allocator may keep of what it had, in bytes. One in three of the versions kept would be more.
const KEPT: usize = 48 << 20;

/// Versions that must have come into service before the storm ends: on a loaded machine one takes longer to compile than the next is put.
const IN_SERVICE: f64 = 5.0;

/// Messages that wait for the last version.
const LAST: usize = 3_000;

/// How much of a storm there is: versions, and messages for each.
#[derive(Clone, Copy)]
struct Storm {
    versions: usize,
    messages: usize,
}

/// Five seconds, with more messages than a daemon that is not optimised handles meanwhile: some wait at each swap.
const SHORT: Storm = Storm { versions: 25, messages: 500 };

/// Half a minute with 5,000 messages in each second.
const LONG: Storm = Storm { versions: 150, messages: 1_000 };

mod nothing_is_lost_and_each_version_runs_while_plugins_are_replaced {
    use super::{LONG, SHORT};
    use tidegate_tests::Protocol::{V5, V311};
    use tidegate_tests::fault::On;

    #[test]
    fn on_5() {
        super::nothing_is_lost_and_each_version_runs_while_plugins_are_replaced(On::memory(V5), SHORT);
    }

    #[test]
    fn on_disk_3_1_1() {
        super::nothing_is_lost_and_each_version_runs_while_plugins_are_replaced(On::disk_in_full(V311), SHORT);
    }

    #[test]
    #[ignore = "long: half a minute at 5,000 messages a second"]
    fn on_5_in_full() {
        super::nothing_is_lost_and_each_version_runs_while_plugins_are_replaced(On::memory(V5), LONG);
    }
}

/// A handler that publishes its version, a space and the payload to `out/` and the topic, at `cloud`.
fn version(number: u64) -> Vec<u8> {
    let prefix = format!("{number} ");
    let length = prefix.len();
    let body = format!(
        r#"(data (i32.const 0x400) "out/")
        (data (i32.const 0x500) "cloud")
        (data (i32.const 0x600) "{prefix}")
        (func $handle (param $message i32) (result i32)
          (memory.copy
            (i32.const 0x404) (i32.load offset=16 (local.get $message)) (i32.load offset=20 (local.get $message)))
          (memory.copy
            (i32.const {payload}) (i32.load offset=24 (local.get $message)) (i32.load offset=28 (local.get $message)))
          (i32.store (i32.const 0x200) (i32.const 0x400))
          (i32.store (i32.const 0x204) (i32.add (i32.load offset=20 (local.get $message)) (i32.const 4)))
          (i32.store (i32.const 0x208) (i32.const 0x600))
          (i32.store (i32.const 0x20c) (i32.add (i32.load offset=28 (local.get $message)) (i32.const {length})))
          (i32.store (i32.const 0x210) (i32.const 1))
          (i32.store (i32.const 0x250) (i32.const 1))
          (i32.store (i32.const 0x254) (i32.const 0x500))
          (i32.store (i32.const 0x258) (i32.const 5))
          (call $publish (i32.const 0x200) (i32.const 0x300))
          (if (i32.load8_u (i32.const 0x300)) (then unreachable))
          (i32.const 0x80))"#,
        payload = 0x600 + length,
    );
    padded(component(&body, ""), PLUGIN)
}

/// Where plugins are put, and how many were.
struct Plugins {
    folder: PathBuf,
    last: u64,
}

impl Plugins {
    /// Puts the next version, the way that is recommended.
    fn put(&mut self) {
        self.last += 1;
        let beside = self.folder.join(".storm.new");
        fs::write(&beside, version(self.last)).expect("the folder is ours");
        fs::rename(beside, self.folder.join("storm.wasm")).expect("the folder is ours");
    }
}

/// What the daemon keeps of plugins.
#[derive(Debug)]
struct Usage {
    /// Bytes of memory.
    resident: usize,
    /// Places in memory with code.
    code: usize,
    files: usize,
    /// Bytes of the copies in its state directory.
    copies: u64,
}

impl Usage {
    fn of(daemon: &Daemon) -> Usage {
        let process = PathBuf::from(format!("/proc/{}", daemon.id()));
        let maps = fs::read_to_string(process.join("maps")).expect("the daemon runs");
        Usage {
            resident: daemon.metrics().sum("process_resident_memory_bytes", &[]) as usize,
            code: maps.lines().filter(|line| line.contains("r-xp")).count(),
            files: fs::read_dir(process.join("fd")).expect("the daemon runs").count(),
            copies: bytes(&daemon.home().path().join("state/plugins")),
        }
    }
}

/// Bytes of all files in a folder.
fn bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    // A file may go while it is counted.
    entries
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, found)| match found.is_dir() {
            true => bytes(&path),
            false => found.len(),
        })
        .sum()
}

fn nothing_is_lost_and_each_version_runs_while_plugins_are_replaced(on: On, storm: Storm) {
    let row = Row::begin("fault_reload_storm", on);
    let keys = format!("allow = {{ publish = [\"cloud:out/#\"] }}\ninstances = 2\n{PATIENT}");
    let versions = row.scaled(storm.versions);
    // Some are left for a storm that has to last.
    let (planned, most) = (versions * storm.messages, 3 * versions * storm.messages / 2);
    let tables = move |config: Config| {
        config.component("storm", version(0), &keys).subscription("plant", "in/#", 1, "storm", "")
    };
    let bench = Setup::new(&row).messages(most + LAST).until(0).counted().tables(tables).start();
    let mut plugins = Plugins { folder: bench.daemon.home().path().join("plugins"), last: 0 };
    let (mut before, mut place, begin) = (None, 0, Instant::now());
    while place < planned || in_service(&bench.daemon) < IN_SERVICE {
        assert!(
            begin.elapsed() < 2 * STUCK,
            "after {} versions {} came into service",
            plugins.last,
            in_service(&bench.daemon)
        );
        let (put, came) = (Instant::now(), bench.ledger.distinct());
        place = most.min(place + storm.messages);
        bench.sender.release_until(place);
        plugins.put();
        // Where nothing comes out, no version gets a message.
        wait::until_true("the next version is due", || {
            let out = bench.ledger.distinct();
            put.elapsed() >= EVERY && (out > came || out >= place)
        });
        if plugins.last == FIRST {
            before = Some(Usage::of(&bench.daemon));
        }
    }
    let (before, stormed) = (before.expect("the storm has a few versions"), begin.elapsed());
    plugins.put();
    bench.wait_distinct(place);
    let sent = runs(&bench, plugins.last, place);
    bench.sender.release();
    let count = bench.ledger.flow().count();
    bench.wait_distinct(count);
    hold_versions(&bench, plugins.last, count - sent);
    let after = hold_usage(&bench.daemon, &before);
    let (put, ok) = (plugins.last, in_service(&bench.daemon));
    let broken = format!("{put} versions put in {stormed:?}, {ok} in service; {before:?}, then {after:?}");
    let verdict = bench.finish(&row, &broken);
    assert_eq!(verdict.duplicates, 0, "no connection was lost, and no call failed");
}

/// How many versions came into service, the first apart.
fn in_service(daemon: &Daemon) -> f64 {
    reloads(daemon, "ok")
}

fn reloads(daemon: &Daemon, result: &str) -> f64 {
    daemon.metrics().sum("tidegate_handler_reloads_total", &[("handler", "storm"), ("result", result)])
}

/// Sends one message after the other, from this place of the flow, until one comes out of this version. Up to which place.
fn runs(bench: &Bench, version: u64, mut place: usize) -> usize {
    wait::until_within(STUCK, "the last version runs", || {
        place += 1;
        assert!(place < bench.ledger.flow().count(), "too few messages are left to wait for the last version");
        bench.sender.release_until(place);
        bench.wait_distinct(place);
        let last = bench.ledger.counts().last().map(|(version, _)| *version);
        if last == Some(version) { Ok(()) } else { Err(format!("version {last:?} runs")) }
    });
    place
}

/// Holds that versions came into service one after the other, those that the daemon counts, up to the last, which so many messages had.
#[track_caller]
fn hold_versions(bench: &Bench, last: u64, at_least: usize) {
    let back = bench.ledger.back();
    assert!(back.is_empty(), "{} messages ran on an older version than one before: {:?}", back.len(), back.first());
    let counts = bench.ledger.counts();
    let (newest, messages) = counts.last().expect("there are messages");
    assert!((*newest, *messages >= at_least) == (last, true), "{messages} messages of version {newest}, not of {last}");
    assert_eq!(reloads(&bench.daemon, "refused"), 0.0, "refused");
    // The first ran from the start. One may be followed by the next before it gets a message.
    let (seen, ok) = (counts.len() - 1, in_service(&bench.daemon) as usize);
    assert!(seen <= ok && 2 * seen >= ok, "{seen} versions had messages, {ok} came into service");
}

/// Holds that what is over is gone.
#[track_caller]
fn hold_usage(daemon: &Daemon, before: &Usage) -> Usage {
    wait::until("memory, files and the disk are as before", || {
        let now = Usage::of(daemon);
        let flat = now.resident <= before.resident + KEPT
            && now.code <= before.code + 4
            && now.files <= before.files + 4
            && now.copies <= 3 * PLUGIN as u64;
        if flat { Ok(now) } else { Err(format!("{now:?}, and before {before:?}")) }
    })
}
