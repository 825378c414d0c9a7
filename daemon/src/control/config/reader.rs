//! A typed cursor over parsed TOML that goes on after a mistake.
//!
//! Owns: the collection of problems, the check of types and ranges, interpolation, and the report of unknown keys. Fed by
//! the source files; used by the sections, each of which knows its keys. A getter that fails has reported why and gives
//! `None`: its caller goes on with any value at all, since a configuration with errors is never used.

use std::cell::{Cell, RefCell};
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::ObjectOrigin;
use super::interpolate::{Environment, Interpolated, InterpolationError, Text, expand};
use super::problem::{MASK, Origin, Place, Problem, shown};
use super::raw::Definition;
use super::scalar::{format_duration, format_durations, format_size, parse_duration, parse_size};
use super::source::SourceFile;
use super::suggest::{either, nearest};
use crate::brokers::BrokerNames;

/// One reading of a configuration: what was found so far.
pub(super) struct Reading<'a> {
    pub(super) environment: &'a Environment,
    /// Brokers get their numbers here.
    pub(super) names: BrokerNames,
    /// What interpolations stand for.
    interpolated: RefCell<Interpolated>,
    found: RefCell<Vec<Found>>,
    /// Some file has broken syntax: what seems to be missing may stand in its broken lines.
    incomplete: Cell<bool>,
}

struct Found {
    /// The file's place in the order of reading, then the byte in it.
    order: (usize, usize),
    error: bool,
    problem: Problem,
}

impl<'a> Reading<'a> {
    /// `interpolated`: what is known already of what interpolations stand for.
    pub(super) fn new(environment: &'a Environment, names: BrokerNames, interpolated: Interpolated) -> Reading<'a> {
        let interpolated = RefCell::new(interpolated);
        Reading { environment, names, interpolated, found: RefCell::new(Vec::new()), incomplete: Cell::new(false) }
    }

    /// What interpolations stand for, as far as they were looked at.
    pub(super) fn interpolated(&self) -> Interpolated {
        self.interpolated.borrow().clone()
    }

    /// Parses a file; broken syntax is reported and the rest goes on.
    pub(super) fn parse<'f>(&self, order: usize, file: &'f SourceFile) -> DeTable<'f> {
        let (table, problems) = file.parse();
        for (offset, problem) in problems {
            self.incomplete.set(true);
            self.push((order, offset), true, problem);
        }
        table
    }

    fn push(&self, order: (usize, usize), error: bool, problem: Problem) {
        self.found.borrow_mut().push(Found { order, error, problem });
    }

    /// Whether absent values prove nothing.
    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete.get()
    }

    /// Everything found, in the order of the files: errors, then warnings.
    pub(super) fn into_problems(self) -> (Vec<Problem>, Vec<Problem>) {
        let mut found = self.found.into_inner();
        found.sort_by_key(|found| found.order);
        let broken: Vec<Place> =
            found.iter().filter(|found| is_syntax(found)).map(|found| line_of(&found.problem)).collect();
        // A line with broken syntax is read as something that nobody wrote: its other problems are noise.
        found.retain(|found| is_syntax(found) || !broken.contains(&line_of(&found.problem)));
        let (errors, warnings): (Vec<Found>, Vec<Found>) = found.into_iter().partition(|found| found.error);
        let problems = |found: Vec<Found>| found.into_iter().map(|found| found.problem).collect();
        (problems(errors), problems(warnings))
    }
}

fn is_syntax(found: &Found) -> bool {
    found.problem.origin.field.is_empty() && found.problem.origin.place.position.is_some()
}

fn line_of(problem: &Problem) -> Place {
    let mut place = problem.origin.place.clone();
    if let Some(position) = &mut place.position {
        position.column = 0;
    }
    place
}

/// A table whose keys are being read.
pub(super) struct Table<'a> {
    pub(super) reading: &'a Reading<'a>,
    file: &'a SourceFile,
    order: usize,
    field: String,
    /// Where it begins: the place of what is missing in it.
    start: usize,
    secret: bool,
    entries: &'a DeTable<'a>,
    /// The keys that were asked for: all that there are.
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Table<'a> {
    /// The whole of a file.
    pub(super) fn root(
        reading: &'a Reading<'a>,
        order: usize,
        file: &'a SourceFile,
        entries: &'a DeTable<'a>,
    ) -> Table<'a> {
        let known = RefCell::new(Vec::new());
        Table { reading, file, order, field: String::new(), start: 0, secret: false, entries, known }
    }

    /// The value of a key, which is known from now on.
    pub(super) fn get(&self, key: &'static str) -> Option<Value<'a>> {
        self.known.borrow_mut().push(key);
        self.entries.get(key).map(|value| self.value(key, value))
    }

    /// The value of a key that must be there.
    pub(super) fn require(&self, key: &'static str, remedy: impl FnOnce() -> String) -> Option<Value<'a>> {
        let value = self.get(key);
        if value.is_none() {
            self.missing(key, &remedy());
        }
        value
    }

    /// Reports a key that must be there and is not.
    pub(super) fn missing(&self, key: &str, remedy: &str) {
        if !self.reading.is_incomplete() {
            self.error_absent(key, "missing", remedy);
        }
    }

    /// Reports an error with a key that is not there.
    pub(super) fn error_absent(&self, key: &str, message: &str, remedy: &str) {
        let origin = Origin { place: self.file.place(self.start), field: join(&self.field, key), value: None };
        self.reading.push((self.order, self.start), true, origin.problem(message, remedy));
    }

    /// Reports what the whole file lacks.
    pub(super) fn warn_file(&self, message: &str, remedy: &str) {
        if !self.reading.is_incomplete() {
            self.reading.push((self.order, 0), false, self.file.origin().problem(message, remedy));
        }
    }

    /// Every entry, in the order of the file, with its key as the file's user chose it.
    pub(super) fn entries(&self) -> Vec<(&'a str, Value<'a>)> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries.into_iter().map(|(key, value)| (&**key.get_ref(), self.value(key.get_ref(), value))).collect()
    }

    fn value(&self, key: &str, value: &'a Spanned<DeValue<'a>>) -> Value<'a> {
        let field = join(&self.field, key);
        Value { reading: self.reading, file: self.file, order: self.order, field, secret: self.secret, value }
    }

    /// Reports every key that nobody asked for. Values are not shown: a misspelled `password` may be one of them.
    pub(super) fn finish(self) {
        if self.reading.is_incomplete() {
            // The keys below a broken header belong to another table.
            return;
        }
        let mut known = self.known.take();
        known.sort_unstable();
        known.dedup();
        for (key, _) in self.entries.iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref())) {
            let offset = key.span().start;
            let origin =
                Origin { place: self.file.place(offset), field: join(&self.field, key.get_ref()), value: None };
            let list = known.join(", ");
            let remedy = match nearest(key.get_ref(), known.iter().copied()) {
                Some(meant) => format!("did you mean \"{meant}\"? known here: {list}"),
                None => format!("known here: {list}"),
            };
            self.reading.push((self.order, offset), true, origin.problem("unknown key", remedy));
        }
    }
}

/// A key behind the path of its table, quoted where TOML asks for it.
pub(super) fn join(table: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if table.is_empty() { key } else { format!("{table}.{key}") }
}

/// A value of the configuration, with all that a problem with it has to name.
#[derive(Clone)]
pub(super) struct Value<'a> {
    pub(super) reading: &'a Reading<'a>,
    file: &'a SourceFile,
    order: usize,
    field: String,
    secret: bool,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Value<'a> {
    /// The value is never shown from now on.
    pub(super) fn secret(mut self) -> Value<'a> {
        self.secret = true;
        self
    }

    /// Where the value stands and how it is written.
    pub(super) fn origin(&self) -> Origin {
        let span = self.value.span();
        let value = match self.value.get_ref() {
            DeValue::Table(_) | DeValue::Array(_) => None,
            _ if self.secret => Some(MASK.to_owned()),
            _ => Some(shown(self.file.written(span.clone()))),
        };
        Origin { place: self.file.place(span.start), field: self.field.clone(), value }
    }

    /// Reports an error with this value.
    pub(super) fn error(&self, message: impl Into<String>, remedy: impl Into<String>) {
        let problem = self.origin().problem(message, remedy);
        self.reading.push((self.order, self.value.span().start), true, problem);
    }

    /// Reports an error told as `problem; remedy`, the form of the errors of topics, templates and scalars.
    pub(super) fn error_told(&self, told: &str) {
        let (message, remedy) = told.split_once("; ").unwrap_or((told, ""));
        self.error(message, remedy);
    }

    /// Reports something that looks wrong.
    pub(super) fn warn(&self, message: impl Into<String>, remedy: impl Into<String>) {
        let problem = self.origin().problem(message, remedy);
        self.reading.push((self.order, self.value.span().start), false, problem);
    }

    /// Where the object that this value is stands, for those who ask later.
    pub(super) fn object(&self) -> ObjectOrigin {
        let meant = |text: &str| self.expanded(text).map_or_else(|_| text.to_owned(), |text| text.value);
        let definition = Definition::of(self.value.get_ref(), &meant);
        ObjectOrigin { table: self.origin(), runtime: self.file.is_runtime(), definition }
    }

    /// Whether it was added while the daemon ran.
    pub(super) fn is_runtime(&self) -> bool {
        self.file.is_runtime()
    }

    /// The folder that a relative path in this value starts from.
    pub(super) fn folder(&self) -> &'a std::path::Path {
        self.file.folder()
    }

    /// The parsed TOML, for values of any type.
    pub(super) fn raw(&self) -> &'a DeValue<'a> {
        self.value.get_ref()
    }

    /// Reports a value of another type than expected.
    pub(super) fn wrong_type(&self, expected: &str, remedy: impl Into<String>) {
        let found = match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        self.error(format!("expected {expected}, got {found}"), remedy);
    }

    /// A string without its interpolations, if it is one.
    pub(super) fn as_written(&self) -> Option<&'a str> {
        self.value.get_ref().as_str()
    }

    /// A string, interpolated.
    pub(super) fn text(&self) -> Option<Text> {
        let Some(written) = self.as_written() else {
            self.wrong_type("a string", self.quoted());
            return None;
        };
        self.expand(written)
    }

    fn expand(&self, written: &str) -> Option<Text> {
        match self.expanded(written) {
            Ok(text) => Some(text),
            Err(errors) => {
                for error in errors {
                    self.error_told(&error.to_string());
                }
                None
            }
        }
    }

    fn expanded(&self, written: &str) -> Result<Text, Vec<InterpolationError>> {
        expand(written, self.reading.environment, self.file.folder(), &mut self.reading.interpolated.borrow_mut())
    }

    /// The remedy for a scalar without quotes.
    fn quoted(&self) -> String {
        match self.value.get_ref() {
            DeValue::Table(_) | DeValue::Array(_) => "write a text in quotes".to_owned(),
            _ if self.secret => "write it in quotes".to_owned(),
            _ => format!("use \"{}\"", shown(self.file.written(self.value.span()))),
        }
    }

    /// An integer within a range; `unit` follows the bounds in the message, such as ` seconds`.
    pub(super) fn integer(&self, range: RangeInclusive<u64>, unit: &str) -> Option<u64> {
        let Some(number) = self.value.get_ref().as_integer() else {
            let meant = self.as_written().and_then(|text| text.trim().parse::<u64>().ok());
            let remedy = match meant {
                Some(number) => format!("use {number}"),
                None => format!("use a number from {} to {}{unit}, without quotes", range.start(), range.end()),
            };
            self.wrong_type("an integer", remedy);
            return None;
        };
        let (low, high) = (*range.start(), *range.end());
        let value = integer_value(number);
        if value.is_some_and(|value| range.contains(&value)) {
            return value;
        }
        let nearest =
            if number.as_str().starts_with('-') || value.is_some_and(|value| value < low) { low } else { high };
        self.error(format!("must be {low} to {high}{unit}"), format!("use {nearest}"));
        None
    }

    /// A number, with or without a fraction, that is `inside`. `bounds` tells what it must be, `example` one that is.
    pub(super) fn number(&self, inside: impl Fn(f64) -> bool, bounds: &str, example: &str) -> Option<f64> {
        let number = match self.value.get_ref() {
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            DeValue::Integer(number) => {
                i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number as f64)
            }
            _ => {
                let meant =
                    self.as_written().and_then(|text| text.trim().parse().ok()).filter(|number| inside(*number));
                self.wrong_type(
                    "a number",
                    meant.map_or_else(|| format!("use {example}"), |number| format!("use {number}")),
                );
                return None;
            }
        };
        let number = number.filter(|number| inside(*number));
        if number.is_none() {
            self.error(bounds, format!("use {example}"));
        }
        number
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        let value = self.value.get_ref().as_bool();
        if value.is_none() {
            let remedy = match self.as_written() {
                Some(text @ ("true" | "false")) => format!("use {text}"),
                _ => "use true or false, without quotes".to_owned(),
            };
            self.wrong_type("a boolean", remedy);
        }
        value
    }

    /// A duration within a range.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        if self.as_written().is_none() {
            let remedy = match self.value.get_ref().as_integer() {
                Some(number) => format!("use \"{number}ms\", \"{number}s\" or \"{number}m\""),
                None => "use a number and a unit, such as \"250ms\"".to_owned(),
            };
            self.wrong_type("a duration", remedy);
            return None;
        }
        let text = self.text()?;
        let value = self.told_of(&text, parse_duration(&text.value))?;
        if range.contains(&value) {
            return Some(value);
        }
        let (low, high) = (format_duration(*range.start()), format_duration(*range.end()));
        let nearest = if value < *range.start() { &low } else { &high };
        self.error(format!("must be {low} to {high}"), format!("use \"{nearest}\""));
        None
    }

    /// Two durations within a range, the shorter one first: `"100ms..10s"`. One alone stands for both.
    pub(super) fn durations(&self, range: RangeInclusive<Duration>) -> Option<RangeInclusive<Duration>> {
        let Some(written) = self.as_written() else {
            self.wrong_type("two durations", "use \"SHORTEST..LONGEST\", such as \"100ms..10s\"");
            return None;
        };
        let Some((_, _)) = written.split_once("..") else {
            return self.duration(range).map(|both| both..=both);
        };
        let text = self.text()?;
        let (shortest, longest) = text.value.split_once("..").unwrap_or((&text.value, &text.value));
        let read = |part: &str| self.told_of(&text, parse_duration(part.trim()));
        let (shortest, longest) = (read(shortest)?, read(longest)?);
        let written = |(shortest, longest): (Duration, Duration)| format_durations(&(shortest..=longest));
        if longest < shortest {
            self.error("the shortest comes first", format!("use \"{}\"", written((longest, shortest))));
            return None;
        }
        let (low, high) = (*range.start(), *range.end());
        let within = (shortest.clamp(low, high), longest.clamp(low, high));
        if within != (shortest, longest) {
            let bounds = format!("both must be {} to {}", format_duration(low), format_duration(high));
            self.error(bounds, format!("use \"{}\"", written(within)));
            return None;
        }
        Some(shortest..=longest)
    }

    /// A size within a range, in bytes.
    pub(super) fn size(&self, range: RangeInclusive<u64>) -> Option<u64> {
        if self.as_written().is_none() {
            let remedy = match self.value.get_ref().as_integer().and_then(integer_value) {
                Some(bytes) => format!("use \"{}\"", format_size(bytes.clamp(*range.start(), *range.end()))),
                None => "use a number and a unit, such as \"64KiB\"".to_owned(),
            };
            self.wrong_type("a size", remedy);
            return None;
        }
        let text = self.text()?;
        let value = self.told_of(&text, parse_size(&text.value))?;
        if range.contains(&value) {
            return Some(value);
        }
        let (low, high) = (format_size(*range.start()), format_size(*range.end()));
        let nearest = if value < *range.start() { &low } else { &high };
        self.error(format!("must be {low} to {high}"), format!("use \"{nearest}\""));
        None
    }

    /// Reports an error with what this text stands for. The remedy repeats parts of it, which it must not do with what
    /// came from outside the file.
    fn told_of<T>(&self, text: &Text, result: Result<T, String>) -> Option<T> {
        let report = |told: String| match told.split_once("; ") {
            Some((message, _)) if text.hidden => self.error(message, "change what it stands for"),
            _ => self.error_told(&told),
        };
        result.map_err(report).ok()
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let words = || choices.iter().map(|(word, _)| *word);
        let Some(written) = self.as_written() else {
            self.wrong_type("a string", format!("use {}", either(words())));
            return None;
        };
        let text = self.expand(written)?;
        let found = choices.iter().find(|(word, _)| *word == text.value).map(|(_, value)| *value);
        if found.is_none() {
            self.error("not a known value", format!("use {}", either(words())));
        }
        found
    }

    /// Reads a table with `read`, then reports the keys that it did not ask for. `example` tells how one is written.
    pub(super) fn table<T>(&self, example: &str, read: impl FnOnce(&Table<'a>) -> T) -> Option<T> {
        let table = self.open(example)?;
        let result = read(&table);
        table.finish();
        Some(result)
    }

    /// A table of names that the file's user chose.
    pub(super) fn named_entries(&self, example: &str) -> Vec<(&'a str, Value<'a>)> {
        self.open(example).map(|table| table.entries()).unwrap_or_default()
    }

    /// The entries of a value that was read as a table; none of any other.
    pub(super) fn entries_read(&self) -> Vec<(&'a str, Value<'a>)> {
        match self.raw() {
            DeValue::Table(_) => self.named_entries(""),
            _ => Vec::new(),
        }
    }

    fn open(&self, example: &str) -> Option<Table<'a>> {
        let DeValue::Table(entries) = self.value.get_ref() else {
            self.wrong_type("a table", format!("use {example}"));
            return None;
        };
        Some(Table {
            reading: self.reading,
            file: self.file,
            order: self.order,
            field: self.field.clone(),
            start: self.value.span().start,
            secret: self.secret,
            entries,
            known: RefCell::new(Vec::new()),
        })
    }

    /// A value inside this one, if this is a table that has the key. It is not known from now on: for what was read before.
    pub(super) fn within(&self, key: &str) -> Option<Value<'a>> {
        let DeValue::Table(entries) = self.value.get_ref() else { return None };
        let value = entries.get(key)?;
        Some(Value { field: join(&self.field, key), value, ..self.clone() })
    }

    /// The elements of an array. `example` tells how one is written.
    pub(super) fn items(&self, example: &str) -> Option<Vec<Value<'a>>> {
        let DeValue::Array(items) = self.value.get_ref() else {
            self.wrong_type("an array", format!("use {example}"));
            return None;
        };
        let element = |(place, value)| Value { field: format!("{}[{place}]", self.field), value, ..self.clone() };
        Some(items.iter().enumerate().map(element).collect())
    }
}

/// The integer as a number, if it is not negative and fits.
pub(super) fn integer_value(number: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}
