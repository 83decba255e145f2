//! Asks the server that keeps the heads of a log whether it is this log.

use std::collections::BTreeMap;

use fieldbook_core::protocol::{Ask, Failure, Found};
use fieldbook_core::rules::standing::{Standing, Stood, places, standing};
use fieldbook_transport::Remote;

use super::CheckError;
use super::ask::Asker;
use crate::audit::Audit;

impl Audit<'_> {
    /// Asks the server whether it knows this log. One short request asks, and nothing changes: not
    /// the book, and not the server. The credentials are those of the book's actor; a server
    /// answers about devices of the tenant of these credentials only.
    ///
    /// The answer is about hashes. Whether the entries have these hashes is checked by
    /// [`examine_book`](crate::audit::examine_book).
    ///
    /// # Errors
    /// [`CheckError::CannotCompare`] from a server that is older than this question;
    /// [`CheckError::OtherServer`] if another server or tenant answered than the book's own; the
    /// others as for [`Book::check`](crate::Book::check).
    ///
    /// ```
    /// use fieldbook::Book;
    /// use fieldbook::audit::Standing;
    /// use fieldbook::sync::{CheckError, Remote};
    ///
    /// async fn told(book: &Book, remote: &dyn Remote) -> Result<String, CheckError> {
    ///     Ok(match book.audit().at_server(remote).await?.standing {
    ///         Standing::Same { upto } => format!("the server has this log up to entry {upto}"),
    ///         Standing::Behind { server, .. } => format!("an older copy: it went on to {server}"),
    ///         Standing::Unknown => "the server does not know this device".to_owned(),
    ///         _ => "this is not the log that the server saw".to_owned(),
    ///     })
    /// }
    /// ```
    pub async fn at_server(&self, remote: &dyn Remote) -> Result<Stood, CheckError> {
        let Some(head) = self.head()? else {
            let (matching, elsewhere) = (0, Vec::new());
            return Ok(Stood { standing: Standing::Unknown, matching, elsewhere });
        };
        let mut asker = Asker::new(&self.book.shared, remote);
        let answer = asker.ask(Ask::Heads).await.map_err(|error| match error {
            // An older server cannot read the question.
            CheckError::Failed(Failure::Refused { code }) if code == "bad_request" => {
                CheckError::CannotCompare
            }
            other => other,
        })?;
        let Some(Found::Heads { logs, .. }) = answer.found else {
            return Err(CheckError::Misbehaved { code: "nothing_found" });
        };
        let mut own = BTreeMap::new();
        for seq in places(&logs).into_iter().filter(|seq| *seq <= head.seq) {
            if let Some(entry) = self.entries(seq, 1)?.pop() {
                own.insert(seq, (entry.header.epoch, entry.hash));
            }
        }
        Ok(standing(head.epoch, &own, &logs))
    }
}
