//! What is recorded of the versions of one handler's plugin: the active one, and those that were refused.
//!
//! Pure: the form of the record and its rules. Kept in a file by `mod.rs`. The active version is never among the refused ones, and a
//! version that becomes the active one is forgiven what it was refused for.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::path::handler::plugin::PluginHash;

/// The version of the form below.
const VERSION: u32 = 1;

/// Refused versions that are remembered; the oldest go.
const MOST_REFUSED: usize = 16;

/// Bytes kept of a reason: a guest may say as much as it likes.
const REASON_BYTES: usize = 1024;

/// What is said of a version whose first start the daemon did not outlive.
const ENDED_BY: &str = "the daemon ended while it was loaded and started for the first time";

/// The versions of one handler's plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    active: Option<Active>,
    /// Oldest first.
    refused: Vec<Refused>,
    /// Only while the daemon loads and starts it.
    trying: Option<Trying>,
}

/// A version that the daemon loads into its process for the first time, since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trying {
    version: PluginHash,
    since: SystemTime,
}

/// The version that a handler runs, and runs again after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Active {
    version: PluginHash,
    /// The file that it came from, as configured: it says nothing of another file.
    plugin: PathBuf,
}

/// A version that a handler was to run and does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which.
    pub version: PluginHash,
    /// Why, in plain words.
    pub reason: String,
    /// Since when.
    pub time: SystemTime,
    /// A start would not show that again: it started, and failed on trial. Or it would end the daemon, or block it.
    pub rolled_back: bool,
}

impl Record {
    /// The version that was active when the handler's plugin was this file.
    pub fn active(&self, plugin: &Path) -> Option<PluginHash> {
        self.active.as_ref().filter(|active| active.plugin == plugin).map(|active| active.version)
    }

    /// What is known against a version.
    pub fn refused(&self, version: PluginHash) -> Option<&Refused> {
        self.refused.iter().find(|refused| refused.version == version)
    }

    /// Whether a version failed on trial, or ended the daemon.
    pub fn is_rolled_back(&self, version: PluginHash) -> bool {
        self.refused(version).is_some_and(|refused| refused.rolled_back)
    }

    /// Whether a version's copy is to stay.
    pub(super) fn keeps(&self, version: PluginHash) -> bool {
        self.active.as_ref().is_some_and(|active| active.version == version)
    }

    /// A version, which came from this file, is the active one from now on.
    pub(super) fn activate(&mut self, version: PluginHash, plugin: &Path) {
        self.refused.retain(|refused| refused.version != version);
        self.has_tried(version);
        self.active = Some(Active { version, plugin: plugin.to_owned() });
    }

    /// A version is not to run. Without effect on the active one. What failed on trial stays known as that, whatever it is refused for later:
    /// only becoming the active one forgives it.
    pub(super) fn refuse(&mut self, mut refused: Refused) {
        self.has_tried(refused.version);
        if self.keeps(refused.version) {
            return;
        }
        if refused.reason.len() > REASON_BYTES {
            refused.reason.truncate(refused.reason.floor_char_boundary(REASON_BYTES));
            refused.reason.push('…');
        }
        refused.rolled_back |= self.is_rolled_back(refused.version);
        self.refused.retain(|known| known.version != refused.version);
        self.refused.push(refused);
        let surplus = self.refused.len().saturating_sub(MOST_REFUSED);
        self.refused.drain(..surplus);
    }

    /// A version is about to be loaded into the process for the first time: if the daemon ends by that, the next one knows from this.
    pub(super) fn tries(&mut self, version: PluginHash, since: SystemTime) {
        self.trying = Some(Trying { version, since });
    }

    /// The daemon has outlived that. Whether the version was the one.
    pub(super) fn has_tried(&mut self, version: PluginHash) -> bool {
        self.trying.take_if(|trying| trying.version == version).is_some()
    }

    /// The text of its file.
    pub(super) fn text(&self) -> Vec<u8> {
        let written = Written {
            version: VERSION,
            active: self.active.as_ref().map(|active| WrittenActive {
                version: format!("{:#}", active.version),
                // A path that is no text is not recognised again, and its file is read in place of the copy.
                plugin: active.plugin.to_string_lossy().into_owned(),
            }),
            refused: self.refused.iter().map(WrittenRefused::of).collect(),
            trying: self.trying.as_ref().map(|trying| WrittenTrying {
                version: format!("{:#}", trying.version),
                since: humantime::format_rfc3339_millis(trying.since).to_string(),
            }),
        };
        let mut text = serde_json::to_vec_pretty(&written).expect("strings and numbers become JSON");
        text.push(b'\n');
        text
    }

    /// Reads the text of a file, which a daemon left behind: a version that it was trying has ended it, and is refused.
    ///
    /// # Errors
    /// It is no record, or one of a later release.
    pub(super) fn parse(text: &[u8]) -> Result<Record, RecordError> {
        let written: Written = serde_json::from_slice(text).map_err(|error| RecordError(error.to_string()))?;
        if written.version != VERSION {
            return Err(RecordError(format!(
                "its form has the version {}, this release reads {VERSION}",
                written.version
            )));
        }
        let active = written.active.map(WrittenActive::read).transpose()?;
        let mut record = Record { active, refused: Vec::new(), trying: None };
        for refused in written.refused {
            record.refuse(refused.read()?);
        }
        if let Some(trying) = written.trying {
            let (version, time) = (hash(&trying.version)?, time(&trying.since)?);
            record.refuse(Refused { version, reason: ENDED_BY.to_owned(), time, rolled_back: true });
        }
        Ok(record)
    }
}

/// A file that is no record of versions.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no record of versions: {0}")]
pub struct RecordError(String);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Written {
    version: u32,
    active: Option<WrittenActive>,
    refused: Vec<WrittenRefused>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trying: Option<WrittenTrying>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct WrittenTrying {
    version: String,
    since: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct WrittenActive {
    version: String,
    plugin: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct WrittenRefused {
    version: String,
    reason: String,
    time: String,
    #[serde(default)]
    rolled_back: bool,
}

fn hash(text: &str) -> Result<PluginHash, RecordError> {
    PluginHash::parse(text).ok_or_else(|| RecordError(format!("{text:?} is no SHA-256 in hexadecimal digits")))
}

fn time(text: &str) -> Result<SystemTime, RecordError> {
    humantime::parse_rfc3339(text).map_err(|error| RecordError(format!("the time {text:?}: {error}")))
}

impl WrittenActive {
    fn read(self) -> Result<Active, RecordError> {
        Ok(Active { version: hash(&self.version)?, plugin: PathBuf::from(self.plugin) })
    }
}

impl WrittenRefused {
    fn of(refused: &Refused) -> WrittenRefused {
        WrittenRefused {
            version: format!("{:#}", refused.version),
            reason: refused.reason.clone(),
            time: humantime::format_rfc3339_millis(refused.time).to_string(),
            rolled_back: refused.rolled_back,
        }
    }

    fn read(self) -> Result<Refused, RecordError> {
        let time = time(&self.time)?;
        Ok(Refused { version: hash(&self.version)?, reason: self.reason, time, rolled_back: self.rolled_back })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::path::handler::plugin::PluginFile;

    fn version(number: u8) -> PluginHash {
        PluginFile::new(vec![number]).hash()
    }

    fn refused(number: u8, seconds: u64) -> Refused {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Refused { version: version(number), reason: format!("reason {number}"), time, rolled_back: number % 2 == 1 }
    }

    const FILE: &str = "plugins/celsius.wasm";

    #[test]
    fn a_version_is_active_for_the_file_that_it_came_from_alone() {
        let mut record = Record::default();
        assert_eq!(record.active(Path::new(FILE)), None);
        record.activate(version(1), Path::new(FILE));
        assert_eq!(record.active(Path::new(FILE)), Some(version(1)));
        assert_eq!(record.active(Path::new("plugins/other.wasm")), None);
        record.activate(version(2), Path::new(FILE));
        assert!(record.keeps(version(2)) && !record.keeps(version(1)), "the one before goes");
    }

    #[test]
    fn what_becomes_active_is_forgiven_and_what_is_active_is_not_refused() {
        let mut record = Record::default();
        record.refuse(refused(1, 5));
        assert_eq!(record.refused(version(1)), Some(&refused(1, 5)));
        record.activate(version(1), Path::new(FILE));
        assert_eq!(record.refused(version(1)), None);
        record.refuse(refused(1, 6));
        assert_eq!((record.refused(version(1)), record.active(Path::new(FILE))), (None, Some(version(1))));
    }

    /// What failed on trial and is tried again by command may be refused for less: that says nothing of the trial.
    #[test]
    fn a_rollback_stays_known_whatever_is_said_later_until_the_version_is_active() {
        let mut record = Record::default();
        record.refuse(Refused { rolled_back: true, ..refused(2, 5) });
        record.refuse(Refused { reason: "later".to_owned(), rolled_back: false, ..refused(2, 6) });
        let known = record.refused(version(2)).expect("is known");
        assert!(known.rolled_back && known.reason == "later", "{known:?}");
        assert!(Record::parse(&record.text()).expect("is one").is_rolled_back(version(2)));
        record.activate(version(2), Path::new(FILE));
        record.activate(version(1), Path::new(FILE));
        record.refuse(Refused { rolled_back: false, ..refused(2, 7) });
        assert!(!record.is_rolled_back(version(2)), "it was forgiven");
    }

    #[test]
    fn what_was_tried_when_the_daemon_ended_is_refused_by_the_next() {
        let (mut record, since) = (Record::default(), SystemTime::UNIX_EPOCH + Duration::from_secs(9));
        record.activate(version(1), Path::new(FILE));
        record.tries(version(2), since);
        let next = Record::parse(&record.text()).expect("is one");
        let refused = next.refused(version(2)).expect("is refused");
        assert_eq!((refused.reason.as_str(), refused.time, refused.rolled_back), (ENDED_BY, since, true));
        let after = Record::parse(&next.text()).expect("is one");
        assert_eq!(after, next, "and stays so");
        assert!(!record.has_tried(version(3)) && record.has_tried(version(2)) && !record.has_tried(version(2)));
        let outlived = Record::parse(&record.text()).expect("is one");
        assert_eq!(outlived.refused(version(2)), None);
    }

    #[test]
    fn a_version_with_a_verdict_is_not_tried_any_more() {
        let tries = || {
            let mut record = Record::default();
            record.tries(version(2), SystemTime::UNIX_EPOCH);
            record
        };
        let mut record = tries();
        record.activate(version(2), Path::new(FILE));
        assert!(!record.has_tried(version(2)));
        let mut record = tries();
        record.refuse(refused(2, 5));
        assert!(!record.has_tried(version(2)));
        let mut record = tries();
        record.activate(version(1), Path::new(FILE));
        record.refuse(refused(3, 5));
        assert!(record.has_tried(version(2)));
    }

    #[test]
    fn a_long_reason_is_cut() {
        let mut record = Record::default();
        record.refuse(Refused { reason: "ä".repeat(REASON_BYTES), ..refused(1, 5) });
        let reason = &record.refused(version(1)).expect("is refused").reason;
        assert!(reason.len() <= REASON_BYTES + '…'.len_utf8() && reason.ends_with("ä…"), "{}", reason.len());
    }

    #[test]
    fn what_is_no_record_is_told() {
        let check = |text: &str, expected: &str| {
            let error = Record::parse(text.as_bytes()).expect_err("is none").to_string();
            assert!(error.starts_with(&format!("it is no record of versions: {expected}")), "{error}");
        };
        check("", "EOF while parsing");
        check(r#"{"version": 2, "active": null, "refused": []}"#, "its form has the version 2, this release reads 1");
        check(r#"{"version": 1, "active": {"version": "0f", "plugin": "p"}, "refused": []}"#, "\"0f\" is no SHA-256");
        let good = version(1);
        let text = format!(
            r#"{{"version": 1, "active": null, "refused": [{{"version": "{good:#}", "reason": "", "time": "x"}}]}}"#
        );
        check(&text, "the time \"x\": ");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Activate(u8),
        Refuse(u8),
    }

    proptest! {
        /// Against a list of all that happened.
        #[test]
        fn it_remembers_the_active_one_and_the_newest_refused_ones(
            steps in prop::collection::vec(
                prop_oneof![(0u8..24).prop_map(Step::Activate), (0u8..24).prop_map(Step::Refuse)], 0..80)
        ) {
            let mut record = Record::default();
            let (mut active, mut all) = (None, Vec::<(u8, u64)>::new());
            for (second, step) in (0..).zip(steps) {
                match step {
                    Step::Activate(number) => {
                        record.activate(version(number), Path::new(FILE));
                        active = Some(number);
                        all.retain(|(known, _)| *known != number);
                    }
                    Step::Refuse(number) => {
                        record.refuse(refused(number, second));
                        if active != Some(number) {
                            all.retain(|(known, _)| *known != number);
                            all.push((number, second));
                        }
                    }
                }
                let newest = &all[all.len().saturating_sub(MOST_REFUSED)..];
                // A version that went for want of room stays away until it is refused again.
                let remembered: Vec<_> = newest.iter().map(|(number, second)| refused(*number, *second)).collect();
                all = newest.to_vec();
                prop_assert_eq!(&record.refused, &remembered);
                prop_assert_eq!(record.active(Path::new(FILE)), active.map(version));
                prop_assert_eq!(Record::parse(&record.text()), Ok(record.clone()));
            }
        }
    }
}
