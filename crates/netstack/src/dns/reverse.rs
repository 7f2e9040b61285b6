//! Names of addresses: `9.0.72.100.in-addr.arpa` and the like.

use std::net::IpAddr;

use hickory_proto::{op::ResponseCode, rr::RecordType};

use super::{Asking, Hosts, Notice, Outcome, key::Key, reply::Body};

/// Answers a question below `in-addr.arpa` or `ip6.arpa`. For addresses outside of the virtual network that is refused.
pub(super) fn answer<H: Hosts + ?Sized>(mut asking: Asking<'_>, hosts: &mut H) -> Outcome {
    let name = asking.query.question.name();
    let Ok(net) = name.parse_arpa_name() else {
        return asking.reply(ResponseCode::Refused, Body::Empty, Some(Notice::Elsewhere));
    };
    let (ip, prefix) = (net.addr(), net.prefix_len());
    let range = asking.table.range();
    let (ours, whole, per_label) = match ip {
        IpAddr::V4(_) => (range.v4.prefix(), 32, 8),
        IpAddr::V6(_) => (48, 128, 4),
    };
    let notice = match (range.contains(ip) && prefix >= ours, asking.table.notice()) {
        (true, notice) => notice,
        (false, Some(moved @ Notice::Moved { from })) if matches!(ip, IpAddr::V4(ip) if from.contains(ip)) => {
            return asking.reply(ResponseCode::NXDomain, Body::Empty, Some(moved));
        }
        (false, _) => return asking.reply(ResponseCode::Refused, Body::Empty, Some(Notice::Elsewhere)),
    };
    // The zone is as wide as whole labels allow within our range.
    let labels = usize::from(ours.div_ceil(per_label)) + 2;
    let Ok(soa) = asking.table.soa(&name.trim_to(labels)) else {
        return asking.reply(ResponseCode::ServFail, Body::Empty, notice);
    };
    if prefix < whole {
        return asking.reply(ResponseCode::NoError, Body::Negative(&soa), notice);
    }
    let table = asking.table;
    let host = || range.part(ip).and_then(|part| hosts.name(part)).and_then(|host| Key::of_host(&host));
    let host = if table.name_of(ip).is_none() { host().map(|key| key.to_wire()) } else { None };
    match (table.name_of(ip).or(host.as_deref()), asking.kind()) {
        (Some(name), RecordType::PTR | RecordType::ANY) => {
            asking.reply(ResponseCode::NoError, Body::Pointer(name), notice)
        }
        (Some(_), _) => asking.reply(ResponseCode::NoError, Body::Negative(&soa), notice),
        (None, _) => asking.missing(&soa),
    }
}
