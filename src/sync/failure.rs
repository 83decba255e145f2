//! Exchanges that failed as a whole: what of that must be durable. Most of it need not be: nobody reached is no answer.

use fieldbook_core::entry::{Control, Decision, Draft, ParkScope};
use fieldbook_core::limits;
use fieldbook_core::protocol::{ExchangeRequest, Failure};
use fieldbook_core::rules::retry;
use fieldbook_core::{Hlc, UnitId};
use fieldbook_projections::Tables;
use fieldbook_transport::Taken;

use crate::book::Shared;
use crate::error::Error;

impl Shared {
    /// Decides what must be durable of a failed exchange.
    pub(super) fn fail_exchange(&self, request: &ExchangeRequest, failure: &Failure) -> Result<Taken, Error> {
        let alone = match request.units.as_slice() {
            [unit] => Some(unit.id),
            _ => None,
        };
        let actor = request.actor.clone();
        let park = |scope, code: &str| vec![Decision::Parked { scope, code: code.to_owned() }];
        let decisions = match (failure, alone) {
            (Failure::Unauthorized { code }, _) => park(ParkScope::Actor(actor), code),
            (Failure::UpgradeRequired { code }, _) => park(ParkScope::Protocol, code),
            (Failure::TooLarge, Some(unit)) => return self.give_up(unit, "too_large".to_owned()),
            // Of what a server refuses as a whole, only this can be the fault of a lone unit.
            (Failure::Refused { code }, Some(unit)) if code == "bad_request" => {
                return self.give_up(unit, code.clone());
            }
            (Failure::Refused { code }, _) if code == "server_behind" => match self.state().server {
                Some((server, epoch)) => park(ParkScope::Server(server, epoch), code),
                None => return Ok(Taken::default()),
            },
            (Failure::Transient { code, retry_after, marked: true }, Some(unit)) => {
                return self.count_try(unit, code.clone(), *retry_after);
            }
            _ => return Ok(Taken::default()),
        };
        self.decide(decisions)?;
        Ok(Taken { parked: true, ..Taken::default() })
    }

    fn give_up(&self, unit: UnitId, code: String) -> Result<Taken, Error> {
        self.write_in_turn(move |session| {
            let Some(row) = session.tables.unit(&unit)? else { return Ok(Taken::default()) };
            let tries = row.tries.saturating_add(1);
            let decision = Decision::DeadLettered { unit, planned: row.planned, tries, code, message: None };
            session.append(Draft::control(Control::Decided(vec![decision])), Hlc::ZERO)?;
            let ops = row.changes.iter().map(|change| change.ops.len()).sum::<usize>();
            Ok(Taken { ops_dead: u32::try_from(ops).unwrap_or(u32::MAX), ..Taken::default() })
        })
    }

    /// A whole exchange with one unit that our server could not treat counts as that unit's try, so that a unit which
    /// brings the server down does not hold up the others for ever.
    fn count_try(
        &self,
        unit: UnitId,
        code: String,
        asked: Option<std::time::Duration>,
    ) -> Result<Taken, Error> {
        let tries = {
            let tail = self.tail();
            let Some(unit) = tail.unit(&unit) else { return Ok(Taken::default()) };
            unit.tries.saturating_add(1)
        };
        if tries >= limits::TRIES {
            return self.give_up(unit, code);
        }
        self.write_in_turn(move |session| {
            let Some(row) = session.tables.unit(&unit)? else { return Ok(Taken::default()) };
            let retry_at = session.now.wall.plus(retry::backoff(tries, asked, session.randomness));
            let decision = Decision::Tried { unit, planned: row.planned, tries, code, retry_at };
            session.append(Draft::control(Control::Decided(vec![decision])), Hlc::ZERO)?;
            Ok(Taken { units_tried_again: 1, ..Taken::default() })
        })
    }
}
