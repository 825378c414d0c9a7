//! `sdk/c/tidegate.h` is what this crate says: every field at its place, every constant with its value, clean in C and C++.
//!
//! Needs a C and a C++ compiler (`cc` and `c++`, or what CC and CXX name).
#![cfg(not(miri))]
#![allow(unsafe_code)]

mod compiler;

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use compiler::{C, CXX, Compiler, header_folder};
use tidegate_abi as abi;

/// A field: its name in C, its offset and its size.
type Field = (&'static str, usize, usize);

/// A type: its name in C, its size and its fields.
type Struct = (&'static str, usize, Vec<Field>);

/// The size of the field that a getter points to.
fn size_of_field<T, F>(_: fn(*const T) -> *const F) -> usize {
    size_of::<F>()
}

macro_rules! structs {
    ($($c:literal $rust:ident { $($field:ident),+ $(,)? })+) => {
        vec![$((
            $c,
            size_of::<abi::$rust>(),
            vec![$((
                stringify!($field),
                std::mem::offset_of!(abi::$rust, $field),
                // SAFETY: nothing is read; the pointer is never even made.
                size_of_field(|whole: *const abi::$rust| unsafe { &raw const (*whole).$field }),
            )),+],
        )),+]
    };
}

fn structs() -> Vec<Struct> {
    structs! {
        "tg_bytes" Bytes { ptr, len }
        "tg_pair" Pair { key, value }
        "tg_properties" Properties {
            size, message_expiry, has_message_expiry, utf8_payload, reserved, content_type, response_topic, correlation_data,
            user, user_count,
        }
        "tg_message" Message {
            size, attempt, received, qos, retain, dup, reserved, broker, subscription, topic, payload, captures,
            capture_count, properties,
        }
        "tg_outgoing" Outgoing { size, qos, retain, reserved, topic, payload, broker, properties }
        "tg_run" Run { size, trigger, due, name }
        "tg_readings" Readings {
            size, cpu_load, used_memory, free_memory, uptime, model, serial_number, os_version,
        }
        "tg_host" Host {
            size, minor, log_enabled, log, publish, kv_get, kv_set, kv_delete, kv_keys, config_get, config_json, system_read,
            set_error, last_error,
        }
        "tg_plugin" Plugin { size, minor, name, version, create, on_message, on_schedule, destroy }
    }
}

/// Each constant as C prints it.
fn constants() -> Vec<(&'static str, String)> {
    fn number(number: impl Into<i128>) -> String {
        number.into().to_string()
    }
    use abi::Status;
    vec![
        ("TG_MAJOR", number(abi::MAJOR)),
        ("TG_MINOR", number(abi::MINOR)),
        ("TG_OK", number(Status::OK.0)),
        ("TG_RETRY", number(Status::RETRY.0)),
        ("TG_REJECT", number(Status::REJECT.0)),
        ("TG_PANIC", number(Status::PANIC.0)),
        ("TG_DENIED", number(Status::DENIED.0)),
        ("TG_INVALID_TOPIC", number(Status::INVALID_TOPIC.0)),
        ("TG_TOO_LARGE", number(Status::TOO_LARGE.0)),
        ("TG_QUOTA", number(Status::QUOTA.0)),
        ("TG_UNKNOWN_BROKER", number(Status::UNKNOWN_BROKER.0)),
        ("TG_OUTBOX_FULL", number(Status::OUTBOX_FULL.0)),
        ("TG_NOT_FOUND", number(Status::NOT_FOUND.0)),
        ("TG_UNAVAILABLE", number(Status::UNAVAILABLE.0)),
        ("TG_INVALID", number(Status::INVALID.0)),
        ("TG_OTHER", number(Status::OTHER.0)),
        ("TG_AT_MOST_ONCE", number(abi::AT_MOST_ONCE)),
        ("TG_AT_LEAST_ONCE", number(abi::AT_LEAST_ONCE)),
        ("TG_EXACTLY_ONCE", number(abi::EXACTLY_ONCE)),
        ("TG_TRACE", number(abi::LOG_TRACE)),
        ("TG_DEBUG", number(abi::LOG_DEBUG)),
        ("TG_INFO", number(abi::LOG_INFO)),
        ("TG_WARN", number(abi::LOG_WARN)),
        ("TG_ERROR", number(abi::LOG_ERROR)),
        ("TG_SCHEDULE", number(abi::SCHEDULE)),
        ("TG_SILENCE", number(abi::SILENCE)),
        ("TG_FOREVER", number(abi::FOREVER)),
        ("TG_ANY_DELAY", number(abi::ANY_DELAY)),
    ]
}

/// What a program says that prints a line for each size, offset and constant.
fn said_by(compiler: &Compiler) -> Vec<String> {
    let mut program = String::from("#include <stdio.h>\n#include \"tidegate.h\"\nint main(void) {\n");
    for (name, _, fields) in structs() {
        writeln!(program, "printf(\"{name} %zu\\n\", sizeof({name}));").expect("strings have room");
        for (field, ..) in fields {
            let place = format!("offsetof({name}, {field}), sizeof((({name} *)0)->{field})");
            writeln!(program, "printf(\"{name}.{field} %zu %zu\\n\", {place});").expect("strings have room");
        }
    }
    for (name, expected) in constants() {
        // Whatever its type, its value is printed in whole.
        let (format, cast) =
            if expected.starts_with('-') { ("%lld", "long long") } else { ("%llu", "unsigned long long") };
        writeln!(program, "printf(\"{name} {format}\\n\", ({cast}){name});").expect("strings have room");
    }
    program.push_str("return 0;\n}\n");
    let built = compiler.build("layout", &program, &[]);
    let output = Command::new(&built).output().expect("it can be started");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("it prints ASCII").lines().map(str::to_owned).collect()
}

fn expected() -> Vec<String> {
    let mut lines = Vec::new();
    for (name, size, fields) in structs() {
        lines.push(format!("{name} {size}"));
        lines.extend(fields.iter().map(|(field, offset, size)| format!("{name}.{field} {offset} {size}")));
    }
    lines.extend(constants().iter().map(|(name, value)| format!("{name} {value}")));
    lines
}

#[test]
fn the_header_and_the_crate_have_the_same_layout() {
    assert_eq!(said_by(&C), expected());
    assert_eq!(said_by(&CXX), expected());
}

/// Otherwise a later minor version could not tell by its size whether a field is there; and no field is missing above.
#[test]
fn structs_have_no_gaps() {
    for (name, size, fields) in structs() {
        let mut end = 0;
        for (field, offset, size) in fields {
            assert_eq!(offset, end, "{name}.{field}");
            end = offset + size;
        }
        assert_eq!(end, size, "{name}");
    }
}

/// Sizes that are out in the world: a change of one is a new major version, unless it only appends.
#[test]
#[cfg(target_pointer_width = "64")]
fn version_1_0_never_changes() {
    use abi::Grows;
    let least = [
        ("properties", abi::Properties::LEAST),
        ("message", abi::Message::LEAST),
        ("outgoing", abi::Outgoing::LEAST),
        ("run", abi::Run::LEAST),
        ("readings", abi::Readings::LEAST),
        ("host", abi::Host::LEAST),
        ("plugin", abi::Plugin::LEAST),
    ];
    let expected = [
        ("properties", 80),
        ("message", 112),
        ("outgoing", 64),
        ("run", 32),
        ("readings", 80),
        ("host", 104),
        ("plugin", 72),
    ];
    assert_eq!(least, expected);
    assert_eq!((size_of::<abi::Bytes>(), size_of::<abi::Pair>()), (16, 32));
    assert_eq!(abi::ENTRY.to_str(), Ok(&*format!("{}{}", abi::ENTRY_PREFIX, abi::MAJOR)));
}

/// What stands in the comment at the top, and the command that builds it.
fn example() -> (String, String) {
    let header = fs::read_to_string(header_folder().join("tidegate.h")).expect("the header");
    let lines = header.lines().skip_while(|line| !line.contains("A whole plugin:")).skip(1);
    let lines = lines.take_while(|line| !line.contains("What to know"));
    let code = lines.map(|line| line.strip_prefix(" *     ").unwrap_or_default().to_owned()).collect::<Vec<_>>();
    let (command, code) = code.into_iter().partition::<Vec<_>, _>(|line| line.starts_with("cc "));
    (code.join("\n"), command.join("\n"))
}

/// The pieces of the guide in C.
#[test]
fn the_guides_examples_build() {
    let guide = include_str!("../../../docs/writing-native-plugins.md");
    let blocks = guide.split("```c\n").skip(1).filter_map(|rest| rest.split("```").next()).collect::<Vec<_>>();
    assert!(!blocks.is_empty());
    for block in blocks {
        C.build("guide.so", block, &["-O2", "-fPIC", "-shared"]);
        CXX.build("guide.so", block, &["-O2", "-fPIC", "-shared"]);
    }
}

#[test]
fn the_example_at_the_top_builds() {
    let (code, command) = example();
    assert!(code.contains("tidegate_plugin_v1"), "{code}");
    let expected = "cc -std=c11 -Wall -O2 -fPIC -shared -o copier.so copier.c";
    assert_eq!(command, expected, "the options below are those");
    let shared = ["-O2", "-fPIC", "-shared"];
    let built: Vec<PathBuf> = [&C, &CXX].map(|compiler| compiler.build("copier.so", &code, &shared)).into();
    for library in built {
        let symbols =
            Command::new("nm").args(["-D", "--defined-only"]).arg(&library).output().expect("nm comes with cc");
        let symbols = String::from_utf8_lossy(&symbols.stdout).into_owned();
        assert!(symbols.lines().any(|line| line.ends_with(" T tidegate_plugin_v1")), "{symbols}");
    }
}
