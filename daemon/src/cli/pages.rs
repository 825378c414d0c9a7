//! `tidegate completions` and `tidegate man`: what shells and readers of manuals get, from the same definitions as the
//! commands themselves.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use super::{NO, output};

/// The arguments of `completions`.
#[derive(Args)]
#[command(after_help = "Example: tidegate completions bash > /etc/bash_completion.d/tidegate")]
pub struct Completions {
    /// The shell that they are for
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub fn run(self, command: Command) -> ExitCode {
        output::data(self.script(command).trim_end());
        ExitCode::SUCCESS
    }

    fn script(&self, mut command: Command) -> String {
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        String::from_utf8_lossy(&script).into_owned()
    }
}

/// The arguments of `man`.
#[derive(Args)]
#[command(after_help = "Example: tidegate man /usr/local/share/man/man1")]
pub struct Man {
    /// Where a page for each command is written; made if need be, with the folders it is in [default: the main page is printed]
    folder: Option<PathBuf>,
}

impl Man {
    /// Prints the main page, or writes all.
    pub fn run(self, command: Command) -> ExitCode {
        let done = match &self.folder {
            Some(folder) => fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(command, folder)),
            None => {
                let mut page = Vec::new();
                let rendered = clap_mangen::Man::new(command).render(&mut page);
                rendered.map(|()| output::data(String::from_utf8_lossy(&page).trim_end()))
            }
        };
        match (done, &self.folder) {
            (Ok(()), _) => ExitCode::SUCCESS,
            (Err(error), Some(folder)) => {
                output::notice(format_args!(
                    "error: {}: {error}; name a folder that you may write to",
                    folder.display()
                ));
                ExitCode::from(NO)
            }
            (Err(error), None) => output::failure(&error, NO),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, ValueEnum};

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_shell_completes_every_command() {
        let command = Cli::command();
        for shell in Shell::value_variants() {
            let script = Completions { shell: *shell }.script(Cli::command());
            for name in command.get_subcommands().map(Command::get_name) {
                assert!(script.contains(name), "{shell}: {name}");
            }
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().expect("a folder");
        let pages = folder.path().join("man").join("man1");
        assert_eq!(Man { folder: Some(pages.clone()) }.run(Cli::command()), ExitCode::SUCCESS);
        fn check(pages: &std::path::Path, name: &str, command: &Command) {
            let page =
                fs::read_to_string(pages.join(format!("{name}.1"))).unwrap_or_else(|error| panic!("{name}: {error}"));
            let about = command.get_about().expect("every command says what it does").to_string();
            let first = about.split(['\'', '-', '\\']).next().unwrap_or_default();
            assert!(page.contains(first), "{name}: {about}");
            let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
            shown.for_each(|sub| check(pages, &format!("{name}-{}", sub.get_name()), sub));
        }
        check(&pages, "tidegate", &Cli::command());
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_told_by_the_exit_code() {
        let folder = tempfile::NamedTempFile::new().expect("a file");
        assert_eq!(Man { folder: Some(folder.path().to_owned()) }.run(Cli::command()), ExitCode::from(NO));
    }
}
