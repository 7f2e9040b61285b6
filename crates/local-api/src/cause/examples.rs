//! One of each cause, for whoever has words or pictures of its own for them and wants to know that none is missing.

use std::net::SocketAddr;

use postern_proto::problem::Problem;

use super::Cause;
use crate::message::NetworkFault;

/// At least one of each cause.
pub(super) fn all() -> Vec<Cause> {
    let text = || "it broke".to_owned();
    let names = || vec!["gw-1".to_owned(), "gw-2".to_owned()];
    let address = SocketAddr::from(([127, 0, 0, 1], 15432));
    let problem = Problem::new(418, "teapot", "Short and stout");
    vec![
        Cause::TargetRefused { gateway: Some("gw-1".to_owned()), detail: text() },
        Cause::TargetTimeout { gateway: None, detail: text() },
        Cause::TargetUnroutable { gateway: None, detail: text() },
        Cause::TargetNotPermitted { gateway: None, detail: text() },
        Cause::TargetUnresolvable { gateway: None, detail: text() },
        Cause::TargetUnhealthy { detail: text() },
        Cause::Denied { resource: text(), detail: None },
        Cause::LeaseExpired { control_away: true },
        Cause::LeaseExpired { control_away: false },
        Cause::StepUp { resource: text(), detail: None },
        Cause::GatewayAway { resource: Some(text()), gateways: names(), error: text() },
        Cause::GatewayAway { resource: None, gateways: names(), error: text() },
        Cause::SomeGatewaysAway { gateways: names(), error: text() },
        Cause::NoGateway { resource: None },
        Cause::NoGateway { resource: Some(text()) },
        Cause::GatewayBusy { gateway: None, detail: text() },
        Cause::NodeLeaves { node: text(), streams: 3, minutes: 5 },
        Cause::ConnectionLost { gateway: None, detail: text() },
        Cause::Slow { gateway: text(), millis: 412 },
        Cause::PortTaken { resource: text(), address, holder: None },
        Cause::AddressFailed { resource: text(), address, error: text() },
        Cause::PortRange { port: 80, network: false },
        Cause::PortRange { port: 70_000, network: true },
        Cause::RangeTaken { to: text(), because: vec![text()] },
        Cause::DnsTaken { zones: names(), reason: text() },
        Cause::NamesLeftOut { names: names() },
        Cause::NetworkUnavailable { fault: NetworkFault::NotPermitted, reason: text() },
        Cause::NetworkUnavailable { fault: NetworkFault::NoService, reason: text() },
        Cause::NetworkUnavailable { fault: NetworkFault::NoSubnet, reason: text() },
        Cause::NetworkBehind { reason: text() },
        Cause::ClockSkew { minutes: 7, slow: true },
        Cause::ControlAway { url: text(), error: text() },
        Cause::NotOurServer { address: text(), reason: text() },
        Cause::SignInEnds { minutes: 15 },
        Cause::SignInEnded { reason: text() },
        Cause::PasswordOnce,
        Cause::CertificateEnds { minutes: 2 },
        Cause::CertificateEnded,
        Cause::RenewalFailed { error: text() },
        Cause::KeyringLocked { keyring: text(), reason: text() },
        Cause::KeyringMissing { reason: text() },
        Cause::VersionsDiffer { client: text(), service: text(), streams: 5 },
        Cause::ServiceGone { detail: text() },
        Cause::FewFiles { limit: 256 },
        Cause::NotSaved { error: text() },
        Cause::StatusApi { error: text() },
        Cause::AtStart { sentence: text() },
        Cause::Refused(problem),
    ]
}
