//! `docs/dead-letters.md`: what it says to do with dead letters plays each one back once, in order.

use std::fs;
use std::path::Path;
use std::process::Command;

use tidegate_tests::config::ECHO;
use tidegate_tests::daemon::binary;
use tidegate_tests::{Client, Config, Daemon, Message, Mosquitto, Protocol, on_both_protocols, wait};

on_both_protocols!(what_the_page_says_plays_each_dead_letter_back_once);

/// More than brokers send at once.
const LETTERS: usize = 30;

/// The block of the page that plays back from a broker of this protocol.
fn recipe(protocol: Protocol) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/dead-letters.md");
    let page = fs::read_to_string(page).expect("the page is there");
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut recipes = blocks.filter(|block| block.contains("tidegate publish") && block.contains(version(protocol)));
    let recipe = recipes.next().expect("the page has a recipe").to_owned();
    assert_eq!(recipes.next(), None, "it has one");
    recipe
}

fn version(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::V5 => "-V 5 ",
        Protocol::V311 => "-V 311 ",
    }
}

/// Runs lines of the page beside the daemon.
#[track_caller]
fn shell(daemon: &Daemon, broker: &Mosquitto, lines: &str) {
    let path = std::env::var("PATH").expect("there is one");
    let binary = binary();
    let folder = binary.parent().map(Path::display).expect("is in a folder");
    // The broker of the page is on the usual port.
    let lines = lines.replace("mosquitto_sub ", &format!("mosquitto_sub -p {} ", broker.port()));
    let mut shell = Command::new("bash");
    shell.args(["-c", &lines]).current_dir(daemon.home().path()).env("PATH", format!("{folder}:{path}"));
    let output = shell.output().expect("there is a shell");
    assert!(output.status.success(), "{lines}\n{output:?}");
}

fn what_the_page_says_plays_each_dead_letter_back_once(protocol: Protocol) {
    let broker = Mosquitto::start();
    let config = |guest| {
        let keys = "instances = 1\ndead-letter = { broker = \"plant\", topic = \"tidegate/dead/guest\" }";
        Config::new()
            .broker("plant", broker.port(), protocol, "")
            .guest("guest", "plant", guest, keys)
            .subscription("plant", "in/#", 1, "guest", "")
    };
    let mut daemon = Daemon::start(&config("mode = \"reject\""));
    let session = match protocol {
        Protocol::V5 => "-c -x 604800",
        Protocol::V311 => "-c",
    };
    let version = version(protocol);
    let begin = format!("mosquitto_sub {version}-i dead-reader {session} -q 1 -t 'tidegate/dead/#' -E");
    shell(&daemon, &broker, &begin);
    let sent: Vec<Message> = (0..LETTERS)
        .map(|n| Message::new(format!("in/{} and", n % 2), format!(" {n} of \\ \"§\" 'x'\n${{n}} ")))
        .collect();
    broker.client(Protocol::V5).publish_all(&sent);
    assert_eq!(daemon.settle("plant", LETTERS).finished("plant", "dead_letter"), LETTERS as f64);

    daemon.terminate();
    daemon.restart_with(&config(ECHO));
    let listener = Client::connect(broker.port(), Protocol::V5);
    listener.subscribe("in/#", 1);
    // A machine that runs all scenarios beside each other may need longer than the two seconds of the page: what it took is not
    // there any more, so that it is repeated.
    wait::until("all are played", || {
        shell(&daemon, &broker, &recipe(protocol));
        if listener.waiting() >= LETTERS { Ok(()) } else { Err(format!("{} came", listener.waiting())) }
    });
    let mut came = listener.collect(LETTERS);
    // Within a topic in the order in which they failed; their topics were handled beside each other.
    came.sort_by_key(|message| message.topic.clone());
    let mut expected = sent;
    expected.sort_by_key(|message| message.topic.clone());
    let told = |messages: &[Message]| -> Vec<(String, String)> {
        messages.iter().map(|message| (message.topic.clone(), message.text().to_owned())).collect()
    };
    assert_eq!(told(&came), told(&expected));
    let reader = Client::options(broker.port(), protocol).session("dead-reader").connect().expect("is let in");
    assert_eq!(
        (listener.rest(), reader.rest()),
        (Vec::new(), Vec::new()),
        "no letter is left, and none was played twice"
    );
}
