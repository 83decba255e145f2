//! The address of a database. Its password is never shown.

use std::fmt;
use std::path::Path;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::identity::{FileError, Kind, Mode, Seen};

const KIND: Kind = Kind {
    what: "the file with the database's address",
    mode: Mode::Private,
    most: Some(64 * 1024),
};

/// The address of a Postgres database, such as `postgres://fieldbook:secret@127.0.0.1/fieldbook`.
///
/// Special characters of the user, the password and the name are written with `%`. A Unix socket is
/// named by its folder, as in `postgres://fieldbook@%2Frun%2Fpostgresql/fieldbook`. `Debug` and
/// `Display` leave the password out.
#[derive(Clone)]
pub struct PostgresUrl(Config);

/// An address that is not one of a database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresUrlError {
    /// The text has another form.
    #[error(
        "the address of the database is not of the form postgres://USER:PASSWORD@HOST:PORT/NAME \
         (write special characters of the password with %, as in p%40ss for p@ss)"
    )]
    Form,
    /// The text names no user or no database.
    #[error("the address of the database names no user or no database: postgres://USER@HOST/NAME")]
    Incomplete,
    /// The address asks for TLS.
    #[error(
        "the address of the database asks for TLS (sslmode), which this program does not speak to \
         a database yet: use a Unix socket, this machine, or a tunnel"
    )]
    Tls,
    /// The database is on another machine, and the address does not say that the way there is safe.
    #[error(
        "the database is on another machine, and this program does not speak TLS to a database yet: \
         add ?sslmode=disable if the network between them is private, or use a tunnel"
    )]
    InTheOpen,
    /// The file with the address is not read.
    #[error(transparent)]
    File(#[from] FileError),
}

impl PostgresUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// [`PostgresUrlError`], which contains nothing of the address.
    pub fn parse(text: &str) -> Result<Self, PostgresUrlError> {
        let text = text.trim();
        if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(PostgresUrlError::Form);
        }
        let config: Config = text.parse().map_err(|_| PostgresUrlError::Form)?;
        // An `@` in the password makes the rest of the password a host.
        let is_odd = |host: &Host| match host {
            Host::Tcp(name) => {
                name.contains(['@', ':']) && name.parse::<std::net::IpAddr>().is_err()
            }
            #[cfg(unix)]
            Host::Unix(_) => false,
        };
        if config.get_hosts().is_empty() || config.get_hosts().iter().any(is_odd) {
            return Err(PostgresUrlError::Form);
        }
        if config.get_user().is_none() || config.get_dbname().is_none() {
            return Err(PostgresUrlError::Incomplete);
        }
        match config.get_ssl_mode() {
            SslMode::Disable => {}
            SslMode::Require => return Err(PostgresUrlError::Tls),
            _ if config.get_hosts().iter().all(is_near) => {}
            _ => return Err(PostgresUrlError::InTheOpen),
        }
        Ok(Self(config))
    }

    /// Reads an address from a file, which only its owner may read.
    ///
    /// # Errors
    /// [`PostgresUrlError`]. It names the file, and contains nothing of the address.
    pub fn read(path: &Path) -> Result<Self, PostgresUrlError> {
        Self::parse(&Seen::default().read_text(path, KIND)?)
    }

    /// Returns the settings of a connection.
    pub(super) fn config(&self) -> Config {
        self.0.clone()
    }
}

/// Returns whether nothing leaves this machine on the way to a host.
fn is_near(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost"
                || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.0.get_hosts().first().map_or_else(String::new, |host| match host {
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        });
        let name = self.0.get_dbname().unwrap_or_default();
        write!(f, "{name} at {host}")
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_user_and_password() {
        let url = PostgresUrl::parse("postgres://ann:canary%40@127.0.0.1:5433/books").unwrap();
        assert_eq!(format!("{url} {url:?}"), "books at 127.0.0.1 PostgresUrl(books at 127.0.0.1)");
        assert_eq!(url.0.get_password(), Some(b"canary@".as_slice()));
    }

    #[test]
    fn what_is_no_address_is_refused_without_being_repeated() {
        for (text, expected) in [
            ("canary", PostgresUrlError::Form),
            ("host=canary user=canary", PostgresUrlError::Form),
            ("postgres://ann:p@canary@127.0.0.1/books", PostgresUrlError::Form),
            ("postgres://ann:canary@127.0.0.1:canary/books", PostgresUrlError::Form),
            ("postgres://ann:canary@127.0.0.1/books?canary=1", PostgresUrlError::Form),
            ("postgres://ann:canary@127.0.0.1", PostgresUrlError::Incomplete),
            ("postgres://127.0.0.1/books", PostgresUrlError::Incomplete),
            ("postgres://ann:canary@db.example.com/books", PostgresUrlError::InTheOpen),
            ("postgres://ann:canary@127.0.0.1/books?sslmode=require", PostgresUrlError::Tls),
        ] {
            let error = PostgresUrl::parse(text).unwrap_err();
            assert_eq!(error.to_string(), expected.to_string(), "{text}");
            assert!(!format!("{error} {error:?}").contains("canary"), "{text}");
        }
    }

    #[test]
    fn a_database_on_another_machine_is_used_once_its_owner_says_that_the_way_is_private() {
        for text in [
            "postgres://ann:canary@db.example.com/books?sslmode=disable",
            "postgresql://ann@%2Frun%2Fpostgresql/books",
            "postgres://ann@[::1]:5432/books",
            "postgres://ann@localhost/books",
        ] {
            assert!(PostgresUrl::parse(text).is_ok(), "{text}");
        }
    }
}
