//! A small number of permits to work. Waiting requests are served tenant by tenant in turn, not in
//! the order of their arrival.
//!
//! Invariants:
//! 1. The number of permits in use never exceeds their total.
//! 2. A tenant gets a permit only while it holds fewer than are free, so that another tenant finds
//!    a free one.
//! 3. While other tenants are present, a tenant has at most as many permits as the server has spare
//!    processors, and none while it [rests](Turns::rest). These two limits do not apply to a tenant
//!    that is alone.
//! 4. Waiting tenants are served in turn, and the requests of one tenant in the order of their
//!    arrival. A tenant with a hundred requests waits for its second permit until every other
//!    tenant had its first.
//! 5. A permit is for work. A request that waits for something else [lends](Turn::lend) its permit,
//!    and gets it back at once afterwards. At that moment more permits than the total may be in
//!    use, by [`LENT`] at most.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::store::Tenant;

/// A tenant counts as present for this long after it has asked for a permit.
const THERE: Duration = Duration::from_secs(5);

/// The most permits that are lent at the same time. This is the number of exchanges in memory
/// beyond those that are worked on.
const LENT: usize = 64;

/// The permits.
#[derive(Debug)]
pub(crate) struct Turns {
    permits: usize,
    /// The most permits of one tenant while others are present.
    beside_others: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    out: usize,
    lent: usize,
    held: HashMap<Tenant, usize>,
    /// One line for each waiting tenant. The next tenant is first.
    lines: VecDeque<(Tenant, VecDeque<oneshot::Sender<Turn>>)>,
    /// The end of each tenant's rest.
    resting: HashMap<Tenant, Instant>,
    /// The last two tenants that asked, and when: at least one of them is not the tenant in
    /// question.
    latest: [Option<(Tenant, Instant)>; 2],
}

/// A permit. Dropping this value returns the permit.
#[derive(Debug)]
pub(crate) struct Turn(Option<(Arc<Turns>, Tenant)>);

impl Turns {
    /// Makes permits, of which one tenant may have all, as far as other tenants are concerned.
    #[cfg(test)]
    fn new(permits: usize) -> Arc<Self> {
        Self::with_most(permits, permits)
    }

    /// Makes permits, of which one tenant may have only some while others are present.
    pub(crate) fn with_most(permits: usize, beside_others: usize) -> Arc<Self> {
        let (permits, beside_others) = (permits.max(1), beside_others.max(1));
        Arc::new(Self { permits, beside_others, state: Mutex::default() })
    }

    /// Gives a tenant no further permits for a while if others are present: it has had more than
    /// its turn.
    pub(crate) fn rest(self: &Arc<Self>, tenant: &Tenant, pause: Duration) {
        let Ok(runtime) = Handle::try_current() else { return };
        let now = Instant::now();
        let mut state = self.lock();
        if pause.is_zero() || !state.others_are_there(tenant, now) {
            return;
        }
        let until = state.resting.get(tenant).copied().unwrap_or(now).max(now) + pause;
        state.resting.insert(tenant.clone(), until);
        drop(state);
        let (turns, tenant) = (Arc::clone(self), tenant.clone());
        runtime.spawn(async move {
            sleep_until(until).await;
            let mut state = turns.lock();
            if state.resting.get(&tenant).is_some_and(|resting| *resting <= until) {
                state.resting.remove(&tenant);
            }
            turns.hand_out(&mut state);
        });
    }

    /// Waits for a permit. Dropping the future leaves the line.
    pub(crate) async fn take(self: &Arc<Self>, tenant: &Tenant) -> Turn {
        // A request leaves a line only with a permit, so there is always an answer.
        self.stand_in_line(tenant).await.unwrap_or(Turn(None))
    }

    /// Blocks until there is a permit.
    pub(crate) fn take_blocking(self: &Arc<Self>, tenant: &Tenant) -> Turn {
        self.stand_in_line(tenant).blocking_recv().unwrap_or(Turn(None))
    }

    fn stand_in_line(self: &Arc<Self>, tenant: &Tenant) -> oneshot::Receiver<Turn> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        state.asked(tenant, Instant::now());
        match state.lines.iter_mut().find(|(of, _)| of == tenant) {
            Some((_, line)) => line.push_back(sender),
            None => state.lines.push_back((tenant.clone(), VecDeque::from([sender]))),
        }
        self.hand_out(&mut state);
        receiver
    }

    /// Gives free permits to the next requests.
    fn hand_out(self: &Arc<Self>, state: &mut State) {
        while let Some(place) = state.next(self.permits, self.beside_others) {
            let Some((tenant, mut line)) = state.lines.remove(place) else { return };
            let mut given = false;
            while let Some(waiting) = line.pop_front() {
                match waiting.send(Turn(Some((Arc::clone(self), tenant.clone())))) {
                    Ok(()) => {
                        given = true;
                        break;
                    }
                    // This request has left the line. Its permit is not returned, because it was
                    // never counted.
                    Err(mut turn) => drop(turn.0.take()),
                }
            }
            if given {
                state.out += 1;
                *state.held.entry(tenant.clone()).or_default() += 1;
            }
            if !line.is_empty() {
                state.lines.push_back((tenant, line));
            }
        }
    }

    /// Returns a permit and gives it to the next request.
    fn give_back(self: &Arc<Self>, state: &mut State, tenant: &Tenant) {
        state.out = state.out.saturating_sub(1);
        if let Some(held) = state.held.get_mut(tenant) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                state.held.remove(tenant);
            }
        }
        // Its tenant has had a turn, so the tenant's line moves behind the other lines.
        if let Some(place) = state.lines.iter().position(|(of, _)| of == tenant)
            && let Some(line) = state.lines.remove(place)
        {
            state.lines.push_back(line);
        }
        self.hand_out(state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Runs `wait`, and lends the permit to other requests during that time, unless too many
    /// permits are lent already.
    pub(crate) fn lend<T>(&self, wait: impl FnOnce() -> T) -> T {
        let Some((turns, tenant)) = &self.0 else { return wait() };
        {
            let mut state = turns.lock();
            if state.lent >= LENT {
                drop(state);
                return wait();
            }
            state.lent += 1;
            turns.give_back(&mut state, tenant);
        }
        let _has_it_back = Lent(turns, tenant);
        wait()
    }
}

/// A permit that is lent. Dropping this value gives the permit back to the lender.
struct Lent<'a>(&'a Arc<Turns>, &'a Tenant);

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let Self(turns, tenant) = self;
        let mut state = turns.lock();
        state.lent = state.lent.saturating_sub(1);
        state.out += 1;
        *state.held.entry((*tenant).clone()).or_default() += 1;
    }
}

impl State {
    /// Returns the place of the first line whose tenant may have a permit.
    fn next(&self, permits: usize, beside_others: usize) -> Option<usize> {
        let free = permits.saturating_sub(self.out);
        if free == 0 {
            return None;
        }
        let now = Instant::now();
        self.lines.iter().position(|(tenant, _)| {
            let held = self.held.get(tenant).copied().unwrap_or_default();
            held < free
                && !self.resting.contains_key(tenant)
                && (held < beside_others || !self.others_are_there(tenant, now))
        })
    }

    fn asked(&mut self, tenant: &Tenant, now: Instant) {
        let [newest, before] = &mut self.latest;
        if newest.as_ref().is_some_and(|(of, _)| of != tenant) {
            *before = newest.take();
        }
        *newest = Some((tenant.clone(), now));
    }

    fn others_are_there(&self, tenant: &Tenant, now: Instant) -> bool {
        let others = self.latest.iter().flatten().filter(|(of, _)| of != tenant);
        others.into_iter().any(|(_, asked)| now.duration_since(*asked) < THERE)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some((turns, tenant)) = self.0.take() else { return };
        let mut state = turns.lock();
        turns.give_back(&mut state, &tenant);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Tenant {
        Tenant::parse(name).unwrap()
    }

    /// Removes all requests from the lines that received a permit.
    fn given(
        lines: &mut Vec<(&'static str, oneshot::Receiver<Turn>)>,
    ) -> Vec<(&'static str, Turn)> {
        let mut given = Vec::new();
        lines.retain_mut(|(name, receiver)| match receiver.try_recv() {
            Ok(turn) => {
                given.push((*name, turn));
                false
            }
            Err(_) => true,
        });
        given
    }

    #[test]
    fn one_tenant_has_at_most_half_and_another_one_finds_a_free_permit() {
        let turns = Turns::new(4);
        let mut lines: Vec<_> =
            (0..10).map(|_| ("busy", turns.stand_in_line(&tenant("busy")))).collect();
        let held = given(&mut lines);
        assert_eq!(held.len(), 2);
        lines.push(("good", turns.stand_in_line(&tenant("good"))));
        assert_eq!(given(&mut lines).iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["good"]);
    }

    #[test]
    fn who_waits_is_served_tenant_by_tenant() {
        let turns = Turns::new(1);
        let first = turns.take_blocking(&tenant("busy"));
        let mut lines: Vec<_> =
            (0..4).map(|_| ("busy", turns.stand_in_line(&tenant("busy")))).collect();
        for name in ["ann", "ann", "bob"] {
            lines.push((name, turns.stand_in_line(&tenant(name))));
        }
        let (mut order, mut held) = (Vec::new(), vec![("", first)]);
        while let Some((name, turn)) = held.pop() {
            order.push(name);
            drop(turn);
            held.extend(given(&mut lines));
            assert!(held.len() <= 1, "there is one permit");
        }
        assert_eq!(order, ["", "ann", "bob", "busy", "ann", "busy", "busy", "busy"]);
    }

    #[test]
    fn beside_others_a_tenant_has_no_more_than_its_most_and_alone_it_has() {
        let turns = Turns::with_most(4, 1);
        let mut lines: Vec<_> =
            (0..3).map(|_| ("busy", turns.stand_in_line(&tenant("busy")))).collect();
        let alone = given(&mut lines);
        assert_eq!(alone.len(), 2);
        lines.push(("good", turns.stand_in_line(&tenant("good"))));
        assert_eq!(given(&mut lines).len(), 1);
        drop(alone);
        let beside = given(&mut lines);
        assert_eq!(beside.len(), 1);
        lines.extend((0..3).map(|_| ("busy", turns.stand_in_line(&tenant("busy")))));
        assert!(given(&mut lines).is_empty());
    }

    #[tokio::test]
    async fn a_tenant_that_rests_waits_while_others_are_served_and_is_served_afterwards() {
        let turns = Turns::new(2);
        // No other tenant is present, so it need not rest.
        drop(turns.take(&tenant("busy")).await);
        turns.rest(&tenant("busy"), Duration::from_secs(3600));
        drop(turns.take(&tenant("busy")).await);
        drop(turns.take(&tenant("good")).await);
        turns.rest(&tenant("busy"), Duration::from_millis(50));
        let mut rests = turns.stand_in_line(&tenant("busy"));
        assert!(rests.try_recv().is_err());
        drop(turns.take(&tenant("good")).await);
        drop(rests.await.unwrap());
        assert!(turns.lock().resting.is_empty());
    }

    #[test]
    fn who_left_the_line_costs_nothing() {
        let turns = Turns::new(1);
        let held = turns.take_blocking(&tenant("busy"));
        drop(turns.stand_in_line(&tenant("gone")));
        let after = turns.stand_in_line(&tenant("good"));
        // One request leaves after its permit was sent and before it has received the permit.
        let given_to = turns.stand_in_line(&tenant("gone"));
        drop(held);
        drop(given_to);
        drop(after.blocking_recv().unwrap());
        drop(turns.take_blocking(&tenant("good")));
        let state = turns.lock();
        assert!(state.out == 0 && state.held.is_empty() && state.lines.is_empty(), "{state:?}");
    }

    #[test]
    fn a_permit_that_is_lent_serves_others_and_is_back_when_the_waiting_is_over() {
        let turns = Turns::new(1);
        let held = turns.take_blocking(&tenant("waits"));
        let mut lines = vec![("good", turns.stand_in_line(&tenant("good")))];
        assert!(given(&mut lines).is_empty());
        let worked = held.lend(|| given(&mut lines));
        assert_eq!(worked.len(), 1, "the other one works meanwhile");
        // Both requests work now. The next request gets its permit when both are done.
        lines.push(("next", turns.stand_in_line(&tenant("next"))));
        drop(worked);
        assert!(given(&mut lines).is_empty());
        drop(held);
        assert_eq!(given(&mut lines).len(), 1);
    }

    #[test]
    fn no_more_permits_are_lent_than_may_be() {
        let turns = Turns::new(1);
        turns.lock().lent = LENT;
        let held = turns.take_blocking(&tenant("waits"));
        let mut lines = vec![("good", turns.stand_in_line(&tenant("good")))];
        assert!(held.lend(|| given(&mut lines)).is_empty(), "it waits with the permit in its hand");
    }
}
