//! The administrator of a stack, whose password survives restarts in a file that only this user may read.

use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ControlPlane;

pub(crate) const EMAIL: &str = "admin@demo.example";
const FILE: &str = "admin.json";

/// Its passwords are not printed by accident: no `Debug`.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Admin {
    email: String,
    password: String,
    /// Written before it is set, so that a start that is cut short loses neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Admin {
    pub(crate) fn email(&self) -> &str {
        &self.email
    }

    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// From the ready line of a first start, else from our file.
    pub(super) fn known(home: &Path, ready: &Value) -> anyhow::Result<Option<Self>> {
        let field = |name: &str| ready.get("admin")?.get(name)?.as_str();
        if let (Some(email), Some(password)) = (field("email"), field("password")) {
            let admin = Self { email: email.to_owned(), password: password.to_owned(), next: None };
            admin.save(home)?;
            return Ok(Some(admin));
        }
        match fs::read_to_string(home.join(FILE)) {
            Ok(text) => Ok(serde_json::from_str(&text).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("cannot read the administrator's password"),
        }
    }

    /// `reset` gives what `postern-control admin-reset` prints.
    pub(super) fn reset(home: &Path, reset: impl FnOnce(&str) -> anyhow::Result<String>) -> anyhow::Result<Self> {
        let printed = reset(EMAIL)?;
        let password = match serde_json::from_str::<Value>(&printed) {
            Ok(answer) => answer.get("password").and_then(Value::as_str).map(str::to_owned),
            Err(_) => Some(printed.trim().to_owned()),
        };
        let password = password.filter(|password| !password.is_empty()).context("admin-reset printed no password")?;
        let admin = Self { email: EMAIL.to_owned(), password, next: None };
        admin.save(home)?;
        Ok(admin)
    }

    /// Signs posternd in, and replaces a one-time password.
    pub(super) fn sign_in(
        mut self,
        home: &Path,
        plane: &ControlPlane,
        cli: impl Fn(&[&str], &str) -> anyhow::Result<String>,
    ) -> anyhow::Result<Self> {
        let login = |password: &str| {
            let args =
                ["login", "--control", &plane.url, "--ca", &plane.ca_file, "--email", &self.email, "--password-stdin"];
            cli(&args, &format!("{password}\n"))
        };
        if let Err(error) = login(&self.password) {
            // An earlier start may have got as far as setting the next password.
            let Some(next) = self.next.take() else { return Err(error) };
            login(&next)?;
            self.password = next;
            self.save(home)?;
        }
        let status: Value =
            serde_json::from_str(&cli(&["status", "--json"], "")?).context("`postern status` is not JSON")?;
        match status.pointer("/sign_in/state").and_then(Value::as_str) {
            Some("signed_in") => {}
            state => bail!("signed in, but the state is {state:?}"),
        }
        if status.pointer("/sign_in/must_change_password") == Some(&Value::Bool(true)) {
            let next = new_password()?;
            self.next = Some(next.clone());
            self.save(home)?;
            cli(&["password", "--stdin"], &format!("{}\n{next}\n", self.password))?;
            (self.password, self.next) = (next, None);
            self.save(home)?;
        }
        Ok(self)
    }

    /// Whole or not at all: written beside the file, then renamed.
    fn save(&self, home: &Path) -> anyhow::Result<()> {
        let (path, draft) = (home.join(FILE), home.join("admin.json.new"));
        let written = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(serde_json::to_string(self)?.as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        };
        written().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// 120 random bits in letters and digits that are hard to confuse.
fn new_password() -> anyhow::Result<String> {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0; 24];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("no random bytes")?;
    Ok(bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte % 32))).map(|&letter| char::from(letter)).collect())
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, os::unix::fs::PermissionsExt};

    use super::*;

    fn plane() -> ControlPlane {
        ControlPlane { url: "https://127.0.0.1:1".to_owned(), ca_file: "ca.pem".to_owned() }
    }

    /// A CLI whose account has this password.
    struct Account {
        password: RefCell<String>,
        one_time: RefCell<bool>,
    }

    impl Account {
        fn cli(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
            match args {
                ["login", ..] => {
                    anyhow::ensure!(input.trim_end() == *self.password.borrow(), "wrong password");
                    Ok(String::new())
                }
                ["status", ..] => Ok(serde_json::json!({
                    "sign_in": { "state": "signed_in", "must_change_password": *self.one_time.borrow() }
                })
                .to_string()),
                ["password", ..] => {
                    let (current, next) = input.trim_end().split_once('\n').unwrap();
                    assert_eq!(current, *self.password.borrow());
                    next.clone_into(&mut self.password.borrow_mut());
                    *self.one_time.borrow_mut() = false;
                    Ok(String::new())
                }
                _ => bail!("unexpected {args:?}"),
            }
        }
    }

    #[test]
    fn a_one_time_password_is_replaced_and_the_new_one_is_found_again() {
        let home = tempfile::tempdir().unwrap();
        let ready = serde_json::json!({ "admin": { "email": EMAIL, "password": "once" } });
        let account = Account { password: RefCell::new("once".to_owned()), one_time: RefCell::new(true) };
        let admin = Admin::known(home.path(), &ready).unwrap().unwrap();
        let admin = admin.sign_in(home.path(), &plane(), |args, input| account.cli(args, input)).unwrap();
        assert_eq!(admin.password(), *account.password.borrow());
        assert!(admin.password().len() >= 12);

        let again = Admin::known(home.path(), &Value::Null).unwrap().unwrap();
        assert_eq!(again.password(), admin.password());
        let mode = home.path().join(FILE).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_start_cut_short_before_or_after_the_change_loses_no_password() {
        for password_in_force in ["once", "chosen"] {
            let home = tempfile::tempdir().unwrap();
            let cut_short =
                Admin { email: EMAIL.to_owned(), password: "once".to_owned(), next: Some("chosen".to_owned()) };
            cut_short.save(home.path()).unwrap();
            let account = Account {
                password: RefCell::new(password_in_force.to_owned()),
                one_time: RefCell::new(password_in_force == "once"),
            };
            let admin = Admin::known(home.path(), &Value::Null).unwrap().unwrap();
            let admin = admin.sign_in(home.path(), &plane(), |args, input| account.cli(args, input)).unwrap();
            assert_eq!(admin.password(), *account.password.borrow());
        }
    }

    #[test]
    fn passwords_differ_and_are_long() {
        let (one, other) = (new_password().unwrap(), new_password().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 24);
    }
}
