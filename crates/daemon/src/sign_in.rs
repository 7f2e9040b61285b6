//! Signing in: which control plane is meant, what makes it trusted, and the one call that carries a credential.
//!
//! A credential is sent over a connection whose server has proved itself, or not at all: by the CA that was given or
//! pinned before, by a fingerprint, or by this machine's roots.

use aws_lc_rs::digest::{SHA256, digest};
use http::Method;
use postern_local_api::{
    cause::Cause,
    message::{Login, Trust as TrustWish},
};
use postern_proto::{
    api::{Credential, DeviceInfo, LoginRequest, LoginResponse},
    problem::Problem,
    record::hex,
};
use postern_tunnel::control::{CallError, ControlClient, ControlUrls, Trust};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use crate::{
    account::{AccountError, certificate_request, make_key},
    clock,
    store::{Config, DeviceKey, Identity, SignInRecord},
};

/// Everything that a sign-in brings.
#[derive(Debug)]
pub struct SignedIn {
    pub config: Config,
    pub record: SignInRecord,
    pub key: DeviceKey,
    pub identity: Identity,
}

/// Which control plane, and how it proves itself.
#[derive(Clone, Debug)]
pub struct Target {
    urls: ControlUrls,
    trust: Trust,
}

impl Target {
    /// The control plane that a login means. `known` is the configured one.
    ///
    /// # Errors
    /// No control plane, a bad address, or a fingerprint or CA that is none.
    pub fn of(login: &Login, known: Option<&Config>) -> Result<Self, Problem> {
        let url = match (&login.control, known) {
            (Some(url), _) => url.as_str(),
            (None, Some(config)) => config.control.as_str(),
            (None, None) => {
                return Err(Problem::new(422, "no_control_plane", "No control plane is known yet")
                    .with_detail("Say which one: postern login --control https://…"));
            }
        };
        let urls: ControlUrls = parse(url)?;
        let trust = match &login.trust {
            TrustWish::Ca { pem } => Trust::Ca(pem.clone()),
            TrustWish::Fingerprint { sha256 } => Trust::fingerprint(sha256).map_err(|error| bad_trust(&error))?,
            TrustWish::Known => known
                .filter(|config| parse(&config.control).is_ok_and(|known| known.meets(&urls)))
                .and_then(|config| config.ca.clone())
                .map_or(Trust::System, Trust::Ca),
        };
        Ok(Self { urls, trust })
    }

    /// The configured control plane.
    ///
    /// # Errors
    /// A bad address.
    pub fn configured(config: &Config) -> Result<Self, Problem> {
        Ok(Self { urls: parse(&config.control)?, trust: config.ca.clone().map_or(Trust::System, Trust::Ca) })
    }

    #[must_use]
    pub const fn urls(&self) -> &ControlUrls {
        &self.urls
    }

    /// Signs in. `key` is the key of this device, if the same account was signed in before.
    ///
    /// # Errors
    /// What the control plane said, or why it was not asked.
    pub async fn sign_in(&self, credential: Credential, key: Option<DeviceKey>) -> Result<SignedIn, Problem> {
        let key = key.map_or_else(make_key, Ok).map_err(|error| unusable(&error))?;
        let csr = certificate_request(&key).map_err(|error| unusable(&error.into()))?;
        let client = ControlClient::new(self.urls.clone(), self.trust.clone());
        let request = LoginRequest { credential, device: this_device(), csr };
        let response: LoginResponse =
            client.call(Method::POST, "/api/v1/login", Some(&request)).await.map_err(control_problem)?;
        let ca = match &self.trust {
            Trust::System => None,
            Trust::Ca(pem) => Some(pem.clone()),
            Trust::Fingerprint(fingerprint) => {
                Some(only_with(&fingerprint.to_string(), &response.ca.certificate).map_err(|error| unusable(&error))?)
            }
        };
        let config = Config { control: self.urls.to_string(), ca };
        let identity = Identity::from_response(response.certificate).map_err(|error| unusable(&error))?;
        let record = SignInRecord {
            control: config.control.clone(),
            login: response.login,
            token: response.token,
            signed_in_at: clock::wall(),
            expires_at: response.expires_at,
            account: response.account,
            org: response.ca.org,
            org_name: response.ca.org_name,
            ca: response.ca.certificate,
            device: response.device,
            must_change_password: response.must_change_password,
        };
        Ok(SignedIn { config, record, key, identity })
    }
}

/// A failed call in the words of the local API.
#[must_use]
pub fn control_problem(error: CallError) -> Problem {
    let (code, title) = match &error {
        CallError::Refused(problem) => return problem.clone(),
        CallError::Unreachable { .. } => ("control_unreachable", "The control plane cannot be reached"),
        CallError::Untrusted { .. } => ("control_untrusted", "The server is not the trusted control plane"),
        CallError::Garbled { url, reason } => {
            let (address, reason) = (url.clone(), format!("It answered, but not as one: {reason}"));
            return Cause::NotOurServer { address, reason }.problem(502);
        }
    };
    Problem::new(502, code, title).with_detail(error.to_string())
}

fn parse(url: &str) -> Result<ControlUrls, Problem> {
    url.parse().map_err(|error: postern_tunnel::control::BadUrl| {
        Problem::new(422, "bad_control_url", "This is no address of a control plane").with_detail(error.to_string())
    })
}

fn bad_trust(error: &postern_tunnel::control::BadTrust) -> Problem {
    Problem::new(422, "bad_trust", "The CA or fingerprint cannot be used").with_detail(error.to_string())
}

fn unusable(error: &AccountError) -> Problem {
    Problem::new(502, "unusable_sign_in", "The sign-in cannot be used").with_detail(error.to_string())
}

/// The certificate with this fingerprint (SHA-256, hex) among those of a PEM text, to be pinned.
fn only_with(fingerprint: &str, pem: &str) -> Result<String, AccountError> {
    let fits = CertificateDer::pem_slice_iter(pem.as_bytes())
        .flatten()
        .any(|certificate| hex(digest(&SHA256, &certificate).as_ref()) == fingerprint);
    if fits {
        Ok(pem.to_owned())
    } else {
        Err(AccountError::Unreadable("its CA is not the one with the fingerprint that was given".to_owned()))
    }
}

fn this_device() -> DeviceInfo {
    let system = rustix::system::uname();
    let text =
        |name: &std::ffi::CStr| name.to_string_lossy().chars().filter(|c| !c.is_control()).take(64).collect::<String>();
    DeviceInfo { name: text(system.nodename()), os: format!("{} {}", text(system.sysname()), text(system.release())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(control: Option<&str>, trust: TrustWish) -> Login {
        let credential = Credential::Password { email: "a@b.example".to_owned(), password: "p".to_owned() };
        Login { control: control.map(str::to_owned), trust, credential }
    }

    fn known() -> Config {
        Config { control: "https://control.example:8443".to_owned(), ca: Some("PINNED".to_owned()) }
    }

    #[test]
    fn the_pinned_ca_is_for_its_own_control_plane_only() {
        let same = Target::of(&login(Some("https://CONTROL.example:8443/"), TrustWish::Known), Some(&known())).unwrap();
        assert_eq!(same.trust, Trust::Ca("PINNED".to_owned()));
        for other in ["https://control.example", "https://evil.example:8443"] {
            let target = Target::of(&login(Some(other), TrustWish::Known), Some(&known())).unwrap();
            assert_eq!(target.trust, Trust::System, "{other}");
        }
    }

    #[test]
    fn without_an_address_the_known_control_plane_is_meant() {
        let target = Target::of(&login(None, TrustWish::Known), Some(&known())).unwrap();
        assert_eq!(target.urls.to_string(), "https://control.example:8443");
        assert_eq!(Target::of(&login(None, TrustWish::Known), None).unwrap_err().code, "no_control_plane");
    }

    #[test]
    fn addresses_and_fingerprints_that_are_none_are_refused_before_anything_is_sent() {
        let bad = Target::of(&login(Some("http://control.example"), TrustWish::Known), None).unwrap_err();
        assert_eq!(bad.code, "bad_control_url");
        let wish = TrustWish::Fingerprint { sha256: "12".to_owned() };
        assert_eq!(Target::of(&login(Some("https://a.example"), wish), None).unwrap_err().code, "bad_trust");
    }

    #[test]
    fn a_server_that_answers_otherwise_is_not_ours() {
        let url = "https://www.example.com".to_owned();
        let problem = control_problem(CallError::Garbled { url, reason: "status 200 with text/html".to_owned() });
        assert_eq!(problem.code, "not_our_server");
        assert_eq!(
            problem.to_string(),
            "https://www.example.com is not a Postern control plane: It answered, but not as one: status 200 with \
             text/html. Check the address with your admin."
        );
    }

    #[test]
    fn a_request_for_a_certificate_names_nobody() {
        let pem = certificate_request(&make_key().unwrap()).unwrap();
        let der = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap();
        use x509_parser::prelude::FromDer as _;
        let (_, request) = x509_parser::certification_request::X509CertificationRequest::from_der(&der).unwrap();
        assert_eq!(request.certification_request_info.subject.to_string(), "");
    }
}
