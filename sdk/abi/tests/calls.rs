//! C and Rust mean the same by every function: a plugin in C and one in C++ calls all of them, and each side checks what the other gave.
#![cfg(not(miri))]
#![allow(unsafe_code)]

mod compiler;
mod host;

use std::ffi::c_int;

use compiler::{C, CXX, Compiler};
use host::{Fake, enter, failure, message};
use libloading::Library;
use tidegate_abi::{Bytes, ENTRY, Entry, Message, Pair, Plugin, Properties, Run, SILENCE, Status};

/// A plugin built from `every.c`.
struct Every {
    plugin: Plugin,
    library: Library,
}

impl Every {
    fn built_by(compiler: &Compiler) -> Every {
        let built = compiler.build("every.so", include_str!("calls/every.c"), &["-O1", "-g", "-fPIC", "-shared"]);
        // SAFETY: it has no initialisers.
        let library = unsafe { Library::new(built) }.expect("it can be loaded");
        // SAFETY: the symbol has this type, as the header declares it.
        let entry: Entry = *unsafe { library.get(ENTRY) }.expect("it has an entry point");
        // SAFETY: the plugin is ours.
        let plugin = unsafe { enter(entry) };
        Every { plugin, library }
    }

    fn instances(&self) -> c_int {
        // SAFETY: the symbol has this type.
        let count = unsafe { self.library.get::<extern "C" fn() -> c_int>(b"count_instances") };
        count.expect("it is exported")()
    }
}

fn check(compiler: &Compiler) {
    let every = Every::built_by(compiler);
    let plugin = &every.plugin;
    // SAFETY: the name is static in the library.
    assert_eq!((unsafe { plugin.name.text() }, every.instances()), (Ok("every"), 0));

    let mut fake = Fake::new(&[("a", "1")], &[("unit", "F")]);
    let (status, state) = fake.create(plugin);
    assert_eq!((status, failure(&fake), every.instances()), (Status::OK, None, 1));

    let user = [Pair { key: Bytes::of_text("k"), value: Bytes::of_text("v") }];
    let properties = Properties {
        size: size_of::<Properties>() as u32,
        message_expiry: 7,
        has_message_expiry: 1,
        utf8_payload: 0,
        reserved: [0; 6],
        content_type: Bytes::of_text("text/plain"),
        response_topic: Bytes::ABSENT,
        correlation_data: Bytes::of(b"id"),
        user: user.as_ptr(),
        user_count: user.len(),
    };
    let captures = [Bytes::of_text("b"), Bytes::of_text("")];
    let whole = Message {
        attempt: 3,
        received: 5_000_000_000,
        dup: 1,
        captures: captures.as_ptr(),
        capture_count: captures.len(),
        properties: &raw const properties,
        ..message("a/b", "x")
    };
    // SAFETY: the state is of this plugin, and the message lives above.
    let status = unsafe { fake.message(plugin, state, &whole) };
    assert_eq!((status, failure(&fake)), (Status::OK, None));
    let expected = [
        "log_enabled 1",
        "log_enabled 3",
        r#"log 3 a line [("topic", "a/b")]"#,
        "log 4 another []",
        "kv_get a",
        "kv_get b",
        "kv_set b 2",
        "kv_set c 3 for 250 ms",
        "kv_keys  None 10",
        r#"kv_keys c Some("a") 1"#,
        "kv_delete a",
        r#"publish out "payload" 2 true Some("cloud") None Some("answers") None None true [("x", "1"), ("x", "")]"#,
    ];
    assert_eq!(fake.take_asked(), expected);

    // SAFETY: the state is of this plugin, and the message is static.
    let fails = |fake: &mut Fake, topic| unsafe { fake.message(plugin, state, &message(topic, "")) };
    assert_eq!(fails(&mut fake, "retry"), Status::RETRY);
    assert_eq!(failure(&fake), Some(("later", Some(1_500))));
    let refused = |status: Status| {
        let mut fake = Fake::refusing(status, "in words");
        let ended = fails(&mut fake, "fail");
        assert_eq!(
            failure(&fake),
            Some((if status == Status::NOT_FOUND { "there is no such key" } else { "in words" }, None))
        );
        ended
    };
    let for_good =
        [Status::DENIED, Status::INVALID_TOPIC, Status::TOO_LARGE, Status::UNKNOWN_BROKER, Status::NOT_FOUND];
    for status in for_good.into_iter().chain([Status::INVALID, Status::OTHER, Status(77)]) {
        assert_eq!(refused(status), Status::REJECT, "{status:?}");
    }
    for status in [Status::QUOTA, Status::UNAVAILABLE, Status::OUTBOX_FULL] {
        assert_eq!(refused(status), Status::RETRY, "{status:?}");
    }

    let run = Run { size: size_of::<Run>() as u32, trigger: SILENCE, due: 9, name: Bytes::of_text("hourly") };
    // SAFETY: the state is of this plugin, and the run lives above.
    let status = unsafe { fake.run(plugin, state, &run) };
    assert_eq!((status, failure(&fake)), (Status::OK, None));
    assert_eq!(fake.take_asked(), ["system_read"]);

    let destroy = plugin.destroy.expect("it ends its states");
    // SAFETY: the state is of this plugin, and is not used again.
    unsafe { destroy(state) };
    assert_eq!(every.instances(), 0);
}

#[test]
fn a_plugin_in_c_is_understood() {
    check(&C);
}

#[test]
fn a_plugin_in_cxx_is_understood() {
    check(&CXX);
}

/// Its own test plays the daemon, under the sanitizers for addresses and undefined behaviour.
#[test]
fn the_sample_in_c_is_sound() {
    let folder = compiler::header_folder().join("../../plugins/native-c");
    let sample = std::fs::read_to_string(folder.join("native-c.c")).expect("the sample");
    let test = std::fs::read_to_string(folder.join("test.c")).expect("its test");
    let sanitizers = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
    let built = C.build_all("native-c-test", &[("native-c", &sample), ("test", &test)], &sanitizers);
    let output = std::process::Command::new(built).output().expect("it can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
