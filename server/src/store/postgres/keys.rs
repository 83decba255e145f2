//! The keys that sign receipts, in the database. What they are: `store/signing.rs`.

use fieldbook_core::note::Ed25519Key;
use fieldbook_core::{Clock as _, Randomness, ServerId, system};
use tokio_postgres::types::Type;

use super::connections::{Lent, value};
use super::rows::column;
use crate::store::{Damaged, StateError, signing};

const KEYS: &str =
    "select k.secret from fieldbook.signing_key k where not k.retired order by k.number";
const MAKE_FIRST: &str = "insert into fieldbook.signing_key (number, made_at, retired, secret) \
     values (0, $1, false, $2)";

/// Returns the keys that sign, oldest first.
pub(super) async fn signing(lent: &mut Lent) -> Result<Vec<Ed25519Key>, StateError> {
    let rows = lent.rows(KEYS, &Vec::new()).await?;
    lent.ended();
    let key = |text: &str| Ed25519Key::parse_secret(text).ok();
    rows.iter()
        .map(|row| {
            let read = key(column(row, "secret")?);
            Ok(read.ok_or(Damaged { what: "a key that signs receipts" })?)
        })
        .collect()
}

/// Makes the first key of a store, within the present transaction.
pub(super) async fn make_first(
    lent: &mut Lent,
    server: &ServerId,
    random: &mut dyn Randomness,
) -> Result<(), StateError> {
    let key = signing::first_key(server, random)?;
    let now = system::SystemClock::new().now().wall.milliseconds();
    let values = vec![value(now, Type::INT8), value(key.secret_text(), Type::TEXT)];
    lent.rows(MAKE_FIRST, &values).await?;
    Ok(())
}
