//! What a record is once the server told of it.
//!
//! Invariants:
//! 1. A whole row replaces what was known; a part leaves the fields that it does not name.

use super::registers::Registers;
use crate::fields::InvalidFields;
use crate::protocol::Change;
use crate::rows::Confirmed;

impl Change {
    /// Returns what a record is once the server told this of it.
    ///
    /// # Errors
    /// [`InvalidFields`] if the fields do not read.
    pub fn onto(&self, before: &Registers) -> Result<Registers, InvalidFields> {
        let told = Confirmed {
            version: self.version,
            edited_at: self.edited_at,
            op: self.op,
            older: self.older.clone(),
            floor: self.floor,
            deleted: self.deleted,
            fields: self.fields.clone().unwrap_or_default().into_image()?,
        };
        let told = told.registers()?;
        Ok(if self.partial { before.told_in_part(told) } else { told })
    }
}

impl Registers {
    /// Returns these with what a part of the record says in place of their own.
    #[must_use]
    pub fn told_in_part(&self, mut told: Self) -> Self {
        if told.is_live() && self.is_live() {
            let untold = self.fields.iter().filter(|(name, _)| !told.fields.contains_key(*name));
            let untold: Vec<_> = untold.map(|(name, field)| (name.clone(), field.clone())).collect();
            told.fields.extend(untold);
            told.floor = told.floor.max(self.floor);
        }
        told
    }
}
