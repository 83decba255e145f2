//! Exchanges that failed as a whole. `rules::failure` decides; this module appends its decisions.
//! Most failures need none.

use fieldbook_core::Hlc;
use fieldbook_core::entry::{Control, Decision, Draft};
use fieldbook_core::protocol::{ExchangeRequest, Failure};
use fieldbook_core::rules::failure::{Doubted, isolate, parks, refused_for_good};
use fieldbook_projections::Tables;
use fieldbook_transport::ExchangeCounts;

use crate::book::Shared;
use crate::error::Error;
use crate::writer::Session;

impl Shared {
    /// Decides what a failed exchange parks.
    pub(super) fn fail_exchange(
        &self,
        request: &ExchangeRequest,
        failure: &Failure,
    ) -> Result<ExchangeCounts, Error> {
        if request.units.len() == 1 && refused_for_good(failure).is_some() {
            return self.isolate_units(request, failure, 1);
        }
        let known = self.state().server;
        let Some((scope, code)) = parks(failure, &request.actor, known) else {
            return Ok(ExchangeCounts::default());
        };
        self.decide(vec![Decision::Parked { scope, code }])?;
        Ok(ExchangeCounts { parked: true, ..ExchangeCounts::default() })
    }

    /// Decides which units do not get through.
    pub(super) fn isolate_units(
        &self,
        request: &ExchangeRequest,
        failure: &Failure,
        strikes: u32,
    ) -> Result<ExchangeCounts, Error> {
        let (ids, failure) =
            (request.units.iter().map(|unit| unit.id).collect::<Vec<_>>(), failure.clone());
        self.write_in_turn(move |session| {
            let mut units = Vec::with_capacity(ids.len());
            for unit in ids {
                // A unit that was abandoned in the meantime is skipped.
                let Some(row) = session.tables.unit(&unit)? else { continue };
                let (planned, tries, suspicion) = (row.planned, row.tries, row.suspicion);
                units.push(Doubted { unit, planned, tries, suspicion });
            }
            let decisions =
                isolate(&failure, &units, strikes, session.now.wall, session.randomness);
            if decisions.is_empty() {
                return Ok(ExchangeCounts::default());
            }
            let taken = taken(session, &decisions)?;
            session.append(Draft::control(Control::Decided(decisions)), Hlc::ZERO)?;
            Ok(taken)
        })
    }
}

fn taken(session: &mut Session<'_>, decisions: &[Decision]) -> Result<ExchangeCounts, Error> {
    let mut taken = ExchangeCounts::default();
    for decision in decisions {
        match decision {
            Decision::DeadLettered { unit, .. } => {
                let row = session.tables.unit(unit)?;
                let changes = row.iter().flat_map(|row| &row.changes);
                let ops = changes.map(|change| change.ops.len()).sum::<usize>();
                taken.ops_dead += u32::try_from(ops).unwrap_or(u32::MAX);
            }
            Decision::Suspected { retry_at: Some(_), .. } => taken.units_isolated += 1,
            Decision::Suspected { units, .. } => {
                taken.units_suspected += u32::try_from(units.len()).unwrap_or(u32::MAX);
            }
            _ => {}
        }
    }
    Ok(taken)
}
