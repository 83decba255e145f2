//! The page: one file with a device's whole history, to be looked at in a browser.
//!
//! ```text
//!   Book ──► collect: one walk through the log ──► Main (columns), stories (blocks)
//!              └─► JSON ─► deflate ─► base64 ─► `<script type="text/plain">` ──┐
//!   assets: page.html, page.css, the scripts ───────────────────────────────────┴─► x.html
//! ```
//!
//! Invariants:
//! 1. The program makes every state, sentence and value. The script of the page applies changes and
//!    lays out; it folds nothing and has no words about a record.
//! 2. No text of a book is markup: all of it is in blocks of base64. The page's policy allows its
//!    one script and its one style, by their hashes, and no network, form or frame.
//! 3. The page needs no network, no worker and no storage of the browser.
//!
//! What it is not: proof. A page shows what a file said when the page was made.

mod block;
mod collect;
mod value;

use std::collections::HashSet;

use fieldbook::Book;
use fieldbook::audit::Seq;

use crate::error::Failure;

/// What a page is made of.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The name of the source, for the title.
    pub(crate) name: String,
    /// The source in commands that help; none if the source cannot be changed.
    pub(crate) path: Option<std::path::PathBuf>,
    /// The last entry before the page begins.
    pub(crate) since: Seq,
    /// The last entry of the page.
    pub(crate) until: Seq,
    /// The offset of the device's clock from UTC in minutes, if it is on record.
    pub(crate) offset: Option<i32>,
    /// Whether long values are whole.
    pub(crate) full: bool,
}

/// A finished page.
#[derive(Debug)]
pub(crate) struct Made {
    /// The text of the file.
    pub(crate) html: String,
    /// The number of entries that it shows.
    pub(crate) entries: u64,
    /// The number of records that it knows.
    pub(crate) records: usize,
    /// Whether a long value is cut.
    pub(crate) has_cut: bool,
}

/// The script, in the order of its parts. They share one scope, in a function of its own.
const SCRIPT: &str = concat!(
    "\"use strict\";\n(function () {\n",
    include_str!("assets/data.js"),
    include_str!("assets/search.js"),
    include_str!("assets/parts.js"),
    include_str!("assets/lanes.js"),
    include_str!("assets/table.js"),
    include_str!("assets/detail.js"),
    include_str!("assets/main.js"),
    "})();\n"
);
const STYLE: &str = include_str!("assets/page.css");
const HTML: &str = include_str!("assets/page.html");

/// Makes the page of a book. `progress` is called with the number of entries that were read.
pub(crate) fn page(
    book: &Book,
    wanted: &Wanted,
    progress: impl FnMut(u64),
) -> Result<Made, Failure> {
    let collected = collect::collect(book, wanted, progress)?;
    let mut blocks = Vec::with_capacity(collected.blocks.len() + 1);
    blocks.push(block::block(0, &collected.main)?);
    for (number, stories) in (1..).zip(&collected.blocks) {
        blocks.push(block::block(number, stories)?);
    }
    let parts = [
        ("{{style-hash}}", block::policy_hash(STYLE)),
        ("{{script-hash}}", block::policy_hash(SCRIPT)),
        ("{{style}}", STYLE.to_owned()),
        ("{{script}}", SCRIPT.to_owned()),
        ("{{data}}", blocks.concat()),
    ];
    let mut html = String::with_capacity(HTML.len() + SCRIPT.len() + STYLE.len());
    let (mut rest, mut used) = (HTML, HashSet::new());
    // One pass, so a part that contains such a name is not replaced in turn.
    while let Some(at) = rest.find("{{") {
        let (before, after) = rest.split_at(at);
        html.push_str(before);
        match parts.iter().find(|(name, _)| after.starts_with(name)) {
            Some((name, part)) => {
                html.push_str(part);
                used.insert(*name);
                rest = after.get(name.len()..).unwrap_or_default();
            }
            None => {
                html.push_str("{{");
                rest = after.get(2..).unwrap_or_default();
            }
        }
    }
    html.push_str(rest);
    debug_assert_eq!(used.len(), parts.len(), "the template names every part");
    Ok(Made {
        html,
        entries: collected.entries,
        records: collected.records,
        has_cut: collected.has_cut,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_and_the_style_cannot_end_their_elements_and_are_small() {
        for text in [SCRIPT, STYLE] {
            assert!(!text.contains("</script") && !text.contains("</style"));
            assert!(!text.contains("<!--"));
        }
        assert!(SCRIPT.len() + STYLE.len() <= 80_000, "{}", SCRIPT.len() + STYLE.len());
    }

    #[test]
    fn the_script_writes_text_only_as_text() {
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "fetch(",
            "XMLHttpRequest",
            "localStorage",
            "Worker",
            "import(",
        ] {
            assert!(!SCRIPT.contains(forbidden), "{forbidden}");
        }
    }
}
