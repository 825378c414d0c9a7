//! A scrape of `/metrics`, read strictly: what Prometheus would refuse fails the test.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape.
pub struct Metrics {
    samples: Vec<Sample>,
    /// The page, for messages.
    pub page: String,
}

/// One line of a scrape.
#[derive(Debug, PartialEq)]
pub struct Sample {
    /// With the suffixes of histograms.
    pub name: String,
    /// In the order of their names.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

impl Metrics {
    /// Reads the text exposition format 0.0.4.
    ///
    /// # Panics
    /// A line is malformed, a family has no `TYPE` and `HELP` before its samples, or a sample stands twice.
    #[track_caller]
    pub fn parse(page: &str) -> Metrics {
        let mut helped = BTreeSet::new();
        let mut typed = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut samples = Vec::new();
        for line in page.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                assert!(helped.insert(first_word(help).to_owned()), "HELP twice: {line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap_or_else(|| panic!("malformed: {line}"));
                assert!(matches!(kind, "counter" | "gauge" | "histogram"), "unknown type: {line}");
                assert!(typed.insert(name.to_owned(), kind.to_owned()).is_none(), "TYPE twice: {line}");
            } else if !line.starts_with('#') {
                let sample = parse_sample(line).unwrap_or_else(|| panic!("malformed: {line}"));
                let family = family(&sample.name, &typed).unwrap_or_else(|| panic!("no TYPE before: {line}"));
                assert!(helped.contains(family), "no HELP before: {line}");
                assert!(typed[family] != "counter" || family.ends_with("_total"), "counter without _total: {line}");
                assert!(seen.insert((sample.name.clone(), sample.labels.clone())), "sample twice: {line}");
                samples.push(sample);
            }
        }
        Metrics { samples, page: page.to_owned() }
    }

    /// All samples, in the order of the page.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The sum over all samples of this name that have these labels, among others. 0 where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &Sample| {
            labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|found| found == value))
        };
        self.samples.iter().filter(|sample| sample.name == name && has(sample)).map(|sample| sample.value).sum()
    }

    /// Messages taken in from a broker.
    pub fn received(&self, broker: &str) -> f64 {
        self.sum("tidegate_messages_received_total", &[("broker", broker)])
    }

    /// Messages from a broker that reached this end.
    pub fn finished(&self, broker: &str, outcome: &str) -> f64 {
        self.sum("tidegate_messages_finished_total", &[("broker", broker), ("outcome", outcome)])
    }

    /// Messages from a broker that reached any end.
    pub fn finished_all(&self, broker: &str) -> f64 {
        self.sum("tidegate_messages_finished_total", &[("broker", broker)])
    }

    /// Messages from a broker that have not reached their end.
    pub fn in_progress(&self, broker: &str) -> f64 {
        self.sum("tidegate_messages_in_progress", &[("broker", broker)])
    }

    /// Messages that a broker has taken.
    pub fn published(&self, broker: &str) -> f64 {
        self.sum("tidegate_messages_published_total", &[("broker", broker)])
    }

    /// Calls of a handler that ended so.
    pub fn calls(&self, handler: &str, result: &str) -> f64 {
        self.sum("tidegate_handler_calls_total", &[("handler", handler), ("result", result)])
    }

    /// Attempts to connect that ended so.
    pub fn connects(&self, broker: &str, result: &str) -> f64 {
        self.sum("tidegate_broker_connects_total", &[("broker", broker), ("result", result)])
    }

    /// Connections that ended for this reason.
    pub fn disconnects(&self, broker: &str, reason: &str) -> f64 {
        self.sum("tidegate_broker_disconnects_total", &[("broker", broker), ("reason", reason)])
    }

    /// Where received = finished + in progress does not hold. Exact only while nothing moves: the families of one
    /// scrape are read one after another.
    pub fn unbalanced(&self) -> Vec<String> {
        let brokers: BTreeSet<_> = self
            .samples
            .iter()
            .filter(|sample| sample.name == "tidegate_messages_received_total")
            .map(|sample| sample.labels["broker"].clone())
            .collect();
        let sums = brokers.into_iter().map(|broker| {
            let sums = (self.received(&broker), self.finished_all(&broker), self.in_progress(&broker));
            (broker, sums)
        });
        sums.filter(|(_, (received, finished, open))| *received != finished + open || *open < 0.0)
            .map(|(broker, (received, finished, open))| {
                format!("{broker}: received {received} ≠ finished {finished} + in progress {open}")
            })
            .collect()
    }
}

fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or(text)
}

/// The family that a sample belongs to: its name, or for histograms the name without its suffix.
fn family<'a>(sample: &'a str, typed: &BTreeMap<String, String>) -> Option<&'a str> {
    let of_histogram = ["_bucket", "_sum", "_count"].iter().filter_map(|suffix| sample.strip_suffix(suffix));
    if typed.contains_key(sample) {
        return Some(sample);
    }
    of_histogram.into_iter().find(|name| typed.get(*name).is_some_and(|kind| kind == "histogram"))
}

fn parse_sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, parse_labels(labels.strip_suffix('}')?)?),
        None => (series, BTreeMap::new()),
    };
    let well_formed = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
    let value = value.parse().ok()?;
    well_formed.then(|| Sample { name: name.to_owned(), labels, value })
}

fn parse_labels(mut text: &str) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next()? {
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (end, '"') => break end,
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.to_owned(), value).is_none().then_some(())?;
        text = rest[end + 1..].trim_start_matches(',');
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_with_labels_suffixes_and_escapes() {
        let metrics = Metrics::parse(
            "# HELP a_total Things.\n# TYPE a_total counter\na_total{broker=\"b\",x=\"1\"} 2\na_total{broker=\"c\"} 3\n\
             # HELP h Seconds.\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 0.5\nh_count 1\n\
             # HELP g A \"thing\".\n# TYPE g gauge\ng{p=\"a\\\"b\\\\\"} -1\n",
        );
        assert_eq!(metrics.sum("a_total", &[]), 5.0);
        assert_eq!(metrics.sum("a_total", &[("broker", "b")]), 2.0);
        assert_eq!(metrics.sum("h_sum", &[]), 0.5);
        assert_eq!(metrics.samples().last().expect("there").labels["p"], "a\"b\\");
    }

    #[test]
    #[should_panic(expected = "no TYPE before")]
    fn a_sample_without_a_type_is_refused() {
        Metrics::parse("a_total 1\n");
    }
}
