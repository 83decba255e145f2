//! An amount of bytes or requests, divided between tenants and, within a tenant, between its
//! tokens.
//!
//! Invariants:
//! 1. The sum of all shares never exceeds the capacity, except after [`Share::resize`] with more
//!    than was taken.
//! 2. A tenant may hold at most as much as is left free. So one tenant gets half of everything, and
//!    two tenants get a third each. There is always room for another tenant: a tenant that takes
//!    all that it can get excludes nobody.
//! 3. A token may hold at most as much as is left free for its tenant, so that one device does not
//!    exclude its tenant's other devices.
//!
//! What it does not do: wait. A request that does not fit is refused at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::identity::Grant;

/// An amount that is divided.
#[derive(Debug)]
pub(crate) struct Shares {
    capacity: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    tenants: HashMap<String, HeldByTenant>,
}

#[derive(Debug, Default)]
struct HeldByTenant {
    total: usize,
    tokens: HashMap<u64, usize>,
}

/// The share of one request. Dropping this value returns the share.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Arc<Shares>,
    grant: Arc<Grant>,
    amount: usize,
}

/// Returns whether `more` fits the limits of a tenant and a token that hold these amounts of a
/// total.
const fn fits(capacity: usize, total: usize, tenant: usize, token: usize, more: usize) -> bool {
    let Some(free) = capacity.checked_sub(total.saturating_add(more)) else { return false };
    let Some(free_for_tenant) = free.checked_sub(tenant.saturating_add(more)) else { return false };
    token.saturating_add(more) <= free_for_tenant
}

impl Shares {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity, held: Mutex::default() })
    }

    /// Returns an empty share.
    pub(crate) fn share(self: &Arc<Self>, grant: &Arc<Grant>) -> Share {
        Share { shares: Arc::clone(self), grant: Arc::clone(grant), amount: 0 }
    }

    fn add(&self, grant: &Grant, more: usize, anyway: bool) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (tenant, token) = match held.tenants.get(grant.tenant.as_str()) {
            Some(tenant) => {
                (tenant.total, tenant.tokens.get(&grant.number).copied().unwrap_or_default())
            }
            None => (0, 0),
        };
        if !anyway && !fits(self.capacity, held.total, tenant, token, more) {
            return false;
        }
        held.total = held.total.saturating_add(more);
        let tenant = held.tenants.entry(grant.tenant.as_str().to_owned()).or_default();
        tenant.total = tenant.total.saturating_add(more);
        *tenant.tokens.entry(grant.number).or_default() += more;
        true
    }

    fn remove(&self, grant: &Grant, amount: usize) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.total = held.total.saturating_sub(amount);
        let Some(tenant) = held.tenants.get_mut(grant.tenant.as_str()) else { return };
        tenant.total = tenant.total.saturating_sub(amount);
        if let Some(token) = tenant.tokens.get_mut(&grant.number) {
            *token = token.saturating_sub(amount);
            if *token == 0 {
                tenant.tokens.remove(&grant.number);
            }
        }
        if tenant.total == 0 {
            held.tenants.remove(grant.tenant.as_str());
        }
    }
}

impl Share {
    /// Takes more, if that fits.
    pub(crate) fn take(&mut self, more: usize) -> bool {
        let taken = self.shares.add(&self.grant, more, false);
        if taken {
            self.amount = self.amount.saturating_add(more);
        }
        taken
    }

    /// Holds exactly this amount from now on, whether it fits or not: the memory is in use already.
    pub(crate) fn resize(&mut self, amount: usize) {
        if amount > self.amount {
            self.shares.add(&self.grant, amount - self.amount, true);
        } else {
            self.shares.remove(&self.grant, self.amount - amount);
        }
        self.amount = amount;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.shares.remove(&self.grant, self.amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes amounts of 1 as long as there is room.
    fn take_all(shares: &Arc<Shares>, grant: &Arc<Grant>) -> Share {
        let mut share = shares.share(grant);
        while share.take(1) {}
        share
    }

    #[test]
    fn whoever_takes_all_they_can_get_leaves_room_for_the_next_one() {
        let shares = Shares::new(1_200);
        let (mut held, mut least) = (Vec::new(), usize::MAX);
        for tenant in 0..8 {
            for token in 0..8 {
                let share =
                    take_all(&shares, &Grant::for_test(&format!("t{tenant}"), 10 * tenant + token));
                least = least.min(share.amount);
                held.push(share);
            }
        }
        let mut late = shares.share(&Grant::for_test("late", 1_000));
        assert!(late.take(1), "there is room for one more tenant");
        let first: usize = held.iter().take(8).map(|share| share.amount).sum();
        assert!((300..=600).contains(&first), "one tenant has at most half: {first}");
        assert_eq!(held[0].amount, 400, "one token has at most a third");
    }

    #[test]
    fn what_is_dropped_is_given_back() {
        let shares = Shares::new(300);
        let grant = Grant::for_test("acme", 1);
        for _ in 0..3 {
            let mut share = shares.share(&grant);
            assert!(share.take(100) && !share.take(1));
            share.resize(1_000);
            assert!(!share.take(1));
            share.resize(10);
            assert!(share.take(1));
        }
        let held = shares.held.lock().unwrap();
        assert!(held.total == 0 && held.tenants.is_empty(), "{held:?}");
    }

    #[test]
    fn no_amount_overflows() {
        let shares = Shares::new(usize::MAX);
        let grant = Grant::for_test("acme", 1);
        let mut share = shares.share(&grant);
        assert!(!share.take(usize::MAX));
        share.resize(usize::MAX);
        assert!(!share.take(usize::MAX));
    }
}
