//! Why a handler does not run a version of its plugin, in plain words: for what is said, shown and recorded of the version.
//!
//! Pure. Made by the start and by the change task.

use super::StartError;
use super::native::NativeError;
use super::needs::NotExported;
use super::plugin::LoadError;

/// Why a handler does not run a version.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// The file holds no plugin.
    #[error("it {0}")]
    Load(#[from] LoadError),
    /// An instance of it does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It does not export what the configuration calls it for.
    #[error(transparent)]
    NotExported(#[from] NotExported),
}

impl VersionError {
    /// Whether it is the version's fault, so that it is to be remembered against it: otherwise it may run later, or after a restart.
    pub fn blames_the_version(&self) -> bool {
        match self {
            VersionError::Load(error) => error.blames_the_version(),
            VersionError::Start(error) => error.blames_the_version(),
            VersionError::NotExported(_) => true,
        }
    }

    /// Whether the next daemon that loads the version would be stuck as this one is: it is not tried again but by command.
    pub fn blocks_the_daemon(&self) -> bool {
        matches!(self, VersionError::Load(LoadError::Native(NativeError::Hangs)))
    }

    /// What is said of a version whose file cannot be loaded.
    pub fn reason_of(error: &LoadError) -> String {
        format!("it {error}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_hangs_in_the_linker_blocks_the_next_daemon_too() {
        let check = |error: NativeError, expected| {
            let error = VersionError::from(LoadError::from(error));
            assert_eq!((error.blocks_the_daemon(), error.blames_the_version()), (expected, true), "{error}");
        };
        check(NativeError::Hangs, true);
        check(NativeError::EntryHangs, false);
        check(NativeError::Refused("no such symbol".to_owned()), false);
    }
}
