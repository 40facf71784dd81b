//! CHECK.

use ipnetwork::IpNetwork;
use margay_netlink::{Connection, Netns, Route, RouteFilter, table};

use super::{ask_check, plumb};
use crate::host;
use crate::protocol::{Attached, Failure, code};
use crate::spec::result::Previous;
use crate::spec::{Call, CniVersion, Config};

/// Compares the kernel with `prevResult` and with what the agent says.
pub(super) fn check(call: &Call, config: &Config) -> Result<(), Failure> {
    if config.version < CniVersion::V0_4_0 {
        let msg = format!("CHECK does not exist in CNI {}", config.version);
        return Err(Failure::new(code::INCOMPATIBLE_VERSION, msg, "It came with 0.4.0."));
    }
    let previous = config.prev_result.as_ref().ok_or_else(|| {
        Failure::new(
            code::INVALID_CONFIG,
            "CHECK needs prevResult",
            "The runtime must pass the result of ADD.",
        )
    })?;
    let previous = Previous::parse(previous, &call.ifname)?;
    let netns = plumb::open(&call.netns)?;
    let wanted = ask_check(call, config)?;
    let faults = faults(&netns, &call.ifname, &previous, &wanted)?;
    match faults.split_first() {
        None => Ok(()),
        Some((first, more)) => Err(Failure::new(
            code::CHECK_FAILED,
            format!("container {}, interface {}: {first}", call.container_id, call.ifname),
            [more.join("; ").as_str(), "Delete the pod to have it attached anew."]
                .join(" ")
                .trim()
                .to_owned(),
        )),
    }
}

fn faults(netns: &Netns, ifname: &str, previous: &Previous, wanted: &Attached) -> Result<Vec<String>, Failure> {
    let mut faults = Vec::new();
    let mut pod = Connection::open_in(netns).map_err(plumb::kernel)?;
    let mut host = Connection::open().map_err(plumb::kernel)?;

    for address in &previous.addresses {
        if !wanted.addresses.contains(address) {
            faults.push(format!(
                "address {address} is in prevResult, but the agent gave {}",
                list(&wanted.addresses)
            ));
        }
    }
    let outer = plumb::optional(host.link_by_name(&wanted.interface))?;
    let inner = plumb::optional(pod.link_by_name(ifname))?;
    match &outer {
        None => faults.push(format!("host interface {} is gone", wanted.interface)),
        Some(outer) if !outer.up => faults.push(format!("host interface {} is down", wanted.interface)),
        Some(outer) => {
            let there = routes(&mut host)?;
            for address in &wanted.addresses {
                if !there
                    .iter()
                    .any(|route| route.dst == *address && leads_to(route, outer.index))
                {
                    faults.push(format!(
                        "the host has no route to {address} by way of {}",
                        wanted.interface
                    ));
                }
            }
        }
    }
    let Some(inner) = inner else {
        faults.insert(0, "the interface is gone".to_owned());
        return Ok(faults);
    };
    if !inner.up {
        faults.push("the interface is down".to_owned());
    }
    if inner.mtu != wanted.mtu {
        faults.push(format!("the MTU is {}, not {}", inner.mtu, wanted.mtu));
    }
    if let Some(outer) = &outer
        && !plumb::is_pair(outer, &inner)
    {
        let mac = host::HOST_MAC;
        faults.push(format!(
            "{} is not its other end, or has another Ethernet address than {mac}",
            wanted.interface
        ));
    }
    let addrs = pod.addrs().map_err(plumb::kernel)?;
    for address in &wanted.addresses {
        if !addrs
            .iter()
            .any(|addr| addr.link == inner.index && addr.network == *address)
        {
            faults.push(format!("address {address} is missing"));
        }
    }
    let there = routes(&mut pod)?;
    for route in plumb::pod_routes(wanted, inner.index) {
        let via = route.next_hops.first().and_then(|hop| hop.via);
        let same = |other: &&Route| {
            other
                .next_hops
                .iter()
                .any(|hop| hop.oif == Some(inner.index) && hop.via == via)
        };
        if !there.iter().filter(same).any(|other| other.dst == route.dst) {
            faults.push(format!("the route to {} is missing", route.dst));
        }
    }
    Ok(faults)
}

fn routes(connection: &mut Connection) -> Result<Vec<Route>, Failure> {
    let filter = RouteFilter {
        table: Some(table::MAIN),
        ..RouteFilter::default()
    };
    connection.routes(filter).map_err(plumb::kernel)
}

fn leads_to(route: &Route, index: u32) -> bool {
    route.next_hops.iter().any(|hop| hop.oif == Some(index))
}

fn list(addresses: &[IpNetwork]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
