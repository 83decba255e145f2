//! Reading a request's body: within its share of memory, and at a pace.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::StatusCode;
use fieldbook_core::limits;
use http_body_util::BodyExt;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::problem::Problem;
use crate::door::{Pace, Share};
use crate::limits::DoorLimits;

/// The most bytes that are read of a refused body, so that its sender can read the reason.
const DRAIN_BYTES: usize = 4 * limits::REQUEST_BYTES;
/// The longest time for which a refused body is read.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// The piece that is read at a time, and the pause after it, for all such bodies together: 16 MiB
/// per second. A client whose body is refused must not keep a processor busy.
const DRAIN_PIECE: (usize, Duration) = (64 * 1024, Duration::from_millis(4));
/// The lock for reading such a piece.
static DRAINING: Mutex<()> = Mutex::const_new(());
/// The room that is reserved at first for a body of unknown size.
const FIRST_BYTES: usize = 16 * 1024;

/// Reads a body up to the limit. It reads a refused body to its end, so that the sender can read
/// the answer.
pub(super) async fn collect(
    mut body: Body,
    share: &mut Share,
    limits: &DoorLimits,
) -> Result<Vec<u8>, Problem> {
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if declared > limits::REQUEST_BYTES {
        drain(body).await;
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let mut pace = Pace::begin(limits.patience, limits.least_rate, Instant::now());
    loop {
        let frame = match timeout_at(pace.deadline(), body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return Ok(bytes),
            Ok(Some(Err(_))) => {
                return Err(Problem::new(
                    StatusCode::BAD_REQUEST,
                    "broken_body",
                    "the request broke off",
                ));
            }
            Err(_) => return Err(too_slow(limits)),
        };
        let Some(data) = frame.data_ref() else { continue };
        pace.moved(data.len(), Instant::now());
        if bytes.len() + data.len() > limits::REQUEST_BYTES {
            drop(bytes);
            drain(body).await;
            return Err(too_large());
        }
        if !make_room(&mut bytes, data.len(), declared, share) {
            drop(bytes);
            drain(body).await;
            return Err(Problem::busy("too many requests are being sent at the same time"));
        }
        bytes.extend_from_slice(data);
    }
}

/// Reserves memory for bytes that have arrived, not for the declared size: otherwise a header alone
/// would reserve memory.
fn make_room(bytes: &mut Vec<u8>, more: usize, declared: usize, share: &mut Share) -> bool {
    let needed = bytes.len() + more;
    if needed <= bytes.capacity() {
        return true;
    }
    let most = if declared >= needed { declared } else { limits::REQUEST_BYTES };
    let capacity = needed.next_power_of_two().max(FIRST_BYTES).min(most).max(needed);
    share.take(capacity - bytes.capacity())
        && bytes.try_reserve_exact(capacity - bytes.len()).is_ok()
}

/// Reads the rest of a refused body, within limits.
pub(super) async fn drain(mut body: Body) {
    let all = async {
        let (mut read, mut piece) = (0, 0);
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            read += bytes;
            piece += bytes;
            if read > DRAIN_BYTES {
                break;
            }
            if piece >= DRAIN_PIECE.0 {
                piece = 0;
                let _this = DRAINING.lock().await;
                sleep(DRAIN_PIECE.1).await;
            }
        }
    };
    // A slower sender does not get to read the answer.
    drop(timeout(DRAIN_TIME, all).await);
}

fn too_large() -> Problem {
    let message =
        format!("a request has at most {} bytes: send less at a time", limits::REQUEST_BYTES);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}

fn too_slow(limits: &DoorLimits) -> Problem {
    let message = format!(
        "the request stopped arriving, or came with less than {} bytes a second: send it again, or less at a time",
        limits.least_rate
    );
    Problem::new(StatusCode::REQUEST_TIMEOUT, "slow_request", message)
}
