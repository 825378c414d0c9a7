//! Whether a session is to be connected: what the configuration wants, what was commanded, and what there is to do.
//!
//! Pure: no clock, no lock, no I/O. Fed by the session's owner (commands) and its supervisor (what became of them), which
//! asks what to do next. When an attempt that is due is made is the backoff's to say; how a connection ends, the supervisor's.

/// What a session is to do without a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The gateway stops, or the session is given up.
    End,
    /// Have the broker forget the session.
    Reset,
    /// Stay disconnected until a command, or until more than so many batches were offered to the outbox.
    Down { offered: u64 },
    /// Nothing wants a connection: wait until there is something to publish.
    Rest,
    /// Connect: at once because of a command, or when the backoff permits.
    Connect { at_once: bool },
}

/// What the session sees around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Batches of publishes that were ever offered to the broker's outbox.
    pub(super) offered: u64,
    /// The number of the newest offer of which something is still to be published to the broker; 0 if there is none.
    pub(super) newest_open: u64,
    /// The outbox has something to send.
    pub(super) unsent: bool,
    /// Messages of lost connections wait for the next CONNACK.
    pub(super) undecided: bool,
    /// The session is to end.
    pub(super) stopped: bool,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// There is none.
    None,
    /// An attempt is made.
    Opening,
    /// CONNACK has come.
    Up,
}

/// What a command to connect comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// It is connected, and stays so.
    Already,
    /// It is to be connected without this command too.
    Joins,
    /// The connection will be this command's.
    New,
}

/// Why a connection cannot be made for one purpose alone: something else wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is connected.
    Connected,
    /// It is being connected, or another command wants it to be.
    Connecting,
    /// `auto-connect` wants it to be connected.
    Auto,
}

/// The number of a visit: of a connection for one purpose alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VisitId(u64);

/// A connection for one purpose alone, from the command to its end.
#[derive(Clone, Copy, Debug)]
struct Visit {
    id: VisitId,
    /// What [`Intent::away`] was before.
    before: Option<u64>,
}

/// What was commanded, for the session that takes the place of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// As [`Intent::away`].
    away: Option<u64>,
    /// As [`Intent::asked`].
    asked: bool,
}

/// What is wanted of one session's connection.
#[derive(Clone, Debug)]
pub(super) struct Intent {
    /// `auto-connect`.
    auto: bool,
    /// Disconnected by command, when this was the number of the newest offer: what is offered later connects by force.
    away: Option<u64>,
    /// Connected by command, and neither an attempt nor a connection has ended by itself since.
    asked: bool,
    /// For whom alone the connection is wanted, as long as nobody else has asked for it.
    visit: Option<Visit>,
    /// Visits so far.
    visits: u64,
    /// The broker is to forget the session.
    reset: bool,
    link: Link,
    /// An attempt is to be made, and no command since has put that in doubt.
    due: bool,
    /// The present connection or attempt is to end, whatever is wanted after it.
    leave: bool,
    /// Before it ends what waits to be published is sent.
    delivers: bool,
    /// The session is given up.
    ending: bool,
}

impl Intent {
    /// Of a session that has no connection yet. `wish`: of the session before it.
    pub(super) fn new(auto: bool, wish: Wish) -> Intent {
        Intent {
            auto,
            away: wish.away,
            asked: wish.asked,
            visit: None,
            visits: 0,
            reset: false,
            link: Link::None,
            due: false,
            leave: false,
            delivers: false,
            ending: false,
        }
    }

    /// Whether it is connected and stays so.
    pub(super) fn is_connected(&self) -> bool {
        self.link == Link::Up && !self.leave
    }

    /// `brokers connect`.
    pub(super) fn connect(&mut self) -> Asked {
        // Whatever the connection was made for: now it is wanted by somebody who will not end it.
        self.visit = None;
        if self.is_connected() {
            return Asked::Already;
        }
        let joins = self.kept().is_some();
        (self.away, self.asked) = (None, true);
        if joins { Asked::Joins } else { Asked::New }
    }

    /// `brokers disconnect`, when this is the number of the newest offer. Whether it was connected.
    pub(super) fn disconnect(&mut self, newest: u64) -> bool {
        (self.away, self.asked, self.visit) = (Some(newest), false, None);
        self.part(false);
        self.link == Link::Up
    }

    /// Connects for one purpose alone, unless something else wants the connection.
    pub(super) fn visit(&mut self) -> Result<VisitId, Kept> {
        if let Some(kept) = self.kept() {
            return Err(kept);
        }
        self.visits += 1;
        let id = VisitId(self.visits);
        self.visit = Some(Visit { id, before: self.away.take() });
        self.asked = true;
        Ok(id)
    }

    /// The visit is over: all is as before it, unless something else wants the connection by now. Whether it is as before.
    pub(super) fn leave(&mut self, visit: VisitId) -> bool {
        let Some(Visit { before, .. }) = self.visit.take_if(|present| present.id == visit) else { return false };
        if before.is_none() && self.auto {
            return false;
        }
        (self.away, self.asked) = (before, false);
        self.part(true);
        true
    }

    /// The visit's connection stays.
    pub(super) fn stay(&mut self, visit: VisitId) {
        self.visit.take_if(|present| present.id == visit);
    }

    /// `brokers reset-session`. Whether it was connected, and so is to be again afterwards.
    pub(super) fn reset(&mut self) -> bool {
        self.reset = true;
        let connected = self.is_connected();
        if connected {
            (self.asked, self.visit) = (true, None);
        }
        self.part(false);
        connected
    }

    /// The session is given up: its connection ends, where it `delivers` after what waits to be published. Commands that come later
    /// count for [`Self::wish`].
    pub(super) fn end(&mut self, delivers: bool) {
        self.asked |= self.is_connected() && self.visit.is_none();
        self.ending = true;
        self.part(delivers);
    }

    /// What was commanded, for the session that follows this one.
    pub(super) fn wish(&self) -> Wish {
        match self.visit {
            Some(visit) => Wish { away: visit.before, asked: false },
            None => Wish { away: self.away, asked: self.asked },
        }
    }

    /// `auto-connect` is this from now on. A connection that stands is not ended by it, and a command outlives it.
    pub(super) fn auto_connect(&mut self, auto: bool) {
        self.auto = auto;
    }

    /// An attempt is about to begin, as [`Self::next`] said. False if a command came in between.
    pub(super) fn opening(&mut self) -> bool {
        if !std::mem::take(&mut self.due) {
            return false;
        }
        self.link = Link::Opening;
        true
    }

    /// It led to a connection.
    pub(super) fn opened(&mut self) {
        self.link = Link::Up;
    }

    /// The attempt failed, or the connection ended. Whether by itself, and not because it was to end.
    pub(super) fn closed(&mut self) -> bool {
        let attempt = std::mem::replace(&mut self.link, Link::None) == Link::Opening;
        self.delivers = false;
        if std::mem::take(&mut self.leave) {
            return false;
        }
        let asked = std::mem::take(&mut self.asked);
        if asked
            && attempt
            && let Some(visit) = self.visit.take()
        {
            // Its only attempt: nothing was sent that would need another.
            self.away = visit.before;
        }
        true
    }

    /// The broker has forgotten the session, or cannot be made to.
    pub(super) fn was_reset(&mut self) {
        self.reset = false;
    }

    /// Whether the present connection or attempt is to end.
    pub(super) fn leaves(&self) -> bool {
        self.leave
    }

    /// Whether what waits to be published is sent before that.
    pub(super) fn delivers(&self) -> bool {
        self.delivers
    }

    /// What to do while there is no connection.
    pub(super) fn next(&mut self, facts: Facts) -> Next {
        self.due = false;
        if facts.stopped || self.ending {
            return Next::End;
        }
        if self.reset {
            return Next::Reset;
        }
        if let Some(newest) = self.away {
            // What was sent while the connection ended needs no other one.
            if facts.newest_open <= newest {
                return Next::Down { offered: facts.offered };
            }
            // By force: from now on it is as if it had never been disconnected.
            self.away = None;
        }
        if self.asked || self.auto || facts.unsent || facts.undecided {
            self.due = true;
            Next::Connect { at_once: self.asked }
        } else {
            Next::Rest
        }
    }

    /// Whether another connection is made by itself, as things stand.
    pub(super) fn retries(&self, facts: Facts) -> bool {
        !facts.stopped && self.away.is_none() && (self.auto || facts.unsent || facts.undecided)
    }

    /// Who wants the connection, whatever is commanded now.
    fn kept(&self) -> Option<Kept> {
        if self.is_connected() {
            Some(Kept::Connected)
        } else if self.auto && self.away.is_none() {
            Some(Kept::Auto)
        } else if self.asked || (self.link == Link::Opening && !self.leave) {
            Some(Kept::Connecting)
        } else {
            None
        }
    }

    /// Ends what there is, or what is about to begin.
    fn part(&mut self, delivers: bool) {
        self.due = false;
        self.leave = self.link != Link::None;
        self.delivers = self.leave && delivers;
    }
}

#[cfg(test)]
mod tests;
