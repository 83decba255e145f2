//! Notes against the vectors of other programs, and what a log proves with and without the right
//! key.

use super::*;
use crate::entry::{Control, Draft, FORMAT, Header, Meta, Opened, SignedNote, seal};
use crate::time::Hlc;

/// The vectors of Go's `sumdb/note`.
const NEUMANN: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const NEUMANN_SECRET: &str =
    "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const NEUMANN_NOTE: &str = "If you think cryptography is the answer to your problem,\nthen you don't \
know what your problem is.\n\n— PeterNeumann \
x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

fn key(name: &str, seed: u8) -> Ed25519Key {
    Ed25519Key::from_seed(name, &[seed; 32]).unwrap()
}

fn statement(kind: NoteKind, seq: u64, hash: Hash) -> Statement {
    Statement { kind, device: DEVICE, epoch: EPOCH, seq: Seq::new(seq), hash, at: AT }
}

const DEVICE: DeviceId = DeviceId::from_bytes([1; 16]);
const EPOCH: Epoch = Epoch::from_bytes([2; 16]);
const AT: WallTime = WallTime::from_milliseconds(1_700_000_000_123);

/// A log that begins as every log, with entries that state what `note` makes of the entry before.
struct Log {
    stored: Vec<Vec<u8>>,
    hashes: Vec<Hash>,
}

impl Log {
    fn new(made_by: &str) -> Self {
        let mut log = Self { stored: Vec::new(), hashes: vec![Hash::ZERO] };
        log.push(Control::Opened(Opened { device: DEVICE, made_by: made_by.to_owned() }));
        log
    }

    fn push(&mut self, control: Control) {
        let draft = Draft::control(control);
        let seq = self.hashes.len() as u64;
        let header = Header {
            format: FORMAT,
            kind: Meta::kind(&draft.meta),
            epoch: EPOCH,
            seq: Seq::new(seq),
            hlc: Hlc::from_bits(seq),
            wall: AT,
            actor: "ann".parse().unwrap(),
        };
        let sealed = seal(&header, &draft, self.hashes.last().unwrap()).unwrap();
        self.hashes.push(sealed.hash);
        self.stored.push(sealed.bytes);
    }

    /// Adds a note about an entry.
    fn note(&mut self, kind: NoteKind, seq: u64, by: &[&dyn Signer]) {
        let stated = statement(kind, seq, self.hashes[usize::try_from(seq).unwrap()]);
        let keys = by.iter().map(|signer| signer.verifier()).collect();
        self.push(Control::Note(SignedNote { note: sign(&stated, by).unwrap(), keys }));
    }

    fn weigh(&self, keys: &[VerifierKey]) -> Evidence {
        let mut notes = Notes::default();
        self.stored.iter().for_each(|stored| notes.look(stored));
        for seq in notes.places() {
            let place = usize::try_from(seq.number()).unwrap().checked_sub(1);
            if let Some(stored) = place.and_then(|place| self.stored.get(place)) {
                notes.learn(stored);
            }
        }
        notes.weigh(keys)
    }
}

fn levels(evidence: &Evidence) -> Vec<(u64, u64, Level)> {
    let ranges = evidence.ranges(evidence.last).into_iter();
    ranges.map(|(from, to, level, _)| (from.number(), to.number(), level)).collect()
}

#[test]
fn a_note_of_another_program_verifies_here_and_ours_has_its_form() {
    let verifier: VerifierKey = NEUMANN.parse().unwrap();
    let note = Note::parse(NEUMANN_NOTE).unwrap();
    assert!(verifier.verifies(note.text, &note.signatures[0]));
    assert_eq!(note.statement(), None, "it states nothing about a log");
    let secret = Ed25519Key::parse_secret(NEUMANN_SECRET).unwrap();
    assert_eq!((secret.verifier(), secret.secret_text()), (NEUMANN.into(), NEUMANN_SECRET.into()));
    assert_eq!(secret.sign(note.text.as_bytes()).unwrap(), note.signatures[0].bytes[..]);
}

#[test]
fn the_id_of_a_key_is_that_of_the_specification() {
    // The example of C2SP's signed note.
    let (name, rest) = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
        .split_once('+')
        .unwrap();
    let key: VerifierKey = format!("{name}+{rest}").parse().unwrap();
    assert_eq!((key.name(), key.id().as_str()), ("example.com/foo", "530d903a"));
    let other_id = format!("{name}+530d903b+{}", rest.split_once('+').unwrap().1);
    assert!(other_id.parse::<VerifierKey>().is_err());
}

#[test]
fn a_statement_reads_only_from_its_own_text() {
    let stated = statement(NoteKind::Receipt, 13, Hash::from_bytes([7; 32]));
    let text = stated.text();
    assert_eq!(Statement::parse(&text), Some(stated));
    let kind = NoteKind::Checkpoint;
    assert_eq!(Statement::parse(&Statement { kind, ..stated }.text()).unwrap().kind, kind);
    for (part, other) in [
        ("receipt/v1", "receipt/v2"),
        ("\n13\n", "\n013\n"),
        ("\n13\n", "\n+13\n"),
        ("01010101-", "01010101"),
        (".123Z", ".123+00:00"),
        (".123Z\n", ".123Z\nmore\n"),
        (".123Z\n", ".123Z"),
    ] {
        let altered = text.replacen(part, other, 1);
        assert_ne!(altered, text, "{part}");
        assert_eq!(Statement::parse(&altered), None, "{altered}");
    }
}

#[test]
fn what_is_no_note_is_refused_and_never_panics() {
    let note = sign(&statement(NoteKind::Receipt, 1, Hash::ZERO), &[&key("server/a", 1)]).unwrap();
    assert!(note.len() < 400, "{} bytes", note.len());
    for length in 0..note.len() {
        let Some(cut) = note.get(..length) else { continue };
        assert!(Note::parse(cut).is_err(), "{cut:?}");
    }
    let many = (0..=SIGNATURES).map(|_| "— a AAAAAA==\n").collect::<String>();
    for wrong in [
        "",
        "\n",
        "text\n\n",
        "text\n\nno dash AAAAAA==\n",
        "text\n\n— AAAAAA==\n",
        "text\n\n— a+b AAAAAA==\n",
        "text\n\n— a AA==\n",
        "te\u{7}xt\n\n— a AAAAAA==\n",
        &format!("text\n\n{many}"),
        &format!("{}\n\n— a AAAAAA==\n", "x".repeat(NOTE_BYTES)),
    ] {
        assert!(Note::parse(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_log_is_anchored_up_to_the_last_receipt_by_a_trusted_key() {
    let (server, device) = (key("server/a", 1), key("device/b", 2));
    let mut log = Log::new("one");
    log.note(NoteKind::Receipt, 1, &[&server]);
    log.note(NoteKind::Receipt, 2, &[&server]);
    log.note(NoteKind::Checkpoint, 3, &[&device]);
    log.note(NoteKind::Receipt, 4, &[&key("server/c", 3)]);
    let (server, device) = (server.public().clone(), device.public().clone());
    let with = |keys: &[VerifierKey]| levels(&log.weigh(keys));
    use Level::{Anchored, Chained, Signed};
    assert_eq!(with(&[]), [(1, 5, Chained)]);
    assert_eq!(with(std::slice::from_ref(&server)), [(1, 2, Anchored), (3, 5, Chained)]);
    assert_eq!(with(std::slice::from_ref(&device)), [(1, 3, Signed), (4, 5, Chained)]);
    assert_eq!(with(&[device, server]), [(1, 2, Anchored), (3, 3, Signed), (4, 5, Chained)]);
    let evidence = log.weigh(&[]);
    assert_eq!(evidence.receipt, Some(Seq::new(4)));
    let named: Vec<_> = evidence.named.iter().map(|(_, seq)| seq.number()).collect();
    assert_eq!((named, evidence.faults), (vec![2, 4, 5], vec![]));
}

/// A thousand keys with the name of the right one.
#[test]
fn a_wrong_key_never_makes_a_log_anchored() {
    let mut log = Log::new("one");
    log.note(NoteKind::Receipt, 1, &[&key("server/a", 1)]);
    for number in 0..1_000_u32 {
        let mut seed = [9; 32];
        seed[..4].copy_from_slice(&number.to_le_bytes());
        let other = Ed25519Key::from_seed("server/a", &seed).unwrap().public().clone();
        assert_eq!(levels(&log.weigh(&[other])), [(1, 2, Level::Chained)]);
    }
}

#[test]
fn a_key_of_a_device_makes_no_receipt_and_a_key_of_a_server_no_checkpoint() {
    let (server, device) = (key("server/a", 1), key("device/b", 2));
    let mut log = Log::new("one");
    log.note(NoteKind::Receipt, 1, &[&device]);
    log.note(NoteKind::Checkpoint, 2, &[&server]);
    let keys = [server.public().clone(), device.public().clone()];
    assert_eq!(levels(&log.weigh(&keys)), [(1, 3, Level::Chained)]);
}

/// A forger altered the log, sealed it anew, and kept the receipt of the real one.
#[test]
fn a_receipt_of_another_log_is_a_fault() {
    let server = key("server/a", 1);
    let mut real = Log::new("one");
    real.note(NoteKind::Receipt, 1, &[&server]);
    let mut forged = Log::new("another");
    let stated = statement(NoteKind::Receipt, 1, real.hashes[1]);
    let note = sign(&stated, &[&server]).unwrap();
    forged.push(Control::Note(SignedNote { note, keys: Vec::new() }));
    let (noted, stated) = (Seq::new(2), Seq::new(1));
    for keys in [Vec::new(), vec![server.public().clone()]] {
        let evidence = forged.weigh(&keys);
        assert_eq!(evidence.faults, [NoteFault::OtherEntry { noted, stated }]);
        assert_eq!(evidence.level(forged.weigh(&keys).last), Level::Chained);
    }
}

/// A forger rewrote the receipt too, and left the signature of the real one below it.
#[test]
fn a_receipt_with_a_signature_of_another_text_is_forged() {
    let server = key("server/a", 1);
    let mut log = Log::new("one");
    let stated = statement(NoteKind::Receipt, 1, log.hashes[1]);
    let real = sign(&Statement { at: WallTime::from_milliseconds(5), ..stated }, &[&server]);
    let real = real.unwrap();
    let (_, signatures) = real.split_once("\n\n").unwrap();
    let note = format!("{}\n{signatures}", stated.text());
    log.push(Control::Note(SignedNote { note, keys: vec![server.verifier()] }));
    let trusted = log.weigh(&[server.public().clone()]);
    assert_eq!(trusted.faults, [NoteFault::Forged { noted: Seq::new(2) }]);
    assert_eq!(levels(&trusted), [(1, 2, Level::Chained)]);
    assert_eq!(log.weigh(&[]).faults, [], "nobody can know without the key");
}

#[test]
fn after_a_change_of_keys_a_reader_with_either_key_is_sure() {
    let (old, new) = (key("server/a", 1), key("server/a", 2));
    let mut log = Log::new("one");
    log.note(NoteKind::Receipt, 1, &[&old]);
    log.note(NoteKind::Receipt, 2, &[&old, &new]);
    log.note(NoteKind::Receipt, 3, &[&new]);
    let with = |key: &Ed25519Key| levels(&log.weigh(&[key.public().clone()]));
    assert_eq!(with(&old), [(1, 2, Level::Anchored), (3, 4, Level::Chained)]);
    assert_eq!(with(&new), [(1, 3, Level::Anchored), (4, 4, Level::Chained)]);
}

#[test]
fn a_secret_key_is_not_shown() {
    let key = key("device/b", 2);
    let secret = key.secret_text();
    assert!(!format!("{key:?}").contains(secret.rsplit('+').next().unwrap()));
    assert_eq!(Ed25519Key::parse_secret(&secret).unwrap().verifier(), key.verifier());
    for name in ["", "with space", "a+b", &"x".repeat(KEY_NAME_BYTES + 1)] {
        assert!(Ed25519Key::from_seed(name, &[1; 32]).is_err(), "{name}");
    }
}

/// The log that the second verifier checks with a key, written from here.
#[test]
fn the_golden_log_with_receipts_proves_what_it_proved() {
    let (server, device) = (key("sync.example.com", 1), key("device/phone", 2));
    let mut log = Log::new("0.1.0");
    log.note(NoteKind::Receipt, 1, &[&server]);
    log.note(NoteKind::Receipt, 2, &[&server, &key("sync.example.com", 3)]);
    log.note(NoteKind::Checkpoint, 3, &[&device]);
    let mut bytes = b"fieldbook-log 1\n".to_vec();
    for stored in &log.stored {
        bytes.extend_from_slice(&u32::try_from(stored.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(stored);
    }
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/format-2");
    let keys = format!("{}\n{}\n", server.public(), device.public());
    for (name, actual) in [("signed.log", bytes.as_slice()), ("signed.keys", keys.as_bytes())] {
        let path = folder.join(name);
        if std::env::var_os("FIELDBOOK_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, actual).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == actual, "{name} differs from the golden file");
    }
}
