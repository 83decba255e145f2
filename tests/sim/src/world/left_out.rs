//! An answer that leaves a record out, as a faulty server or proxy sends it: the cursors of its
//! page pass over a change that is not there. So a device differs from the server, and only a check
//! finds it.
//!
//! What it does not do: change a record. A book that was told something false of a version cannot
//! be told from one that was told the truth.

use fieldbook::RecordKey;
use fieldbook::sync::protocol::{Change, ExchangeAnswer, ExchangeRequest};

use super::{Message, World};
use crate::device::Device;

impl World {
    /// Lets an answer in flight arrive without a change of its page.
    pub(super) fn leave_out(&mut self, message: usize, change: usize) {
        let answers = self.network.iter_mut().filter_map(|message| match message {
            Message::Answer { left_out, body: Ok(_), .. } => Some(left_out),
            _ => None,
        });
        let mut answers: Vec<_> = answers.collect();
        let place = message % answers.len().max(1);
        if let Some(left_out) = answers.get_mut(place) {
            **left_out = Some(change);
        }
    }
}

/// Leaves one change out of the page of an answer, if the device would apply it: not a change of a
/// record that the device has sent, whose outcome names it, and none while the device reads an
/// accepted server to its end, after which it lets go of what it has not read.
pub(super) fn leave_out(
    device: &mut Device,
    request: &ExchangeRequest,
    answer: &mut ExchangeAnswer,
    change: usize,
) {
    let is_own = device.model.server_epoch.is_none_or(|own| own == answer.server_epoch);
    if device.model.rereading || !is_own {
        return;
    }
    let sent = |key: &RecordKey| {
        request.units.iter().flat_map(|unit| &unit.changes).any(|sent| sent.key == *key)
    };
    let is_plain = |(_, change): &(usize, &Change)| !change.partial && !sent(&change.key);
    let places = answer.changes.iter().enumerate().filter(is_plain).map(|(place, _)| place);
    let places: Vec<_> = places.collect();
    if let Some(place) = places.get(change % places.len().max(1)) {
        let gone = answer.changes.remove(*place);
        device.left_out.insert(gone.key);
    }
}
