//! Events of the world at large: a device is cut off, gets another version of the app, or is
//! copied; the server denies something, is backed up, or goes back to its backup.

use fieldbook::audit::entry::{ParkScope, Receipt};
use fieldbook::sync::protocol::{ExchangeAnswer, ExchangeRequest};
use fieldbook::{Actor, SyncState};

use super::{World, entity_type, get};
use crate::action::{Edit, Right};
use crate::app::{ENTITIES, LATEST, schema};
use crate::broken::{Broken, ensure};
use crate::device::Device;
use crate::server::is_meant;

/// The most copies of devices.
const COPIES: usize = 2;

impl World {
    /// Stops all messages of a device, or lets them through again. Messages in flight are lost.
    pub(super) fn partition(
        &mut self,
        number: usize,
        begins: bool,
    ) -> Result<Option<usize>, Broken> {
        let device = self.device(number)?;
        device.cut_off = begins;
        device.open = None;
        if begins {
            self.network.retain(|message| message.device() != number);
        }
        Ok(None)
    }

    /// Makes a device's wall clock wrong for one edit and a minute.
    pub(super) fn clock_strays(
        &mut self,
        number: usize,
        milliseconds: i64,
        edit: &Edit,
    ) -> Result<Option<usize>, Broken> {
        let clock = self.device(number)?.clock.clone();
        clock.set_wall(clock.wall().saturating_add(milliseconds));
        let touched = self.write(number, std::slice::from_ref(edit), false)?;
        self.advance(60_000);
        clock.set_wall(clock.wall().saturating_sub(milliseconds));
        Ok(touched)
    }

    pub(super) fn permit(&mut self, right: Right, granted: bool) -> Result<Option<usize>, Broken> {
        match right {
            Right::Exchange(device) => {
                let device = get(&mut self.devices, device % self.setup.devices.max(1))?;
                let Ok(actor) = Actor::parse(&device.actor) else { return Ok(None) };
                set(&mut self.server.denied_actors, actor, !granted);
            }
            Right::Change(number) => {
                let entity = entity_type(
                    ENTITIES.get(number % ENTITIES.len()).copied().unwrap_or_default(),
                )?;
                set(&mut self.server.denied_entities, entity, !granted);
            }
        }
        Ok(None)
    }

    /// Opens a book by the next version of the app.
    pub(super) fn upgrade(&mut self, number: usize) -> Result<Option<usize>, Broken> {
        let version = (self.device(number)?.version + 1).min(LATEST);
        self.upgrade_to(number, version)
    }

    pub(super) fn upgrade_to(
        &mut self,
        number: usize,
        version: u32,
    ) -> Result<Option<usize>, Broken> {
        let schema = schema(&self.setup, version)?;
        get(&mut self.devices, number)?.upgrade(schema, version, &self.server.ledger)?;
        Ok(Some(number))
    }

    /// Copies a device's disk to a new device, which from then on is used like the first device.
    pub(super) fn copy(&mut self, number: usize) -> Result<Option<usize>, Broken> {
        let copy = self.devices.len();
        if copy >= self.setup.devices + COPIES {
            return Ok(None);
        }
        let seed = self.setup.seed.wrapping_mul(1_000_003).wrapping_add(copy as u64 * 10_007);
        let original = get(&mut self.devices, number)?;
        let waiting =
            original.model.records.values().flat_map(|held| &held.tail).map(|waiting| waiting.op);
        self.server.ledger.shared.extend(waiting);
        let device = Device::copy_of(original, seed, &self.server.ledger)?;
        self.devices.push(device);
        Ok(Some(copy))
    }

    /// Accepts like a person the server that answers, if a decision is needed, and if it is the
    /// right server.
    pub(super) fn accept_server(&mut self, number: usize) -> Result<Option<usize>, Broken> {
        let right = self.server.identity().0;
        let device = self.device(number)?;
        let is_right =
            |scope: &ParkScope| matches!(scope, ParkScope::Server(server, _) if *server == right);
        let asked = device.model.parks.iter().any(is_right);
        let book = device.book()?;
        ensure(!asked || !matches!(book.status().state, SyncState::Idle), "L3", || {
            "a server waits to be accepted, and the book says that all is well".to_owned()
        })?;
        let named = book.servers().candidates();
        if let Some(named) =
            named.into_iter().find(|named| named.server == right && named.tenant.is_none())
        {
            let accepted = book.servers().accept(named);
            device.called(accepted)?;
        }
        Ok(Some(number))
    }

    /// Checks X3: a head is anchored only if it extends the anchor before. A head that extends the
    /// anchor never counts as a fork.
    pub(super) fn check_head(
        &mut self,
        number: usize,
        request: &ExchangeRequest,
        answer: &ExchangeAnswer,
        anchored: Option<Receipt>,
    ) -> Result<(), Broken> {
        // Versions, cursors and a head of another server epoch have no meaning for this epoch.
        if !is_meant(request, answer) {
            let says_nothing =
                answer.outcomes.is_empty() && answer.changes.is_empty() && answer.forked.is_none();
            return ensure(says_nothing, "X2", || {
                format!("{answer:?} to a request for another epoch")
            });
        }
        let (Some(claim), Some(anchored)) = (&request.head, anchored) else { return Ok(()) };
        let place =
            usize::try_from(anchored.seq.number()).ok().and_then(|place| place.checked_sub(1));
        // What lies between the server's head and the beginning of the log can be gone.
        if get(&mut self.devices, number)?.trimmed > anchored.seq.number() {
            return Ok(());
        }
        let hashes = &get(&mut self.devices, number)?.model.hashes;
        let is_known = place.and_then(|place| hashes.get(place)) == Some(&anchored.hash);
        let goes_on = is_known && claim.seq >= anchored.seq;
        ensure(goes_on != answer.forked.is_some(), "X3", || {
            format!("a claim of {} over {}: {:?}", claim.seq, anchored.seq, answer.forked)
        })
    }
}

fn set<T: Ord>(denied: &mut std::collections::BTreeSet<T>, what: T, is_denied: bool) {
    if is_denied {
        denied.insert(what);
    } else {
        denied.remove(&what);
    }
}
