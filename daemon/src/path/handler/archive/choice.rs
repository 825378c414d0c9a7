//! Which version of its plugin a handler starts with: its file's, or the copy of the one that was active.
//!
//! Pure. Asked when the daemon starts and when a handler's configuration changes (`gateway/starting.rs`).

use std::path::Path;

use super::record::Record;
use crate::path::handler::plugin::PluginHash;

/// Where a version comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The file that the configuration names.
    File,
    /// The copy of the active version.
    Copy,
}

/// Where to look for a version, first to last: the next one is for when the one before does not load or start. `file` is the version
/// in the file, unless that cannot be read; `tried` says that the handler tries new versions on a part of its calls first.
///
/// A version that was refused is tried again: the reason may have been the configuration, or the machine, and what is still in the way
/// refuses it anew. Only what failed on trial is not.
pub fn sources(file: Option<PluginHash>, record: &Record, plugin: &Path, tried: bool) -> &'static [Source] {
    match (file, record.active(plugin)) {
        (_, None) => &[Source::File],
        (None, Some(_)) => &[Source::Copy],
        (Some(file), Some(active)) if file == active => &[Source::File],
        // Better a version that failed on trial than none at all.
        (Some(file), Some(_)) if tried || record.is_rolled_back(file) => &[Source::Copy, Source::File],
        (Some(_), Some(_)) => &[Source::File, Source::Copy],
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::record::Refused;
    use super::Source::{Copy, File};
    use super::*;
    use crate::path::handler::plugin::PluginFile;

    #[test]
    fn the_file_goes_first_unless_it_is_gone_rolled_back_or_to_be_tried() {
        let [old, new] = [b"old", b"new"].map(|bytes| PluginFile::new(bytes.to_vec()).hash());
        let (plugin, mut record) = (Path::new("p.wasm"), Record::default());
        let check = |record: &Record, file, tried, expected: &[Source]| {
            assert_eq!(sources(file, record, plugin, tried), expected, "{record:?} {file:?} {tried}");
        };
        check(&record, None, false, &[File]);
        check(&record, Some(new), true, &[File]);
        record.activate(old, plugin);
        check(&record, None, false, &[Copy]);
        check(&record, Some(old), true, &[File]);
        check(&record, Some(new), false, &[File, Copy]);
        check(&record, Some(new), true, &[Copy, File]);
        let refused =
            |rolled_back| Refused { version: new, reason: String::new(), time: SystemTime::UNIX_EPOCH, rolled_back };
        record.refuse(refused(false));
        check(&record, Some(new), false, &[File, Copy]);
        record.refuse(refused(true));
        check(&record, Some(new), false, &[Copy, File]);
        assert_eq!(sources(Some(new), &record, Path::new("q.wasm"), false), [File], "the copy is of another file");
        assert_eq!(sources(None, &record, Path::new("q.wasm"), false), [File]);
    }
}
