//! The words of RouterOS' scripting language, as far as exports use it: words, `key=value`, quoted texts and brackets.
//!
//! Owns: where a command ends, which line it is on, and what a quoted text stands for. Fed by the text of an export, and by
//! the scripts in it; feeds `menu.rs` and `script.rs`. It knows no menu, and evaluates nothing: a variable stays one.
//! Nothing here recurses, and every character is looked at a bounded number of times.

use std::fmt;

/// One command as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement<'a> {
    /// Where it begins, from 1.
    pub(super) line: usize,
    /// As written, over several lines where it is continued.
    pub(super) raw: &'a str,
    /// At least one.
    pub(super) tokens: Vec<Token<'a>>,
}

/// A part of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// `add`, `/iot`, `0`.
    Word(&'a str),
    /// `key=value`.
    Pair(&'a str, Value),
    /// What stands between `[` and `]`.
    Brackets(&'a str),
    /// A value that stands alone.
    Lone(Value),
}

/// The value of a property.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Value {
    /// What it stands for, its variables as they are written.
    pub(super) text: String,
    /// Some of it is known only to RouterOS: a variable, or an expression.
    pub(super) open: bool,
    /// It was not UTF-8; each of its bytes became a character (Latin-1).
    pub(super) recoded: bool,
}

/// A part of a quoted text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Characters, as bytes: an escape may stand for any.
    Text(Vec<u8>),
    /// `$name`.
    Variable(String),
    /// `$[…]` and `$(…)`, of which only the beginning is taken.
    Expression,
}

/// Why the rest of a text cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unclosed {
    /// What opens and is not closed.
    opening: char,
    /// Where it is, from 1.
    line: usize,
}

impl fmt::Display for Unclosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} of line {} is not closed, so nothing after it can be understood", self.opening, self.line)
    }
}

/// What could not be read: everything from some command on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rest<'a> {
    /// Where it begins, from 1.
    pub(super) line: usize,
    /// As written.
    pub(super) raw: &'a str,
    /// Why.
    pub(super) unclosed: Unclosed,
}

/// All commands of a text, and what follows them that cannot be read.
pub(super) fn statements(text: &str) -> (Vec<Statement<'_>>, Option<Rest<'_>>) {
    let mut scanner = Scanner::new(text);
    let mut statements = Vec::new();
    loop {
        scanner.skip_to_statement();
        let (start, line) = (scanner.at, scanner.line);
        if scanner.rest().is_empty() {
            return (statements, None);
        }
        match scanner.tokens() {
            Ok(tokens) if tokens.is_empty() => {}
            Ok(tokens) => statements.push(Statement { line, raw: text[start..scanner.at].trim_end(), tokens }),
            Err(unclosed) => return (statements, Some(Rest { line, raw: text[start..].trim_end(), unclosed })),
        }
    }
}

/// Reads a text from its beginning to its end.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Scanner<'a> {
    /// At the beginning.
    pub(super) fn new(text: &'a str) -> Scanner<'a> {
        Scanner { text, at: 0, line: 1 }
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Takes these characters if they are next.
    pub(super) fn eat(&mut self, expected: &str) -> bool {
        let found = self.rest().starts_with(expected);
        if found {
            self.advance(expected.len());
        }
        found
    }

    /// Takes characters as long as they are of this kind.
    pub(super) fn take_while(&mut self, mut wanted: impl FnMut(char) -> bool) -> &'a str {
        let rest = self.rest();
        let taken = &rest[..rest.find(|c| !wanted(c)).unwrap_or(rest.len())];
        self.advance(taken.len());
        taken
    }

    /// Skips spaces and continued lines.
    pub(super) fn skip_blanks(&mut self) {
        while !self.take_while(|c| matches!(c, ' ' | '\t' | '\r')).is_empty() || self.continuation() {}
    }

    /// Skips what stands between commands: line ends, semicolons, comments, and the braces of a group of commands.
    pub(super) fn skip_to_statement(&mut self) {
        loop {
            self.skip_blanks();
            if self.rest().starts_with('#') {
                self.take_while(|c| c != '\n');
            } else if self.take_while(|c| matches!(c, '\n' | ';' | '{' | '}' | '\u{feff}')).is_empty() {
                return;
            }
        }
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest().chars().next()?;
        self.advance(next.len_utf8());
        Some(next)
    }

    fn advance(&mut self, bytes: usize) {
        self.line += self.rest()[..bytes].matches('\n').count();
        self.at += bytes;
    }

    /// A backslash at the end of a line.
    fn continuation(&mut self) -> bool {
        self.eat("\\\n") || self.eat("\\\r\n")
    }

    /// The parts of one command, up to the end of its line, a semicolon or the brace that ends its group.
    fn tokens(&mut self) -> Result<Vec<Token<'a>>, Unclosed> {
        let mut tokens = Vec::new();
        loop {
            self.skip_blanks();
            let token = match self.rest().chars().next() {
                None | Some('\n' | ';' | '}') => return Ok(tokens),
                Some('[') => Token::Brackets(self.balanced()?),
                Some('"' | '{' | '(') => Token::Lone(self.value()?),
                Some('=' | ']' | ')' | '\\') => {
                    let start = self.at;
                    self.next();
                    Token::Word(&self.text[start..self.at])
                }
                Some(_) => self.word()?,
            };
            tokens.push(token);
        }
    }

    fn word(&mut self) -> Result<Token<'a>, Unclosed> {
        let word = self.take_while(|c| {
            !c.is_whitespace() && !matches!(c, '=' | ';' | '"' | '[' | ']' | '{' | '}' | '(' | ')' | '\\')
        });
        if word.is_empty() {
            // A space that is none of ours.
            let start = self.at;
            self.next();
            return Ok(Token::Word(&self.text[start..self.at]));
        }
        if !self.eat("=") { Ok(Token::Word(word)) } else { Ok(Token::Pair(word, self.value()?)) }
    }

    /// What stands behind `=`.
    fn value(&mut self) -> Result<Value, Unclosed> {
        // RouterOS breaks a line before a value that is too long for it.
        while self.continuation() {
            self.take_while(|c| matches!(c, ' ' | '\t'));
        }
        match self.rest().chars().next() {
            Some('"') => Ok(value_of(&self.quoted()?)),
            Some('{') => Ok(Value { text: self.balanced()?.to_owned(), ..Value::default() }),
            Some('[' | '(') => {
                let start = self.at;
                self.balanced()?;
                Ok(Value { text: self.text[start..self.at].to_owned(), open: true, recoded: false })
            }
            _ => Ok(self.bare()),
        }
    }

    /// A value without quotes.
    fn bare(&mut self) -> Value {
        let mut bytes = Vec::new();
        let mut open = false;
        loop {
            let taken = self.take_while(|c| !c.is_whitespace() && !matches!(c, ';' | '\\' | '}'));
            open |= taken.contains('$');
            bytes.extend_from_slice(taken.as_bytes());
            if !self.rest().starts_with('\\') || self.rest()[1..].trim_start_matches('\r').starts_with('\n') {
                return Value { open, ..value_of(&[Part::Text(bytes)]) };
            }
            self.next();
            self.escape(&mut bytes);
        }
    }

    /// A text in quotes, the first of which is next.
    ///
    /// # Errors
    /// The second is missing.
    pub(super) fn quoted(&mut self) -> Result<Vec<Part>, Unclosed> {
        let unclosed = Unclosed { opening: '"', line: self.line };
        self.next();
        let (mut parts, mut bytes) = (Vec::new(), Vec::new());
        loop {
            let taken = self.take_while(|c| !matches!(c, '"' | '\\' | '$'));
            bytes.extend_from_slice(taken.as_bytes());
            if self.continuation() {
                self.take_while(|c| matches!(c, ' ' | '\t'));
                continue;
            }
            match self.next().ok_or(unclosed)? {
                '"' => break,
                '\\' => self.escape(&mut bytes),
                _ => match self.variable() {
                    Some(part) => {
                        parts.push(Part::Text(std::mem::take(&mut bytes)));
                        parts.push(part);
                    }
                    None => bytes.push(b'$'),
                },
            }
        }
        parts.push(Part::Text(bytes));
        parts.retain(|part| !matches!(part, Part::Text(bytes) if bytes.is_empty()));
        Ok(parts)
    }

    /// What follows a `$`.
    pub(super) fn variable(&mut self) -> Option<Part> {
        if self.rest().starts_with(['[', '(']) {
            return Some(Part::Expression);
        }
        let name = self.take_while(|c| c.is_ascii_alphanumeric());
        (!name.is_empty()).then(|| Part::Variable(name.to_owned()))
    }

    /// What follows a backslash within a text: the byte that it stands for. An unknown one stands for itself.
    fn escape(&mut self, bytes: &mut Vec<u8>) {
        let hex = self.rest().as_bytes().get(..2).filter(|two| {
            // A small letter is one of the other escapes.
            matches!(two[0], b'0'..=b'9' | b'A'..=b'F') && two[1].is_ascii_hexdigit()
        });
        if let Some(byte) = hex.and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()) {
            bytes.push(byte);
            self.advance(2);
            return;
        }
        let byte = match self.rest().as_bytes().first() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'a') => 0x07,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'v') => 0x0b,
            Some(b'_') => b' ',
            Some(byte @ (b'"' | b'\\' | b'$' | b'?')) => *byte,
            _ => return bytes.push(b'\\'),
        };
        bytes.push(byte);
        self.advance(1);
    }

    /// What stands between the bracket that is next and the one that closes it, texts and comments passed over.
    ///
    /// # Errors
    /// It is not closed.
    pub(super) fn balanced(&mut self) -> Result<&'a str, Unclosed> {
        let mut open: Vec<Unclosed> = Vec::new();
        let mut begins = false;
        let start = self.at + 1;
        loop {
            let unclosed = open.last().copied();
            let (before, line) = (self.at, self.line);
            let next = self.next().ok_or(unclosed.unwrap_or(Unclosed { opening: '{', line }))?;
            match next {
                '"' => {
                    (self.at, self.line) = (before, line);
                    self.quoted()?;
                }
                '#' if begins => {
                    self.take_while(|c| c != '\n');
                }
                '\\' => {
                    self.next();
                }
                '{' | '[' | '(' => open.push(Unclosed { opening: next, line }),
                '}' | ']' | ')' => {
                    open.pop();
                }
                _ => {}
            }
            if open.is_empty() {
                return Ok(&self.text[start..before]);
            }
            // Only there does `#` begin a comment.
            begins = matches!(next, '{' | '\n' | ';') || (begins && next.is_whitespace());
        }
    }
}

/// A quoted text as one value.
fn value_of(parts: &[Part]) -> Value {
    let mut bytes = Vec::new();
    for part in parts {
        match part {
            Part::Text(text) => bytes.extend_from_slice(text),
            Part::Variable(name) => bytes.extend(format!("${name}").into_bytes()),
            Part::Expression => bytes.push(b'$'),
        }
    }
    let open = parts.iter().any(|part| !matches!(part, Part::Text(_)));
    let (text, recoded) = decode(bytes);
    Value { text, open, recoded }
}

/// Bytes as text: UTF-8, else a character for each byte, which is told.
pub(super) fn decode(bytes: Vec<u8>) -> (String, bool) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, false),
        Err(error) => (error.into_bytes().into_iter().map(char::from).collect(), true),
    }
}
