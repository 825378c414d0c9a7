//! How a family of metrics is made, and how a child of one is removed.
//!
//! Owns: the prefix `tidegate_`, the registering, the buckets of the histograms. Feeds the groups of families beside it, and knows
//! none of them.

use prometheus::core::{MetricVec, MetricVecBuilder};
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result};

/// Upper bounds of the buckets of both histograms, in seconds: a warm call takes microseconds, a call deadline seconds.
const SECONDS: [f64; 14] =
    [0.000_01, 0.000_03, 0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// Makes families in one registry, all with the prefix `tidegate_`.
pub(super) struct Families {
    registry: Registry,
}

impl Families {
    pub(super) fn new(registry: Registry) -> Families {
        Families { registry }
    }

    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(name, help).namespace("tidegate")
    }

    pub(super) fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        let family = IntCounterVec::new(Self::opts(name, help), labels)?;
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    pub(super) fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        let family = IntGaugeVec::new(Self::opts(name, help), labels)?;
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    /// One gauge, without labels.
    pub(super) fn single(&self, name: &str, help: &str) -> Result<IntGauge> {
        let gauge = IntGauge::with_opts(Self::opts(name, help))?;
        self.registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    /// Gauges with fractions, for times.
    pub(super) fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec> {
        let family = GaugeVec::new(Self::opts(name, help), labels)?;
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    /// By handler.
    pub(super) fn histogram(&self, name: &str, help: &str) -> Result<HistogramVec> {
        let opts = HistogramOpts::from(Self::opts(name, help)).buckets(SECONDS.to_vec());
        let family = HistogramVec::new(opts, &["handler"])?;
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    pub(super) fn build_info(&self) -> Result<()> {
        let opts = Self::opts("build_info", "1, with the version as a label.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        let gauge = IntGauge::with_opts(opts)?;
        gauge.set(1);
        self.registry.register(Box::new(gauge))
    }
}

/// Removes one child. That there is none to take away is no error.
pub(super) fn forget<T: MetricVecBuilder>(family: &MetricVec<T>, labels: &[&str]) {
    drop(family.remove_label_values(labels));
}
