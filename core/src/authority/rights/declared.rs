//! Rights as an operator writes them, in JSON.
//!
//! ```json
//! {
//!   "types": {
//!     "lead": {
//!       "delete": ["manager"],
//!       "fields": { "score": [], "owner": { "update": ["manager"] } },
//!       "checks": { "name": { "kind": "text", "needed": true, "longest": 200 } }
//!     }
//!   },
//!   "other_types": ["manager"]
//! }
//! ```
//!
//! `"anyone"` is everybody, a list names roles, and an empty list is nobody. What is absent is
//! anyone's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::check::Check;
use super::{FieldRights, Rights, Role, TypeRights, Who};
use crate::limits;
use crate::names::EntityType;

/// Declared rights that cannot be used. The text shows what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct InvalidRights {
    fault: String,
}

impl Rights {
    /// Reads rights from JSON.
    ///
    /// # Errors
    /// [`InvalidRights`] if the text is not JSON of this form, names something twice, has an
    /// unknown member, or has a check that no value passes.
    pub fn parse(text: &str) -> Result<Self, InvalidRights> {
        let Object(Declared { types, other_types }) = serde_json::from_str(text)
            .map_err(|error| InvalidRights { fault: error.to_string() })?;
        for (entity, Object(rights)) in &types.0 {
            for (field, Object(check)) in &rights.checks.0 {
                if let Some(mistake) = check.mistake() {
                    let fault = format!("the check of {field} of {entity} {mistake}");
                    return Err(InvalidRights { fault });
                }
            }
        }
        let types = types.0.into_iter().map(|(entity, rights)| (entity, rights.0.into())).collect();
        Ok(Self { types, other_types: other_types.0 })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    #[serde(default)]
    types: Once<EntityType, Object<DeclaredType>>,
    #[serde(default)]
    other_types: DeclaredWho,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct DeclaredType {
    create: DeclaredWho,
    update: DeclaredWho,
    delete: DeclaredWho,
    fields: Once<FieldName, DeclaredField>,
    checks: Once<FieldName, Object<Check>>,
}

impl From<DeclaredType> for TypeRights {
    fn from(declared: DeclaredType) -> Self {
        let DeclaredType { create, update, delete, fields, checks } = declared;
        let fields = fields.0.into_iter().map(|(name, field)| (name.0, field.0)).collect();
        let checks = checks.0.into_iter().map(|(name, check)| (name.0, check.0)).collect();
        Self { create: create.0, update: update.0, delete: delete.0, fields, checks }
    }
}

/// An object in JSON. A derived type would also be read from a list, without its names.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

/// The name of a field.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord, Clone)]
#[serde(try_from = "String")]
struct FieldName(String);

impl TryFrom<String> for FieldName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, &'static str> {
        if name.is_empty() || name.len() > limits::FIELD_NAME_BYTES {
            return Err("a field has a name of 1 to 255 bytes");
        }
        Ok(Self(name))
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `"anyone"`, or a list of roles.
#[derive(Default)]
struct DeclaredWho(Who);

impl<'de> Deserialize<'de> for DeclaredWho {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WhoVisitor).map(Self)
    }
}

struct WhoVisitor;

impl<'de> Visitor<'de> for WhoVisitor {
    type Value = Who;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"anyone\", or a list of roles")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Who, E> {
        match text {
            "anyone" => Ok(Who::Anyone),
            _ => Err(E::custom("expected \"anyone\", or a list of roles such as [\"manager\"]")),
        }
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut names: A) -> Result<Who, A::Error> {
        let mut roles = BTreeSet::new();
        while let Some(name) = names.next_element::<String>()? {
            let role = Role::parse(&name);
            roles.insert(role.ok_or_else(|| A::Error::custom("a role has no spaces"))?);
        }
        Ok(Who::Roles(roles))
    }
}

/// Those who may set a field at any time, or apart at the creation and later.
struct DeclaredField(FieldRights);

impl<'de> Deserialize<'de> for DeclaredField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor).map(Self)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = FieldRights;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of roles, or an object with create and update")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<FieldRights, E> {
        WhoVisitor.visit_str(text).map(|who| FieldRights { create: who.clone(), update: who })
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, names: A) -> Result<FieldRights, A::Error> {
        WhoVisitor.visit_seq(names).map(|who| FieldRights { create: who.clone(), update: who })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<FieldRights, A::Error> {
        let (mut create, mut update) = (None, None);
        while let Some(name) = members.next_key::<String>()? {
            let place = match name.as_str() {
                "create" => &mut create,
                "update" => &mut update,
                _ => return Err(A::Error::custom("a field has the members create and update")),
            };
            if place.replace(members.next_value::<DeclaredWho>()?.0).is_some() {
                return Err(A::Error::custom(format!("{name} is there twice")));
            }
        }
        Ok(FieldRights { create: create.unwrap_or_default(), update: update.unwrap_or_default() })
    }
}

/// A map whose names occur once. An ordinary map would keep the last of two.
struct Once<K, V>(BTreeMap<K, V>);

impl<K, V> Default for Once<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, K, V> Deserialize<'de> for Once<K, V>
where
    K: Deserialize<'de> + Ord + Clone + fmt::Display,
    V: Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnceVisitor<K, V>(PhantomData<(K, V)>);
        impl<'de, K, V> Visitor<'de> for OnceVisitor<K, V>
        where
            K: Deserialize<'de> + Ord + Clone + fmt::Display,
            V: Deserialize<'de>,
        {
            type Value = Once<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Once<K, V>, A::Error> {
                let mut map = BTreeMap::new();
                while let Some((name, value)) = members.next_entry::<K, V>()? {
                    if map.insert(name.clone(), value).is_some() {
                        return Err(A::Error::custom(format!("{name} is there twice")));
                    }
                }
                Ok(Once(map))
            }
        }
        deserializer.deserialize_map(OnceVisitor(PhantomData))
    }
}
