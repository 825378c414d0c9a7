//! Handlers that do their worst, at their calls and as plugins that are not even handlers: the daemon lives, the neighbours get all their
//! messages meanwhile, each deed has its sentence, and the memory comes back.

use std::fs;

use tidegate_tests::component::{component, padded};
use tidegate_tests::config::ECHO;
use tidegate_tests::{Client, Config, Daemon, Message, Mosquitto, Protocol, wait};

/// Calls of each hostile handler.
const BAD: usize = 2;

/// Messages of the neighbour beside each.
const GOOD: usize = 100;

/// What the allocator may keep of what it had.
const KEPT: u64 = 48 << 20;

/// The largest plugin.
const MOST: usize = 64 << 20;

/// What a hostile handler is.
enum Guest {
    /// The test guest with this configuration.
    Rust(&'static str),
    /// A component with this inside.
    Text(&'static str),
}

/// A handler that misbehaves when it is called.
struct Hostile {
    name: &'static str,
    guest: Guest,
    /// Keys of its table.
    keys: &'static str,
    /// How each call ends.
    result: &'static str,
    /// What is said of it; of the log where the calls are good.
    words: &'static str,
}

const HOSTILE: [Hostile; 11] = [
    Hostile {
        name: "loops",
        guest: Guest::Rust("mode = \"loop\""),
        keys: "call-deadline = \"2s\"",
        result: "deadline",
        words: "the call took longer than call-deadline = 2s",
    },
    Hostile {
        name: "recurses",
        guest: Guest::Text("(func $handle (param i32) (result i32) (call $handle (local.get 0)))"),
        keys: "",
        result: "limit",
        words: "the handler needs more than 1048576 bytes of call stack, as by endless recursion; no key raises that",
    },
    Hostile {
        name: "hoards",
        guest: Guest::Rust("mode = \"memory\""),
        keys: "max-memory = \"64MiB\"",
        result: "memory",
        words: "the handler needs more than max-memory = 67108864 bytes",
    },
    Hostile {
        name: "tables",
        guest: Guest::Text(
            "(table $t 1 funcref) (func $handle (param i32) (result i32)
                (loop $l (br_if $l (i32.ge_s (table.grow $t (ref.null func) (i32.const 1000)) (i32.const 0)))) (unreachable))",
        ),
        keys: "",
        result: "limit",
        words: "the handler needs more than 262144 table elements; no key raises that",
    },
    Hostile {
        name: "publishes",
        guest: Guest::Rust("mode = \"reckless\", count = 100000, bytes = 100"),
        keys: "",
        result: "limit",
        words: "the call publishes more than max-publishes = 64 messages",
    },
    Hostile {
        name: "bloats",
        guest: Guest::Rust("mode = \"reckless\", count = 8, bytes = 500000"),
        keys: "",
        result: "limit",
        words: "the call publishes more than max-publish-bytes = 1048576 bytes",
    },
    // 100 MB, in lines of 1 KB.
    Hostile {
        name: "talks",
        guest: Guest::Rust("mode = \"shout\", count = 100000, bytes = 1000"),
        keys: "",
        result: "ok",
        words: "100 lines a second, which no key raises",
    },
    // 100 MB at once.
    Hostile {
        name: "shouts",
        guest: Guest::Rust("mode = \"shout\", count = 1, bytes = 100000000"),
        keys: "max-memory = \"256MiB\"",
        result: "limit",
        words: "the handler passes more than 4194304 bytes to the daemon at once",
    },
    Hostile {
        name: "excuses",
        guest: Guest::Rust("mode = \"excuse\", bytes = 3000000"),
        keys: "",
        result: "reject",
        words: "(2998976 bytes more)",
    },
    // A publish whose topic is the bytes ff ff.
    Hostile {
        name: "garbles",
        guest: Guest::Text(
            r#"(data (i32.const 0x100) "\ff\ff") (func $handle (param i32) (result i32)
                (i32.store (i32.const 0x200) (i32.const 0x100)) (i32.store (i32.const 0x204) (i32.const 2))
                (call $publish (i32.const 0x200) (i32.const 0x300)) (i32.const 0x80))"#,
        ),
        keys: "",
        result: "trap",
        words: "it passed text to the daemon that is not UTF-8",
    },
    Hostile {
        name: "strays",
        guest: Guest::Rust("mode = \"denied\", topic = \"out/#\""),
        keys: "",
        result: "reject",
        words: "the topic has the wildcard '#'",
    },
];

/// A daemon with an honest handler and all the hostile ones.
fn gateway(broker: &Mosquitto) -> Daemon {
    let mut config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("good", "plant", ECHO, "")
        .subscription("plant", "good/+", 1, "good", "");
    let common = "instances = 2\nretry = { max = 0 }\nquarantine = \"off\"";
    for Hostile { name, guest, keys, .. } in &HOSTILE {
        // Of the others none is to be slower than this on a loaded machine.
        let deadline = if keys.contains("call-deadline") { "" } else { "call-deadline = \"60s\"" };
        let keys = format!("{common}\n{keys}\n{deadline}");
        config = match guest {
            Guest::Rust(guest) => config.guest(name, "plant", guest, &keys),
            Guest::Text(text) => config.component(name, component(text, ""), &keys),
        };
        config = config.subscription("plant", &format!("bad/{name}/+"), 1, name, "");
    }
    Daemon::start(&config)
}

/// Has the neighbour handle messages, and sees that it handles all.
struct Neighbour {
    publisher: Client,
    collector: Client,
    sent: usize,
}

impl Neighbour {
    fn of(broker: &Mosquitto) -> Neighbour {
        let collector = broker.client(Protocol::V5);
        collector.subscribe("out/good/#", 1);
        Neighbour { publisher: broker.client(Protocol::V5), collector, sent: 0 }
    }

    /// All of so many messages, each once, and those of a topic in order.
    #[track_caller]
    fn works(&mut self, count: usize, beside: &str) {
        let numbers: Vec<usize> = (self.sent..self.sent + count).collect();
        let messages = numbers.iter().map(|n| Message::new(format!("good/{}", n % 4), n.to_string()));
        self.publisher.publish_all(&messages.collect::<Vec<_>>());
        let mut came: Vec<usize> =
            self.collector.collect(count).iter().map(|echo| echo.text().parse().expect("a number")).collect();
        for topic in 0..4 {
            assert!(came.iter().filter(|n| *n % 4 == topic).is_sorted(), "in order beside {beside}: {came:?}");
        }
        came.sort_unstable();
        assert_eq!(came, numbers, "the neighbour's messages beside {beside}");
        self.sent += count;
    }
}

/// Resident memory, in bytes.
fn resident(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).expect("the daemon lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux tells it");
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
}

#[test]
fn neighbours_get_all_their_messages_beside_each_hostile_call() {
    let broker = Mosquitto::start();
    let daemon = gateway(&broker);
    let mut neighbour = Neighbour::of(&broker);
    let publisher = broker.client(Protocol::V5);
    neighbour.works(GOOD, "nothing");

    let (mut settled, mut before) = (GOOD, 0);
    // The second time around everything has its size.
    for round in 1..=2 {
        for Hostile { name, result, .. } in &HOSTILE {
            let bad = (0..BAD).map(|n| Message::new(format!("bad/{name}/{n}"), "now"));
            publisher.publish_all(&bad.collect::<Vec<_>>());
            neighbour.works(GOOD, name);
            settled += GOOD + BAD;
            let metrics = daemon.settle("plant", settled);
            assert_eq!(metrics.calls(name, result), (round * BAD) as f64, "calls of {name} with the result {result}");
            assert_eq!(
                metrics.sum("tidegate_handler_calls_total", &[("handler", name)]),
                (round * BAD) as f64,
                "{name}"
            );
        }
        before = if round == 1 { resident(&daemon) } else { before };
    }
    for Hostile { name, result, words, .. } in &HOSTILE {
        match *result {
            "ok" => _ = daemon.wait_event("handler log lines dropped", &[("handler", name), ("limit", words)]),
            _ => {
                let fields = [("handler", *name), ("result", result), ("error", words)];
                daemon.wait_event("the call failed, its message becomes a dead letter", &fields);
            }
        }
    }
    wait::until("the memory that hostile calls took is given back", || {
        let now = resident(&daemon);
        if now <= before + KEPT { Ok(()) } else { Err(format!("{before} bytes before, {now} now")) }
    });
    neighbour.works(GOOD, "what they left");
}

/// Plugins, each with what is said of it.
fn plugins() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = component("", "");
    let core = b"\0asm\x01\0\0\0".to_vec();
    let excuse = "(func $init (result i32) (drop (memory.grow (i32.const 100)))
        (memory.fill (i32.const 0x10000) (i32.const 0x78) (i32.const 3000000))
        (i32.store (i32.const 0x80) (i32.const 1)) (i32.store (i32.const 0x84) (i32.const 0x10000))
        (i32.store (i32.const 0x88) (i32.const 3000000)) (i32.const 0x80))";
    let bomb = format!("(core module $tiny) {}", "(core instance (instantiate $tiny))".repeat(300));
    let files = "(import \"wasi:nn/tensor@0.2.0\" (instance))";
    let odd = r#"(component
        (core module $m (func (export "init")))
        (core instance $c (instantiate $m))
        (func $init (canon lift (core func $c "init")))
        (instance $i (export "init" (func $init)))
        (export "tidegate:handler/lifecycle@0.1.0" (instance $i)))"#;
    let parsed = |text: &str| wat::parse_str(text).expect("is a component");
    vec![
        (
            "start-spins",
            component("(func $begin (loop $l (br $l))) (start $begin)", ""),
            "init took longer than call-deadline = 100ms",
        ),
        (
            "init-spins",
            component("(func $init (result i32) (loop $l (br $l)) (unreachable))", ""),
            "init took longer than call-deadline = 100ms",
        ),
        ("init-traps", component("(func $init (result i32) (unreachable))", ""), "it panicked or aborted"),
        ("init-excuses", component(excuse, ""), "(2998976 bytes more)"),
        ("instances", component("", &bomb), "the handler needs more than 256 core instances; no key raises that"),
        (
            "tables",
            component("(table 300000 funcref)", ""),
            "the handler needs more than 262144 table elements; no key raises that",
        ),
        ("too-large", padded(good.clone(), MOST + 1), "has 67108865 bytes, more than 67108864"),
        ("truncated", good[..good.len() / 2].to_vec(), "is damaged, incomplete or uses WebAssembly features"),
        ("corrupted", good.iter().rev().chain(&good).copied().collect(), "is not WebAssembly"),
        ("core", core, "is a core WebAssembly module, not a component"),
        ("empty", Vec::new(), "is empty"),
        (
            "imports",
            parsed(&format!("(component {files})")),
            "imports wasi:nn/tensor@0.2.0, which this version does not provide",
        ),
        ("exports", parsed(odd), "exports tidegate:handler/lifecycle@0.1.0 in another form than this version calls"),
    ]
}

#[test]
fn hostile_plugins_are_refused_in_a_sentence_while_neighbours_work() {
    let broker = Mosquitto::start();
    let config = Config::new()
        .broker("plant", broker.port(), Protocol::V5, "")
        .guest("good", "plant", ECHO, "")
        .subscription("plant", "good/+", 1, "good", "");
    let daemon = Daemon::start(&config);
    let mut neighbour = Neighbour::of(&broker);
    neighbour.works(GOOD, "nothing");
    let plugins = plugins();
    let mut before = 0;
    for round in 1..=2 {
        for (name, bytes, words) in &plugins {
            daemon.home().write(&format!("plugins/{name}.wasm"), bytes);
            let plugin = format!("{name}.wasm");
            // Short only where it is to be missed.
            let deadline = if name.ends_with("spins") { "100ms" } else { "60s" };
            let add = ["handlers", "add", name, "--plugin", &plugin, "--call-deadline", deadline];
            let said = std::thread::scope(|scope| {
                let refused = scope.spawn(|| daemon.refused(&add));
                neighbour.works(GOOD, name);
                refused.join().expect("it is refused")
            });
            assert!(said.contains(words), "{name}: {said}");
            assert!(said.len() < 4096, "{name}: {} bytes", said.len());
        }
        before = if round == 1 { resident(&daemon) } else { before };
    }
    // One of the largest size is a handler like others.
    daemon.home().write("plugins/largest.wasm", padded(component("", ""), MOST));
    daemon.done(&["handlers", "add", "largest", "--plugin", "largest.wasm", "--call-deadline", "60s"]);
    neighbour.works(GOOD, "a plugin of the largest size");
    daemon.done(&["handlers", "remove", "largest"]);
    wait::until("the memory that hostile plugins took is given back", || {
        let now = resident(&daemon);
        if now <= before + KEPT { Ok(()) } else { Err(format!("{before} bytes before, {now} now")) }
    });
    daemon.settle("plant", neighbour.sent);
}
