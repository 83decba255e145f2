//! Compares the queue of ready records with a plan of everything.

use fieldbook_core::entry::ParkScope;
use fieldbook_core::rules::plan::{ReadyQueue, passed_over, plan_next};

use super::*;

/// Something that happens to a book between two plans.
#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Drawn>),
    End(usize),
    Refuse(usize, bool),
    Park(usize, bool),
    Send(usize, DrawnUnit),
    Answer(usize),
    Wait(u8),
    ParkType(bool),
    SwitchActor(bool),
    Plan(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(drawn(), 1..3).prop_map(Step::Append),
        2 => (0..12usize).prop_map(Step::End),
        2 => (0..12usize, any::<bool>()).prop_map(|(op, dead)| Step::Refuse(op, dead)),
        1 => (0..12usize, any::<bool>()).prop_map(|(op, parked)| Step::Park(op, parked)),
        2 => (0..RECORDS, drawn_unit()).prop_map(|(record, unit)| Step::Send(record, unit)),
        2 => (0..RECORDS).prop_map(Step::Answer),
        1 => (0..3u8).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::ParkType),
        1 => any::<bool>().prop_map(Step::SwitchActor),
        3 => (0..4usize).prop_map(Step::Plan),
    ]
}

/// A book with its queue, and the facts outside it.
struct Queued {
    book: Book,
    schema: Schema,
    queue: ReadyQueue,
    seq: u64,
    now: WallTime,
    parks: Vec<(ParkScope, String)>,
    other_actor: bool,
}

impl Queued {
    fn with<T>(&self, use_it: impl FnOnce(PlanInput<'_>) -> T) -> T {
        let actor = actor(self.other_actor);
        let Self { book, schema, parks, now, .. } = self;
        use_it(PlanInput::unbounded(&book.tail, schema, parks, &actor, *now, &NoInspection))
    }

    fn plan(&mut self, batch_ops: usize) -> Plan {
        let mut queue = std::mem::take(&mut self.queue);
        let plan = self.with(|input| plan_next(&PlanInput { batch_ops, ..input }, &mut queue));
        self.queue = queue;
        plan
    }

    fn nth(&self, number: usize) -> Option<(OpPlace, TailRow)> {
        let all: Vec<_> = self.book.tail.ops().collect();
        all.get(number % all.len().max(1)).map(|(place, row)| (*place, (*row).clone()))
    }

    fn changed(&mut self, key: &RecordKey) {
        self.queue.changed(&self.book.tail, &self.schema, key);
    }

    fn append(&mut self, ops: &[Drawn]) {
        self.seq += 1;
        for (index, op) in (0..).zip(ops) {
            let place = OpPlace { seq: Seq::new(self.seq), index };
            let drawn = Drawn {
                other_actor: ops[0].other_actor,
                fresh: ops[0].fresh,
                dead: false,
                ..op.clone()
            };
            self.book.insert(place, &drawn, ops.len());
        }
        for index in 0..u32::try_from(ops.len()).unwrap() {
            let row = self.book.op(OpPlace { seq: Seq::new(self.seq), index }).clone();
            self.queue.appended(&self.book.tail, &self.schema, &row);
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Append(ops) => self.append(ops),
            Step::End(op) => {
                let ended =
                    self.nth(*op).filter(|(place, _)| self.book.tail.unit_of(*place).is_none());
                let Some((place, row)) = ended else { return };
                self.book.tail.remove(place);
                self.changed(&row.key);
                self.queue.ended(&self.book.tail, &self.schema, place);
            }
            Step::Refuse(op, dead) => {
                let refused =
                    self.nth(*op).filter(|(place, _)| self.book.tail.unit_of(*place).is_none());
                let Some((place, row)) = refused else { return };
                self.book.tail.set_dead(place, *dead);
                self.changed(&row.key);
            }
            Step::Park(op, parked) => {
                let Some((_, row)) = self.nth(*op) else { return };
                self.book.tail.set_parked(row.op, parked.then(|| "conflict".to_owned()));
                self.changed(&row.key);
            }
            Step::Send(record, unit) => {
                let is_unanswered = |place| {
                    self.book.tail.unit_of(place).is_some() || self.book.tail.is_dead(place)
                };
                if self.book.tail.ops_of(&key(*record)).any(is_unanswered) {
                    return;
                }
                self.book.send_of(*record, unit);
                self.changed(&key(*record));
            }
            Step::Answer(record) => {
                self.book
                    .tail
                    .remove_unit(UnitId::from_bytes([9 - u8::try_from(*record).unwrap(); 16]));
                self.changed(&key(*record));
            }
            Step::Wait(windows) => {
                self.now =
                    WallTime::from_milliseconds(NOW.milliseconds() + 3_000 * i64::from(*windows));
            }
            Step::ParkType(parked) => {
                let notes = ParkScope::Entity(EntityType::parse("note").unwrap());
                self.parks =
                    parked.then(|| (notes, "unknown_entity".to_owned())).into_iter().collect();
            }
            Step::SwitchActor(other) => self.other_actor = *other,
            Step::Plan(batch) => drop(self.plan(*batch)),
        }
    }
}

fn deletes(book: &Book, group: &Group) -> bool {
    group
        .records
        .iter()
        .flat_map(|(_, places)| places)
        .any(|place| book.op(*place).kind == OpKind::Delete)
}

proptest! {
    /// Law 8.
    #[test]
    fn what_is_ready_is_planned_as_everything_would_be(
        book in any_book(), priorities in priorities(), steps in prop::collection::vec(step(), 1..24),
    ) {
        let schema = schema(priorities);
        let queue = ReadyQueue::default();
        let mut queued =
            Queued { book, schema, queue, seq: 100, now: NOW, parks: Vec::new(), other_actor: false };
        for step in &steps {
            queued.take(step);
            let before = queued.queue.clone();
            let (whole, next) = (queued.with(|input| plan(&input)), queued.plan(usize::MAX));
            prop_assert_eq!(passed_over(&queued.book.tail, &whole, &next), None, "after {:?}", step);
            // In a plan of everything, an earlier deletion delays a later one, even if the earlier
            // one is not sent.
            let edits = |plan: &Plan| plan.groups.iter().filter(|group| !deletes(&queued.book, group)).cloned().collect::<Vec<_>>();
            let (edits, mut planned) = (edits(&next), whole.groups.iter());
            prop_assert!(edits.iter().all(|group| planned.any(|known| known == group)), "in their order");
            prop_assert!(next.groups.iter().all(|group| whole.groups.contains(group)), "as they would go");
            takes_no_deletion_too_early(&queued.book, &next)?;
            prop_assert_eq!((&next.again, next.more), (&whole.again, whole.more), "after {:?}", step);
            // Some waits end without letting anything go.
            if let Some(wake) = whole.wake.filter(|_| whole.groups.is_empty() && whole.again.is_empty()) {
                let now = std::mem::replace(&mut queued.now, wake);
                let then = queued.with(|input| plan(&input));
                queued.now = now;
                let goes_on = !then.groups.is_empty() || !then.again.is_empty();
                prop_assert!(!goes_on || next.wake.is_some_and(|at| at <= wake), "{:?} after {step:?}", next.wake);
            }
            queued.queue = before;
        }
    }
}
