//! `devices`: the devices of a server's store, and those that have been silent for long.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use fieldbook::host::{Clock, SystemClock, WallTime};
use fieldbook_server::{KnownDevice, KnownLog, known_devices};
use serde_json::{Value, json};

use crate::error::Failure;
use crate::files;
use crate::output::Output;
use crate::show::table::{Listing, Text, Tone, row};
use crate::show::{count, name, time};

/// The arguments of `devices`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fieldbook devices crm.store
  fieldbook devices crm.store --silent-for 7d        who sent and fetched nothing for a week
  fieldbook devices copy.store --json                of a backup, while the server goes on

A device is seen when its server keeps a new head of its log: when it sent something, or when something new came to it.
A device that asks and gets nothing new writes nothing, here and there, so it is not seen. Times are the server's.")]
pub(crate) struct Args {
    /// The store's file, while no server has it open, or a backup of it
    store: PathBuf,
    /// Only the devices that were not seen for so long, such as 7d, 12h or 30m
    #[arg(long, value_name = "TIME", value_parser = span)]
    silent_for: Option<Duration>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    files::is_file(&args.store)?;
    let all = known_devices(&args.store).map_err(Failure::caused_by)?;
    let now = SystemClock::new().now().wall;
    let is_meant =
        |device: &&KnownDevice| args.silent_for.is_none_or(|span| is_silent(device, now, span));
    let meant: Vec<_> = all.iter().filter(is_meant).collect();
    if args.json {
        return meant.iter().try_for_each(|device| output.json(&as_json(device)));
    }
    if meant.is_empty() {
        let what = if all.is_empty() {
            "the store knows no device"
        } else {
            "no device was silent for so long"
        };
        return Ok(writeln!(output, "{what}")?);
    }
    let mut listing =
        Listing::new(&["tenant", "device", "last user", "last seen", ">entry", "its log"]);
    for device in &meant {
        let Some(newest) = device.newest() else { continue };
        let actor = newest.seen.as_ref().map_or_else(|| "–".to_owned(), |(_, actor)| name(actor));
        let seen = time::local_or(device.seen_at(), "before that was kept");
        row!(
            listing,
            name(&device.tenant),
            Text::name(device.device),
            actor,
            seen,
            newest.last.seq,
            of_log(&device.logs)
        );
    }
    listing.write(output)?;
    if args.silent_for.is_some() {
        writeln!(output, "{} of {}", meant.len(), count(all.len() as u64, "device"))?;
    }
    Ok(())
}

/// Returns whether a device was not seen for so long, as far as is known.
fn is_silent(device: &KnownDevice, now: WallTime, span: Duration) -> bool {
    let most = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    device
        .seen_at()
        .is_none_or(|seen| now.milliseconds().saturating_sub(seen.milliseconds()) >= most)
}

/// Returns what the epochs of a device say.
fn of_log(logs: &[KnownLog]) -> Text {
    if logs.len() < 2 {
        return Text::toned("1 epoch", Tone::Plain);
    }
    Text::toned(
        format!("{}: restored, or a copy is used", count(logs.len() as u64, "epoch")),
        Tone::Waiting,
    )
}

fn as_json(device: &KnownDevice) -> Value {
    let logs = device.logs.iter().map(|log| {
        json!({
            "epoch": log.epoch, "first": log.first, "entry": log.last.seq, "hash": log.last.hash,
            "seen": log.seen.as_ref().map(|(at, _)| time::utc(*at)),
            "actor": log.seen.as_ref().map(|(_, actor)| actor),
        })
    });
    let newest = device.newest();
    json!({
        "tenant": device.tenant,
        "device": device.device,
        "seen": device.seen_at().map(time::utc),
        "actor": newest.and_then(|log| log.seen.as_ref()).map(|(_, actor)| actor),
        "entry": newest.map(|log| log.last.seq),
        "epochs": logs.collect::<Vec<_>>(),
    })
}

/// Reads a span of time: a whole number with a unit.
fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number with d, h or m, such as 7d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        'd' => 86_400,
        'h' => 3_600,
        'm' => 60,
        _ => return Err(wrong()),
    };
    let number = text.strip_suffix(unit).unwrap_or_default();
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_with_its_unit() {
        assert_eq!(span("7d"), Ok(Duration::from_secs(7 * 86_400)));
        assert_eq!(span("12h"), Ok(Duration::from_secs(12 * 3_600)));
        assert_eq!(span("30m"), Ok(Duration::from_secs(1_800)));
        for wrong in ["", "d", "7", "-7d", "7w", "7dd", "1.5h", "999999999999999999999d", "7ü"] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }
}
