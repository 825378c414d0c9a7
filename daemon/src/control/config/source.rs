//! The files of a configuration: FILE, then `conf.d/*.toml` beside it by name, then STATE-DIR/runtime.toml.
//!
//! Owns: the text of each file and the translation from a byte in it to line and column. Feeds the reader. It knows TOML's
//! syntax only through its parser, and no key.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::problem::{Origin, Place, Position, Problem};

/// One configuration file.
#[derive(Clone)]
pub(super) struct SourceFile {
    /// As problems name it.
    name: String,
    path: PathBuf,
    /// The daemon writes it.
    runtime: bool,
    /// Relative paths in the file start here.
    folder: PathBuf,
    text: String,
    /// Where each line begins, in bytes.
    lines: Vec<usize>,
}

impl fmt::Debug for SourceFile {
    /// Its name: the text may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SourceFile").field(&self.name).finish()
    }
}

impl SourceFile {
    /// A file with this path and text.
    pub(super) fn new(path: impl AsRef<Path>, text: impl Into<String>) -> SourceFile {
        let path = path.as_ref();
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let name = path.to_string_lossy().into_owned();
        let text = text.into();
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect();
        SourceFile { name, path: path.to_owned(), runtime: false, folder, text, lines }
    }

    /// What was added while the daemon ran.
    pub(super) fn runtime(path: impl AsRef<Path>, text: impl Into<String>) -> SourceFile {
        SourceFile { runtime: true, ..SourceFile::new(path, text) }
    }

    /// Whether it holds what was added while the daemon ran.
    pub(super) fn is_runtime(&self) -> bool {
        self.runtime
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The folder that relative paths written in this file start from.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A part of the text, as written.
    pub(super) fn written(&self, span: Range<usize>) -> &str {
        self.text.get(span).unwrap_or_default()
    }

    /// The line and column of a byte; past the end is the end.
    pub(super) fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.text.len());
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines[line - 1];
        let before = self.text.get(start..offset).unwrap_or_default();
        let position = Position { line, column: before.trim_start_matches('\u{feff}').chars().count() + 1 };
        Place { file: self.name.clone(), position: Some(position) }
    }

    /// The file as a whole, where no line is to blame.
    pub(super) fn origin(&self) -> Origin {
        whole_file(&self.name)
    }

    /// What of this file is TOML, and where it is not. The parser's words never repeat the text, which may hold secrets.
    pub(super) fn parse(&self) -> (DeTable<'_>, Vec<(usize, Problem)>) {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        let problems = errors.iter().map(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            let origin = Origin { place: self.place(offset), field: String::new(), value: None };
            (offset, origin.problem(format!("not valid TOML: {}", error.message()), syntax_remedy(error.message())))
        });
        (table.into_inner(), problems.collect())
    }
}

/// What to do about the parser's commonest complaints.
fn syntax_remedy(message: &str) -> &'static str {
    if message.starts_with("duplicate key") { "keep one of the two" } else { "" }
}

fn whole_file(name: &str) -> Origin {
    Origin { place: Place { file: name.to_owned(), position: None }, field: String::new(), value: None }
}

/// Reads FILE and its `conf.d`.
///
/// # Errors
/// Every file and folder that cannot be read, with what to do about it.
pub(super) fn read(path: &Path) -> Result<Vec<SourceFile>, Vec<Problem>> {
    let folder = path.parent().unwrap_or(Path::new("")).join("conf.d");
    let mut problems = Vec::new();
    let further = further_files(&folder).unwrap_or_else(|error| {
        let message = format!("cannot be listed: {}", plain(&error));
        problems.push(whole_file(&folder.to_string_lossy()).problem(message, "let the daemon's user read it"));
        Vec::new()
    });
    let mut files = Vec::new();
    for path in std::iter::once(path).chain(further.iter().map(PathBuf::as_path)) {
        let origin = whole_file(&path.to_string_lossy());
        match read_file(path) {
            Ok(file) => files.push(file),
            Err((message, remedy)) => problems.push(origin.problem(message, remedy)),
        }
    }
    if problems.is_empty() { Ok(files) } else { Err(problems) }
}

/// The file in the state directory that holds what was added while the daemon ran.
pub(super) const RUNTIME: &str = "runtime.toml";

/// Reads STATE-DIR/runtime.toml; an empty text where there is none.
///
/// # Errors
/// It exists and cannot be read.
pub(super) fn read_runtime(state_dir: &Path) -> Result<SourceFile, Box<Problem>> {
    let path = state_dir.join(RUNTIME);
    match path.try_exists() {
        Ok(false) => Ok(nothing_added(state_dir)),
        // No such folder can be made either, which the start of the daemon tells.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidFilename | io::ErrorKind::NotADirectory) => {
            Ok(nothing_added(state_dir))
        }
        Ok(true) | Err(_) => match read_file(&path) {
            Ok(file) => Ok(SourceFile { runtime: true, ..file }),
            Err((message, remedy)) => Err(Box::new(whole_file(&path.to_string_lossy()).problem(message, remedy))),
        },
    }
}

/// STATE-DIR/runtime.toml of a daemon that nothing was added to.
pub(super) fn nothing_added(state_dir: &Path) -> SourceFile {
    SourceFile::runtime(state_dir.join(RUNTIME), "")
}

/// Whether STATE-DIR/runtime.toml may not be read, or not even looked for.
pub(super) fn is_forbidden(state_dir: &Path) -> bool {
    File::open(state_dir.join(RUNTIME)).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// The `*.toml` files of `conf.d` by name; none where there is no such folder.
fn further_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Largest configuration file, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Reads one file, or tells what is wrong with it and what to do.
fn read_file(path: &Path) -> Result<SourceFile, (String, &'static str)> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
    read.map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "write one (config/minimal.toml is an example), or name another with -c FILE",
            io::ErrorKind::IsADirectory => "name the file in it",
            _ => "let the daemon's user read it",
        };
        (format!("cannot be read: {}", plain(&error)), remedy)
    })?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(("is larger than 16 MiB".to_owned(), "name a configuration"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        (format!("is not UTF-8 at byte {at}"), "save it as UTF-8")
    })?;
    Ok(SourceFile::new(path, text))
}

/// An I/O error in plain words.
pub(super) fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        io::ErrorKind::NotADirectory => "it is not a folder".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_from_one() {
        let file = SourceFile::new("a.toml", "ä = 1\nbé = 2\n");
        let check = |offset, expected: &str| assert_eq!(file.place(offset).to_string(), expected);
        check(0, "a.toml:1:1");
        check(2, "a.toml:1:2");
        check(7, "a.toml:2:1");
        check(12, "a.toml:2:5");
        check(99, "a.toml:3:1");
    }
}
