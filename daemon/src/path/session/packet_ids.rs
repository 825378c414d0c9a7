//! The packet identifiers of one connection's publishes and subscriptions.
//!
//! Pure. An identifier is free again once its packet was answered (MQTT 5 §2.2.1 [MQTT-2.2.1-3]); who asks tells which are
//! not.

/// Gives packet identifiers out, ascending, and after the last from the first again.
#[derive(Debug, Default)]
pub(super) struct PacketIds {
    last: u16,
}

impl PacketIds {
    /// The next identifier that is not in use. There must be one: the windows leave tens of thousands.
    pub(super) fn next(&mut self, in_use: impl Fn(u16) -> bool) -> u16 {
        loop {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if !in_use(self.last) {
                return self.last;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_go_round_and_spare_those_in_use_and_zero() {
        let mut ids = PacketIds { last: 65_533 };
        let given: Vec<u16> = (0..4).map(|_| ids.next(|id| id == 1 || id == 65_534)).collect();
        assert_eq!(given, [65_535, 2, 3, 4]);
    }
}
