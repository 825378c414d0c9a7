//! Files that are written as a whole: after a crash there is the old one or the new one, never a part.
//!
//! Used for the records in the state directory. Everything here blocks the thread on the disk.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use tempfile::NamedTempFile;

/// Replaces a file, which only its owner may read, and waits until it is safe on the disk. Makes its folder where it is missing.
///
/// # Errors
/// The folder cannot be made, or the file not be written; the old one stays then.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
        // The new file is there, and its content is safe: only its name may be the old one's after a power cut.
        tracing::warn!(file = %path.display(), %error, "the folder of a written file cannot be synced");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_and_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state/file");
        for content in ["first", "second"] {
            replace(&path, content.as_bytes()).expect("writes");
            assert_eq!(std::fs::read_to_string(&path).expect("is there"), content);
        }
        assert_eq!(std::fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o600);
        let left: Vec<_> = path.parent().expect("has one").read_dir().expect("a folder").collect();
        assert_eq!(left.len(), 1, "nothing else is left behind");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        replace(&path, b"first").expect("writes");
        // A folder cannot be replaced by a file.
        let taken = folder.path().join("taken");
        std::fs::create_dir(&taken).expect("creates");
        assert!(replace(&taken, b"second").is_err());
        assert_eq!(std::fs::read(&path).expect("is there"), b"first");
        assert!(taken.is_dir());
    }
}
