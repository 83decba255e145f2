//! Three stores of the same server, which are given the same requests.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use fieldbook_core::authority::{
    Caller, ExchangeError, MemoryAuthority, Quota, Refusal, compare, exchange,
};
use fieldbook_core::protocol::{CompareRequest, ExchangeAnswer, ExchangeRequest};
use fieldbook_core::{ServerEpoch, ServerId, WallTime};
use tokio::runtime::Runtime;

use super::super::{Amounts, Postgres, PostgresUrl};
use super::cluster;
use crate::store::support::Disk;
use crate::store::{Incoming, Store, StoreExchangeError, Tenant};

/// What a store answered, as bytes.
type Told = Result<Vec<u8>, String>;

/// A store in memory for each tenant, a store file and a database.
pub(super) struct Three {
    runtime: Runtime,
    pub(super) memory: BTreeMap<Tenant, MemoryAuthority>,
    file: Store,
    pub(super) database: Postgres,
    url: PostgresUrl,
    epoch: ServerEpoch,
}

pub(super) fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).unwrap()
}

/// Answers a request, as the server does.
pub(super) fn answered(
    incoming: Incoming<'_>,
    store: &Postgres,
) -> Result<ExchangeAnswer, StoreExchangeError> {
    let accepted = store.accept(incoming, None)?;
    let mut changes = Vec::new();
    let answer = store.answer(incoming, accepted, |change| changes.push(change))?;
    Ok(ExchangeAnswer { changes, ..answer })
}

fn told(answer: Result<ExchangeAnswer, StoreExchangeError>) -> Told {
    match answer {
        // Each store has a key of its own.
        Ok(answer) => {
            assert_eq!(answer.signed.is_some(), answer.receipt.is_some());
            Ok(serde_json::to_vec(&ExchangeAnswer { signed: None, ..answer }).unwrap())
        }
        Err(StoreExchangeError::Refused(refusal)) => Err(format!("{refusal:?}")),
        Err(error) => panic!("{error:?}"),
    }
}

fn refusal(refusal: &Refusal) -> Told {
    Err(format!("{refusal:?}"))
}

impl Three {
    /// Makes the stores; none without Postgres.
    pub(super) fn new() -> Option<Self> {
        let cluster = cluster::shared()?;
        let runtime = Runtime::new().unwrap();
        let name = runtime.block_on(cluster.database());
        let url = PostgresUrl::parse(&cluster.url(&name)).unwrap();
        let file = Store::on_database(Disk::default().database(), Path::new("disk")).unwrap();
        let epoch = file.identity().1;
        let database = runtime.block_on(async {
            drop(Postgres::open(&url).await.unwrap());
            let admin = cluster.client(&name).await;
            let (server, epoch) =
                (file.identity().0.as_bytes().to_vec(), epoch.as_bytes().to_vec());
            let set = "update fieldbook.store set server = $1, epoch = $2";
            admin.execute(set, &[&server, &epoch]).await.unwrap();
            Postgres::open(&url).await.unwrap()
        });
        Some(Self { runtime, memory: BTreeMap::new(), file, database, url, epoch })
    }

    /// Makes the database read little at first.
    pub(super) fn read_little(&mut self) {
        self.database.amounts = Amounts { content_bytes: 300, page: 2 };
    }

    pub(super) fn server(&self) -> ServerId {
        self.file.identity().0
    }

    pub(super) fn memory(&mut self, of: &Tenant) -> &mut MemoryAuthority {
        let server = self.file.identity().0;
        let epoch = self.epoch;
        let new = || MemoryAuthority::new(server, epoch).of_tenant(of.id(&server));
        self.memory.entry(of.clone()).or_insert_with(new)
    }

    /// Gives the request to each store, and returns the answer once it is that of all.
    #[track_caller]
    pub(super) fn exchange(
        &mut self,
        of: &Tenant,
        request: &ExchangeRequest,
        now: WallTime,
        (caller, quota): (&Caller, &Quota),
    ) -> Option<ExchangeAnswer> {
        let answer = exchange(self.memory(of), request, now, caller, quota);
        let expected: Told = match &answer {
            Ok(answer) => Ok(serde_json::to_vec(answer).unwrap()),
            Err(ExchangeError::Refused(refused)) => refusal(refused),
            Err(error) => panic!("{error:?}"),
        };
        let request = Arc::new(request.clone());
        let incoming = Incoming { tenant: of, request: &request, now, caller, quota };
        let by_file = self.file.accept(incoming, None).and_then(|accepted| {
            let mut changes = Vec::new();
            let answer = self.file.answer(incoming, accepted, |change| changes.push(change))?;
            Ok(ExchangeAnswer { changes, ..answer })
        });
        same(&expected, &told(by_file), "the file", &*request);
        same(&expected, &told(answered(incoming, &self.database)), "the database", &*request);
        answer.ok()
    }

    /// Gives a question to each store.
    #[track_caller]
    pub(super) fn compare(
        &mut self,
        of: &Tenant,
        request: &CompareRequest,
        now: WallTime,
        quota: &Quota,
    ) {
        let caller = Caller::Anyone;
        let expected: Told = match compare(self.memory(of), request, now, &caller, quota) {
            Ok(compared) => Ok(serde_json::to_vec(&compared.answer).unwrap()),
            Err(ExchangeError::Refused(refused)) => refusal(&refused),
            Err(error) => panic!("{error:?}"),
        };
        let told = |compared: Result<_, StoreExchangeError>| match compared {
            Ok(fieldbook_core::authority::Compared { answer, .. }) => {
                Ok(serde_json::to_vec(&answer).unwrap())
            }
            Err(StoreExchangeError::Refused(refused)) => refusal(&refused),
            Err(error) => panic!("{error:?}"),
        };
        let by_file = told(self.file.compare(of, request, now, (&caller, quota)));
        same(&expected, &by_file, "the file", request);
        let by_database = told(self.database.compare(of, request, now, (&caller, quota)));
        same(&expected, &by_database, "the database", request);
    }

    /// Restores each store: a new epoch.
    pub(super) fn start_epoch(&mut self) {
        self.file.start_epoch().unwrap();
        self.epoch = self.file.identity().1;
        for memory in self.memory.values_mut() {
            memory.start_epoch(self.epoch);
        }
        self.runtime.block_on(async {
            Postgres::start_epoch(&self.url).await.unwrap();
            let mut lent = self.database.connections.lend().await.unwrap();
            let epoch = self.epoch.as_bytes().to_vec();
            let set = "update fieldbook.store set epoch = $1 returning epoch";
            let value = super::super::connections::value(epoch, tokio_postgres::types::Type::BYTEA);
            lent.ask(set, &vec![value]).await.unwrap();
        });
    }

    pub(super) fn epoch(&self) -> ServerEpoch {
        self.epoch
    }
}

#[track_caller]
fn same(expected: &Told, told: &Told, by: &str, request: &impl serde::Serialize) {
    if expected != told {
        let shown = |told: &Told| match told {
            Ok(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Err(refusal) => refusal.clone(),
        };
        let request = serde_json::to_string(request).unwrap();
        panic!("{by} differs\n{request}\nexpected {}\n{by}: {}", shown(expected), shown(told));
    }
}
