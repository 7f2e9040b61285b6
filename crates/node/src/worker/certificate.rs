//! The outer certificate from files: read at the start, looked at again while the worker runs. A new one that cannot be
//! used changes nothing.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use postern_tunnel::tls::{OuterServerTls, TlsError};
use tokio::{sync::watch, time::sleep};
use zeroize::Zeroizing;

/// A change is to be taken within a minute.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why the certificate in the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("the certificate in {} and the key in {} cannot be used: {source}", certificate.display(), key.display())]
    Unusable { certificate: PathBuf, key: PathBuf, source: TlsError },
}

/// A certificate and its key, in two files.
#[derive(Clone, Debug)]
pub(super) struct CertificateFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// What the files held.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Content {
    certificate: String,
    key: Zeroizing<String>,
}

impl CertificateFiles {
    pub(super) fn read(&self) -> Result<Content, CertificateError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|source| CertificateError::File { path: path.to_owned(), source })
        };
        Ok(Content { certificate: read(&self.certificate)?, key: Zeroizing::new(read(&self.key)?) })
    }

    pub(super) fn tls(&self, content: &Content) -> Result<OuterServerTls, CertificateError> {
        OuterServerTls::from_pem(&content.certificate, &content.key).map_err(|source| CertificateError::Unusable {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        })
    }

    /// Takes over what the files hold when that is another thing than before; whether it was.
    fn take(&self, held: &mut Content, tls: &watch::Sender<OuterServerTls>) -> Result<bool, CertificateError> {
        let content = self.read()?;
        if content == *held {
            return Ok(false);
        }
        tls.send_replace(self.tls(&content)?);
        *held = content;
        Ok(true)
    }

    /// Does so for ever.
    pub(super) async fn follow(self, mut held: Content, tls: watch::Sender<OuterServerTls>) {
        let mut complained = String::new();
        loop {
            sleep(LOOK_EVERY).await;
            // Two small files, which the kernel has at hand.
            match self.take(&mut held, &tls) {
                Ok(taken) => {
                    if taken {
                        tracing::info!(certificate = %self.certificate.display(), "the certificate is another one now");
                    }
                    complained.clear();
                }
                Err(error) => {
                    let error = error.to_string();
                    if error != complained {
                        tracing::error!("the certificate before stays in use: {error}");
                        complained = error;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(files: &CertificateFiles) {
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(["worker.example".to_owned()]).unwrap();
        fs::write(&files.certificate, leaf.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_changed_certificate_is_taken_and_a_bad_one_never() {
        postern_tunnel::tls::install_crypto_provider();
        assert!(LOOK_EVERY <= Duration::from_secs(60), "a change is taken within a minute");
        let folder = tempfile::tempdir().unwrap();
        let files =
            CertificateFiles { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        assert!(files.read().is_err());
        write(&files);
        let mut held = files.read().unwrap();
        let (tls, mut changed) = watch::channel(files.tls(&held).unwrap());
        assert!(!files.take(&mut held, &tls).unwrap());
        let good = fs::read(&files.certificate).unwrap();
        fs::write(&files.certificate, "no PEM").unwrap();
        assert!(files.take(&mut held, &tls).is_err());
        write(&files);
        fs::write(&files.certificate, good).unwrap();
        assert!(files.take(&mut held, &tls).is_err(), "a certificate with the key of another one");
        fs::remove_file(&files.key).unwrap();
        assert!(files.take(&mut held, &tls).is_err());
        assert!(!changed.has_changed().unwrap(), "the one before stays");
        write(&files);
        assert!(files.take(&mut held, &tls).unwrap());
        assert!(changed.has_changed().unwrap());
        changed.mark_unchanged();
        assert!(!files.take(&mut held, &tls).unwrap());
    }
}
