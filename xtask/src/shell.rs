//! Running other programs, and telling a person what happens.
//!
//! Owns: the ways in which a program is run, and where the project's files are. Progress goes to standard error, as cargo's
//! does.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Writes a line for the person who waits.
macro_rules! say {
    ($($line:tt)*) => { crate::shell::say_line(format_args!($($line)*)) };
}
pub(crate) use say;

/// What [`say!`] calls.
#[expect(clippy::print_stderr, reason = "progress is for the terminal")]
pub fn say_line(line: fmt::Arguments<'_>) {
    eprintln!("{line}");
}

/// The top of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the repository")
}

/// Where cargo builds; every cargo that is started here is told the same.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The cargo that runs xtask.
pub fn cargo() -> Program {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    Program::new(cargo).env("CARGO_TARGET_DIR", target_dir())
}

/// Cargo of another toolchain, which rustup knows: what this one tells its programs of itself is not for that one.
pub fn cargo_of(toolchain: &str) -> Program {
    let mut cargo = Program::new("rustup").args(["run", toolchain, "cargo"]).env("CARGO_TARGET_DIR", target_dir());
    for variable in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"] {
        cargo.0.env_remove(variable);
    }
    cargo
}

/// Whether this runs on a build server.
pub fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// Whether it is a variable that cargo gives to a package's own programs, such as this one.
fn is_of_package(variable: &OsStr) -> bool {
    let variable = variable.to_string_lossy();
    variable.starts_with("CARGO_PKG_") || variable.starts_with("CARGO_MANIFEST_")
}

/// A program with its arguments, to be run at the top of the repository.
pub struct Program(Command);

impl Program {
    /// A program by path, or by a name that is looked up in `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Program {
        let mut command = Command::new(program);
        command.current_dir(root());
        // They tell of xtask. A build script that reads its own (ring's does) is run again wherever cargo finds other values
        // of these than it did the last time, and all that depends on its package compiled anew.
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_package(name)) {
            command.env_remove(name);
        }
        Program(command)
    }

    /// With one more argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Program {
        self.0.arg(argument);
        self
    }

    /// With more arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Program {
        self.0.args(arguments);
        self
    }

    /// With this variable in its environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Program {
        self.0.env(name, value);
        self
    }

    /// Runs it with its output on the terminal.
    ///
    /// # Errors
    /// It cannot be started, or says that it failed.
    pub fn run(mut self) -> Result<()> {
        let shown = self.shown();
        let status = self.0.status().with_context(|| format!("cannot start `{shown}`"))?;
        if !status.success() {
            bail!("`{shown}` failed ({status})");
        }
        Ok(())
    }

    /// Runs it silently; true if it could be started and succeeded.
    pub fn succeeds(mut self) -> bool {
        self.0.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.0.status().is_ok_and(|status| status.success())
    }

    /// Runs it and gives its standard output, trimmed.
    ///
    /// # Errors
    /// It cannot be started, or says that it failed: then with the last line of its standard error.
    pub fn read(mut self) -> Result<String> {
        let shown = self.shown();
        let output = self.0.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{shown}`"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`{shown}` failed: {}", said.trim().lines().last().unwrap_or("it did not say why"));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Runs it silently: what it wrote, and how it ended, whatever that was.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn output(mut self) -> Result<Output> {
        let output = self.0.stdin(Stdio::null()).output();
        output.with_context(|| format!("cannot start `{}`", self.shown()))
    }

    /// Becomes the program: its exit code is ours, and Ctrl-C reaches only it.
    ///
    /// # Errors
    /// It cannot be started. Otherwise this does not return.
    pub fn become_it(mut self) -> Result<()> {
        let error = self.0.exec();
        Err(error).with_context(|| format!("cannot start `{}`", self.shown()))
    }

    fn shown(&self) -> String {
        let program = Path::new(self.0.get_program()).file_name().unwrap_or(self.0.get_program());
        let words = std::iter::once(program).chain(self.0.get_args());
        words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
    }
}

/// The program's path, if it is in `PATH` or in one of these folders.
pub fn find(program: &str, also_in: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(also_in.iter().map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_do_not_take_themselves_for_xtask() {
        assert_eq!(std::env::var("CARGO_PKG_NAME").as_deref(), Ok("xtask"), "cargo says so to its tests");
        let environment = Program::new("env").read().expect("it needs no arguments");
        let ours = environment.lines().filter(|line| is_of_package(line.as_ref())).collect::<Vec<_>>();
        assert!(ours.is_empty() && environment.contains("CARGO="), "{ours:?}");
    }
}
