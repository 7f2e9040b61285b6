//! Where a database is.

use std::{fmt, str::FromStr};

use sqlx::postgres::PgConnectOptions;

/// `postgres://user@host/name`. It never shows its password; what it leaves out comes from `PGPASSWORD`, `~/.pgpass`
/// and the like, as with other clients of PostgreSQL.
#[derive(Clone)]
pub struct DatabaseUrl {
    options: Box<PgConnectOptions>,
    shown: String,
}

/// A text that is no URL of a PostgreSQL database. It does not repeat the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be of the form postgres://user@host:port/database")]
pub struct BadDatabaseUrl;

impl DatabaseUrl {
    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }
}

impl FromStr for DatabaseUrl {
    type Err = BadDatabaseUrl;

    fn from_str(text: &str) -> Result<Self, BadDatabaseUrl> {
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        let rest = rest.ok_or(BadDatabaseUrl)?;
        let options: Box<PgConnectOptions> = Box::new(text.parse().map_err(|_| BadDatabaseUrl)?);
        // Parameters can hold a password too.
        let place = rest.split(['?', '#']).next().unwrap_or_default();
        let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
        let user = options.get_username();
        Ok(Self { shown: format!("postgres://{user}@{place}"), options })
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_url_never_shows_its_password() {
        for text in [
            "postgres://ops:s3cret@db.example:5433/postern",
            "postgresql://ops@db.example/postern?password=s3cret&sslmode=require",
            "postgres://ops:p%40s3cret@db.example/postern",
        ] {
            let url: DatabaseUrl = text.parse().unwrap();
            let shown = format!("{url} {url:?}");
            assert!(!shown.contains("s3cret"), "{shown}");
            assert!(shown.starts_with("postgres://ops@db.example"), "{shown}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_without_being_repeated() {
        for text in ["", "mysql://root:s3cret@h/d", "/var/lib/s3cret", "postgres://u:s3cret@h:port/d"] {
            let error = text.parse::<DatabaseUrl>().unwrap_err();
            assert!(!error.to_string().contains("s3cret"));
        }
    }
}
