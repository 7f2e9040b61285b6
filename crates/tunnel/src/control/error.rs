use std::{error::Error, io};

use postern_proto::problem::Problem;

use super::ControlUrl;

/// Why a call to the control plane failed, by who is to blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The network, or the control plane is down: try again later.
    #[error("the control plane at {url} cannot be reached: {reason}")]
    Unreachable { url: String, reason: String },
    /// Whoever answers is not the control plane that this program was told to trust. Nothing was sent to it.
    #[error("the server at {url} is not the trusted control plane: {reason}")]
    Untrusted { url: String, reason: String },
    /// The control plane understood and said no.
    #[error("{0}")]
    Refused(Problem),
    /// The answer makes no sense: another program, another version, or something in between that changes answers.
    #[error("the control plane at {url} gave an answer that cannot be used: {reason}")]
    Garbled { url: String, reason: String },
}

impl CallError {
    /// The problem that the control plane named, if it was it that refused.
    #[must_use]
    pub const fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }

    /// What is told when every address has failed: somebody who is not to be trusted first, else all of it.
    pub(super) fn of_all(failures: Vec<Self>) -> Option<Self> {
        let (mut urls, mut reasons) = (Vec::new(), Vec::new());
        for failure in failures {
            match failure {
                Self::Unreachable { url, reason } => {
                    reasons.push(format!("{url}: {reason}"));
                    urls.push(url);
                }
                other => return Some(other),
            }
        }
        (!urls.is_empty()).then(|| Self::Unreachable { url: urls.join(", "), reason: reasons.join("; ") })
    }

    pub(super) fn unreachable(url: &ControlUrl, reason: impl ToString) -> Self {
        Self::Unreachable { url: url.to_string(), reason: reason.to_string() }
    }

    pub(super) fn untrusted(url: &ControlUrl, reason: impl ToString) -> Self {
        Self::Untrusted { url: url.to_string(), reason: reason.to_string() }
    }

    pub(super) fn garbled(url: &ControlUrl, reason: impl ToString) -> Self {
        Self::Garbled { url: url.to_string(), reason: reason.to_string() }
    }

    /// Blames a transport error: TLS errors are named by their cause, anything else means unreachable.
    pub(super) fn transport(url: &ControlUrl, error: &(dyn Error + 'static)) -> Self {
        match tls_error(error) {
            Some(rustls::Error::InvalidCertificate(cause)) => Self::untrusted(url, certificate_advice(cause)),
            Some(rustls::Error::NoCertificatesPresented) => Self::untrusted(url, "it shows no certificate"),
            Some(rustls::Error::AlertReceived(alert)) => Self::Refused(
                Problem::new(
                    401,
                    "client_certificate_refused",
                    "The control plane does not accept this machine's certificate",
                )
                .with_detail(format!("It answered the TLS handshake with {alert:?}.")),
            ),
            Some(other) => Self::garbled(url, other),
            None => Self::unreachable(url, innermost(error)),
        }
    }
}

fn certificate_advice(cause: &rustls::CertificateError) -> String {
    use rustls::CertificateError as Cause;
    match cause {
        Cause::UnknownIssuer | Cause::BadSignature => {
            "its certificate is not signed by the CA that this program trusts; check the CA file or fingerprint".into()
        }
        Cause::NotValidForName | Cause::NotValidForNameContext { .. } => {
            format!("its certificate is for another name ({cause}); use the name that the certificate carries")
        }
        Cause::Expired | Cause::ExpiredContext { .. } => {
            format!("its certificate has ended ({cause}); or the clock of this machine is wrong")
        }
        Cause::NotValidYet | Cause::NotValidYetContext { .. } => {
            format!("its certificate is not valid yet ({cause}); or the clock of this machine is wrong")
        }
        _ => cause.to_string(),
    }
}

/// The TLS error behind an error. [`io::Error`] hides its inner error from `source`, so it is asked by itself.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next: Option<&'a (dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// The cause at the bottom, which says most.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
