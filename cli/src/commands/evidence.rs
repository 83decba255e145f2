//! What the signed notes of a log prove: the levels of `verify`. `keys` and `checkpoint`: the keys
//! that sign.
//!
//! 1. A key counts only if the caller names it: one in the file proves nothing.
//! 2. A level is never above what was checked, and `--require` fails below it.
//! 3. What a bundle tells of an entry is `claimed`, whoever signed the entry: the signature is over
//!    its hash.

use std::io::Write;
use std::path::{Path, PathBuf};

use fieldbook::audit::note::{
    DEVICE_KEY_PREFIX, Ed25519Key, Evidence, Level, Notes, Proof, VerifierKey,
};
use fieldbook::audit::{Examination, Finding, Seq, notes_of_book, notes_of_export};
use fieldbook::host::{Randomness, system_randomness};
use fieldbook_core::log::{BundleLook, look_at_export};
use fieldbook_server::{SigningKey, add_signing_key, retire_signing_key, signing_keys};
use serde_json::{Value, json};

use crate::error::Failure;
use crate::files;
use crate::output::{Output, write_whole};
use crate::show::advice::{Advice, BOOK};
use crate::show::table::{Listing, Text, row};
use crate::show::{count, name, time};

/// Which keys are trusted, and how sure the log has to be.
#[derive(Debug, clap::Args)]
pub(crate) struct Trust {
    /// A public key that you trust, as its owner told you: NAME+ID+KEY. May be given several times
    #[arg(long, value_name = "KEY")]
    key: Vec<VerifierKey>,
    /// Fail if the log is less sure than this
    #[arg(long, value_name = "LEVEL")]
    require: Option<Required>,
    /// Ask only about the entries up to this one
    #[arg(long, value_name = "ENTRY")]
    upto: Option<u64>,
}

/// The levels, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Required {
    /// The hashes match: nothing was changed by accident
    Chained,
    /// A key of the device, given by --key, signed it
    Signed,
    /// A key of a server, given by --key, signed it
    Anchored,
}

impl Required {
    const fn level(self) -> Level {
        match self {
            Self::Chained => Level::Chained,
            Self::Signed => Level::Signed,
            Self::Anchored => Level::Anchored,
        }
    }
}

/// The level of what a bundle tells of an entry, below all others.
const CLAIMED: &str = "claimed";

/// What the notes of a log prove to the caller.
pub(crate) struct Weighed {
    evidence: Evidence,
    upto: Seq,
    required: Option<Level>,
    has_keys: bool,
    /// What a bundle only tells.
    bundle: BundleLook,
}

impl Trust {
    /// Weighs the notes of a log whose hashes were found to match. Adds what contradicts the log to
    /// the findings.
    pub(crate) fn weigh(
        &self,
        file: &Path,
        exported: bool,
        found: &mut Examination,
    ) -> Result<Weighed, Failure> {
        let evidence = notes_of(file, exported)?.weigh(&self.key);
        let last = found.log.head.map_or(Seq::ZERO, |head| head.seq);
        let upto = self.upto.map(Seq::new);
        if let Some(upto) = upto.filter(|upto| *upto > last) {
            return Err(Failure::usage(format!("the log ends with entry {last}, before {upto}")));
        }
        evidence.faults.iter().for_each(|fault| found.find(Finding::from(*fault)));
        Ok(Weighed {
            evidence,
            upto: upto.unwrap_or(last),
            required: self.require.map(Required::level),
            has_keys: !self.key.is_empty(),
            bundle: bundle_look(file, exported)?,
        })
    }
}

/// Adds the notes of a log that contradict it to the findings. No key is needed for that.
pub(crate) fn add_contradictions(
    file: &Path,
    exported: bool,
    found: &mut Examination,
) -> Result<(), Failure> {
    let evidence = notes_of(file, exported)?.weigh(&[]);
    evidence.faults.iter().for_each(|fault| found.find(Finding::from(*fault)));
    Ok(())
}

fn notes_of(file: &Path, exported: bool) -> Result<Notes, Failure> {
    if !exported {
        return Ok(notes_of_book(file)?);
    }
    notes_of_export(|| files::log_in(std::fs::File::open(file)?))
        .map_err(|error| Failure::new(format!("cannot read {}", files::shown(file))).because(error))
}

/// Looks at what a bundle only tells. Nothing, of anything else.
fn bundle_look(file: &Path, exported: bool) -> Result<BundleLook, Failure> {
    if !exported || files::redaction_of(file)?.is_none() {
        return Ok(BundleLook::default());
    }
    Ok(look_at_export(&mut files::open_log(file)?))
}

/// Returns a range of entries: `4` or `4–6`.
fn range((from, to): (Seq, Seq)) -> String {
    if from == to { from.to_string() } else { format!("{from}–{to}") }
}

/// The most ranges of told entries that are listed.
const RANGES: usize = 6;

impl Weighed {
    /// Returns the ranges that the bundle only tells of, as far as they were asked about.
    fn claimed(&self) -> impl Iterator<Item = (Seq, Seq)> {
        let told = self.bundle.told.iter().filter(|(from, _)| *from <= self.upto);
        told.map(|(from, to)| (*from, (*to).min(self.upto)))
    }

    /// Says what the bundle only tells.
    fn tell_claims(&self, output: &mut Output) -> Result<(), Failure> {
        let claimed: Vec<_> = self.claimed().collect();
        if !claimed.is_empty() {
            let mut listed: Vec<_> = claimed.iter().copied().map(range).take(RANGES).collect();
            if claimed.len() > RANGES {
                listed.push(format!("{} more ranges", claimed.len() - RANGES));
            }
            writeln!(
                output,
                "{:<14} claimed   their places are as above; nothing proves what the bundle tells of them",
                listed.join(", ")
            )?;
        }
        if self.bundle.told_items > 0 {
            writeln!(
                output,
                "{} told in part, by the maker of the bundle: nothing proves the told fields",
                count(self.bundle.told_items, "hidden value")
            )?;
        }
        Ok(())
    }

    /// Writes the level of each range of entries.
    pub(crate) fn tell(&self, output: &mut Output) -> Result<(), Failure> {
        for (from, to, level, proof) in self.evidence.ranges(self.upto) {
            let range = range((from, to));
            writeln!(output, "{range:<14} {:<9} {}", level.as_str(), meaning(proof))?;
        }
        self.tell_claims(output)?;
        writeln!(output, "level: {}", self.level_word())?;
        self.tell_of_keys(output)
    }

    /// Says which keys the file names, if none of them was given.
    fn tell_of_keys(&self, output: &mut Output) -> Result<(), Failure> {
        let Evidence { receipt, named, proofs, .. } = &self.evidence;
        let Some(receipt) = receipt.filter(|_| proofs.is_empty()) else { return Ok(()) };
        let of_servers = named.iter().filter(|(key, _)| !key.starts_with(DEVICE_KEY_PREFIX));
        let of_servers: Vec<_> = of_servers.map(|(key, _)| name(key)).collect();
        let (keys, advice) = match of_servers.len() {
            0 => ("keys", ""),
            1 => ("a key", " If the owner of the server confirms it:"),
            _ => ("keys", " If the owner of the server confirms one:"),
        };
        writeln!(
            output,
            "This file has receipts up to entry {receipt}, by {keys} that nobody vouched for: whoever can write the \
             file can sign with a key of their own.{advice}"
        )?;
        for key in of_servers {
            writeln!(output, "  --key {key}")?;
        }
        Ok(())
    }

    fn level(&self) -> Level {
        self.evidence.level(self.upto)
    }

    /// Returns the word for the lowest level of what was asked about.
    fn level_word(&self) -> &'static str {
        if self.claimed().next().is_some() { CLAIMED } else { self.level().as_str() }
    }

    /// Fails if the log is less sure than required.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if let (Some(required), Some(told)) = (self.required, self.claimed().next()) {
            let what = format!(
                "entries {} are only `{CLAIMED}`, not `{}`",
                range(told),
                required.as_str()
            );
            let hint = "the bundle tells of them with pseudonyms: ask for one without --ids hide, --for and --since";
            return Err(Failure::new(what).hint(hint));
        }
        let Some(required) = self.required.filter(|required| self.level() < *required) else {
            return Ok(());
        };
        let ranges = self.evidence.ranges(self.upto);
        let below = ranges.iter().find(|(_, _, level, _)| *level < required);
        let (from, to, level) = below
            .map_or((Seq::ZERO, Seq::ZERO, Level::Chained), |range| (range.0, range.1, range.2));
        let what = format!(
            "entries {from}–{to} are only `{}`, not `{}`",
            level.as_str(),
            required.as_str()
        );
        if let Some(sure) = ranges.iter().rev().find(|(_, _, level, _)| *level >= required) {
            let hint =
                format!("entries up to {} are: ask about these only (--upto {})", sure.1, sure.1);
            return Err(Failure::new(what).hint(hint));
        }
        let hint = match (self.has_keys, self.evidence.receipt, required) {
            (_, _, Level::Chained) => "the log is damaged",
            (false, Some(_), _) => {
                "the file has receipts, and none is by a key that you gave (--key): ask the owner of the server for the \
                 key; `fieldbook serve` prints it"
            }
            (true, Some(_), Level::Anchored) => "no receipt is by a key that you gave",
            (_, None, Level::Anchored) => {
                "the file has no receipt of a server that signs: sync the book with one"
            }
            _ => {
                "no note for these entries is by a key that you gave: `fieldbook checkpoint` makes one"
            }
        };
        Err(Failure::new(what).hint(hint))
    }

    /// Adds the levels to the result of `verify --json`.
    pub(crate) fn add_to(&self, value: &mut Value) {
        let Some(members) = value.as_object_mut() else { return };
        let ranges = self.evidence.ranges(self.upto);
        let ranges = ranges.into_iter().map(|(from, to, level, proof)| {
            json!({
                "from": from, "to": to, "level": level.as_str(),
                "key": proof.map(|proof| proof.key.to_string()),
                "at": proof.map(|proof| time::utc(proof.at)),
            })
        });
        members.insert("ranges".to_owned(), ranges.collect());
        members.insert("level".to_owned(), json!(self.level_word()));
        let claimed = self.claimed().map(|(from, to)| json!({ "from": from, "to": to }));
        members.insert("claimed".to_owned(), claimed.collect());
        members.insert("told_values".to_owned(), json!(self.bundle.told_items));
        let named = self.evidence.named.iter();
        let named = named.map(|(key, seq)| json!({ "key": key, "first_in": seq }));
        members.insert("keys_in_file".to_owned(), named.collect());
    }
}

/// Returns what a proof means in words.
fn meaning(proof: Option<&Proof>) -> String {
    let Some(proof) = proof else {
        return "nothing was changed by accident; whoever can write this file could have made them"
            .to_owned();
    };
    let key = format!("{} ({})", name(proof.key.name()), proof.key.id());
    let (upto, at) = (proof.upto, time::local(proof.at));
    match proof.level {
        Level::Anchored => format!("{key} signed entry {upto} on {at}: it was so then"),
        Level::Signed | Level::Chained => {
            format!("{key} signed entry {upto}, by its own clock on {at}: this says who, not when")
        }
    }
}

/// The arguments of `checkpoint`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook keys make ann.key --name device/ann-phone
  fieldbook checkpoint ann.book --signer ann.key
  fieldbook verify ann.book --key device/ann-phone+... --require signed --upto 41

The note is in the log, after the entry that it is for. It is a signed note of C2SP: other programs can check it.")]
pub(crate) struct CheckpointArgs {
    /// The book's file
    pub(crate) book: PathBuf,
    /// The file with the secret key, made by `keys make`
    #[arg(long, value_name = "FILE")]
    signer: PathBuf,
    #[command(flatten)]
    writer: super::Writer,
}

/// Signs the head of a book.
pub(crate) fn checkpoint(args: &CheckpointArgs, output: &mut Output) -> Result<(), Failure> {
    let text = std::io::read_to_string(files::open(&args.signer)?).map_err(|error| {
        Failure::new(format!("cannot read {}", files::shown(&args.signer))).because(error)
    })?;
    let key = Ed25519Key::parse_secret(&text).map_err(|error| {
        Failure::new(format!("{} has no secret key", files::shown(&args.signer)))
            .because(error)
            .hint("this makes one: fieldbook keys make FILE --name device/NAME")
    })?;
    let (seq, note) = args.writer.open(&args.book)?.audit().checkpoint(&key)?;
    writeln!(output, "signed entry {seq} with {}\n\n{}", key.public(), note.trim_end())?;
    Ok(())
}

/// The arguments of `keys`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook keys list ann.book
  fieldbook keys server crm.store
  fieldbook keys add crm.store --name sync.example.com
  fieldbook keys make ann.key --name device/ann-phone     then: fieldbook checkpoint ann.book --signer ann.key")]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

impl KeysArgs {
    /// Returns the file that should be a book.
    pub(crate) fn book(&self) -> Option<&Path> {
        match &self.command {
            KeysCommand::List { file, .. } => Some(file),
            _ => None,
        }
    }
}

#[derive(Debug, clap::Subcommand)]
enum KeysCommand {
    /// List the keys that a book, an exported log or a bundle names. Nothing here makes them
    /// trustworthy
    List {
        /// A book, a log exported from one, or a bundle
        file: PathBuf,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// List the keys with which a server signs receipts, while it does not run
    Server {
        /// The store's file
        store: PathBuf,
    },
    /// Add a key that signs receipts from the next start of the server on, beside the others
    Add {
        /// The store's file, while no server has it open
        store: PathBuf,
        /// The name of the key: the server's host
        #[arg(long, value_name = "NAME")]
        name: String,
    },
    /// Let a key sign no more. Its receipts stay as good as they are
    Retire {
        /// The store's file, while no server has it open
        store: PathBuf,
        /// The eight digits in the middle of the key
        id: String,
    },
    /// Make a key for checkpoints of a device, in a file that only its owner may read
    Make {
        /// The new file
        file: PathBuf,
        /// The name of the key, which begins with `device/`
        #[arg(long, value_name = "NAME")]
        name: String,
    },
}

/// Lists, makes and retires keys.
pub(crate) fn keys(args: &KeysArgs, output: &mut Output) -> Result<(), Failure> {
    match &args.command {
        KeysCommand::List { file, json } => list(file, *json, output),
        KeysCommand::Server { store } => {
            files::is_file(store)?;
            list_of_server(&signing_keys(store).map_err(Failure::caused_by)?, output)
        }
        KeysCommand::Add { store, name } => {
            files::is_file(store)?;
            add(store, name, output)
        }
        KeysCommand::Retire { store, id } => {
            files::is_file(store)?;
            let retired = retire_signing_key(store, id).map_err(Failure::caused_by)?;
            Ok(writeln!(output, "{} signs no more from the next start on", retired.verifier)?)
        }
        KeysCommand::Make { file, name } => make(file, name, output),
    }
}

fn list(file: &Path, as_json: bool, output: &mut Output) -> Result<(), Failure> {
    files::is_file(file)?;
    let evidence = notes_of(file, files::begins_like_an_exported_log(file))?.weigh(&[]);
    if as_json {
        return evidence
            .named
            .iter()
            .try_for_each(|(key, seq)| output.json(&json!({ "key": key, "first_in": seq })));
    }
    if evidence.named.is_empty() {
        writeln!(output, "no signed notes")?;
        return Ok(());
    }
    let mut listing = Listing::new(&[">first in", "key"]).full(true);
    for (key, seq) in &evidence.named {
        row!(listing, seq, Text::name(key));
    }
    listing.write(output)
}

fn add(store: &Path, key_name: &str, output: &mut Output) -> Result<(), Failure> {
    let added = add_signing_key(store, key_name).map_err(Failure::caused_by)?;
    writeln!(output, "{}", added.verifier)?;
    writeln!(
        output,
        "it signs from the next start of the server on, beside the others. Tell it to those who check receipts. Once \
         they have it, an old key may be retired:"
    )?;
    let all = signing_keys(store).map_err(Failure::caused_by)?;
    let old = all.into_iter().filter(|key| !key.retired && key.id != added.id);
    let advice = old.fold(Advice::default(), |advice, key| {
        advice.choose(["keys", "retire", BOOK, key.id.as_str()])
    });
    advice.lines(Some(store)).iter().try_for_each(|line| Ok(writeln!(output, "  {line}")?))
}

fn list_of_server(keys: &[SigningKey], output: &mut Output) -> Result<(), Failure> {
    let mut listing = Listing::new(&["made", "signs", "key"]).full(true);
    for key in keys {
        let signs = if key.retired { "no more" } else { "yes" };
        row!(listing, time::local(key.made_at), signs, Text::name(&key.verifier));
    }
    listing.write(output)
}

fn make(file: &Path, key_name: &str, output: &mut Output) -> Result<(), Failure> {
    files::is_new(file)?;
    if !key_name.starts_with(DEVICE_KEY_PREFIX) {
        return Err(Failure::usage("the name of a device's key begins with `device/`"));
    }
    let mut seed = [0; 32];
    system_randomness()
        .map_err(|error| Failure::new("the system has no randomness").because(error))?
        .fill(&mut seed);
    let key = Ed25519Key::from_seed(key_name, &seed).map_err(|_| {
        let what = format!("{} cannot be the name of a key", name(key_name));
        Failure::usage(what).hint("use a short name without spaces and without +")
    })?;
    // Only the owner may read a file that is written in this way.
    write_whole(file, false, |secret| Ok(writeln!(secret, "{}", key.secret_text())?))?;
    writeln!(output, "{}", key.public())?;
    writeln!(output, "{} has the secret part: keep it, and show it to nobody", files::shown(file))?;
    Ok(())
}
