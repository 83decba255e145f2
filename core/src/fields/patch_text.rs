//! Patches fields as text. Both texts are compact and their names ascend, so their members are
//! merged like two sorted lists. That is a tenth of the work of building values and writing them
//! again.
//!
//! What it is not: a check. For text of another form (an escape in a name, names out of order,
//! visible damage) it returns `None`, and the caller patches values instead.

use std::cmp::Ordering;

use serde_json::Value;

use super::scan::plain;

/// Applies a patch to an image as [`super::Fields::apply`] does.
pub(super) fn apply(image: &str, patch: &str) -> Option<String> {
    let mut out = String::with_capacity(image.len() + patch.len());
    let (mut images, mut patches) = (Members::of(image)?, Members::of(patch)?);
    let (mut old, mut new) = (images.next()?, patches.next()?);
    loop {
        let order = match (&old, &new) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.name.cmp(new.name),
        };
        // If both texts have a member of this name, the patch's member is written.
        let written = if order == Ordering::Less {
            old
        } else {
            new.filter(|member| member.value() != "null")
        };
        if let Some(member) = written {
            out.push(if out.is_empty() { '{' } else { ',' });
            out.push_str(member.text);
        }
        if order != Ordering::Greater {
            old = images.next()?;
        }
        if order != Ordering::Less {
            new = patches.next()?;
        }
    }
    if out.is_empty() {
        out.push('{');
    }
    out.push('}');
    Some(out)
}

/// Returns the members of a patch that change something of an image.
pub(super) fn changed(image: &str, patch: &str) -> Option<String> {
    let mut out = String::with_capacity(patch.len());
    let (mut images, mut patches) = (Members::of(image)?, Members::of(patch)?);
    let mut old = images.next()?;
    while let Some(new) = patches.next()? {
        while old.is_some_and(|old| old.name < new.name) {
            old = images.next()?;
        }
        let changes = match old.filter(|old| old.name == new.name) {
            Some(old) => old.text != new.text,
            None => new.value() != "null",
        };
        if changes {
            out.push(if out.is_empty() { '{' } else { ',' });
            out.push_str(new.text);
        }
    }
    if out.is_empty() {
        out.push('{');
    }
    out.push('}');
    Some(out)
}

/// Returns the text without some of its members.
pub(super) fn without(text: &str, left_out: impl Fn(&str) -> bool) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut members = Members::of(text)?;
    while let Some(member) = members.next()? {
        if !left_out(member.name) {
            out.push(if out.is_empty() { '{' } else { ',' });
            out.push_str(member.text);
        }
    }
    if out.is_empty() {
        out.push('{');
    }
    out.push('}');
    Some(out)
}

/// Returns the names of the members in order, and of each whether its value is null.
pub(super) fn names(text: &str) -> Option<Vec<(String, bool)>> {
    let mut members = Members::of(text)?;
    let mut names = Vec::new();
    while let Some(member) = members.next()? {
        names.push((member.name.to_owned(), member.value() == "null"));
    }
    Some(names)
}

/// Returns the values of the members of these names, which ascend, each in its place. Members after
/// the last name are not read.
pub(crate) fn values_of(text: &str, names: &[String]) -> Option<Vec<Option<Value>>> {
    let mut members = Members::of(text)?;
    let mut values = vec![None; names.len()];
    let mut wanted = names.iter().zip(values.iter_mut()).peekable();
    while wanted.peek().is_some() {
        let Some(member) = members.next()? else { break };
        while wanted.next_if(|(name, _)| name.as_str() < member.name).is_some() {}
        if let Some((_, value)) = wanted.next_if(|(name, _)| name.as_str() == member.name) {
            *value = Some(serde_json::from_str(member.value()).ok()?);
        }
    }
    Some(values)
}

/// A member in its written form: `"name":value`.
#[derive(Clone, Copy)]
struct Member<'a> {
    name: &'a str,
    text: &'a str,
}

impl<'a> Member<'a> {
    fn value(&self) -> &'a str {
        // The name has two quotes around it and a colon after it.
        self.text.get(self.name.len() + 3..).unwrap_or_default()
    }
}

/// The members of an object, in order.
struct Members<'a> {
    text: &'a str,
    at: usize,
    before: &'a str,
}

impl<'a> Members<'a> {
    fn of(text: &'a str) -> Option<Self> {
        text.starts_with('{').then_some(Self { text, at: 1, before: "" })
    }

    /// Returns the next member, `Some(None)` at the end, and `None` for text of another form.
    fn next(&mut self) -> Option<Option<Member<'a>>> {
        if self.rest() == b"}" {
            return Some(None);
        }
        if self.at > 1 {
            self.pass(b',')?;
        }
        let start = self.at;
        self.pass(b'"')?;
        let length = self.rest().iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        let name = self.text.get(self.at..self.at + length)?;
        self.at += length;
        self.pass(b'"')?;
        self.pass(b':')?;
        self.pass_value()?;
        // An escaped name fails above, because it has a backslash where the quote should be.
        let ascends = *name > *self.before;
        self.before = name;
        ascends.then_some(Some(Member { name, text: self.text.get(start..self.at)? }))
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn pass(&mut self, byte: u8) -> Option<()> {
        (self.rest().first() == Some(&byte)).then(|| self.at += 1)
    }

    fn pass_value(&mut self) -> Option<()> {
        match self.rest().first()? {
            b'"' => self.pass_string(),
            b'{' | b'[' => self.pass_nested(),
            _ => {
                self.at += self.rest().iter().position(|byte| matches!(byte, b',' | b'}'))?;
                Some(())
            }
        }
    }

    fn pass_string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            self.at += plain(self.rest());
            match self.rest().first()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.at += 2,
                _ => return None,
            }
        }
    }

    fn pass_nested(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            self.at += self
                .rest()
                .iter()
                .position(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']'))?;
            match self.rest().first()? {
                b'"' => {
                    self.pass_string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                _ => depth = depth.checked_sub(1)?,
            }
            self.at += 1;
            if depth == 0 {
                return Some(());
            }
        }
    }
}
