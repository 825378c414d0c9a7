//! The figures of all repeats, as a table for people and as JSON for programs.
//!
//! Pure. Fed by `measure.rs`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::contrast::Contrast;
use crate::station::Subject;

/// MQTT quality of service, of those that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce,
}

impl Qos {
    /// Both.
    pub const ALL: [Qos; 2] = [Qos::AtMostOnce, Qos::AtLeastOnce];

    /// On the wire.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// What is measured, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Own processor time of a message at the fixed rate, in microseconds.
    Processor(Qos),
    /// That of the broker.
    BrokerProcessor(Qos),
    /// The highest sustained rate, in messages a second.
    Highest(Qos),
    /// Own processor time of a message there, in microseconds.
    HighestProcessor(Qos),
    /// What half of the messages took, in milliseconds.
    LatencyHalf(Qos),
    /// What 99 % of the messages took at most, in milliseconds.
    LatencyMost(Qos),
    /// Resident memory after the start, in MiB.
    MemoryIdle,
    /// Resident memory at the fixed rate, in MiB.
    MemoryLoaded(Qos),
    /// The most resident memory so far, after that.
    MemoryPeak(Qos),
    /// From start to first result with an empty compile cache, in milliseconds.
    StartCold,
    /// With a filled one.
    StartWarm,
}

impl Metric {
    fn qos(self) -> Option<Qos> {
        use Metric::*;
        match self {
            Processor(qos) | BrokerProcessor(qos) | Highest(qos) | HighestProcessor(qos) => Some(qos),
            LatencyHalf(qos) | LatencyMost(qos) | MemoryLoaded(qos) | MemoryPeak(qos) => Some(qos),
            MemoryIdle | StartCold | StartWarm => None,
        }
    }

    /// Its name for programs, and what a person reads.
    fn names(self) -> (&'static str, &'static str) {
        use Metric::*;
        match self {
            Processor(_) => ("cpu_us", "own CPU µs a message at 10,000/s"),
            BrokerProcessor(_) => ("broker_cpu_us", "the broker's CPU µs a message there"),
            Highest(_) => ("max_rate", "highest sustained rate, messages/s"),
            HighestProcessor(_) => ("max_rate_cpu_us", "own CPU µs a message there"),
            LatencyHalf(_) => ("latency_p50_ms", "p50 ms at 1,000/s"),
            LatencyMost(_) => ("latency_p99_ms", "p99 ms at 1,000/s"),
            MemoryIdle => ("memory_idle_mib", "memory idle, MiB"),
            MemoryLoaded(_) => ("memory_loaded_mib", "memory at 10,000/s, MiB"),
            MemoryPeak(_) => ("memory_peak_mib", "most memory so far, MiB"),
            StartCold => ("start_cold_ms", "start to first result, ms, cold"),
            StartWarm => ("start_warm_ms", "start to first result, ms, warm"),
        }
    }

    fn title(self) -> String {
        let (_, title) = self.names();
        self.qos().map_or_else(|| title.to_owned(), |qos| format!("{title}, QoS {}", qos.number()))
    }
}

/// The figures of one repeat.
#[derive(Default)]
pub struct Figures(BTreeMap<(Metric, Subject), f64>);

impl Figures {
    /// Adds one.
    pub fn add(&mut self, metric: Metric, subject: Subject, value: f64) {
        self.0.insert((metric, subject), value);
    }
}

impl fmt::Display for Figures {
    /// A line for each, for whoever waits and for a run that is broken off.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.0.iter();
        lines.try_for_each(|((metric, subject), value)| {
            writeln!(f, "  {}, {}: {value:.2}", metric.title(), subject.label())
        })
    }
}

/// One figure over all repeats.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    median: f64,
    min: f64,
    max: f64,
    values: Vec<f64>,
}

impl Summary {
    /// Of these values; none without any.
    pub fn of(values: Vec<f64>) -> Option<Summary> {
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Summary { median, min, max, values })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = match self.median {
            large if large >= 1_000.0 => 0,
            medium if medium >= 10.0 => 1,
            _ => 2,
        };
        write!(f, "{:.places$} ({:.places$}..{:.places$})", self.median, self.min, self.max)
    }
}

/// One line of the report.
#[derive(Serialize)]
struct Line {
    #[serde(skip)]
    metric: Option<Metric>,
    name: &'static str,
    qos: Option<u8>,
    floor: Option<Summary>,
    tidegate: Option<Summary>,
    /// Tidegate's to the floor's, in the same repeat.
    ratio: Option<Summary>,
    broker_alone: Option<Summary>,
}

/// What was run where.
#[derive(Serialize)]
pub struct Conditions {
    /// Tidegate's version.
    pub version: &'static str,
    /// Processors that may be used.
    pub cores: usize,
    /// Load average of the last minute, before the first repeat.
    pub load_before: String,
    /// As often was each measured.
    pub repeats: usize,
    /// As long was each load measured.
    pub seconds: f64,
}

/// The whole report.
#[derive(Serialize)]
pub struct Report {
    conditions: Conditions,
    figures: Vec<Line>,
    contrasts: Vec<Contrast>,
    /// Wrong, disordered or lost results at a rate that must be sustained: there should be none.
    violations: Vec<String>,
}

impl Report {
    /// Of these repeats.
    pub fn new(
        conditions: Conditions,
        repeats: &[Figures],
        contrasts: Vec<Contrast>,
        violations: Vec<String>,
    ) -> Report {
        let mut metrics: Vec<Metric> =
            repeats.iter().flat_map(|repeat| repeat.0.keys().map(|(metric, _)| *metric)).collect();
        metrics.sort();
        metrics.dedup();
        let figures = metrics.into_iter().map(|metric| line(metric, repeats)).collect();
        Report { conditions, figures, contrasts, violations }
    }

    /// As JSON.
    ///
    /// # Errors
    /// A figure is not a number.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

fn line(metric: Metric, repeats: &[Figures]) -> Line {
    let of = |subject| repeats.iter().filter_map(|repeat| repeat.0.get(&(metric, subject)).copied()).collect();
    let ratio = |repeat: &Figures| {
        let value = |subject| repeat.0.get(&(metric, subject));
        Some(value(Subject::Tidegate)? / value(Subject::Floor)?)
    };
    Line {
        metric: Some(metric),
        name: metric.names().0,
        qos: metric.qos().map(Qos::number),
        floor: Summary::of(of(Subject::Floor)),
        tidegate: Summary::of(of(Subject::Tidegate)),
        ratio: Summary::of(repeats.iter().filter_map(ratio).collect()),
        broker_alone: Summary::of(of(Subject::Broker)),
    }
}

impl fmt::Display for Report {
    /// A table that is also one of Markdown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Conditions { version, cores, load_before, repeats, seconds } = &self.conditions;
        writeln!(f, "Tidegate {version}, {cores} cores, load average before: {load_before}")?;
        writeln!(
            f,
            "medians (min..max) of {repeats} interleaved repeats, {seconds} s each; 256-byte payloads, 16 topics\n"
        )?;
        let head = ["", "floor", "tidegate", "ratio", "broker alone"].map(str::to_owned);
        let mut rows = vec![head];
        for line in &self.figures {
            let title = line.metric.map_or_else(String::new, Metric::title);
            let ratio = shown(&line.ratio);
            rows.push([title, shown(&line.floor), shown(&line.tidegate), ratio, shown(&line.broker_alone)]);
        }
        if !self.figures.is_empty() {
            table(&rows, f)?;
        }
        for group in self.contrasts.chunk_by(|one, next| one.question == next.question) {
            let [plain, burdened] = group[0].question.columns();
            let mut rows = vec![["", plain, burdened, "ratio"].map(str::to_owned)];
            rows.extend(
                group
                    .iter()
                    .map(|line| [line.title.clone(), shown(&line.plain), shown(&line.burdened), shown(&line.ratio)]),
            );
            writeln!(f)?;
            table(&rows, f)?;
        }
        self.violations.iter().try_for_each(|violation| writeln!(f, "\nnot right: {violation}"))
    }
}

fn shown(summary: &Option<Summary>) -> String {
    summary.as_ref().map_or_else(|| "–".to_owned(), Summary::to_string)
}

fn table<const N: usize>(rows: &[[String; N]], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for (place, row) in rows.iter().enumerate() {
        let mut text = String::from("|");
        for (cell, width) in row.iter().zip(widths) {
            write!(text, " {cell:width$} |")?;
        }
        writeln!(f, "{text}")?;
        if place == 0 {
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
            writeln!(f, "|{}|", rules.join("|"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contrast::{self, Question, Sample};

    #[test]
    fn a_summary_has_the_median() {
        assert_eq!(Summary::of(vec![]), None);
        let shown = |values: &[f64]| Summary::of(values.to_vec()).expect("has values").to_string();
        assert_eq!(shown(&[3.0, 1.0, 2.0]), "2.00 (1.00..3.00)");
        assert_eq!(shown(&[40.0, 10.0]), "25.0 (10.0..40.0)");
        assert_eq!(shown(&[81_000.4]), "81000 (81000..81000)");
    }

    #[test]
    fn the_ratio_is_that_of_the_same_repeat() {
        let repeat = |floor, tidegate| {
            let mut figures = Figures::default();
            figures.add(Metric::Processor(Qos::AtMostOnce), Subject::Floor, floor);
            figures.add(Metric::Processor(Qos::AtMostOnce), Subject::Tidegate, tidegate);
            figures
        };
        let conditions = Conditions { version: "1", cores: 2, load_before: "0.1".into(), repeats: 3, seconds: 1.0 };
        let repeats = [repeat(1.0, 2.0), repeat(10.0, 30.0), repeat(100.0, 110.0)];
        let sample = |burdened, value| Sample {
            question: Question::Admin,
            burdened,
            name: "latency_p50_ms",
            title: "p50",
            qos: Qos::AtLeastOnce,
            value,
        };
        let contrasts = contrast::contrasts(&[vec![sample(false, 4.0), sample(true, 5.0)]]);
        let report = Report::new(conditions, &repeats, contrasts, vec!["floor: 1 lost".into()]);
        let text = report.to_string();
        assert!(text.contains("2.00 (1.10..3.00)"), "{text}");
        assert!(text.contains("| 4.00 (4.00..4.00) | 5.00 (5.00..5.00) | 1.25 (1.25..1.25) |"), "{text}");
        assert!(text.contains("not right: floor: 1 lost"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&report.json().expect("is JSON")).expect("is JSON");
        assert_eq!(json["figures"][0]["name"], "cpu_us");
        assert_eq!(json["figures"][0]["ratio"]["median"], 2.0);
        assert_eq!(json["contrasts"][0]["question"], "admin");
        assert_eq!(json["contrasts"][0]["ratio"]["median"], 1.25);
        assert_eq!(json["violations"][0], "floor: 1 lost");
    }
}
