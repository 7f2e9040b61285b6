//! What goes into the engine and what comes out of it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use postern_local_api::message::NetworkFault;
use postern_proto::{
    api::IssuedLease,
    frame::ResetCode,
    id::{AccountId, DeviceId, ResourceId},
    lease::Revocation,
    name::DnsName,
    resource::ClientResource,
    time::UnixMillis,
};
use tun_driver::{dns::DnsState, interface::Interface, network::Landscape};

use crate::port_choice::{Plane, PortChoices};

use super::{BindFailure, CertificateSpan, NetworkPlan, NetworkTicket, NetworkWish, Places, Ticket};

/// The time, on two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since the machine started, sleep included: what spans are measured with.
    pub boot: Duration,
    /// The wall clock, which may be wrong and may jump: for what others wrote down.
    pub wall: UnixMillis,
}

/// Who is signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub account: AccountId,
    pub device: DeviceId,
    /// Service accounts have everything connected that was not disconnected.
    pub service: bool,
}

/// What happened.
///
/// `SignedIn` and `SignedOut` void the requests that are under way ([`Command::RequestLeases`],
/// [`Command::RenewCertificate`]): their answers must not be handed in any more. So does [`Command::EndSignIn`].
#[derive(Clone, Debug)]
pub enum Input {
    SignedIn {
        owner: Owner,
        certificate: CertificateSpan,
        sign_in_ends: UnixMillis,
        /// What this account had chosen; of no account while it is signed in already.
        choices: BTreeMap<ResourceId, bool>,
    },
    SignedOut,
    Locked,
    Unlocked,
    /// Everything that the account may reach now; what is absent is lost.
    Access(Vec<ClientResource>),
    /// What is different since then.
    AccessChanged {
        put: Vec<ClientResource>,
        removed: Vec<ResourceId>,
    },
    Connect(Vec<ResourceId>),
    Disconnect(Vec<ResourceId>),
    /// Ports that the user chose in an earlier run.
    PortsKept(PortChoices),
    /// The user chooses a port for one address of a resource; `None`: the assigned one.
    PortChosen {
        resource: ResourceId,
        plane: Plane,
        port: Option<u16>,
    },
    Bound {
        ticket: Ticket,
    },
    BindFailed {
        ticket: Ticket,
        failure: BindFailure,
    },
    /// A listener ended on its own.
    ListenerLost {
        ticket: Ticket,
        error: String,
    },
    /// A stream needs a lease now: there is none, or a node would not take the one there is.
    LeaseNeeded(ResourceId),
    /// Leases of an earlier run.
    LeasesKept(Vec<(IssuedLease, Option<String>)>),
    /// The answer to the request under way; a lease comes with its grant, where that could be read.
    LeasesIssued {
        leases: Vec<(IssuedLease, Option<String>)>,
        denied: Vec<ResourceId>,
    },
    LeasesFailed,
    Revoked(Vec<Revocation>),
    /// A certificate that was signed just now.
    CertificateRenewed(CertificateSpan),
    CertificateFailed,
    /// The control plane is there again: what waits for it is tried at once.
    ControlReached,
    /// The user switches the virtual network on or off. What failed is tried again at once.
    NetworkChosen {
        enabled: bool,
    },
    /// What the organisation wishes, or what is wrong with that; and the names of its own that are never answered for.
    NetworkSettings {
        wish: Result<NetworkWish, String>,
        own_names: Vec<DnsName>,
    },
    /// The networks of this machine.
    Landscape(Landscape),
    NetworkConfigured {
        ticket: NetworkTicket,
        interface: Interface,
    },
    NetworkFailed {
        ticket: NetworkTicket,
        fault: NetworkFault,
        reason: String,
    },
    /// How the names of the network stand in the system's resolver now.
    NetworkNames {
        dns: DnsState,
    },
    /// The device is gone, or netd is: a sentence.
    NetworkLost {
        reason: String,
    },
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Bind {
        ticket: Ticket,
        resource: ResourceId,
        address: SocketAddr,
    },
    /// The listener is closed and its port free before the next command is carried out.
    Unbind {
        ticket: Ticket,
    },
    /// Streams of this resource are cut. The code says to the other end whether its access was lost or the user gave it up.
    Cut {
        resource: ResourceId,
        code: ResetCode,
    },
    /// Streams that match are cut.
    CutRevoked(Vec<Revocation>),
    RequestLeases(Vec<ResourceId>),
    /// New streams may use this lease until then (boot clock).
    PutLease {
        lease: IssuedLease,
        grant: Option<String>,
        until: Duration,
    },
    DropLease(ResourceId),
    /// Whether the control plane gives no lease for this resource: new streams need not wait for one.
    SetDenied {
        resource: ResourceId,
        denied: bool,
    },
    SaveChoices(BTreeMap<ResourceId, bool>),
    SavePorts(PortChoices),
    SaveLeases(Vec<IssuedLease>),
    RenewCertificate,
    /// netd is asked for this network; the answer is [`Input::NetworkConfigured`] or [`Input::NetworkFailed`].
    ConfigureNetwork {
        ticket: NetworkTicket,
        plan: NetworkPlan,
    },
    /// The network is taken down. Nobody waits for the answer to an earlier question any more.
    ReleaseNetwork,
    /// Who is where in the virtual network from now on. Said before the commands that cut streams, so that no stream
    /// begins at an address that is being taken away. `None`: there is no network.
    SetPlaces(Option<Arc<Places>>),
    /// The sign-in is over: forget it and say so.
    EndSignIn,
}
