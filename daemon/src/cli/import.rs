//! `tidegate import`: a configuration made of another system's.
//!
//! Owns: reading the export and writing the result; what becomes of what is decided in `control/routeros/`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{NO, WRONG_USE, output};
use crate::control::routeros::{self, Import};

/// Largest export that is read, in bytes.
const MAX_EXPORT: u64 = 16 << 20;

/// The arguments of `import`.
#[derive(Args)]
pub struct ImportArgs {
    #[command(subcommand)]
    from: From,
}

#[derive(Subcommand)]
enum From {
    /// Make a configuration of RouterOS' /iot/mqtt brokers and subscriptions
    #[command(after_long_help = RULES)]
    Routeros(Routeros),
}

/// What `import routeros --help` says behind the arguments.
const RULES: &str = "\
On the router, `/iot/mqtt/export show-sensitive file=mqtt` writes the export, passwords included; a whole `/export` will do \
too, whose other menus are skipped.

`tidegate check` accepts the result. RouterOS' defaults hold: a broker has auto-connect = false and port = 1883 where the \
export says nothing else. Scripts (on-message) become comments, with a suggestion where Tidegate has words for what they do: \
a line in the log, a condition on the payload. What is disabled, incomplete or not understood becomes a comment with its line.

Standard error tells of each line that did not simply become keys. A secret is only in the result, which --out keeps from \
other users.

Exit codes: 0 all of it was imported; 1 it was, but for what is marked TODO in the result; 2 wrong use, or a file that cannot \
be read or written.";

/// The arguments of `import routeros`.
#[derive(Args)]
struct Routeros {
    /// What `/iot/mqtt/export` or `/export` has written; - is standard input
    file: PathBuf,
    /// Write to this new file, which only its owner may read [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl ImportArgs {
    /// Exits with 0 if nothing is left to do by hand, 1 if something is, 2 if there is nothing to read or no place to write.
    pub fn run(self) -> ExitCode {
        let From::Routeros(arguments) = self.from;
        let export = match read(&arguments.file) {
            Ok(export) => export,
            Err(error) => return fails("read", &arguments.file, &error),
        };
        let import = routeros::import(&export);
        match &arguments.out {
            None => output::data(import.toml.trim_end()),
            Some(file) => {
                if let Err(error) = write(file, &import.toml) {
                    return fails("written", file, &error);
                }
            }
        }
        tell(&import, &arguments.file);
        let done = import.brokers > 0 && !import.remarks.iter().any(|remark| remark.work);
        if done { ExitCode::SUCCESS } else { ExitCode::from(NO) }
    }
}

fn fails(what: &str, file: &Path, error: &io::Error) -> ExitCode {
    let remedy = match error.kind() {
        io::ErrorKind::AlreadyExists => "; name another one, or remove it",
        _ => "",
    };
    output::notice(format_args!("error: {} cannot be {what}: {error}{remedy}", file.display()));
    ExitCode::from(WRONG_USE)
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut export = Vec::new();
    let source: &mut dyn io::Read = if file == "-" { &mut io::stdin().lock() } else { &mut File::open(file)? };
    source.take(MAX_EXPORT + 1).read_to_end(&mut export)?;
    if export.len() as u64 > MAX_EXPORT {
        return Err(io::Error::other("it is larger than 16 MiB, which no export is"));
    }
    Ok(export)
}

/// A new file, since what was there may be the work of hours; for its owner alone, since it may hold passwords.
fn write(file: &Path, toml: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    file.write_all(toml.as_bytes())?;
    file.sync_all()
}

fn tell(import: &Import, file: &Path) {
    let file = if file == "-" { "standard input".into() } else { file.to_string_lossy() };
    for remark in &import.remarks {
        let todo = if remark.work { "TODO " } else { "" };
        output::notice(format_args!("{file}:{}: {todo}{}", remark.line, remark.text));
    }
    let Import { brokers, subscriptions, left_out, skipped, .. } = import;
    output::notice(format_args!(
        "{brokers} brokers and {subscriptions} subscriptions imported, {left_out} left out as comments; {skipped} commands of \
         other menus skipped"
    ));
    if *brokers == 0 {
        output::notice("there is no broker to connect to: export /iot/mqtt, or add [brokers.NAME] to the result");
    }
}
