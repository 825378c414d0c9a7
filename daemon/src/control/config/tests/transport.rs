//! Errors and warnings of `tls` and `transport`, and what their values become.

use std::fs;

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::control::config::model::{Broker, Identity, Tls, Transport};

const BEGIN: &str = "[brokers.plant]\naddress = \"mqtt.example\"\n";

/// The only broker of a good file with these keys.
#[track_caller]
fn plant(keys: &str) -> Arc<Broker> {
    Arc::clone(&good(&format!("{BEGIN}{keys}\n")).config.brokers[0])
}

#[track_caller]
fn warnings(keys: &str, expected: &[&str]) {
    check_warnings(&format!("{BEGIN}{keys}\n"), expected);
}

/// A folder with an authority's certificate, two pairs, and files that cannot be used.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, content: &str| fs::write(folder.path().join(name), content).expect("writes");
    for name in ["ca", "gw", "other"] {
        let key = KeyPair::generate().expect("a key");
        let parameters = CertificateParams::new(vec![name.to_owned()]).expect("a host name");
        write(&format!("{name}.pem"), &parameters.self_signed(&key).expect("signs").pem());
        write(&format!("{name}.key"), &key.serialize_pem());
    }
    write("text", "not PEM");
    write("damaged.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    write("encrypted.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    fs::create_dir(folder.path().join("folder")).expect("creates");
    folder
}

/// Errors and warnings of a table `tls` in [`folder`], with `DIR` for it.
#[track_caller]
fn files(tls: &str, errors: &[&str], warnings: &[&str]) {
    let folder = folder();
    let text = format!("{BEGIN}tls = {{ {tls} }}\n");
    let file = SourceFile::new(folder.path().join("tidegate.toml"), text);
    let (found_errors, found_warnings) = match assemble_with(variable, &[file]) {
        Ok(loaded) => (Vec::new(), lines(&loaded.warnings)),
        Err(problems) => (lines(&problems.errors), lines(&problems.warnings)),
    };
    let short = |lines: Vec<String>| -> Vec<String> {
        lines.iter().map(|line| line.replace(&folder.path().display().to_string(), "DIR")).collect()
    };
    assert_eq!((short(found_errors), short(found_warnings)), (owned(errors), owned(warnings)), "{tls}");
}

fn owned(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

#[test]
fn tls_is_off_unless_it_is_given() {
    assert_eq!(plant("").tls, None);
    assert_eq!(plant("tls = false").tls, None);
    assert_eq!(plant("tls = true").tls, Some(Tls::default()));
    assert_eq!(plant("tls = {}").tls, Some(Tls::default()));
    assert_eq!(plant("tls = { insecure-skip-verify = false }").tls, Some(Tls::default()));
}

#[test]
fn the_port_follows_tls() {
    assert_eq!(plant("").port.get(), 1883);
    assert_eq!(plant("tls = true").port.get(), 8883);
    assert_eq!(plant("tls = { alpn = [\"mqtt\"] }").port.get(), 8883);
    assert_eq!(plant("tls = true\nport = 443").port.get(), 443);
    assert_eq!(plant("tls = true\nport = 443\ntransport = \"websocket\"").port.get(), 443);
}

#[test]
fn a_table_gives_everything() {
    let tls = plant(
        "tls = { ca = \"ca.pem\", certificate = \"gw.pem\", key = \"/gw.key\", alpn = [\"x-amzn-mqtt-ca\", \"mqtt\"], \
         server-name = \"north.example\", insecure-skip-verify = true }",
    );
    let expected = Tls {
        ca: Some("ca.pem".into()),
        identity: Some(Identity { certificate: "gw.pem".into(), key: "/gw.key".into() }),
        alpn: vec!["x-amzn-mqtt-ca".to_owned(), "mqtt".to_owned()],
        server_name: Some("north.example".to_owned()),
        insecure_skip_verify: true,
    };
    assert_eq!(tls.tls, Some(expected));
}

#[test]
fn tls() {
    broker(
        "tls = \"yes\"",
        &[
            r#"tidegate.toml:3:7: brokers.plant.tls = "yes": expected a boolean or a table, got a string; use true, or { ca = "FILE", … }"#,
        ],
    );
    broker(
        "tls = { ca-file = \"x\" }",
        &[
            r#"tidegate.toml:3:9: brokers.plant.tls.ca-file: unknown key; known here: alpn, ca, certificate, insecure-skip-verify, key, server-name"#,
        ],
    );
    broker(
        "tls = { insecure-skip-verify = 1 }",
        &[
            "tidegate.toml:3:32: brokers.plant.tls.insecure-skip-verify = 1: expected a boolean, got an integer; use true or false, without quotes",
        ],
    );
}

#[test]
fn server_name() {
    broker(
        "tls = { server-name = \"a b\" }",
        &[
            r#"tidegate.toml:3:23: brokers.plant.tls.server-name = "a b": not a host name or IP address; use a name that the broker's certificate has"#,
        ],
    );
    check(
        "[brokers.plant]\naddress = \"-mqtt\"\ntls = true\n",
        &[
            r#"tidegate.toml:3:7: brokers.plant.tls = true: the address is no name that a certificate can have; add server-name = "NAME" to tls"#,
        ],
    );
    for address in ["::1", "fe80::1%eth0", "192.0.2.7", "mqtt.example.", "my_broker"] {
        check::<&str>(&format!("[brokers.plant]\naddress = \"{address}\"\ntls = true\n"), &[]);
    }
}

#[test]
fn alpn() {
    broker(
        "tls = { alpn = \"mqtt\" }",
        &[r#"tidegate.toml:3:16: brokers.plant.tls.alpn = "mqtt": expected an array, got a string; use ["mqtt"]"#],
    );
    broker(
        "tls = { alpn = [\"mqtt\", \"\"] }",
        &[
            r#"tidegate.toml:3:25: brokers.plant.tls.alpn[1] = "": must have 1 to 255 bytes (RFC 7301 §3.1); use a name such as "mqtt""#,
        ],
    );
}

#[test]
fn good_files_say_nothing() {
    files(r#"ca = "ca.pem", certificate = "gw.pem", key = "gw.key""#, &[], &[]);
}

#[test]
fn a_certificate_and_its_key_come_together() {
    files(
        r#"certificate = "gw.pem""#,
        &[
            r#"DIR/tidegate.toml:3:23: brokers.plant.tls.certificate = "gw.pem": a certificate without its key; add key = "FILE""#,
        ],
        &[],
    );
    files(
        r#"key = "gw.key""#,
        &[
            r#"DIR/tidegate.toml:3:15: brokers.plant.tls.key = "gw.key": a key without its certificate; add certificate = "FILE""#,
        ],
        &[],
    );
    files(
        r#"certificate = "gw.pem", key = "other.key""#,
        &[
            r#"DIR/tidegate.toml:3:39: brokers.plant.tls.key = "other.key": the file does not fit the certificate: its key is another certificate's; use the pair that was issued together"#,
        ],
        &[],
    );
}

#[test]
fn files_that_are_not_there_may_be_written_later() {
    files(
        r#"ca = "none.pem", certificate = "none.crt", key = "none.key""#,
        &[],
        &[
            r#"DIR/tidegate.toml:3:14: brokers.plant.tls.ca = "none.pem": there is no such file yet; write it before the daemon connects"#,
            r#"DIR/tidegate.toml:3:40: brokers.plant.tls.certificate = "none.crt": there is no such file yet; write it before the daemon connects"#,
            r#"DIR/tidegate.toml:3:58: brokers.plant.tls.key = "none.key": there is no such file yet; write it before the daemon connects"#,
        ],
    );
    files(
        r#"ca = "folder""#,
        &[],
        &[
            r#"DIR/tidegate.toml:3:14: brokers.plant.tls.ca = "folder": the file cannot be read now: it is a directory; let the daemon's user read it"#,
        ],
    );
}

#[test]
fn files_that_can_never_work_are_errors() {
    files(
        r#"ca = "text""#,
        &[
            r#"DIR/tidegate.toml:3:14: brokers.plant.tls.ca = "text": the file is not PEM; convert it, with `openssl x509 -inform der` or `openssl pkcs12` for instance"#,
        ],
        &[],
    );
    files(
        r#"ca = "gw.key""#,
        &[
            r#"DIR/tidegate.toml:3:14: brokers.plant.tls.ca = "gw.key": the file has no certificate inside; name the file that begins with -----BEGIN CERTIFICATE-----"#,
        ],
        &[],
    );
    files(
        r#"certificate = "damaged.pem", key = "gw.pem""#,
        &[
            r#"DIR/tidegate.toml:3:23: brokers.plant.tls.certificate = "damaged.pem": the file is damaged: a section of it cannot be decoded; copy it again"#,
            r#"DIR/tidegate.toml:3:44: brokers.plant.tls.key = "gw.pem": the file has no private key inside; name the file with -----BEGIN PRIVATE KEY-----"#,
        ],
        &[],
    );
    files(
        r#"certificate = "gw.pem", key = "encrypted.key""#,
        &[
            r#"DIR/tidegate.toml:3:39: brokers.plant.tls.key = "encrypted.key": the file is encrypted; decrypt it with `openssl pkey -in FILE -out DECRYPTED`, readable by the daemon alone"#,
        ],
        &[],
    );
}

#[test]
fn what_is_on_but_unsafe_or_unlikely_is_a_warning() {
    warnings(
        "tls = { insecure-skip-verify = true }",
        &[
            "tidegate.toml:3:32: brokers.plant.tls.insecure-skip-verify = true: nobody verifies that this is the broker: who can intercept the connection can read and change everything; remove it, and name the CA that signed the broker's certificate in ca",
        ],
    );
    warnings(
        "port = 1883\ntls = true",
        &[
            "tidegate.toml:3:8: brokers.plant.port = 1883: the usual port without TLS, and tls is on; use 8883, or remove tls",
        ],
    );
    warnings(
        "port = 8883\ntls = false",
        &["tidegate.toml:3:8: brokers.plant.port = 8883: the usual port with TLS, and tls is off; add tls = true"],
    );
    warnings("port = 1883\ntls = false", &[]);
    warnings("port = 8883\ntls = true", &[]);
    warnings(
        "transport = \"websocket\"",
        &[
            r#"tidegate.toml:3:13: brokers.plant.transport = "websocket": no port is given, and the default, 1883, is rarely a WebSocket's; add port = NUMBER, the broker's port for WebSocket"#,
        ],
    );
}

#[test]
fn a_transport_is_a_word_or_a_table() {
    let web_socket = |path: &str| Transport::WebSocket { path: path.to_owned() };
    for (keys, expected) in [
        ("", Transport::Tcp),
        ("transport = \"tcp\"", Transport::Tcp),
        ("transport = { kind = \"tcp\" }", Transport::Tcp),
        ("transport = \"websocket\"", web_socket("/mqtt")),
        ("transport = { kind = \"websocket\" }", web_socket("/mqtt")),
        ("transport = { kind = \"websocket\", path = \"/a%20b?token=x&y\" }", web_socket("/a%20b?token=x&y")),
    ] {
        assert_eq!(plant(keys).transport, expected, "{keys}");
    }
}

#[test]
fn transport() {
    broker(
        "transport = \"udp\"",
        &[r#"tidegate.toml:3:13: brokers.plant.transport = "udp": not a known value; use "tcp" or "websocket""#],
    );
    broker(
        "transport = { path = \"/mqtt\" }",
        &[r#"tidegate.toml:3:13: brokers.plant.transport.kind: missing; add kind = "websocket""#],
    );
    broker(
        "transport = { kind = \"tcp\", path = \"/mqtt\" }",
        &[
            r#"tidegate.toml:3:36: brokers.plant.transport.path = "/mqtt": only a WebSocket has a path; remove it, or use kind = "websocket""#,
        ],
    );
    broker(
        "transport = { kind = \"websocket\", path = \"mqtt\" }",
        &[
            r#"tidegate.toml:3:42: brokers.plant.transport.path = "mqtt": does not begin with "/"; use the path alone, such as "/mqtt""#,
        ],
    );
    broker(
        "transport = { kind = \"websocket\", path = \"/a b\" }",
        &[
            r#"tidegate.toml:3:42: brokers.plant.transport.path = "/a b": has a character that a URL cannot have; write it as %XX, its bytes in hexadecimal"#,
        ],
    );
}
