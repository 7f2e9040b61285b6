//! Calls of the control plane that run beside the shell, and what comes of them.

use std::{sync::Arc, time::Duration};

use http::Method;
use postern_local_api::{cause::Cause, message::NoticeLevel};
use postern_proto::{
    api::{
        CertificateRequest, CertificateResponse, DeviceEvent, DeviceEventKind, DeviceEvents, LeaseRequest,
        LeaseResponse,
    },
    id::ResourceId,
};
use postern_tunnel::control::CallError;

use super::Shell;
use crate::{
    account::Account,
    carriage::{error_text, printable},
    clock,
    engine::Input,
    gateways::Way,
    secrets::Look,
    store::Identity,
};

/// What came of a call.
#[derive(Debug)]
pub(super) enum Outcome {
    Leases(Result<LeaseResponse, CallError>),
    Certificate(Result<CertificateResponse, CallError>),
    SignInChecked(Result<CertificateResponse, CallError>),
    Reported { events: Vec<DeviceEvent>, result: Result<(), CallError> },
    Keyring(Look),
    Probed { way: Way, result: Result<Duration, String> },
}

impl Shell {
    pub(super) fn request_leases(&mut self, resources: Vec<ResourceId>) {
        let Some(account) = self.account.clone() else { return };
        self.work.spawn(async move {
            let request = LeaseRequest { resources };
            Outcome::Leases(account.control().call(Method::POST, "/api/v1/leases", Some(&request)).await)
        });
    }

    pub(super) fn renew_certificate(&mut self) {
        let Some(account) = self.account.clone() else { return };
        self.work.spawn(async move { Outcome::Certificate(renew(&account).await) });
    }

    /// Asks the control plane whether this sign-in still counts: a new certificate is given only if it does.
    pub(super) fn check_sign_in(&mut self) {
        let Some(account) = self.account.clone() else { return };
        self.work.spawn(async move { Outcome::SignInChecked(renew(&account).await) });
    }

    /// Reports that other users may use the listeners.
    pub(super) fn report_allowed(&mut self) {
        if !self.parts.allowed_uids.is_empty() {
            let what = DeviceEventKind::PeersAllowed { uids: self.parts.allowed_uids.clone() };
            self.report(vec![DeviceEvent { at: clock::wall(), what }]);
        }
    }

    pub(super) fn report_refusals(&mut self) {
        if !self.upkeep.reporting && self.account.is_some() && !self.parts.reception.refusals.is_empty() {
            self.upkeep.reporting = true;
            let events = self.parts.reception.refusals.take();
            self.report(events);
        }
    }

    fn report(&mut self, events: Vec<DeviceEvent>) {
        let Some(account) = self.account.clone() else { return };
        self.work.spawn(async move {
            let body = DeviceEvents { events };
            let result = account.control().call(Method::POST, "/api/v1/devices/events", Some(&body)).await;
            Outcome::Reported { events: body.events, result }
        });
    }

    pub(super) fn probe_gateways(&mut self, now: Duration) {
        if self.account.is_none() {
            return;
        }
        let due = self.parts.carriage.gateways().take_due_probes(now);
        for entry in due {
            self.work.spawn(async move {
                let result = entry.probe().await.map_err(|error| error_text(&error));
                Outcome::Probed { way: Way::of(&entry), result }
            });
        }
    }

    pub(super) async fn finish(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Leases(Ok(response)) => self.take_leases(response).await,
            Outcome::Leases(Err(error)) => {
                tracing::warn!("no leases: {}", printable(&error.to_string()));
                self.tell(Input::LeasesFailed).await;
            }
            Outcome::Certificate(result) => self.take_certificate(result).await,
            Outcome::SignInChecked(result) => {
                self.upkeep.checking_sign_in = false;
                if let Some(why) = refused_sign_in(&result) {
                    self.end_sign_in(why).await;
                } else if result.is_ok() {
                    self.take_certificate(result).await;
                }
            }
            Outcome::Reported { events, result } => {
                self.upkeep.reporting = false;
                if let Err(error) = result {
                    tracing::warn!("events could not be reported: {}", printable(&error.to_string()));
                    self.parts.reception.refusals.put_back(&events);
                    self.upkeep.report_at = clock::now().boot + Duration::from_secs(30);
                }
            }
            Outcome::Keyring(look) => self.take_look(look).await,
            Outcome::Probed { way, result } => {
                let mut gateways = self.parts.carriage.gateways();
                match result {
                    Ok(time) => gateways.note_reached(way, way.relay.is_none().then_some(time)),
                    Err(error) => gateways.note_failed(way, error, clock::now().boot),
                }
            }
        }
    }

    async fn take_leases(&mut self, response: LeaseResponse) {
        let keys = self.lease_keys();
        let grant = |token: &str| keys.open(token).ok().map(|claims| claims.grant);
        let leases = response.leases.into_iter().map(|lease| (lease.clone(), grant(&lease.token))).collect();
        for denied in &response.denied {
            tracing::warn!(resource = %denied, "the control plane gives no lease");
        }
        self.tell(Input::LeasesIssued { leases, denied: response.denied }).await;
    }

    async fn take_certificate(&mut self, result: Result<CertificateResponse, CallError>) {
        if let Some(why) = refused_sign_in(&result) {
            return self.end_sign_in(why).await;
        }
        let Some(account) = self.account.clone() else { return };
        let fresh = result.map_err(|error| error.to_string()).and_then(|response| {
            let fresh = Identity::from_response(response).map_err(|error| error.to_string())?;
            account.take_certificate(fresh.clone()).map_err(|error| error.to_string())?;
            let tls = account.gateway_tls().map_err(|error| error.to_string())?;
            self.parts.carriage.gateways().set_tls(Some(tls));
            Ok(fresh)
        });
        match fresh {
            Ok(fresh) => {
                tracing::info!(until = %fresh.not_after, "the device certificate was renewed");
                self.notes.renewal = None;
                let (store, span) = (self.parts.store.clone(), fresh.span());
                self.saver.run(move || store.save(&fresh)).await;
                self.tell(Input::CertificateRenewed(span)).await;
            }
            Err(error) => {
                let error = printable(&error);
                tracing::warn!("the device certificate could not be renewed: {error}");
                self.notes.renewal = Some(Cause::RenewalFailed { error });
                self.tell(Input::CertificateFailed).await;
            }
        }
    }

    /// The control plane ended the sign-in, or its time is over: forgets it and says so.
    pub(super) async fn end_sign_in(&mut self, why: String) {
        tracing::warn!("signed out: {why}");
        self.notify(NoticeLevel::Warning, format!("{why}. Sign in again: postern login"));
        self.sign_out().await;
        self.notes.sign_in_ended = Some(Cause::SignInEnded { reason: why });
    }
}

/// Why the sign-in is worth nothing any more, when that is what the control plane said.
fn refused_sign_in<T>(result: &Result<T, CallError>) -> Option<String> {
    let problem = result.as_ref().err()?.problem()?;
    let over = problem.status == 401 || ["device_revoked", "account_suspended"].contains(&problem.code.as_str());
    over.then(|| {
        let title = printable(&problem.title);
        format!("The control plane ended this sign-in ({title})")
    })
}

/// Asks for a certificate. One that has ended already would be refused by the TLS handshake; then the login alone has
/// to do.
async fn renew(account: &Arc<Account>) -> Result<CertificateResponse, CallError> {
    let csr = account
        .certificate_request()
        .map_err(|error| CallError::Garbled { url: account.control().url().to_string(), reason: error.to_string() })?;
    let request = CertificateRequest { csr };
    if account.certificate().not_after <= clock::wall() {
        account.hide_certificate();
    }
    account.control().call(Method::POST, "/api/v1/devices/certificate", Some(&request)).await
}
