//! The TOML of an import: a block of text for each broker and subscription, with what a person should know of it above.
//!
//! Owns: what each property of RouterOS becomes. Fed by `menu.rs`; its blocks are held against the configuration's own rules
//! by `mod.rs`, and whatever those refuse is commented out. It reads and writes no file.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::Remark;
use super::menu::{Entry, Leftover};
use super::script::{Suggestion, recognise};
use crate::printable::is_hidden;
use crate::topic::TopicFilter;

/// Longest name of a broker without the number behind it; the configuration takes 64.
const MAX_NAME: usize = 56;

/// One broker, subscription or command.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// What a person should know, above the rest.
    pub(super) remarks: Vec<Remark>,
    /// What RouterOS has, for a person to read.
    original: Vec<String>,
    /// Its TOML, and lines of it that are comments already.
    body: Vec<String>,
    /// All of it is commented out.
    pub(super) dead: bool,
}

impl Block {
    /// Its lines.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let remarks = self.remarks.iter().map(|remark| {
            let todo = if remark.work { "TODO " } else { "" };
            format!("# {todo}line {}: {}", remark.line, remark.text)
        });
        let original = self.original.iter().map(|line| format!("#   {}", printable(line)).trim_end().to_owned());
        let body = self.body.iter().map(|line| if self.dead { format!("# {line}") } else { line.clone() });
        remarks.chain(original).chain(body)
    }

    /// Comments it out.
    pub(super) fn kill(&mut self, line: usize, why: &str, work: bool) {
        self.dead = true;
        self.remark(line, format!("left out: {why}"), work);
    }

    fn remark(&mut self, line: usize, text: impl Into<String>, work: bool) {
        self.remarks.push(Remark { line, text: printable(&text.into()), work });
    }

    /// `key = value`, the value as TOML.
    fn key(&mut self, key: &str, value: impl std::fmt::Display) {
        self.body.push(format!("{key} = {value}"));
    }

    /// `yes` or `no`.
    fn flag(&mut self, entry: &Entry, key: &str) -> bool {
        match entry.get(key).map(|property| (property.value.text.as_str(), property.line)) {
            None | Some(("no" | "false", _)) => false,
            Some(("yes" | "true", _)) => true,
            Some((_, line)) => {
                self.remark(line, format!("{key} is neither yes nor no, and taken as no"), true);
                false
            }
        }
    }

    /// A number within a range.
    fn number(&mut self, entry: &Entry, key: &str, range: RangeInclusive<u32>, otherwise: &str) -> Option<u32> {
        let property = entry.get(key)?;
        let number = property.value.text.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let (low, high) = (range.start(), range.end());
            self.remark(property.line, format!("{key} is not a number from {low} to {high}; {otherwise}"), true);
        }
        number
    }

    /// What holds for every kind of entry.
    fn common(&mut self, entry: &Entry, known: &[&str]) {
        if !entry.text("comment").is_empty() {
            self.original.push(entry.text("comment").to_owned());
        }
        for property in &entry.properties {
            let (key, line) = (&property.key, property.line);
            if !known.contains(&key.as_str()) {
                self.remark(line, format!("the property {key} is not known, and is left out"), true);
                self.original.push(format!("{key}={}", property.value.text));
            } else if property.value.open {
                self.remark(line, format!("{key} has a variable, which only RouterOS could fill in; correct it"), true);
            }
            if property.value.recoded {
                self.remark(line, format!("{key} is not UTF-8, and was read as Latin-1; correct it if need be"), true);
            }
        }
    }
}

/// The names of brokers: those of RouterOS may have any characters.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// How many names were made of the same characters.
    taken: HashMap<String, usize>,
}

impl Names {
    /// A name that the configuration takes and no other broker has.
    fn make(&mut self, original: &str) -> String {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let parts: Vec<&str> = original.split(|c| !allowed(c)).filter(|part| !part.is_empty()).collect();
        let name = parts.join("-");
        let mut name = if name.is_empty() { "broker" } else { &name[..name.len().min(MAX_NAME)] }.to_owned();
        while self.taken.contains_key(&name) {
            let stem = name.clone();
            let count = self.taken.get_mut(&stem).expect("it is contained");
            *count += 1;
            name = format!("{}-{count}", &stem[..stem.len().min(MAX_NAME)]);
        }
        self.taken.insert(name.clone(), 1);
        name
    }
}

/// A broker as subscriptions refer to it.
#[derive(Debug)]
pub(super) struct Imported {
    /// Here.
    pub(super) name: String,
    /// It is disabled in RouterOS.
    pub(super) disabled: bool,
    pub(super) block: Block,
}

/// A broker's block.
pub(super) fn broker(entry: &Entry, names: &mut Names, first_of_its_name: bool) -> Imported {
    const KNOWN: [&str; 13] = [
        "address",
        "auto-connect",
        "certificate",
        "client-id",
        "comment",
        "disabled",
        "keep-alive",
        "name",
        "parallel-scripts-limit",
        "password",
        "port",
        "ssl",
        "username",
    ];
    let mut block = Block::default();
    let original = entry.text("name");
    let name = names.make(original);
    if !first_of_its_name {
        let text = format!("another broker is called {original:?} too; this one is {name:?}, and has no subscriptions");
        block.remark(entry.line, text, true);
    } else if name != original {
        block.remark(entry.line, format!("{original:?} is called {name:?} here: letters, digits, - and _"), false);
    }
    block.common(entry, &KNOWN);
    block.body.push(format!("[brokers.{name}]"));
    block.key("address", quote(entry.text("address")));
    let port = block.number(entry, "port", 1..=65_535, "RouterOS' default is written").unwrap_or(1883);
    block.key("port", port);
    if !entry.text("client-id").is_empty() {
        block.key("client-id", quote(entry.text("client-id")));
    }
    block.login(entry, &name);
    let seconds = block.number(entry, "keep-alive", 30..=64_800, "RouterOS' default is written").unwrap_or(60);
    block.key("keep-alive", seconds);
    let auto_connect = block.flag(entry, "auto-connect");
    block.key("auto-connect", auto_connect);
    if entry.text("parallel-scripts-limit") != "off"
        && let Some(limit) = block.number(entry, "parallel-scripts-limit", 3..=1000, "no limit is set")
    {
        block.key("parallel-limit", limit);
    }
    block.tls(entry, &name);
    if entry.text("address").is_empty() {
        block.kill(entry.line, "it has no address", true);
    }
    let disabled = block.flag(entry, "disabled");
    if disabled {
        block.kill(entry.line, "it is disabled", false);
    }
    Imported { name, disabled, block }
}

impl Block {
    fn login(&mut self, entry: &Entry, name: &str) {
        let (username, password) = (entry.text("username"), entry.text("password"));
        let file = quote(&format!("{name}.password"));
        if !username.is_empty() {
            self.key("username", quote(username));
        }
        if !password.is_empty() {
            self.body.push(format!("# safer: password-file = {file}, which only the daemon's user may read"));
            self.key("password", quote(password));
        } else if !username.is_empty() {
            let text = "the export has no password (RouterOS writes it with show-sensitive): if there is one, put it \
                        into the file below";
            self.remark(entry.line, text, true);
            self.body.push(format!("# password-file = {file}"));
        }
    }

    /// At the end of a broker, since a table of its own may follow.
    fn tls(&mut self, entry: &Entry, name: &str) {
        let certificate = entry.get("certificate").filter(|property| !matches!(&*property.value.text, "" | "none"));
        match (self.flag(entry, "ssl"), certificate) {
            (false, None) => {}
            (false, Some(property)) => self.remark(property.line, "a certificate has no effect without ssl=yes", false),
            (true, None) => self.key("tls", true),
            (true, Some(property)) => {
                let certificate = &property.value.text;
                let text = "its certificate stays on the router: export it there with its key (/certificate \
                            export-certificate NAME type=pem export-passphrase=…), decrypt the key (openssl pkey -in \
                            cert_export_NAME.key -out NAME.key), and name both files below";
                self.remark(property.line, text, true);
                self.body.push(format!("[brokers.{name}.tls]"));
                self.body.push(format!("# certificate = {}", quote(&format!("cert_export_{certificate}.crt"))));
                self.body.push(format!("# key = {}", quote(&format!("{certificate}.key"))));
                self.body
                    .push("# ca = \"ca.pem\"  # where the system does not trust the broker's authority".to_owned());
            }
        }
    }
}

/// A subscription's block. `broker` is its broker, if the export has it.
pub(super) fn subscription(entry: &Entry, broker: Option<&Imported>) -> Block {
    const KNOWN: [&str; 7] = ["broker", "comment", "disabled", "force", "on-message", "qos", "topic"];
    let mut block = Block::default();
    block.common(entry, &KNOWN);
    if entry.get("force").is_some() {
        block.remark(
            entry.line,
            "force says nothing here: a subscription is made whenever its broker is connected",
            false,
        );
    }
    let name = broker.map_or_else(|| entry.text("broker"), |broker| &broker.name);
    let filter = TopicFilter::new(entry.text("topic")).ok();
    let suggestion = block.on_message(entry);
    block.body.push("[[subscriptions]]".to_owned());
    block.key("broker", quote(name));
    block.key("topic", quote(filter.as_ref().map_or(entry.text("topic"), TopicFilter::unshared)));
    if let Some(share) = filter.as_ref().and_then(TopicFilter::share) {
        block.key("share", quote(share));
    }
    let qos = block.number(entry, "qos", 0..=2, "RouterOS' default is written").unwrap_or(0);
    block.key("qos", qos);
    block.body.extend(suggestion);
    let disabled = block.flag(entry, "disabled");
    match broker {
        None if entry.text("broker").is_empty() => block.kill(entry.line, "it names no broker", true),
        None => block.kill(entry.line, "the export has no broker of the name that it has", true),
        Some(broker) if broker.disabled => block.kill(entry.line, "its broker is disabled", false),
        Some(broker) if broker.block.dead => block.kill(entry.line, "its broker is left out", true),
        Some(_) if disabled => block.kill(entry.line, "it is disabled", false),
        Some(_) => {}
    }
    block
}

impl Block {
    /// The lines that could stand in for its script, as comments.
    fn on_message(&mut self, entry: &Entry) -> Vec<String> {
        let Some(property) = entry.get("on-message").filter(|property| !property.value.text.trim().is_empty()) else {
            return Vec::new();
        };
        let script = property.value.text.trim();
        self.original.extend(script.lines().map(str::to_owned));
        let suggestion = recognise(script);
        let level = suggestion.as_ref().and_then(|suggestion| suggestion.level);
        let level = level.map_or(String::new(), |level| format!(" (at level info, where RouterOS has {level})"));
        let (text, lines) = match suggestion {
            Some(Suggestion { when: None, log: Some(log), .. }) => (
                format!("its script writes to the log{level}: if that is wanted, uncomment on-message"),
                vec![format!("# on-message = {log}")],
            ),
            Some(Suggestion { when: Some(when), log: Some(log), .. }) => (
                format!(
                    "its script writes to the log under a condition{level}: if that is wanted, uncomment when and on-message"
                ),
                vec![format!("# when = {when}"), format!("# on-message = {log}")],
            ),
            Some(Suggestion { when: Some(when), log: None, .. }) => (
                "its script runs under a condition: uncomment when, and write a handler (docs/writing-handlers.md)"
                    .to_owned(),
                vec![format!("# when = {when}"), "# on-message = \"HANDLER\"".to_owned()],
            ),
            Some(Suggestion { when: None, log: None, .. }) | None => (
                "it has a script: write a handler that does the same (docs/writing-handlers.md)".to_owned(),
                vec!["# on-message = \"HANDLER\"".to_owned()],
            ),
        };
        self.remark(property.line, text, true);
        lines
    }
}

/// A command that is left to a person.
pub(super) fn leftover(leftover: &Leftover<'_>) -> Block {
    let mut block = Block { dead: true, ..Block::default() };
    block.remark(leftover.line, leftover.why.clone(), leftover.work);
    block.original = leftover.raw.lines().map(str::to_owned).collect();
    block
}

/// A string of TOML on one line that the configuration reads as exactly this text.
pub(super) fn quote(text: &str) -> String {
    // JSON's strings are strings of TOML, but for one character; and `${` would be an interpolation.
    let json = serde_json::to_string(&text.replace("${", "$${")).expect("a text becomes JSON");
    json.replace('\u{7f}', "\\u007f")
}

/// Text for a comment: TOML allows no control characters in one, and nobody sees format characters.
fn printable(text: &str) -> String {
    let mut printable = String::new();
    for character in text.chars() {
        if is_hidden(character) && character != '\t' {
            printable.extend(character.escape_default());
        } else {
            printable.push(character);
        }
    }
    printable
}
