//! Pairs of figures of the same daemon, once as usual and once with something more to do.
//!
//! Pure. Fed by `operating.rs`; printed by `report.rs`.

use std::fmt;

use serde::Serialize;

use crate::report::{Qos, Summary};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// Many slow clients of the admin plane, against none.
    Admin,
    /// Messages kept for `tidegate recv`, against none.
    Received,
    /// An outbox on the disk, against one in memory.
    Disk,
    /// A start with a full outbox on the disk, against one with an empty one.
    StartFull,
    /// A stream beside a hostile handler, against one alone.
    Hostile,
    /// New versions of a plugin while messages come, against none.
    Reload,
}

impl Question {
    /// The heads of the two columns.
    pub fn columns(self) -> [&'static str; 2] {
        match self {
            Question::Admin => ["no clients", "500 slow clients"],
            Question::Received => ["recv-buffer 0", "recv-buffer 1024"],
            Question::Disk => ["outbox in memory", "outbox on disk"],
            Question::StartFull => ["nothing on disk", "1,000,000 publishes on disk"],
            Question::Hostile => ["quiet", "beside it"],
            Question::Reload => ["no messages", "1,000 messages a second"],
        }
    }
}

/// A figure of one side, in one repeat.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What is compared.
    pub question: Question,
    /// With more to do.
    pub burdened: bool,
    /// Its name for programs.
    pub name: &'static str,
    /// What a person reads.
    pub title: &'static str,
    /// The messages' QoS.
    pub qos: Qos,
    /// The figure.
    pub value: f64,
}

impl fmt::Display for Sample {
    /// For whoever waits, and for a run that is broken off.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = self.question.columns()[usize::from(self.burdened)];
        write!(f, "{}, QoS {}, {column}: {:.2}", self.title, self.qos.number(), self.value)
    }
}

/// One figure over all repeats, of both sides.
#[derive(Debug, PartialEq, Serialize)]
pub struct Contrast {
    /// What is compared.
    pub question: Question,
    /// Its name for programs.
    pub name: &'static str,
    /// What a person reads.
    #[serde(skip)]
    pub title: String,
    qos: u8,
    /// As usual.
    pub plain: Option<Summary>,
    /// With more to do.
    pub burdened: Option<Summary>,
    /// The second to the first, in the same repeat.
    pub ratio: Option<Summary>,
}

/// The contrasts of all repeats, in the order in which their figures were first taken.
pub fn contrasts(repeats: &[Vec<Sample>]) -> Vec<Contrast> {
    let mut found: Vec<&Sample> = Vec::new();
    for sample in repeats.iter().flatten() {
        if !found.iter().any(|one| same(one, sample)) {
            found.push(sample);
        }
    }
    found.sort_by_key(|sample| sample.question);
    found.into_iter().map(|sample| contrast(sample, repeats)).collect()
}

fn same(one: &Sample, other: &Sample) -> bool {
    (one.question, one.name, one.qos) == (other.question, other.name, other.qos)
}

fn contrast(sample: &Sample, repeats: &[Vec<Sample>]) -> Contrast {
    let value = |repeat: &Vec<Sample>, burdened| {
        let mut samples = repeat.iter();
        samples.find(|one| same(one, sample) && one.burdened == burdened).map(|one| one.value)
    };
    let of = |burdened| Summary::of(repeats.iter().filter_map(|repeat| value(repeat, burdened)).collect());
    let ratio = |repeat: &Vec<Sample>| Some(value(repeat, true)? / value(repeat, false)?);
    Contrast {
        question: sample.question,
        name: sample.name,
        title: format!("{}, QoS {}", sample.title, sample.qos.number()),
        qos: sample.qos.number(),
        plain: of(false),
        burdened: of(true),
        ratio: Summary::of(repeats.iter().filter_map(ratio).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(question: Question, burdened: bool, name: &'static str, value: f64) -> Sample {
        Sample { question, burdened, name, title: name, qos: Qos::AtLeastOnce, value }
    }

    #[test]
    fn a_ratio_is_that_of_the_same_repeat() {
        let repeats: Vec<Vec<Sample>> = [(1.0, 2.0), (10.0, 10.0), (3.0, 9.0)]
            .into_iter()
            .map(|(plain, burdened)| {
                vec![
                    sample(Question::Received, true, "a", burdened),
                    sample(Question::Admin, true, "b", 7.0),
                    sample(Question::Received, false, "a", plain),
                ]
            })
            .collect();
        let found = contrasts(&repeats);
        assert_eq!(found.iter().map(|one| one.name).collect::<Vec<_>>(), ["b", "a"], "by question");
        assert_eq!((&found[0].plain, &found[0].ratio), (&None, &None), "only one side has it");
        assert_eq!(found[1].plain, Summary::of(vec![1.0, 10.0, 3.0]));
        assert_eq!(found[1].burdened, Summary::of(vec![2.0, 10.0, 9.0]));
        assert_eq!(found[1].ratio, Summary::of(vec![2.0, 1.0, 3.0]));
    }
}
