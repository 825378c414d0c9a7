//! The way through the C ABI and back: handlers as the SDK's macros make them, called as the daemon calls them.

use std::time::Duration;

use tidegate_abi::{self as abi, Bytes, Pair, Plugin, Run, Status};
use tidegate_sdk::__private::{Running, both, runs, stateful, stateless};

use crate::entry::{Handler, enter};
use crate::{
    Error, KvError, Message, Outgoing, Properties, PublishError, Qos, Result, Trigger, clock, config, debug, error,
    info, kv, publish, random, reject, retry, serde_json, system,
};

#[path = "../../abi/tests/host/mod.rs"]
mod host;

use host::{Fake, failure, message};

/// A handler of this start, as the macro would export it.
macro_rules! plugin {
    ($on_message:literal, $on_schedule:literal, $start:expr) => {{
        struct This;
        impl Handler for This {
            const START: fn() -> Result<Running, String> = || $start;
            const ON_MESSAGE: bool = $on_message;
            const ON_SCHEDULE: bool = $on_schedule;
            const NAME: &'static str = "this";
            const VERSION: &'static str = "1.2.3";
        }
        unsafe extern "C" fn entry(host: *const abi::Host) -> *const Plugin {
            // SAFETY: the table is static.
            unsafe { enter::<This>(host) }
        }
        // SAFETY: it is an entry point of this crate.
        unsafe { host::enter(entry) }
    }};
}

fn ready() -> Result {
    Ok(())
}

/// A plugin whose calls run this code.
macro_rules! calls {
    ($handle:expr) => {
        plugin!(true, false, stateless($handle, ready))
    };
}

/// One call of a stateless plugin on a new instance: how it ended.
#[track_caller]
fn call(plugin: &Plugin, fake: &mut Fake, message: &abi::Message) -> Status {
    let (status, state) = fake.create(plugin);
    assert_eq!(status, Status::OK);
    // SAFETY: the state is of this plugin, and messages of the tests are static or live in them.
    let status = unsafe { fake.message(plugin, state, message) };
    end(plugin, state);
    status
}

fn end(plugin: &Plugin, state: *mut std::ffi::c_void) {
    let destroy = plugin.destroy.expect("states end");
    // SAFETY: the state is of this plugin, and is not used again.
    unsafe { destroy(state) };
}

#[test]
fn a_message_arrives_whole() {
    let plugin = calls!(|message: &Message| {
        let mut expected = crate::testing::message("a/b", "x");
        expected.subscription = "all".into();
        expected.qos = Qos::AtLeastOnce;
        expected.dup = true;
        expected.attempt = 3;
        expected.received = clock_at(5);
        expected.captures = vec!["b".into(), String::new()];
        expected.properties = Some(Properties {
            content_type: Some("text/plain".into()),
            response_topic: None,
            correlation_data: Some(vec![0xff]),
            message_expiry: Some(7),
            utf8_payload: true,
            user: vec![("k".into(), "v".into()), ("k".into(), "w".into())],
        });
        assert_eq!(*message, expected);
        Ok(())
    });
    let key = Bytes::of_text("k");
    let user = [Pair { key, value: Bytes::of_text("v") }, Pair { key, value: Bytes::of_text("w") }];
    let properties = abi::Properties {
        size: size_of::<abi::Properties>() as u32,
        message_expiry: 7,
        has_message_expiry: 1,
        utf8_payload: 1,
        reserved: [0; 6],
        content_type: Bytes::of_text("text/plain"),
        response_topic: Bytes::ABSENT,
        correlation_data: Bytes::of(&[0xff]),
        user: user.as_ptr(),
        user_count: user.len(),
    };
    let captures = [Bytes::of_text("b"), Bytes::of_text("")];
    let mut message = message("a/b", "x");
    (message.attempt, message.dup, message.received) = (3, 1, 5_000_000_000);
    (message.captures, message.capture_count) = (captures.as_ptr(), captures.len());
    message.properties = &raw const properties;
    let mut fake = Fake::default();
    assert_eq!((call(&plugin, &mut fake, &message), failure(&fake)), (Status::OK, None));
}

fn clock_at(seconds: u64) -> std::time::SystemTime {
    std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn what_the_daemon_gives_wrongly_is_a_rejection_in_words() {
    #[track_caller]
    fn check(change: impl FnOnce(&mut abi::Message), words: &str) {
        let plugin = calls!(|_: &Message| Ok(()));
        let mut message = message("a", "");
        change(&mut message);
        let mut fake = Fake::default();
        assert_eq!(call(&plugin, &mut fake, &message), Status::REJECT);
        assert_eq!(failure(&fake), Some((words, None)));
    }
    check(|message| message.qos = 3, "the daemon gave the unknown QoS 3");
    check(
        |message| message.topic = Bytes::of(b"a\xff"),
        "the message that the daemon gave is not UTF-8 from byte 1 on",
    );
    check(|message| message.size = 8, "the message that the daemon gave says that its size is 8 bytes, less than 112");
}

#[test]
fn publishes_leave_with_all_that_they_have() {
    let plugin = calls!(|_: &Message| {
        publish(Outgoing::new("a", "1"))?;
        let properties = Properties {
            response_topic: Some("r".into()),
            correlation_data: Some(Vec::new()),
            message_expiry: Some(0),
            user: vec![("k".into(), "v".into())],
            ..Properties::default()
        };
        let whole = Outgoing::new("b", "").qos(Qos::ExactlyOnce).retain(true).to_broker("cloud");
        publish(whole.properties(properties))?;
        Ok(())
    });
    let mut fake = Fake::default();
    assert_eq!(call(&plugin, &mut fake, &message("t", "")), Status::OK);
    let whole = r#"publish b "" 2 true Some("cloud") None Some("r") Some([]) Some(0) false [("k", "v")]"#;
    assert_eq!(fake.take_asked(), [r#"publish a "1" 0 false None"#, whole]);
}

#[test]
fn a_refused_publish_is_the_sdks_error() {
    #[track_caller]
    fn check(status: Status, expected: Error, ends: Status) {
        let plugin = calls!(|_: &Message| Ok(publish(Outgoing::new("a", "").to_broker("mill"))?));
        let mut fake = Fake::refusing(status, "in words");
        assert_eq!(call(&plugin, &mut fake, &message("t", "")), ends);
        assert_eq!(failure(&fake), Some((&*expected.to_string(), None)));
    }
    let words = || "in words".to_owned();
    check(Status::DENIED, PublishError::Denied(words()).into(), Status::REJECT);
    check(Status::INVALID_TOPIC, PublishError::InvalidTopic(words()).into(), Status::REJECT);
    check(Status::TOO_LARGE, PublishError::TooLarge.into(), Status::REJECT);
    check(Status::QUOTA, PublishError::Quota.into(), Status::REJECT);
    check(Status::UNKNOWN_BROKER, PublishError::UnknownBroker("mill".into()).into(), Status::REJECT);
    check(Status::OUTBOX_FULL, PublishError::OutboxFull.into(), Status::RETRY);
    check(Status::OTHER, PublishError::Other(words()).into(), Status::RETRY);
    check(Status(77), PublishError::Other(words()).into(), Status::RETRY);
}

#[test]
fn kv_reads_writes_lists_and_deletes() {
    let plugin = calls!(|_: &Message| {
        assert_eq!(kv::get("a")?, Some(b"1".to_vec()));
        assert_eq!(kv::get("none")?, None);
        kv::set("b", "2")?;
        kv::set_with_ttl("c", "3", Duration::from_micros(1_500))?;
        assert_eq!(kv::keys("", 9)?, ["a", "b", "c"]);
        assert_eq!(kv::keys_after("", "a", 1)?, ["b"]);
        kv::delete("a")?;
        Ok(())
    });
    let mut fake = Fake::new(&[("a", "1")], &[]);
    assert_eq!(call(&plugin, &mut fake, &message("t", "")), Status::OK);
    let lists = ["kv_keys  None 9", r#"kv_keys  Some("a") 1"#];
    let expected = ["kv_get a", "kv_get none", "kv_set b 2", "kv_set c 3 for 2 ms", lists[0], lists[1], "kv_delete a"];
    assert_eq!(fake.take_asked(), expected);
}

#[test]
fn an_error_of_kv_is_the_sdks() {
    #[track_caller]
    fn check(status: Status, expected: KvError) {
        let plugin = calls!(|_: &Message| {
            let error = kv::get("a").expect_err("all is refused");
            assert_eq!(kv::set("a", ""), Err(error.clone()));
            assert_eq!(kv::delete("a"), Err(error.clone()));
            assert_eq!(kv::keys("", 1), Err(error.clone()));
            Err(reject(format!("{error:?}")))
        });
        let mut fake = Fake::refusing(status, "in words");
        assert_eq!(call(&plugin, &mut fake, &message("t", "")), Status::REJECT);
        // Only the last failure's words are kept, so that each call has taken its own.
        assert_eq!(failure(&fake), Some((&*format!("{expected:?}"), None)));
    }
    check(Status::QUOTA, KvError::Quota);
    check(Status::TOO_LARGE, KvError::TooLarge);
    check(Status::UNAVAILABLE, KvError::Unavailable("in words".into()));
    check(Status::OTHER, KvError::Other("in words".into()));
    check(Status::DENIED, KvError::Other("in words".into()));
}

#[test]
fn lines_are_logged_if_they_are_kept() {
    let plugin = calls!(|message: &Message| {
        debug!("never formatted");
        info!(topic = message.topic, n = 2; "two {}", "fields");
        error!("none");
        Ok(())
    });
    let mut fake = Fake::default();
    assert_eq!(call(&plugin, &mut fake, &message("t", "")), Status::OK);
    let expected = [
        "log_enabled 1",
        "log_enabled 2",
        r#"log 2 two fields [("topic", "t"), ("n", "2")]"#,
        "log_enabled 4",
        "log 4 none []",
    ];
    assert_eq!(fake.take_asked(), expected);
}

#[test]
fn each_instance_has_its_own_configuration() {
    let plugin = calls!(|_: &Message| Err(reject(config::<serde_json::Value>()?["unit"].to_string())));
    for unit in ["F", "K", "K", "F"] {
        let mut fake = Fake::new(&[], &[("unit", unit)]);
        assert_eq!(call(&plugin, &mut fake, &message("t", "")), Status::REJECT);
        assert_eq!(failure(&fake), Some((&*serde_json::json!(unit).to_string(), None)));
    }
}

/// Otherwise a handler that panics at each message would use more and more memory.
#[test]
fn a_new_instance_with_the_same_configuration_reads_it_once() {
    let plugin = calls!(|_: &Message| Err(reject(format!("{:p}", config::<serde_json::Value>()?))));
    let place = || {
        let mut fake = Fake::new(&[], &[("unit", "F")]);
        call(&plugin, &mut fake, &message("t", ""));
        fake.error.expect("it tells the place").0
    };
    assert_eq!(place(), place());
}

#[test]
fn clocks_random_numbers_and_readings_are_there() {
    let plugin = calls!(|_: &Message| {
        let (wall, start) = (clock::now(), clock::monotonic());
        assert!(wall > clock_at(1_500_000_000) && clock::monotonic() >= start);
        assert_ne!(random::bytes(16), random::bytes(16));
        let readings = system::read()?;
        assert_eq!(
            (readings.model.as_str(), readings.serial_number.as_str(), readings.os_version.as_str()),
            ("box", "7", "Test 1")
        );
        assert_eq!(
            (readings.cpu_load, readings.used_memory, readings.free_memory, readings.uptime),
            (5, 100, 200, 300)
        );
        Ok(())
    });
    let mut fake = Fake::default();
    assert_eq!((call(&plugin, &mut fake, &message("t", "")), failure(&fake)), (Status::OK, None));
    fake.refusal = Some((Status::DENIED, "no grant"));
    assert_eq!(
        (call(&plugin, &mut fake, &message("t", "")), failure(&fake)),
        (Status::REJECT, Some(("no grant", None)))
    );
}

#[test]
fn a_retry_says_when() {
    #[track_caller]
    fn check(plugin: Plugin, expected: Option<u64>) {
        let mut fake = Fake::default();
        assert_eq!(call(&plugin, &mut fake, &message("t", "")), Status::RETRY);
        assert_eq!(failure(&fake), Some(("later", expected)));
    }
    check(calls!(|_: &Message| Err(retry("later"))), None);
    check(calls!(|_: &Message| Err(retry("later").after(Duration::from_secs(2)))), Some(2_000));
    check(calls!(|_: &Message| Err(retry("later").after(Duration::ZERO))), Some(0));
    check(calls!(|_: &Message| Err(retry("later").after(Duration::MAX))), Some(u64::MAX - 1));
}

#[test]
fn a_panic_ends_the_call_and_nothing_else() {
    let plugin = plugin!(
        true,
        false,
        stateful(
            |seen: &mut u32, message: &Message| {
                *seen += 1;
                assert_ne!(message.topic, "bad", "call {seen}");
                Ok(())
            },
            || Ok::<u32, String>(0)
        )
    );
    let mut fake = Fake::default();
    let (_, state) = fake.create(&plugin);
    // SAFETY: the state is of this plugin.
    let status = unsafe { fake.message(&plugin, state, &message("bad", "")) };
    assert_eq!(status, Status::PANIC);
    let (words, _) = failure(&fake).expect("it says why");
    assert!(words.starts_with("it panicked at ") && words.contains("tests.rs:"), "{words}");
    assert!(words.contains(": assertion `left != right` failed: call 1"), "{words}");
    end(&plugin, state);
    assert_eq!(call(&plugin, &mut fake, &message("good", "")), Status::OK);
}

#[test]
fn whatever_is_panicked_with_is_dropped_safely() {
    struct Again;
    impl Drop for Again {
        fn drop(&mut self) {
            panic!("again");
        }
    }
    let plugin = calls!(|_: &Message| std::panic::panic_any(Again));
    let mut fake = Fake::default();
    assert_eq!(call(&plugin, &mut fake, &message("t", "")), Status::PANIC);
    let words = failure(&fake).expect("it says why").0;
    assert!(words.starts_with("it panicked at ") && words.ends_with(": no reason given"), "{words}");
}

#[test]
fn a_state_whose_end_panics_is_left_behind() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("at the end");
        }
    }
    let plugin = plugin!(true, false, stateful(|_: &mut Bad, _: &Message| Ok(()), || Ok::<Bad, String>(Bad)));
    assert_eq!(call(&plugin, &mut Fake::default(), &message("t", "")), Status::OK);
}

#[test]
fn a_start_may_refuse_or_panic() {
    #[track_caller]
    fn check(plugin: Plugin, expected: Status, words: &str) {
        let mut fake = Fake::default();
        let (status, state) = fake.create(&plugin);
        assert!(status == expected && state.is_null());
        let said = failure(&fake).expect("it says why").0;
        assert!(said.ends_with(words), "{said}");
    }
    fn refusing() -> Result {
        Err(reject("no config"))
    }
    fn panicking() -> Result {
        panic!("no luck")
    }
    check(plugin!(true, false, stateless(|_: &Message| Ok(()), refusing)), Status::REJECT, "no config");
    check(plugin!(true, false, stateless(|_: &Message| Ok(()), panicking)), Status::PANIC, "no luck");
}

#[test]
fn runs_say_what_made_them_due() {
    let plugin = plugin!(
        false,
        true,
        runs(
            |run: &crate::Run| Err(reject(format!("{:?} {} {:?}", run.trigger, run.name, run.due == clock_at(9)))),
            ready
        )
    );
    assert!(plugin.on_message.is_none());
    let (mut fake, run) = (Fake::default(), |trigger| Run {
        size: size_of::<Run>() as u32,
        trigger,
        due: 9_000_000_000,
        name: Bytes::of_text("hourly"),
    });
    let (_, state) = fake.create(&plugin);
    let mut said = |trigger| {
        // SAFETY: the state is of this plugin.
        let status = unsafe { fake.run(&plugin, state, &run(trigger)) };
        (status, fake.error.take().expect("it is a rejection").0)
    };
    assert_eq!(said(abi::SCHEDULE), (Status::REJECT, format!("{:?} hourly true", Trigger::Schedule)));
    assert_eq!(said(abi::SILENCE), (Status::REJECT, format!("{:?} hourly true", Trigger::Silence)));
    assert_eq!(said(2), (Status::REJECT, "the daemon gave the unknown trigger 2".to_owned()));
    end(&plugin, state);
}

#[test]
fn a_plugin_tells_what_it_is() {
    let plugin = plugin!(true, true, both(|_: &Message| Ok(()), |_: &crate::Run| Ok(()), ready));
    // SAFETY: both are static.
    assert_eq!(unsafe { plugin.name.text() }, Ok("this"));
    // SAFETY: as before.
    assert_eq!(unsafe { plugin.version.text() }, Ok("1.2.3"));
    assert!(plugin.on_message.is_some() && plugin.on_schedule.is_some());
    assert_eq!((plugin.size, plugin.minor), (size_of::<Plugin>() as u32, abi::MINOR));
}

#[test]
fn threads_of_the_plugins_own_have_no_call() {
    let plugin = calls!(|_: &Message| {
        let other = std::thread::spawn(|| (publish(Outgoing::new("a", "")), kv::get("a"), system::read().is_err()));
        let (published, got, no_readings) = other.join().expect("it does not panic");
        let words = "no call is in progress on this thread: only the thread that runs the call may do this".to_owned();
        assert_eq!((published, got), (Err(PublishError::Other(words.clone())), Err(KvError::Other(words))));
        assert!(no_readings);
        Ok(())
    });
    let mut fake = Fake::default();
    assert_eq!((call(&plugin, &mut fake, &message("t", "")), failure(&fake)), (Status::OK, None));
    assert_eq!(fake.take_asked(), [""; 0]);
}

#[test]
fn a_table_without_what_version_1_0_has_is_not_taken() {
    struct This;
    impl Handler for This {
        const START: fn() -> Result<Running, String> = || stateless(|_: &Message| Ok(()), ready);
        const ON_MESSAGE: bool = true;
        const ON_SCHEDULE: bool = false;
        const NAME: &'static str = "this";
        const VERSION: &'static str = "1";
    }
    let lacking = abi::Host { kv_get: None, ..host::HOST };
    let small = abi::Host { size: 16, ..host::HOST };
    for host in [&raw const lacking, &raw const small, std::ptr::null()] {
        // SAFETY: each is null, or a table that lives until the function returns and is not kept.
        assert!(unsafe { enter::<This>(host) }.is_null());
    }
}
