//! `tidegate import routeros`: the brokers and subscriptions of a RouterOS export as a configuration.
//!
//! Owns: the promise that what it writes loads, and that nothing of the MQTT menus is lost without a word. Fed by the bytes of
//! an export; gives text, and remarks that hold no secret. Pure but for the name of this machine, which the configuration's
//! rules ask for: it opens no file and no connection.
//!
//! `lexer` (commands) → `menu` (brokers and subscriptions) → `write` (TOML), with `script` for what `on-message` runs.

mod lexer;
mod menu;
mod script;
#[cfg(test)]
mod tests;
mod write;

use std::collections::HashMap;
use std::path::Path;

use self::menu::{Entry, Export};
use self::write::{Block, Imported, Names};
use crate::control::config;

/// What became of an export.
#[derive(Debug)]
pub struct Import {
    /// The configuration.
    pub toml: String,
    /// What a person should know, in the order of the configuration; each is a comment in it too.
    pub remarks: Vec<Remark>,
    /// Brokers that are not commented out.
    pub brokers: usize,
    /// Subscriptions that are not commented out.
    pub subscriptions: usize,
    /// Brokers and subscriptions that are commented out.
    pub left_out: usize,
    /// Commands of other menus, which are not looked at.
    pub skipped: usize,
}

/// Something about one line of the export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// From 1.
    pub line: usize,
    /// On one line, without a secret.
    pub text: String,
    /// There is something to do by hand: it is marked TODO in the configuration.
    pub work: bool,
}

/// What every import begins with.
const HEAD: &str = "\
# Made of a RouterOS export by `tidegate import routeros`. What is left to do by hand is marked TODO.
# Disconnect the router before the daemon starts: two clients with one client-id end each other's sessions.
# Where a broker does not speak MQTT 5, add protocol = \"3.1.1\" to it.
";

/// Makes a configuration of an export. Any bytes are taken: what is not understood becomes a comment.
pub fn import(export: &[u8]) -> Import {
    let (text, recoded) = lexer::decode(export.to_vec());
    let export = menu::read(&text);
    let mut draft = Draft::new(&export);
    if recoded {
        draft.head.push(Remark {
            line: 1,
            text: "the export is not UTF-8, and was read as Latin-1".into(),
            work: true,
        });
    }
    // Each round comments something out, or is the last.
    while draft.refused() {}
    draft.finish(export.skipped)
}

/// The blocks of an import.
struct Draft {
    head: Vec<Remark>,
    brokers: Vec<(usize, Block)>,
    /// With the place of the broker, if the export has it.
    subscriptions: Vec<(usize, Option<usize>, Block)>,
    leftovers: Vec<Block>,
}

/// A block of a draft.
#[derive(Clone, Copy)]
enum Owner {
    Broker(usize),
    Subscription(usize),
}

impl Draft {
    fn new(export: &Export<'_>) -> Draft {
        let mut names = Names::default();
        let mut by_name: HashMap<&str, usize> = HashMap::new();
        let mut clients: HashMap<(String, &str, &str), usize> = HashMap::new();
        let mut imported: Vec<Imported> = Vec::new();
        for (place, entry) in export.brokers.iter().enumerate() {
            let first = *by_name.entry(entry.text("name")).or_insert(place) == place;
            let mut broker = write::broker(entry, &mut names, first);
            if !broker.block.dead && !entry.text("client-id").is_empty() {
                let client = (entry.text("address").to_ascii_lowercase(), entry.text("port"), entry.text("client-id"));
                let other = *clients.entry(client).or_insert(entry.line);
                if other != entry.line {
                    let why =
                        format!("it has the address and client-id of the broker of line {other}; give it its own");
                    broker.block.kill(entry.line, &why, true);
                }
            }
            imported.push(broker);
        }
        let mut seen: HashMap<(usize, &str), &Entry> = HashMap::new();
        let subscriptions = export.subscriptions.iter().map(|entry| {
            let broker = by_name.get(entry.text("broker")).copied();
            let mut block = write::subscription(entry, broker.map(|place| &imported[place]));
            if let (Some(broker), false) = (broker, block.dead) {
                let first = *seen.entry((broker, entry.text("topic"))).or_insert(entry);
                if !std::ptr::eq(first, entry) {
                    let same = first.text("on-message") == entry.text("on-message");
                    let why = format!("line {} subscribes to the same topic of the same broker", first.line);
                    block.kill(entry.line, &why, !same);
                }
            }
            (entry.line, broker, block)
        });
        let subscriptions = subscriptions.collect();
        let lines = export.brokers.iter().map(|entry| entry.line);
        let brokers = lines.zip(imported.into_iter().map(|imported| imported.block)).collect();
        let leftovers = export.leftovers.iter().map(write::leftover).collect();
        Draft { head: Vec::new(), brokers, subscriptions, leftovers }
    }

    /// The whole text, with the block that each of its lines belongs to.
    fn render(&self) -> (String, Vec<Option<Owner>>) {
        let mut text = HEAD.to_owned();
        for remark in &self.head {
            text += &format!("# TODO line {}: {}\n", remark.line, remark.text);
        }
        let mut owners = vec![None; text.lines().count()];
        let mut add = |block: &Block, owner: Option<Owner>| {
            for line in std::iter::once(String::new()).chain(block.lines()) {
                text += &line;
                text.push('\n');
                owners.push(owner);
            }
        };
        self.brokers.iter().enumerate().for_each(|(place, (_, block))| add(block, Some(Owner::Broker(place))));
        let subscriptions = self.subscriptions.iter().enumerate();
        subscriptions.for_each(|(place, (_, _, block))| add(block, Some(Owner::Subscription(place))));
        self.leftovers.iter().for_each(|block| add(block, None));
        (text, owners)
    }

    /// Comments out what the configuration refuses; false if it refuses nothing that is left.
    fn refused(&mut self) -> bool {
        let (text, owners) = self.render();
        let Err(problems) = config::load_text(Path::new("this file"), &text, "") else { return false };
        let mut killed = false;
        for problem in problems.errors {
            let line = problem.origin.place.position.map_or(0, |position| position.line);
            let Some(Some(owner)) = line.checked_sub(1).and_then(|line| owners.get(line)) else { continue };
            let key = problem.origin.field.rsplit('.').next().unwrap_or_default();
            let remedy = if problem.remedy.is_empty() { String::new() } else { format!("; {}", problem.remedy) };
            let why = format!("{key}: {}{remedy}", problem.message);
            killed |= self.kill(*owner, &why);
        }
        killed
    }

    fn kill(&mut self, owner: Owner, why: &str) -> bool {
        match owner {
            Owner::Broker(place) => {
                let (line, block) = &mut self.brokers[place];
                if block.dead {
                    return false;
                }
                block.kill(*line, why, true);
                let dependent =
                    self.subscriptions.iter_mut().filter(|(_, broker, block)| *broker == Some(place) && !block.dead);
                dependent.for_each(|(line, _, block)| block.kill(*line, "its broker is left out", true));
                true
            }
            Owner::Subscription(place) => {
                let (line, _, block) = &mut self.subscriptions[place];
                let alive = !block.dead;
                if alive {
                    block.kill(*line, why, true);
                }
                alive
            }
        }
    }

    fn finish(self, skipped: usize) -> Import {
        let (toml, _) = self.render();
        let alive = |blocks: &mut dyn Iterator<Item = &Block>| blocks.filter(|block| !block.dead).count();
        let brokers = alive(&mut self.brokers.iter().map(|(_, block)| block));
        let subscriptions = alive(&mut self.subscriptions.iter().map(|(_, _, block)| block));
        let left_out = self.brokers.len() + self.subscriptions.len() - brokers - subscriptions;
        let blocks = self.brokers.into_iter().map(|(_, block)| block);
        let blocks = blocks.chain(self.subscriptions.into_iter().map(|(_, _, block)| block)).chain(self.leftovers);
        let remarks = self.head.into_iter().chain(blocks.flat_map(|block| block.remarks)).collect();
        Import { toml, remarks, brokers, subscriptions, left_out, skipped }
    }
}
