//! Brokers by name and by number.
//!
//! Owns: which number a broker's name has in this process. Filled by the configuration as it is read; used by every stage
//! that meets a name or has to print one. It knows nothing else about a broker.

use std::sync::{Arc, PoisonError, RwLock};

use crate::message::BrokerId;

/// The names of all brokers that this process has ever known, by number. Cheap to clone; clones share the names.
///
/// A name keeps its number for as long as the process lives, also while no such broker is configured: a message or a publish
/// that is still under way can never come to mean another broker. It only grows, by a name for each broker that was ever
/// configured.
#[derive(Clone, Debug, Default)]
pub struct BrokerNames(Arc<RwLock<Vec<Arc<str>>>>);

impl BrokerNames {
    /// The number of a name, which gets one if it has none yet.
    ///
    /// # Panics
    /// After 4 billion names.
    pub fn number(&self, name: &str) -> BrokerId {
        if let Some(id) = self.find(name) {
            return id;
        }
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have been quicker.
        let place = names.iter().position(|known| **known == *name).unwrap_or_else(|| {
            names.push(name.into());
            names.len() - 1
        });
        BrokerId(u32::try_from(place).expect("4 billion names do not fit into memory"))
    }

    /// The number of a known name.
    pub fn find(&self, name: &str) -> Option<BrokerId> {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let place = names.iter().position(|known| **known == *name)?;
        u32::try_from(place).ok().map(BrokerId)
    }

    /// A copy of its own: what is numbered there is unknown here until [`Self::adopt`].
    pub fn draft(&self) -> BrokerNames {
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        BrokerNames(Arc::new(RwLock::new(names.clone())))
    }

    /// Takes over what was numbered in a draft. Nothing else may have been numbered here meanwhile.
    pub fn adopt(&self, draft: &BrokerNames) {
        let drafted = draft.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = drafted;
    }

    /// The name of a number that this registry gave.
    ///
    /// # Panics
    /// The number comes from elsewhere.
    pub fn name(&self, id: BrokerId) -> Arc<str> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)[id.index()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number() {
        let names = BrokerNames::default();
        let (plant, cloud) = (names.number("plant"), names.clone().number("cloud"));
        assert_eq!((plant, cloud), (BrokerId(0), BrokerId(1)));
        assert_eq!(names.number("plant"), plant);
        assert_eq!((names.find("cloud"), names.find("other")), (Some(cloud), None));
        assert_eq!(&*names.name(cloud), "cloud");
    }

    #[test]
    fn a_draft_counts_only_once_it_is_adopted() {
        let names = BrokerNames::default();
        names.number("plant");
        let draft = names.draft();
        let cloud = draft.number("cloud");
        assert_eq!(names.find("cloud"), None);
        names.adopt(&draft);
        assert_eq!(names.find("cloud"), Some(cloud));
    }
}
