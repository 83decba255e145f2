//! The law of search: at any moment it finds what looking at every record finds that the app reads,
//! with the same points and in the same order.

use std::collections::BTreeMap;

use fieldbook::EntityType;
use serde_json::{Map, Value};

use super::World;
use crate::app::{ENTITIES, knows, searched};
use crate::broken::{Broken, ensure};
use crate::device::Device;
use crate::scored::scored;

type Images = BTreeMap<String, Map<String, Value>>;

impl World {
    /// Searches records of an entity type, and checks S4 of what is found.
    pub(super) fn search(
        &mut self,
        number: usize,
        entity: usize,
        asked: &str,
    ) -> Result<Option<usize>, Broken> {
        let name = ENTITIES.get(entity % ENTITIES.len()).copied().unwrap_or_default();
        let entity = super::entity_type(name)?;
        let device = self.device(number)?;
        if !knows(device.version, &entity) {
            return Ok(None);
        }
        let found = device.book()?.records().search(&entity, asked).limit(usize::MAX).run();
        let Some(found) = device.called(found)? else { return Ok(Some(number)) };
        let found: Vec<_> =
            found.iter().map(|hit| (hit.row.id.as_str().to_owned(), hit.points)).collect();
        let images = images(device, &entity)?;
        let records = images.iter().map(|(id, image)| (id.as_str(), image));
        let wanted = scored(&searched(device.version), records, asked);
        ensure(found == wanted, "S4", || {
            format!("a search of {entity} for {asked:?} finds {found:?}, not {wanted:?}")
        })?;
        Ok(Some(number))
    }
}

/// Returns the records that the app reads.
fn images(device: &Device, entity: &EntityType) -> Result<Images, Broken> {
    let records = device.book()?.records().list(entity, None, usize::MAX).map_err(unread)?;
    let image = |json| serde_json::from_str(json).map_err(unread);
    records.iter().map(|record| Ok((record.id.to_owned(), image(record.json)?))).collect()
}

fn unread(error: impl std::fmt::Debug) -> Broken {
    Broken::new("S4", format!("the records do not read: {error:?}"))
}
