//! Calls of the control plane's REST API over HTTPS, with or without a client certificate.
//!
//! The programs under test have clients of their own; this one is written apart from them, so that a mistake that
//! both ends of Postern share is not shared by the test.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::command::PATIENCE;

/// Where a control plane is and whom it is signed by.
#[derive(Clone, Debug)]
pub struct ControlAddress {
    pub address: SocketAddr,
    /// The organisation's CA certificate.
    pub ca: String,
}

/// A certificate with its key, both PEM.
#[derive(Clone)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

/// A caller of the API.
#[derive(Clone)]
pub struct Api {
    address: SocketAddr,
    connector: TlsConnector,
    token: Option<String>,
}

/// What the control plane answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Null where the answer was empty, a string where it was no JSON.
    pub body: Value,
}

impl Answer {
    /// The body of a 2xx.
    pub fn success(self) -> anyhow::Result<Value> {
        anyhow::ensure!((200..300).contains(&self.status), "the control plane answered {}: {}", self.status, self.body);
        Ok(self.body)
    }

    /// The problem of an answer that must have this status.
    pub fn refused(self, status: u16) -> anyhow::Result<Value> {
        anyhow::ensure!(self.status == status, "expected {status}, got {}: {}", self.status, self.body);
        Ok(self.body)
    }
}

impl Api {
    pub fn new(control: &ControlAddress, identity: Option<&Identity>, token: Option<&str>) -> anyhow::Result<Self> {
        let connector = TlsConnector::from(Arc::new(client_config(&control.ca, identity)?));
        Ok(Self { address: control.address, connector, token: token.map(str::to_owned) })
    }

    /// The same caller with another bearer token, or none.
    #[must_use]
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call("GET", path, None).await?.success().with_context(|| format!("GET {path}"))
    }

    pub async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.call("POST", path, Some(body)).await?.success().with_context(|| format!("POST {path}"))
    }

    pub async fn patch(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.call("PATCH", path, Some(body)).await?.success().with_context(|| format!("PATCH {path}"))
    }

    pub async fn put(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.call("PUT", path, Some(body)).await?.success().with_context(|| format!("PUT {path}"))
    }

    pub async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.call("DELETE", path, None).await?.success().with_context(|| format!("DELETE {path}"))
    }

    /// All items of a collection, over all its pages.
    pub async fn list(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let after = cursor.as_ref().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let page = self.get(&format!("{path}{joint}limit=500{after}")).await?;
            let found = page.get("items").and_then(Value::as_array).context("a list has items")?;
            items.extend(found.iter().cloned());
            match page.get("next_cursor").and_then(Value::as_str) {
                None => return Ok(items),
                Some(next) => cursor = Some(next.to_owned()),
            }
        }
    }

    /// One call on a connection of its own. An answer that refuses is no error.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> anyhow::Result<Answer> {
        tokio::time::timeout(PATIENCE, self.exchange(method, path, body))
            .await
            .with_context(|| format!("{method} {path} was not answered"))?
    }

    async fn exchange(&self, method: &str, path: &str, body: Option<Value>) -> anyhow::Result<Answer> {
        let stream = TcpStream::connect(self.address).await.context("the control plane cannot be reached")?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        let stream = self.connector.connect(name, stream).await.context("no TLS with the control plane")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let _connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, self.address.to_string());
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let response = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap_or_else(|_| text()) };
        Ok(Answer { status, body })
    }
}

/// TLS 1.3 that trusts `ca` alone and shows `identity`.
pub fn client_config(ca: &str, identity: Option<&Identity>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.context("the CA is no PEM")?)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots);
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).context("the key is no PEM")?;
    Ok(builder.with_client_auth_cert(chain.context("the certificate is no PEM")?, key)?)
}
