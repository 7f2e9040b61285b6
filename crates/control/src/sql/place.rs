//! Where a database is.

use std::{fmt, str::FromStr};

use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// `postgres://user@host/name`. It never shows its password; what it leaves out comes from `PGPASSWORD`, `~/.pgpass`
/// and the like, as with other clients of PostgreSQL.
#[derive(Clone)]
pub struct DatabaseUrl {
    options: Box<PgConnectOptions>,
    pooler: Pooler,
    shown: String,
}

/// What stands between us and PostgreSQL and shares its connections among its clients, as PgBouncer does. It is the
/// parameter `pooler` of the URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooler {
    /// Nothing.
    #[default]
    Absent,
    /// A connection is ours until we leave it.
    Session,
    /// A connection is ours for a transaction: what is set, prepared or listened to outside of one is lost, or somebody else's.
    Transaction,
}

/// A text that is no URL of a PostgreSQL database. It does not repeat the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be of the form postgres://user@host:port/database?parameter=value&…")]
pub struct BadDatabaseUrl;

impl DatabaseUrl {
    pub(super) const fn pooler(&self) -> Pooler {
        self.pooler
    }

    pub(super) fn options(&self) -> &PgConnectOptions {
        &self.options
    }
}

impl FromStr for DatabaseUrl {
    type Err = BadDatabaseUrl;

    fn from_str(text: &str) -> Result<Self, BadDatabaseUrl> {
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        let rest = rest.ok_or(BadDatabaseUrl)?;
        let (text, pooler) = without_pooler(text)?;
        let mut options: Box<PgConnectOptions> = Box::new(text.parse().map_err(|_| BadDatabaseUrl)?);
        let names_authority = ["sslrootcert=", "ssl-root-cert=", "ssl-ca="].iter().any(|name| text.contains(name));
        // As with other clients: who names an authority wants it asked. The driver would take any certificate.
        match options.get_ssl_mode() {
            PgSslMode::Require if names_authority => *options = options.clone().ssl_mode(PgSslMode::VerifyCa),
            // The driver would never try TLS.
            PgSslMode::Allow => *options = options.clone().ssl_mode(PgSslMode::Prefer),
            _ => {}
        }
        // Parameters can hold a password too.
        let place = rest.split(['?', '#']).next().unwrap_or_default();
        let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
        let user = options.get_username();
        Ok(Self { shown: format!("postgres://{user}@{place}"), options, pooler })
    }
}

/// Takes our own parameter out, which the driver does not know.
fn without_pooler(text: &str) -> Result<(String, Pooler), BadDatabaseUrl> {
    let Some((place, parameters)) = text.split_once('?') else { return Ok((text.to_owned(), Pooler::Absent)) };
    let (mut pooler, mut kept) = (Pooler::Absent, Vec::new());
    for parameter in parameters.split('&') {
        match parameter.strip_prefix("pooler=") {
            None => kept.push(parameter),
            Some("session") => pooler = Pooler::Session,
            Some("transaction") => pooler = Pooler::Transaction,
            Some(_) => return Err(BadDatabaseUrl),
        }
    }
    let mark = if kept.is_empty() { "" } else { "?" };
    Ok((format!("{place}{mark}{}", kept.join("&")), pooler))
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
    fn a_url_says_what_stands_before_the_database() {
        for (parameters, pooler) in [
            ("", Pooler::Absent),
            ("?sslmode=disable", Pooler::Absent),
            ("?pooler=session", Pooler::Session),
            ("?sslmode=disable&pooler=transaction&application_name=x", Pooler::Transaction),
        ] {
            let url: DatabaseUrl = format!("postgres://ops@h/d{parameters}").parse().unwrap();
            assert_eq!(url.pooler(), pooler, "{parameters}");
        }
        assert!("postgres://ops@h/d?pooler=statement".parse::<DatabaseUrl>().is_err());
    }

    #[test]
    fn an_authority_that_is_named_is_asked() {
        let mode = |parameters: &str| {
            let url: DatabaseUrl = format!("postgres://ops@h/d?{parameters}").parse().unwrap();
            format!("{:?}", url.options().get_ssl_mode())
        };
        assert_eq!(mode("sslmode=require"), "Require");
        assert_eq!(mode("sslmode=require&sslrootcert=/ca.pem"), "VerifyCa");
        assert_eq!(mode("sslmode=verify-full&sslrootcert=/ca.pem"), "VerifyFull");
        assert_eq!(mode("sslmode=allow"), "Prefer");
        assert_eq!(mode("sslmode=disable"), "Disable");
    }

    #[test]
    fn what_is_no_url_is_refused_without_being_repeated() {
        for text in ["", "mysql://root:s3cret@h/d", "/var/lib/s3cret", "postgres://u:s3cret@h:port/d"] {
            let error = text.parse::<DatabaseUrl>().unwrap_err();
            assert!(!error.to_string().contains("s3cret"));
        }
    }
}
