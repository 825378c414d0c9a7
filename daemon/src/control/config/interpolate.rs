//! `${env:NAME}` and `${file:PATH}` in string values.
//!
//! Owns: the syntax, and what it may read. Used by the reader for each string; problems name the source that failed and
//! never what others gave.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsString;
use std::io::{self, Read as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use super::secret::{Secret, regular_file, without_newline};
use super::source::plain;

/// Longest file that `${file:PATH}` takes in, in bytes.
pub(super) const MAX_FILE: usize = 64 * 1024;

/// What the configuration takes from outside its files. Given from outside so that tests have one of their own.
pub(super) struct Environment {
    /// Environment variables by name.
    pub(super) variable: fn(&str) -> Option<OsString>,
    /// The machine's name, for client identifiers.
    pub(super) hostname: String,
    /// How many threads run at the same time, for the number of instances.
    pub(super) parallelism: NonZeroUsize,
}

impl Environment {
    /// That of this process.
    pub(super) fn of_process() -> Environment {
        Environment {
            variable: |name| std::env::var_os(name),
            hostname: hostname(),
            parallelism: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        }
    }
}

/// What interpolations stand for, as it was read: each source is read once in a configuration, so that all who ask see the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Interpolated(HashMap<(PathBuf, String), Secret>);

/// The machine's name without a system call of its own; `gateway` where none can be found.
fn hostname() -> String {
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .into_iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .chain(std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().to_owned())
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "gateway".to_owned())
}

/// A string value after interpolation.
#[derive(Clone, Debug)]
pub(super) struct Text {
    /// What it stands for.
    pub(super) value: String,
    /// No problem may repeat it: it has parts from outside the file, or several lines. A string that is not closed where it
    /// should be may have swallowed a password.
    pub(super) hidden: bool,
}

/// Replaces every `${…}`; `$${` stands for `${`. Relative paths start from `folder`. What was read before is in `read`, where
/// what is read now is put.
///
/// # Errors
/// Each `${…}` that cannot be replaced.
pub(super) fn expand(
    text: &str,
    environment: &Environment,
    folder: &Path,
    read: &mut Interpolated,
) -> Result<Text, Vec<InterpolationError>> {
    let mut expanded = Text { value: String::new(), hidden: text.contains('\n') };
    let mut errors = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            expanded.value.push_str(before);
            expanded.value.push_str("${");
            rest = after;
            continue;
        }
        expanded.value.push_str(before);
        let Some((source, after)) = after.split_once('}') else {
            errors.push(InterpolationError::Unclosed);
            return Err(errors);
        };
        match read.known(source, folder, || resolve(source, environment, folder)) {
            Ok(value) => expanded.value.push_str(value),
            Err(error) => errors.push(error),
        }
        expanded.hidden = true;
        rest = after;
    }
    expanded.value.push_str(rest);
    if errors.is_empty() { Ok(expanded) } else { Err(errors) }
}

impl Interpolated {
    /// What a source stands for: as it was read, or as it is read now.
    fn known(
        &mut self,
        source: &str,
        folder: &Path,
        read: impl FnOnce() -> Result<String, InterpolationError>,
    ) -> Result<&str, InterpolationError> {
        match self.0.entry((folder.to_owned(), source.to_owned())) {
            Entry::Occupied(known) => Ok(known.into_mut().expose()),
            Entry::Vacant(place) => Ok(place.insert(Secret::new(read()?)).expose()),
        }
    }
}

fn resolve(source: &str, environment: &Environment, folder: &Path) -> Result<String, InterpolationError> {
    if source.contains(char::is_control) {
        // The brace that ends it belongs to something else.
        return Err(InterpolationError::Unclosed);
    }
    match source.split_once(':') {
        Some(("env", name)) if !name.is_empty() => {
            let value = (environment.variable)(name).ok_or_else(|| InterpolationError::Unset(name.to_owned()))?;
            value.into_string().map_err(|_| InterpolationError::VariableNotUtf8(name.to_owned()))
        }
        Some(("file", path)) if !path.is_empty() => read(path, folder),
        _ => Err(InterpolationError::UnknownSource(source.to_owned())),
    }
}

fn read(path: &str, folder: &Path) -> Result<String, InterpolationError> {
    let mut bytes = Vec::new();
    regular_file(&folder.join(path))
        .and_then(|file| file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes))
        .map_err(|cause| InterpolationError::Unreadable { path: path.to_owned(), cause })?;
    if bytes.len() > MAX_FILE {
        return Err(InterpolationError::TooLong(path.to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|_| InterpolationError::FileNotUtf8(path.to_owned()))?;
    Ok(without_newline(text))
}

/// Why a `${…}` cannot be replaced. The text is `problem; remedy`.
#[derive(Debug, thiserror::Error)]
pub(super) enum InterpolationError {
    /// The end of the string came first.
    #[error(
        "\"${{\" has no closing brace; \
         use \"${{env:NAME}}\" or \"${{file:PATH}}\", or \"$${{\" for the characters themselves"
    )]
    Unclosed,
    /// Neither `env:NAME` nor `file:PATH`.
    #[error(
        "\"${{{0}}}\" names no known source; \
         use \"${{env:NAME}}\" or \"${{file:PATH}}\", or \"$${{\" for the characters themselves"
    )]
    UnknownSource(String),
    /// The environment has no such variable.
    #[error("the environment variable {0} is not set; set it for the daemon")]
    Unset(String),
    /// Only text can stand in a string.
    #[error("the environment variable {0} is not UTF-8; set it to a text")]
    VariableNotUtf8(String),
    /// The file is missing or may not be read.
    #[error("the file {path} cannot be read: {}; write it where the daemon's user can read it", plain(.cause))]
    Unreadable {
        /// As written.
        path: String,
        /// What the system says.
        cause: io::Error,
    },
    /// Only text can stand in a string.
    #[error("the file {0} is not UTF-8; save it as UTF-8")]
    FileNotUtf8(String),
    /// A bound, since configuration is kept in memory.
    #[error("the file {0} has more than 64KiB; make it shorter")]
    TooLong(String),
}
