//! What is counted for the admin plane: requests that it did not let in.
//!
//! Owns this family, its label values, and the handles to its children. Written by the gate in `control/admin/`.

use prometheus::{IntCounter, IntCounterVec};

use super::families::Families;

/// The family of the admin plane.
pub(super) struct AdminFamilies {
    refused: IntCounterVec,
}

impl AdminFamilies {
    pub(super) fn new(families: &Families) -> prometheus::Result<AdminFamilies> {
        let help = "Requests that the admin plane did not let in, by reason.";
        Ok(AdminFamilies { refused: families.counter("admin_refused_total", help, &["reason"])? })
    }

    pub(super) fn meters(&self) -> AdminMeters {
        AdminMeters { refused: AdminRefusal::ALL.map(|reason| self.refused.with_label_values(&[reason.label()])) }
    }
}

/// Why the admin plane does not let a request in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminRefusal {
    /// Its token is not the right one.
    WrongToken,
    /// It brings none.
    TokenMissing,
    /// A token is needed, and none is configured.
    NoToken,
    /// A page of another site is behind it.
    CrossSite,
    /// Its Host is a name that anyone could make lead here.
    Host,
}

impl AdminRefusal {
    /// All reasons, in the order of [`AdminMeters::refused`].
    pub const ALL: [AdminRefusal; 5] = [
        AdminRefusal::WrongToken,
        AdminRefusal::TokenMissing,
        AdminRefusal::NoToken,
        AdminRefusal::CrossSite,
        AdminRefusal::Host,
    ];

    /// The value of the label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            AdminRefusal::WrongToken => "wrong_token",
            AdminRefusal::TokenMissing => "token_missing",
            AdminRefusal::NoToken => "no_token",
            AdminRefusal::CrossSite => "cross_site",
            AdminRefusal::Host => "host",
        }
    }
}

/// What is counted for the admin plane. Written by its gate.
pub struct AdminMeters {
    /// By [`AdminRefusal`].
    refused: [IntCounter; AdminRefusal::ALL.len()],
}

impl AdminMeters {
    /// Counts a request that is not let in.
    pub fn refused(&self, reason: AdminRefusal) {
        self.refused[reason as usize].inc();
    }
}
