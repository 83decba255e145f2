//! The server's answers to a device that compares its records, and who answers in place of it.

use std::collections::BTreeSet;

use fieldbook::Actor;
use fieldbook::host::WallTime;
use fieldbook::sync::protocol::{CompareAnswer, CompareRequest, Failure};
use fieldbook::sync::{ServerEpoch, ServerId, TenantId};
use fieldbook_core::authority::{Caller, ExchangeError, MemoryAuthority, Quota, compare};

use super::Server;
use crate::way::Way;

impl Server {
    /// Answers a device that compares its records.
    ///
    /// # Errors
    /// The failure that the device is told.
    pub fn compare(&self, request: &CompareRequest, now: i64) -> Result<CompareAnswer, Failure> {
        let now = WallTime::from_milliseconds(self.told_time(now));
        let caller = self.caller(&request.actor);
        let other = self.other(request.server_epoch, request.tenant);
        let authority = other.as_ref().unwrap_or(&self.authority);
        match compare(authority, request, now, &caller, &Quota::default()) {
            Ok(compared) => Ok(compared.answer),
            Err(ExchangeError::Refused(refusal)) => Err(refusal.into()),
            // A store in memory does not fail.
            Err(_) => Err(Failure::Unreachable { code: "connect" }),
        }
    }

    /// Returns the other server, or the other tenant, that answers a device in place of this one. A
    /// device that never reached the right server would take any other server for the right one,
    /// so no fault misleads it.
    pub(super) fn other(
        &self,
        epoch: Option<ServerEpoch>,
        tenant: Option<TenantId>,
    ) -> Option<MemoryAuthority> {
        match self.way {
            Some(Way::OtherServer) if epoch.is_some() => {
                let bytes = [9; 16];
                Some(MemoryAuthority::new(
                    ServerId::from_bytes(bytes),
                    ServerEpoch::from_bytes(bytes),
                ))
            }
            Some(Way::OtherTenant) if tenant.is_some() => {
                let (server, epoch) = self.identity();
                let tenant = TenantId::from_bytes([4; 16]);
                Some(MemoryAuthority::new(server, epoch).of_tenant(tenant))
            }
            _ => None,
        }
    }

    /// Returns the time by the server's clock.
    pub(super) const fn told_time(&self, now: i64) -> i64 {
        match self.way {
            Some(Way::Clock(milliseconds)) => now.saturating_add(milliseconds),
            _ => now,
        }
    }

    pub(super) fn caller(&self, actor: &Actor) -> Caller {
        let denied = self.denied_actors.contains(actor);
        if denied { Caller::OneOf(BTreeSet::new()) } else { Caller::Anyone }
    }
}
