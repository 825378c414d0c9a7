//! `tidegate publish`: RouterOS' `/iot mqtt publish`.
//!
//! What no broker would take is refused here, before anything is sent.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;

use super::Asking;
use super::payload::{Most, from_file, from_input, in_json};
use crate::cli::client::{Client, Failure, Request};
use crate::cli::console::Console;
use crate::control::admin::limits;
use crate::control::admin::resource::{Publication, Published};
use crate::topic::TopicName;

/// Largest request that the daemon takes, in bytes of JSON: the payload as text, or a third longer in base64.
const MOST: Most = Most {
    bytes: limits::PUBLISH_BYTES,
    beside: "with topic and all",
    remedy: "publish it in parts, or with another client",
};

/// The arguments of `publish`.
#[derive(Args)]
#[command(after_help = "\
Examples: tidegate publish --broker plant --topic my/test/topic --message test-message
          sensor-read | tidegate publish --broker plant --topic sensors/1 --qos 1 -
A payload may have nearly 16 MiB (16,777,216 bytes) of text, or 12 MiB (12,582,912) of other bytes.
RouterOS: /iot mqtt publish broker=plant topic=my/test/topic message=test-message")]
pub struct Publish {
    #[command(flatten)]
    pub asking: Asking,
    /// The broker's name
    #[arg(long, value_name = "NAME")]
    broker: String,
    /// The topic name, without wildcards
    #[arg(long, allow_hyphen_values = true)]
    topic: String,
    /// The payload; an empty one clears a retained message [default: empty]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with_all = ["file", "stdin"])]
    message: Option<String>,
    /// The file that holds the payload
    #[arg(long, conflicts_with = "stdin")]
    file: Option<PathBuf>,
    /// The payload is standard input, byte for byte
    #[arg(value_name = "-", value_parser = ["-"], hide_possible_values = true)]
    stdin: Option<String>,
    /// 0, 1 or 2; from 1 on the broker's acknowledgement is waited for
    #[arg(long, default_value_t = 0)]
    qos: u64,
    /// Let the broker keep it for later subscribers
    #[arg(long)]
    retain: bool,
    /// Refuse instead of connecting a broker that is not connected
    #[arg(long)]
    no_force: bool,
    /// Disconnect afterwards; refused if the broker is connected already, and so not with --no-force
    #[arg(long)]
    disconnect_after: bool,
}

impl Publish {
    /// Does it.
    ///
    /// # Errors
    /// The topic, QoS or file cannot be used, or the client's errors.
    pub async fn run(self, client: &Client<'_>, console: &mut Console<'_>) -> Result<u8, Failure> {
        let request = self.request(console.input)?;
        let answer = client.send(request).await?;
        console.show(self.asking.json, &answer, |published: Published| told(&published))
    }

    fn request(&self, input: &mut dyn Read) -> Result<Request, Failure> {
        let wrong = |reason: String| Err(Failure::WrongUse(reason));
        if let Err(error) = TopicName::new(self.topic.as_str()) {
            return wrong(format!("the topic {:?} {error}; publish to one topic name", self.topic));
        }
        let qos = match u8::try_from(self.qos) {
            Ok(qos @ 0..=2) => qos,
            _ => return wrong(format!("QoS {} does not exist (MQTT 5 §4.3); use 0, 1 or 2", self.qos)),
        };
        if self.no_force && self.disconnect_after {
            return wrong(
                "--disconnect-after is refused where a broker is connected, and --no-force where it is not; give one of them"
                    .to_owned(),
            );
        }
        let payload = self.payload(input)?;
        let bytes = payload.as_ref().map_or(0, Vec::len);
        let (message, message_base64) = match payload {
            Some(bytes) => in_json(bytes),
            None => (None, None),
        };
        let publication = Publication {
            broker: self.broker.clone(),
            topic: self.topic.clone(),
            message,
            message_base64,
            qos,
            retain: self.retain,
            force: self.no_force.then_some(false),
            disconnect_after: self.disconnect_after,
        };
        let body = serde_json::to_value(publication).expect("strings and numbers become JSON");
        MOST.holds(&body, "payload", bytes)?;
        Ok(Request::post(&["publish"], Some(body)))
    }

    fn payload(&self, input: &mut dyn Read) -> Result<Option<Vec<u8>>, Failure> {
        if let Some(name) = &self.file {
            return from_file(name, MOST).map(Some);
        }
        if self.stdin.is_some() {
            return from_input(input, MOST).map(Some);
        }
        Ok(self.message.clone().map(String::into_bytes))
    }
}

fn told(published: &Published) -> String {
    let Published { broker, topic, qos, acknowledged, connected_for_it, disconnected } = published;
    let end = match (*qos, *acknowledged) {
        (0, _) => "written",
        (_, true) => "acknowledged",
        (_, false) => "not acknowledged",
    };
    let connection = match (*connected_for_it, *disconnected) {
        (true, true) => "; connected for it, and disconnected again",
        (true, false) => "; connected for it",
        (false, true) => "; disconnected",
        (false, false) => "",
    };
    format!("published to {broker}: {topic} (QoS {qos}, {end}){connection}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{check_refused, check_request, run};
    use super::*;

    #[test]
    fn the_options_become_a_publication() {
        let least = "publish --broker b --topic t";
        let body = |fields: serde_json::Value| {
            let mut body = json!({"broker": "b", "topic": "t", "qos": 0, "retain": false, "disconnect-after": false});
            body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
            body
        };
        let check = |arguments: &str, input: &[u8], fields| {
            check_request(arguments, input, "POST /api/v1/publish", body(fields));
        };
        check(least, b"", json!({}));
        check(
            &format!("{least} --message -x --qos 2 --retain"),
            b"",
            json!({"message": "-x", "qos": 2, "retain": true}),
        );
        check(&format!("{least} --no-force"), b"", json!({"force": false}));
        check(&format!("{least} --disconnect-after"), b"", json!({"disconnect-after": true}));
        check(&format!("{least} -"), b"line\n", json!({"message": "line\n"}));
        check(&format!("{least} -"), b"", json!({"message": ""}));
        check(&format!("{least} -"), b"\x00\xff", json!({"message-base64": "AP8="}));
        check(&format!("{least} -"), b"\x00", json!({"message-base64": "AA=="}));
    }

    #[test]
    fn a_file_is_published_byte_for_byte() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), b"\xc3\x28\n").expect("our file");
        let arguments = format!("publish --broker b --topic t --file {}", file.path().display());
        let body = json!({"broker": "b", "topic": "t", "qos": 0, "retain": false, "disconnect-after": false,
            "message-base64": "wygK"});
        check_request(&arguments, b"", "POST /api/v1/publish", body);
        let gone = "publish --broker b --topic t --file /nonexistent/file";
        check_refused(gone, 2, "/nonexistent/file: No such file or directory");
    }

    #[test]
    fn what_is_too_large_is_not_sent() {
        const BYTES: &str = "; the daemon takes 16777216 bytes of text at most, or 12582912 of others";
        let publish = "publish --broker b --topic t";
        let zeros = format!("{publish} --file /dev/zero");
        check_refused(&zeros, 2, &format!("/dev/zero holds more than 16777216 bytes{BYTES}"));
        let nowhere = std::path::Path::new("/nonexistent/admin.sock");
        let given = |input: &[u8]| run(format!("{publish} -").split(' '), input, nowhere);
        let refused = |input: &[u8], reason: &str| {
            let ran = given(input);
            assert!(ran.code == 2 && ran.notices.contains(&format!("{reason}{BYTES}")), "{ran:?}");
        };
        refused(&vec![b'a'; (16 << 20) + 1], "standard input holds more than 16777216 bytes");
        refused(&vec![b'a'; 16 << 20], "the payload has 16777216 bytes");
        refused(&vec![0xff; 12 << 20], "the payload has 12582912 bytes");
        // Room for the topic and the rest; nobody listens there, so it was to be sent.
        assert_eq!(given(&vec![b'a'; (16 << 20) - 200]).code, 3);
        assert_eq!(given(&vec![0xff; (12 << 20) - 200]).code, 3);
        check_refused(
            &format!("{publish} --file /"),
            2,
            "/: Is a directory (os error 21); name a file that you may read",
        );
    }

    #[test]
    fn what_can_never_be_done_is_not_sent() {
        let both = "publish --broker b --topic t --no-force --disconnect-after";
        check_refused(both, 2, "--no-force where it is not; give one of them");
    }

    #[test]
    fn what_no_broker_takes_is_not_sent() {
        check_refused("publish --broker b --topic a/+", 2, "the topic \"a/+\"");
        check_refused("publish --broker b --topic a/#", 2, "§4.7");
        check_refused("publish --broker b --topic t --qos 3", 2, "QoS 3 does not exist (MQTT 5 §4.3); use 0, 1 or 2");
        check_refused("publish --broker b --topic t --message x --file y", 2, "cannot be used with");
        check_refused("publish --broker b --topic t --message x -", 2, "cannot be used with");
        check_refused("publish --broker b --topic t -x", 2, "unexpected argument");
    }

    #[test]
    fn what_became_of_it_is_told() {
        let published = |qos, acknowledged, connected_for_it, disconnected| {
            let (broker, topic) = ("b".to_owned(), "t".to_owned());
            told(&Published { broker, topic, qos, acknowledged, connected_for_it, disconnected })
        };
        assert_eq!(published(0, true, false, false), "published to b: t (QoS 0, written)");
        assert_eq!(published(1, true, true, false), "published to b: t (QoS 1, acknowledged); connected for it");
        let both = "published to b: t (QoS 1, acknowledged); connected for it, and disconnected again";
        assert_eq!(published(1, true, true, true), both);
    }
}
