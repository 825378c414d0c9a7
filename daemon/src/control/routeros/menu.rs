//! RouterOS' menus: which commands of an export make which brokers and subscriptions.
//!
//! Owns: the walk through the menus, and the effect of `add`, `set`, `enable`, `disable` and `subscribe`. Fed by `lexer.rs`;
//! feeds `write.rs`. It does not know what a property means, only its name and its default, as `find` needs them.

use super::lexer::{Rest, Statement, Token, Value, statements};

/// What the MQTT menus of an export say.
#[derive(Debug, Default)]
pub(super) struct Export<'a> {
    /// `/iot mqtt brokers`, in the order of the export.
    pub(super) brokers: Vec<Entry>,
    /// `/iot mqtt subscriptions`, in the order of the export.
    pub(super) subscriptions: Vec<Entry>,
    /// What has no place in a configuration, or was not understood.
    pub(super) leftovers: Vec<Leftover<'a>>,
    /// Commands of other menus.
    pub(super) skipped: usize,
}

/// One broker or subscription.
#[derive(Debug)]
pub(super) struct Entry {
    /// Where it was added.
    pub(super) line: usize,
    /// In the order in which they were set first.
    pub(super) properties: Vec<Property>,
}

/// One property of a broker or subscription.
#[derive(Debug)]
pub(super) struct Property {
    /// In full, where RouterOS knows it.
    pub(super) key: String,
    pub(super) value: Value,
    /// Where it was set last.
    pub(super) line: usize,
}

impl Entry {
    /// The property with this name, if it is set.
    pub(super) fn get(&self, key: &str) -> Option<&Property> {
        self.properties.iter().find(|property| property.key == key)
    }

    /// A property's text, empty unless it is set.
    pub(super) fn text(&self, key: &str) -> &str {
        self.get(key).map_or("", |property| &property.value.text)
    }

    fn set(&mut self, new: Property) {
        match self.properties.iter_mut().find(|property| property.key == new.key) {
            Some(known) => *known = new,
            None => self.properties.push(new),
        }
    }
}

/// A command that became neither broker nor subscription.
#[derive(Debug)]
pub(super) struct Leftover<'a> {
    pub(super) line: usize,
    /// As written; it may hold a password.
    pub(super) raw: &'a str,
    /// Why, and what to do; never with parts of the command.
    pub(super) why: String,
    /// It would have changed the configuration.
    pub(super) work: bool,
}

/// A menu whose entries are imported.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Menu {
    Brokers,
    Subscriptions,
}

/// Words that are commands rather than menus.
const COMMANDS: [&str; 22] = [
    "add",
    "clear",
    "comment",
    "connect",
    "disable",
    "disconnect",
    "edit",
    "enable",
    "export",
    "find",
    "get",
    "import",
    "monitor",
    "move",
    "print",
    "publish",
    "remove",
    "reset",
    "run",
    "set",
    "subscribe",
    "unsubscribe",
];

/// Properties of brokers and their defaults.
const BROKER: [(&str, &str); 13] = [
    ("address", ""),
    ("auto-connect", "no"),
    ("certificate", ""),
    ("client-id", ""),
    ("comment", ""),
    ("disabled", "no"),
    ("keep-alive", "60"),
    ("name", ""),
    ("parallel-scripts-limit", "off"),
    ("password", ""),
    ("port", "1883"),
    ("ssl", "no"),
    ("username", ""),
];

/// Properties of subscriptions and their defaults.
const SUBSCRIPTION: [(&str, &str); 7] = [
    ("broker", ""),
    ("comment", ""),
    ("disabled", "no"),
    ("force", "yes"),
    ("on-message", ""),
    ("qos", "0"),
    ("topic", ""),
];

impl Menu {
    fn properties(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Menu::Brokers => &BROKER,
            Menu::Subscriptions => &SUBSCRIPTION,
        }
    }

    /// The full name of a property: RouterOS takes any beginning that only one of them has.
    fn property(self, key: &str) -> &str {
        let mut known = self.properties().iter().map(|(name, _)| *name).filter(|name| name.starts_with(key));
        match (known.clone().any(|name| name == key), known.next(), known.next()) {
            (false, Some(only), None) => only,
            _ => key,
        }
    }
}

/// Why a `set` has no effect.
const UNCLEAR: &str = "which entries it means is not understood; do by hand what it does";

/// Reads an export.
pub(super) fn read(text: &str) -> Export<'_> {
    let (statements, rest) = statements(text);
    let mut walk = Walk::default();
    statements.iter().for_each(|statement| walk.statement(statement));
    if let Some(Rest { line, raw, unclosed }) = rest {
        walk.export.leftovers.push(Leftover { line, raw, why: unclosed.to_string(), work: true });
    }
    walk.export
}

#[derive(Default)]
struct Walk<'a> {
    /// The menu that relative commands belong to.
    section: Vec<&'a str>,
    export: Export<'a>,
}

impl<'a> Walk<'a> {
    fn statement(&mut self, statement: &Statement<'a>) {
        let (path, command, arguments) = self.locate(&statement.tokens);
        let Some(menu) = path.strip_prefix(&["iot", "mqtt"]) else {
            if command.is_none() && arguments.is_empty() {
                self.section = path;
                return;
            }
            self.export.skipped += 1;
            if mentions_mqtt(statement.raw) {
                let why = "this command of another menu uses MQTT, and is not imported".to_owned();
                self.leave(statement, why, true);
            }
            return;
        };
        let done = match (menu, command) {
            (_, None) if arguments.is_empty() => {
                self.section = path;
                Ok(())
            }
            (["brokers"], Some("add")) => self.add(Menu::Brokers, statement.line, arguments),
            (["subscriptions"], Some("add")) | ([], Some("subscribe")) => {
                self.add(Menu::Subscriptions, statement.line, arguments)
            }
            (["brokers"], Some(command @ ("set" | "enable" | "disable"))) => {
                self.change(Menu::Brokers, command, statement.line, arguments)
            }
            (["subscriptions"], Some(command @ ("set" | "enable" | "disable"))) => {
                self.change(Menu::Subscriptions, command, statement.line, arguments)
            }
            (_, Some("print" | "export" | "find" | "get" | "monitor")) => {
                self.leave(statement, "it changes nothing".to_owned(), false);
                Ok(())
            }
            (_, Some(command @ ("connect" | "disconnect" | "publish"))) => {
                let what = match command {
                    "publish" => "publish".to_owned(),
                    command => format!("brokers {command}"),
                };
                let why = format!("it is no configuration; once the daemon runs, `tidegate {what}` does it");
                self.leave(statement, why, false);
                Ok(())
            }
            _ => Err("it is not understood; do by hand what it does".to_owned()),
        };
        if let Err(why) = done {
            self.leave(statement, why, true);
        }
    }

    fn leave(&mut self, statement: &Statement<'a>, why: String, work: bool) {
        self.export.leftovers.push(Leftover { line: statement.line, raw: statement.raw, why, work });
    }

    /// The menu of a command, its name, and what follows it.
    fn locate<'t>(&self, tokens: &'t [Token<'a>]) -> (Vec<&'a str>, Option<&'a str>, &'t [Token<'a>]) {
        let absolute = matches!(tokens.first(), Some(Token::Word(word)) if word.starts_with('/'));
        let mut path = if absolute { Vec::new() } else { self.section.clone() };
        for (place, token) in tokens.iter().enumerate() {
            let Token::Word(word) = token else { return (path, None, &tokens[place..]) };
            // `:put` belongs to no menu.
            if word.starts_with(':') {
                return (path, Some(word), &tokens[place + 1..]);
            }
            for part in word.split('/').filter(|part| !part.is_empty()) {
                match part {
                    ".." => {
                        path.pop();
                    }
                    part if COMMANDS.contains(&part) => return (path, Some(part), &tokens[place + 1..]),
                    part => path.push(part),
                }
            }
        }
        (path, None, &[])
    }

    fn entries(&mut self, menu: Menu) -> &mut Vec<Entry> {
        match menu {
            Menu::Brokers => &mut self.export.brokers,
            Menu::Subscriptions => &mut self.export.subscriptions,
        }
    }

    fn add(&mut self, menu: Menu, line: usize, arguments: &[Token<'a>]) -> Result<(), String> {
        let mut entry = Entry { line, properties: Vec::new() };
        for property in properties(menu, line, arguments)? {
            entry.set(property);
        }
        self.entries(menu).push(entry);
        Ok(())
    }

    fn change(&mut self, menu: Menu, command: &str, line: usize, arguments: &[Token<'a>]) -> Result<(), String> {
        let is_target = |token: &Token<'a>| !matches!(token, Token::Pair(key, _) if *key != "numbers");
        let (targets, pairs): (Vec<Token<'a>>, Vec<Token<'a>>) = arguments.iter().cloned().partition(is_target);
        if targets.is_empty() {
            return Err(UNCLEAR.to_owned());
        }
        let mut places = Vec::new();
        for target in &targets {
            places.extend(self.find(menu, target)?);
        }
        for place in places {
            let entry = &mut self.entries(menu)[place];
            for property in properties(menu, line, &pairs)? {
                entry.set(property);
            }
            if command != "set" {
                let text = if command == "disable" { "yes" } else { "no" };
                let value = Value { text: text.to_owned(), ..Value::default() };
                entry.set(Property { key: "disabled".to_owned(), value, line });
            }
        }
        Ok(())
    }

    /// The places of the entries that a command names: `[ find name=plant ]`, `0,1`, `numbers=0` or a broker's name.
    fn find(&mut self, menu: Menu, target: &Token<'a>) -> Result<Vec<usize>, String> {
        let entries = &*self.entries(menu);
        let found: Vec<usize> = match target {
            Token::Brackets(inside) => {
                let conditions = conditions(menu, inside).ok_or(UNCLEAR)?;
                let default =
                    |key: &str| menu.properties().iter().find(|(name, _)| *name == key).map(|(_, text)| *text);
                let value = |entry: &Entry, key: &str| match entry.get(key) {
                    Some(property) => Some(property.value.text.clone()),
                    None => default(key).map(str::to_owned),
                };
                let meets = |entry: &Entry| {
                    conditions.iter().all(|wanted| value(entry, &wanted.key).as_ref() == Some(&wanted.value.text))
                };
                (0..entries.len()).filter(|place| meets(&entries[*place])).collect()
            }
            Token::Word(word) => numbered(entries, word),
            Token::Lone(value) | Token::Pair(_, value) if !value.open => numbered(entries, &value.text),
            Token::Lone(_) | Token::Pair(..) => return Err(UNCLEAR.to_owned()),
        };
        if found.is_empty() {
            return Err("the entry that it means is not in the export; do by hand what it does".to_owned());
        }
        Ok(found)
    }
}

/// The entries with these numbers, which are those of the last `print` and count from 0; or the one with this name.
fn numbered(entries: &[Entry], names: &str) -> Vec<usize> {
    match names.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>() {
        Ok(numbers) => numbers.into_iter().filter(|number| *number < entries.len()).collect(),
        Err(_) => (0..entries.len()).filter(|place| entries[*place].text("name") == names).collect(),
    }
}

/// The conditions of `find`, if each is `property=value`.
fn conditions(menu: Menu, inside: &str) -> Option<Vec<Property>> {
    let (statements, rest) = statements(inside);
    match (statements.as_slice(), rest) {
        ([statement], None) => match statement.tokens.as_slice() {
            [Token::Word("find"), Token::Word("where"), conditions @ ..] | [Token::Word("find"), conditions @ ..] => {
                let conditions = properties(menu, statement.line, conditions).ok()?;
                (!conditions.iter().any(|condition| condition.value.open)).then_some(conditions)
            }
            _ => None,
        },
        _ => None,
    }
}

fn properties(menu: Menu, line: usize, arguments: &[Token<'_>]) -> Result<Vec<Property>, String> {
    let property = |token: &Token<'_>| match token {
        Token::Pair(key, value) => Ok(Property { key: menu.property(key).to_owned(), value: value.clone(), line }),
        _ => Err("one of its words is not understood; do by hand what it does".to_owned()),
    };
    arguments.iter().map(property).collect()
}

/// Whether a script or schedule works with brokers: exports break their lines anywhere.
fn mentions_mqtt(raw: &str) -> bool {
    let whole: String = raw.lines().map(|line| line.trim_start().trim_end_matches(['\\', '\r'])).collect();
    ["iot mqtt", "iot/mqtt", "iot\\_mqtt"].iter().any(|menu| whole.contains(menu))
}
