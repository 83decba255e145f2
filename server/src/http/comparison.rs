//! Comparisons: the body of a request, and its answer.

use fieldbook_core::authority::Compared;
use fieldbook_core::protocol::read_compare;

use super::line::Notes;
use super::problem::{self, Problem, unreadable};
use super::{Admitted, App, failed};

/// Reads a request for a comparison and answers it. `work` receives the amount of work. Blocks.
pub(super) fn process(
    app: &App,
    admitted: &Admitted<'_>,
    notes: &Notes,
    work: &mut usize,
) -> Result<Vec<u8>, Problem> {
    let request = read_compare(admitted.body).map_err(|error| unreadable(&error))?;
    notes.read_comparison(&request);
    let grant = admitted.grant;
    let (now, caller) = (app.clock.now().wall, app.identity.present().caller(grant));
    let compared = app.store.compare(&grant.tenant, &request, now, (&caller, &app.quota));
    let Compared { answer, work: spent } = compared.map_err(failed)?;
    let bytes = serde_json::to_vec(&answer);
    let bytes = bytes.map_err(|_| problem::store_damaged("a record's fields"))?;
    *work = spent.max(bytes.len()).max(*work);
    Ok(bytes)
}
