//! What the page asks of the service.

use std::sync::{Arc, PoisonError};

use postern_local_api::{
    client::ClientError,
    message::{self, ControlCall, KeyPlace, KeyStorageChoice, Login, NetworkChoice, PortOverride, Selection, Unlock},
    names::{NameQuestion, SystemAnswer},
    proto::{api, id::ResourceId},
};
use tokio::sync::mpsc;

use super::{App, unknown};
use crate::{
    desk::{not_started, problem, problem_of},
    view::{
        AddressVerdict, Changed, Credential, Details, Failed, KeyChoice, NameTrial, PortVerdict, Problem,
        SignInRequest, Trust, Which,
    },
};

/// A selection names at most this many resources.
const MOST_IDS: usize = 10_000;

impl App {
    pub(crate) fn check_address(&self, address: &str) -> AddressVerdict {
        self.desk().check_address(address)
    }

    pub(crate) async fn sign_in(&self, request: SignInRequest) -> Result<(), Problem> {
        let control = match &request.address {
            None => None,
            Some(address) => {
                let verdict = self.check_address(address);
                match (verdict.url, verdict.problem) {
                    (Some(url), None) => Some(url),
                    (_, problem) => return Err(problem.unwrap_or_else(unknown)),
                }
            }
        };
        let trust = match request.trust {
            Trust::Known => message::Trust::Known,
            Trust::Fingerprint { sha256 } => {
                let sha256 = sha256.chars().filter(|c| !(c.is_whitespace() || *c == ':')).collect();
                message::Trust::Fingerprint { sha256 }
            }
            Trust::Ca { pem } => message::Trust::Ca { pem },
        };
        let credential = match request.credential {
            Credential::Password { email, password } => {
                api::Credential::Password { email: email.trim().to_owned(), password }
            }
            Credential::ServiceToken { token } => api::Credential::ServiceToken { token: token.trim().to_owned() },
        };
        self.answer(self.service.login(Login { control, trust, credential }).await)
    }

    pub(crate) async fn sign_out(&self) -> Result<(), Problem> {
        self.answer(self.service.logout().await)
    }

    pub(crate) async fn lock(&self) -> Result<(), Problem> {
        self.answer(self.service.lock().await)
    }

    pub(crate) async fn unlock(&self, password: String) -> Result<(), Problem> {
        self.answer(self.service.unlock(Unlock { password }).await)
    }

    pub(crate) async fn change_password(&self, current: String, new: String) -> Result<(), Problem> {
        let body = serde_json::json!({ "current": current, "new": new });
        let call = ControlCall { method: "POST".to_owned(), path: "/api/v1/password".to_owned(), body: Some(body) };
        self.answer(self.service.control(call).await.map(drop))
    }

    pub(crate) async fn connect(&self, which: Which) -> Result<Changed, Problem> {
        let ids = self.chosen(&which)?;
        if matches!(which, Which::Ids { .. }) && ids.len() <= 20 {
            self.with(|desk, now| ids.iter().for_each(|id| desk.touch(now, *id)));
        }
        if ids.is_empty() {
            return Ok(nothing());
        }
        let selected = ids.len();
        let report = self.service.connect(selection(&which, ids)).await;
        self.answer(report).map(|report| changed(selected, &report))
    }

    pub(crate) async fn disconnect(&self, which: Which) -> Result<Changed, Problem> {
        let ids = self.chosen(&which)?;
        if ids.is_empty() {
            return Ok(nothing());
        }
        let selected = ids.len();
        let report = self.service.disconnect(selection(&which, ids)).await;
        self.answer(report).map(|report| changed(selected, &report))
    }

    fn chosen(&self, which: &Which) -> Result<Vec<ResourceId>, Problem> {
        if let Which::Ids { ids } = which
            && ids.len() > MOST_IDS
        {
            return Err(problem_of(
                "too_many",
                "That is more than 10,000 resources.",
                "",
                "Choose all of them instead.",
            ));
        }
        let ids = self.desk().ids(which);
        if ids.is_empty() && matches!(which, Which::Ids { ids } if !ids.is_empty()) {
            return Err(unknown());
        }
        Ok(ids)
    }

    pub(crate) async fn open_details(&self, id: Option<String>) -> Result<Option<Details>, Problem> {
        let id = id.as_deref().map(Self::named).transpose()?;
        self.desk().open(id);
        match id {
            None => Ok(None),
            Some(id) => self.details(id).await,
        }
    }

    pub(super) async fn details(&self, id: ResourceId) -> Result<Option<Details>, Problem> {
        let streams = self.desk().status_of(id).map_or(0, |status| status.streams);
        let sessions = if streams == 0 { Ok(Vec::new()) } else { self.service.sessions().await };
        // What else is known is shown without them.
        let sessions = sessions.unwrap_or_else(|error| {
            tracing::warn!(%error, "the sessions cannot be listed");
            Vec::new()
        });
        Ok(self.desk().details(super::wall(), id, &sessions))
    }

    pub(crate) fn set_favourite(&self, id: &str, on: bool) -> Result<(), Problem> {
        let id = Self::named(id)?;
        self.with(|desk, _| desk.set_favourite(id, on));
        Ok(())
    }

    pub(crate) fn order_favourites(&self, ids: &[String]) -> Result<(), Problem> {
        self.with(|desk, _| desk.order_favourites(ids));
        Ok(())
    }

    pub(crate) fn check_port(&self, id: &str, port: u16) -> Result<PortVerdict, Problem> {
        let id = Self::named(id)?;
        let is_free = |ip, port| std::net::TcpListener::bind((ip, port)).is_ok();
        self.desk().check_port(id, port, &is_free).ok_or_else(unknown)
    }

    pub(crate) async fn set_override(&self, id: &str, port: Option<u16>) -> Result<(), Problem> {
        let resource = Self::named(id)?;
        if let Some(port) = port {
            let verdict = self.check_port(id, port)?;
            if let Some(problem) = verdict.problem {
                return Err(problem);
            }
        }
        self.answer(self.service.port_override(PortOverride { resource, port }).await.map(drop))
    }

    pub(crate) async fn set_network(&self, enabled: bool) -> Result<(), Problem> {
        self.answer(self.service.network(NetworkChoice { enabled }).await.map(drop))
    }

    pub(crate) async fn try_name(&self, id: &str) -> Result<NameTrial, Problem> {
        let id = Self::named(id)?;
        let Some(name) = self.desk().virtual_name(id) else {
            return Err(problem_of(
                "not_virtual",
                "It has no name on this computer.",
                "Virtual Networking is off.",
                "",
            ));
        };
        let question = NameQuestion { name: format!("{}.", name.trim_end_matches('.')), kind: "A".to_owned() };
        let report = self.answer(self.service.names(question).await)?;
        let failed = |why: String| {
            let what = format!("{name} is not found.");
            Some(problem_of("dns_taken", &what, &why, "Run the doctor; loopback addresses still work."))
        };
        let (address, problem) = match report.system {
            SystemAnswer::Found { addresses } => (addresses.first().map(ToString::to_string), None),
            SystemAnswer::NotFound | SystemAnswer::NotAsked => {
                (None, failed("Names under its zone go to another resolver.".to_owned()))
            }
            SystemAnswer::TimedOut => (None, failed("The system's resolver does not answer.".to_owned())),
            SystemAnswer::Failed { error } => (None, failed(error)),
        };
        Ok(NameTrial { name, address, problem })
    }

    pub(crate) async fn retry_control(&self) -> Result<(), Problem> {
        self.answer(self.service.retry().await)
    }

    pub(crate) async fn set_key_storage(&self, choice: KeyChoice) -> Result<(), Problem> {
        let storage = match choice {
            KeyChoice::Keyring => KeyPlace::Keyring,
            KeyChoice::Memory => KeyPlace::Memory,
            KeyChoice::File => KeyPlace::File,
        };
        self.answer(self.service.key_storage(KeyStorageChoice { storage }).await)
    }

    pub(crate) fn doctor_start(self: &Arc<Self>) -> Result<(), Problem> {
        if !self.with(super::Desk::doctor_begins) {
            return Ok(());
        }
        let app = Arc::clone(self);
        let run = tauri::async_runtime::spawn(async move {
            let (sender, mut lines) = mpsc::channel(64);
            let service = Arc::clone(&app.service);
            let asked = tokio::spawn(async move { service.doctor(sender).await });
            while let Some(line) = lines.recv().await {
                app.with(|desk, _| desk.doctor_says(line));
            }
            let end = match asked.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(Some(problem(&error))),
                Err(_) => Err(None),
            };
            app.with(|desk, now| desk.doctor_ends(now, end));
        });
        *self.doctor.lock().unwrap_or_else(PoisonError::into_inner) = Some(run.inner().abort_handle());
        Ok(())
    }

    pub(crate) fn doctor_stop(&self) {
        if let Some(run) = self.doctor.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // Nobody takes its lines any more, so that asking ends too.
            run.abort();
        }
        self.with(|desk, now| desk.doctor_ends(now, Err(None)));
    }

    pub(crate) async fn start_service(&self) -> Result<(), Problem> {
        self.service.start().await.map_err(|error| not_started(&error))
    }

    pub(crate) async fn restart_service(&self) -> Result<(), Problem> {
        match self.service.shutdown().await {
            Ok(()) | Err(ClientError::NotRunning { .. }) => {}
            Err(error) => return Err(problem(&error)),
        }
        self.start_service().await
    }

    pub(super) fn answer<T>(&self, answer: Result<T, ClientError>) -> Result<T, Problem> {
        answer.map_err(|error| problem(&error))
    }
}

fn nothing() -> Changed {
    Changed { selected: 0, changed: 0, failed: Vec::new() }
}

fn selection(which: &Which, ids: Vec<ResourceId>) -> Selection {
    match which {
        Which::All => Selection::All,
        Which::Favourites | Which::Ids { .. } => Selection::Ids { ids },
    }
}

fn changed(selected: usize, report: &message::ChangeReport) -> Changed {
    let failed = report.resources.iter().filter_map(|status| {
        let trouble = status.trouble.as_ref().filter(|_| status.wanted && !status.state.passes())?;
        Some(Failed {
            id: status.resource.id.to_string(),
            name: status.resource.name.clone(),
            problem: problem_of(&trouble.code, &trouble.what, &trouble.why, &trouble.remedy),
        })
    });
    Changed { selected: u32::try_from(selected).unwrap_or(u32::MAX), changed: report.changed, failed: failed.collect() }
}
