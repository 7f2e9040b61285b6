//! Becoming an account, and ceasing to be one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::Method;
use postern_local_api::{cause::Cause, message::ControlLink};
use postern_proto::problem::Problem;
use postern_proto::{id::AccountId, replica::Replica};
use tokio::task::JoinSet;

use super::{Shell, following::Following};
use crate::{
    account::Account,
    engine::Input,
    secrets::Secrets,
    sign_in::SignedIn,
    store::{
        CachedLeases, Choices, ChosenPorts, Config, Identity, LastReplica, LastUsed, Lock, SaveError, Store, Stored,
    },
};

/// How long a sign-out tries to tell the control plane.
const LOGOUT_DEADLINE: Duration = Duration::from_secs(5);

impl Shell {
    /// Goes on where the last run stopped.
    pub(super) async fn resume(&mut self, config: Option<Config>) {
        self.resume_network().await;
        self.parts.configs.send_replace(config.clone());
        match self.resume_keys().await {
            Some(secrets) => self.resume_with(config, secrets).await,
            None => self.post(),
        }
    }

    pub(super) async fn resume_with(&mut self, config: Option<Config>, secrets: Secrets) {
        let Secrets { key, record } = secrets;
        let Some(config) = config else { return self.post() };
        let store = self.parts.store.clone();
        let warnings = &mut self.parts.warnings;
        if !crate::account::is_same_control(&record.control, &config.control) {
            return self.refuse_last(format!(
                "the sign-in of {} was made at {}, not at {}",
                record.account.email, record.control, config.control
            ));
        }
        let Some(identity) = store.load_or_warn::<Identity>(warnings) else {
            return self.refuse_last("the device key or certificate is missing".to_owned());
        };
        let account = match Account::new(&config, record, key, identity) {
            Ok(account) => Arc::new(account),
            Err(error) => return self.refuse_last(format!("the last sign-in cannot be used: {error}")),
        };
        let locked = store.load_or_warn::<Lock>(warnings).unwrap_or_default().locked;
        let replica = store.load_or_warn::<LastReplica>(warnings).unwrap_or_default().0;
        let leases = store.load_or_warn::<CachedLeases>(warnings).unwrap_or_default().leases;
        self.activate(account, replica, locked).await;
        let keys = self.lease_keys();
        let leases = leases.into_iter().map(|lease| {
            let grant = keys.open(&lease.token).ok().map(|claims| claims.grant);
            (lease, grant)
        });
        let leases = leases.collect();
        self.tell(Input::LeasesKept(leases)).await;
        self.post();
    }

    /// The last sign-in counts for nothing; why is told until the next one.
    fn refuse_last(&mut self, reason: String) {
        self.notes.sign_in_ended = Some(Cause::SignInEnded { reason });
        self.post();
    }

    /// Becomes the account that has just signed in.
    pub(super) async fn adopt(&mut self, signed_in: SignedIn, unlock: bool) -> Result<(), Problem> {
        let SignedIn { config, record, key, identity } = signed_in;
        let account = Account::new(&config, record.clone(), key.clone(), identity.clone()).map_err(|error| {
            Problem::new(502, "unusable_sign_in", "The sign-in cannot be used").with_detail(error.to_string())
        })?;
        let same = self.account.as_ref().is_some_and(|before| {
            before.owner().account == account.owner().account
                && crate::account::is_same_control(&before.record().control, &account.record().control)
        });
        let replica = match &self.following {
            Some(following) if same => following.replica(),
            _ => Replica::default(),
        };
        let locked = self.locked && same && !unlock;
        if !same {
            self.sign_out().await;
        }
        self.parts.configs.send_replace(Some(config.clone()));
        let store = self.parts.store.clone();
        let save = move || -> Result<(), SaveError> {
            store.save(&config)?;
            store.save(&Lock { locked })?;
            store.save(&identity)
        };
        self.saver.run(save).await;
        self.saver.flush().await;
        // The secrets come last: without them the rest counts as no sign-in.
        self.save_secrets(Secrets { key, record }).await;
        self.activate(Arc::new(account), replica, locked).await;
        Ok(())
    }

    async fn activate(&mut self, account: Arc<Account>, replica: Replica, locked: bool) {
        // Answers to calls of the time before must not arrive any more.
        self.work = JoinSet::new();
        self.forget_look();
        self.upkeep = super::Upkeep::default();
        self.notes = super::Notes::default();
        if let Some(before) = self.following.take() {
            before.stop();
        }
        match account.gateway_tls() {
            Ok(tls) => self.parts.carriage.gateways().set_tls(Some(tls)),
            Err(error) => tracing::error!("gateways cannot be dialled: {error}"),
        }
        self.link = ControlLink::Connecting { url: account.control().url().to_string() };
        self.must_change_password = account.record().must_change_password;
        self.following = Some(Following::start(account.control(), replica));
        let choices = self.choices_of(&account);
        self.account = Some(Arc::clone(&account));
        self.locked = locked;
        let now = crate::clock::now();
        let sign_in_ends = account.record().expires_at;
        let (owner, certificate) = (account.owner(), account.certificate());
        self.engine.handle(Input::SignedIn { owner, certificate, sign_in_ends, choices }, now);
        self.last_used =
            self.kept_of::<LastUsed>(&account, |kept| kept.account).map(|kept| kept.at).unwrap_or_default();
        if let Some(kept) = self.kept_of::<ChosenPorts>(&account, |kept| kept.account) {
            self.engine.handle(Input::PortsKept(kept.ports), now);
        }
        self.engine.handle(if locked { Input::Locked } else { Input::Unlocked }, now);
        self.parts.accounts.send_replace(Some(account));
        self.carry_out().await;
        self.take_replica().await;
        self.report_allowed();
    }

    fn choices_of(&mut self, account: &Account) -> BTreeMap<postern_proto::id::ResourceId, bool> {
        self.kept_of::<Choices>(account, |kept| kept.account).map(|kept| kept.connected).unwrap_or_default()
    }

    /// What this account left behind.
    fn kept_of<T: Stored>(&mut self, account: &Account, whose: impl Fn(&T) -> AccountId) -> Option<T> {
        let kept = self.parts.store.load_or_warn::<T>(&mut self.parts.warnings);
        kept.filter(|kept| whose(kept) == account.owner().account)
    }

    pub(super) async fn lock(&mut self) -> Result<(), Problem> {
        if self.account.is_none() {
            return Err(Problem::new(409, "signed_out", "Nobody is signed in"));
        }
        self.locked = true;
        self.tell(Input::Locked).await;
        let store = self.parts.store.clone();
        self.saver.run(move || store.save(&Lock { locked: true })).await;
        self.saver.flush().await;
        Ok(())
    }

    /// Signs out because the user wants it, and tells the control plane if it can be reached.
    pub(super) async fn sign_out_by_wish(&mut self) {
        if let Some(account) = self.account.clone() {
            tokio::spawn(async move {
                let logout = account.control().call::<(), ()>(Method::POST, "/api/v1/logout", None);
                match tokio::time::timeout(LOGOUT_DEADLINE, logout).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!("the control plane was not told of the sign-out: {error}"),
                    Err(_) => tracing::warn!("the control plane was not told of the sign-out: it does not answer"),
                }
            });
        }
        self.sign_out().await;
        self.notes = super::Notes::default();
    }

    /// Ceases to be an account: closes and cuts everything, and destroys its key, certificate, token and leases. What
    /// it had connected is kept for its return.
    pub(super) async fn sign_out(&mut self) {
        self.work = JoinSet::new();
        self.forget_look();
        self.upkeep = super::Upkeep::default();
        if let Some(following) = self.following.take() {
            following.stop();
        }
        self.save_last_used().await;
        self.engine.handle(Input::SignedOut, crate::clock::now());
        // Boxed: a sign-out may be one of the commands that are carried out.
        Box::pin(self.carry_out()).await;
        self.account = None;
        self.locked = false;
        self.must_change_password = false;
        self.link = ControlLink::None;
        self.parts.carriage.gateways().set_tls(None);
        self.destinations.clear();
        self.parts.accounts.send_replace(None);
        // The secrets go first: without them the rest counts as no sign-in.
        self.forget_secrets().await;
        let store = self.parts.store.clone();
        self.saver.run(move || forget(&store)).await;
        self.saver.flush().await;
    }

    pub(super) async fn password_changed(&mut self) {
        self.must_change_password = false;
        if let Some(account) = &self.account {
            let mut secrets = account.secrets();
            secrets.record.must_change_password = false;
            self.save_secrets(secrets).await;
        }
    }
}

fn forget(store: &Store) -> Result<(), SaveError> {
    store.remove::<Identity>()?;
    store.remove::<CachedLeases>()?;
    store.remove::<LastReplica>()?;
    store.remove::<Lock>()
}
