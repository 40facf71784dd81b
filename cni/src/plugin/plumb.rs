//! The links: one system call for the pair, one for all of the pod side, one for all of the host side.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use margay_netlink::{
    Addr, Connection, Error, Link, Mac, Neigh, Netns, NextHop, Op, Route, RouteFilter, Scope, VethSpec, sysctl, table,
};

use crate::host;
use crate::protocol::{Attached, Failure, code};

/// Opens the container's namespace, which must not be the host's.
pub(super) fn open(path: &str) -> Result<Netns, Failure> {
    let netns = Netns::open(path).map_err(|error| {
        if error.is_not_found() {
            Failure::new(
                code::UNKNOWN_CONTAINER,
                format!("CNI_NETNS: the container is gone: {error}"),
                "",
            )
        } else {
            Failure::new(code::INVALID_ENVIRONMENT, format!("CNI_NETNS: {error}"), "")
        }
    })?;
    if is_own(&netns)? {
        return Err(Failure::new(
            code::INVALID_ENVIRONMENT,
            format!("CNI_NETNS: {path} is the host's own network namespace"),
            "Containers on the host's network must not be attached.",
        ));
    }
    Ok(netns)
}

/// Makes the link, or mends what an earlier attempt left of it. Returns the pod side's Ethernet address. After an error no
/// link is left.
pub(super) fn attach(
    netns: &Netns,
    ifname: &str,
    wanted: &Attached,
    host_mac: Mac,
    pod_mac: Option<Mac>,
) -> Result<Mac, Failure> {
    let mut host = Connection::open().map_err(kernel)?;
    let mut pod = Connection::open_in(netns).map_err(kernel)?;
    let near = match existing(&mut host, &mut pod, ifname, wanted, pod_mac)? {
        Some(near) => near,
        None => {
            let spec = VethSpec {
                name: &wanted.interface,
                peer_name: ifname,
                peer_netns: Some(netns),
                mac: Some(host_mac),
                peer_mac: pod_mac,
                mtu: Some(wanted.mtu),
                up: false,
            };
            host.create_veth(&spec).map_err(kernel)?
        }
    };
    let made = configure(netns, ifname, wanted, (&mut host, &near), &mut pod);
    if made.is_err() {
        // The first error is the one to report; the agent's DEL looks after what is left.
        let _ = host.delete_link_by_name(&wanted.interface);
    }
    made
}

/// Deletes the container's interface if it is one of ours. Fine if it, or the namespace, is gone.
pub(super) fn detach(path: &str, ifname: &str) -> Result<(), Failure> {
    let netns = match Netns::open(path) {
        Ok(netns) => netns,
        // Gone, or only the file that it was bound to is left.
        Err(error) if error.is_not_found() || matches!(error, Error::Invalid { .. }) => return Ok(()),
        Err(error) => return Err(kernel(error)),
    };
    if is_own(&netns)? {
        return Ok(());
    }
    let mut pod = Connection::open_in(&netns).map_err(kernel)?;
    let Some(inner) = optional(pod.link_by_name(ifname))? else {
        return Ok(());
    };
    let mut host = Connection::open().map_err(kernel)?;
    let outer = match inner.peer {
        Some(index) => optional(host.link_by_index(index))?,
        None => None,
    };
    // An interface of that name that another plugin made stays.
    if outer.is_some_and(|outer| is_pair(&outer, &inner)) {
        match pod.apply(&Op::DeleteLink(inner.index)) {
            Err(error) if !error.is_not_found() => return Err(kernel(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Whether two links, one of the host and one of a pod, are the ends of a pair of ours.
pub(super) fn is_pair(outer: &Link, inner: &Link) -> bool {
    let veth = |link: &Link| link.kind.as_deref() == Some("veth") && link.peer_netns.is_some();
    veth(outer)
        && veth(inner)
        && outer.peer == Some(inner.index)
        && inner.peer == Some(outer.index)
        && outer.mac == Some(host::HOST_MAC)
}

/// The routes of a pod: to its router, and everything by way of it.
pub(super) fn pod_routes(wanted: &Attached, index: u32) -> Vec<Route> {
    let mut routes = Vec::new();
    let (v4, v6) = families(wanted);
    if v4 {
        let gateway = IpAddr::V4(wanted.gateway_v4);
        routes.push(Route::on_link(IpNetwork::from(gateway), index));
        routes.push(Route::unicast(any(&gateway)).hop(NextHop::via_dev(gateway, index)));
    }
    if v6 {
        let gateway = IpAddr::V6(wanted.gateway_v6);
        routes.push(Route::unicast(any(&gateway)).hop(NextHop::via_dev(gateway, index)));
    }
    routes
}

/// `None` for what does not exist.
pub(super) fn optional<T>(found: margay_netlink::Result<T>) -> Result<Option<T>, Failure> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(kernel(error)),
    }
}

pub(super) fn kernel(error: Error) -> Failure {
    Failure::new(code::KERNEL, error.to_string(), "")
}

/// The host side of the pair that an earlier call left, if it can be used; what is in the way and ours is deleted.
fn existing(
    host: &mut Connection,
    pod: &mut Connection,
    ifname: &str,
    wanted: &Attached,
    pod_mac: Option<Mac>,
) -> Result<Option<Link>, Failure> {
    let outer = optional(host.link_by_name(&wanted.interface))?;
    let inner = optional(pod.link_by_name(ifname))?;
    match (outer, inner) {
        (Some(outer), Some(inner)) if is_pair(&outer, &inner) => {
            let addrs = pod.addrs().map_err(kernel)?;
            let foreign = addrs.iter().any(|addr| {
                addr.link == inner.index && addr.scope == Scope::Universe && !wanted.addresses.contains(&addr.network)
            });
            let fits = outer.mtu == wanted.mtu
                && inner.mtu == wanted.mtu
                && pod_mac.is_none_or(|mac| inner.mac == Some(mac))
                && !foreign;
            if fits {
                return Ok(Some(outer));
            }
            host.delete_link_by_name(&wanted.interface).map_err(kernel)?;
            Ok(None)
        }
        (_, Some(_)) => Err(Failure::new(
            code::INVALID_ENVIRONMENT,
            format!("CNI_IFNAME: the container has an interface {ifname} already, and not from this plugin"),
            "Use another name, or take the other plugin out of the chain.",
        )),
        (Some(outer), None) => {
            if outer.kind.as_deref() != Some("veth") {
                let msg = format!("the host has an interface {} that is not a veth", wanted.interface);
                return Err(Failure::new(code::KERNEL, msg, "Rename or delete it."));
            }
            // The pod's older sandbox still has it; the agent gave the name to this one.
            host.delete_link_by_name(&wanted.interface).map_err(kernel)?;
            Ok(None)
        }
        (None, None) => Ok(None),
    }
}

fn configure(
    netns: &Netns,
    ifname: &str,
    wanted: &Attached,
    (host, near): (&mut Connection, &Link),
    pod: &mut Connection,
) -> Result<Mac, Failure> {
    let (v4, v6) = families(wanted);
    if v6 {
        // Before the interface is up: else the kernel begins to look for duplicates of its link-local address.
        netns.run(|| pod_settings(ifname)).map_err(kernel)?.map_err(kernel)?;
    }
    let far = pod.link_by_name(ifname).map_err(kernel)?;
    let host_mac = near.mac.unwrap_or(host::HOST_MAC);
    let mut ops = vec![Op::SetUp(far.index, true)];
    ops.extend(
        wanted
            .addresses
            .iter()
            .map(|address| Op::ReplaceAddr(Addr::new(far.index, *address).nodad())),
    );
    // The router never moves: asking for it would cost the first packet, and needs a default route on the host.
    let routers = [
        v4.then_some(IpAddr::V4(wanted.gateway_v4)),
        v6.then_some(IpAddr::V6(wanted.gateway_v6)),
    ];
    ops.extend(
        routers
            .into_iter()
            .flatten()
            .map(|ip| Op::ReplaceNeigh(Neigh::permanent(far.index, ip, host_mac))),
    );
    let ours = |route: &Route| route.next_hops.iter().any(|hop| hop.oif == Some(far.index));
    apply(pod, ops, pod_routes(wanted, far.index), ours, "the container")?;

    host_settings(&wanted.interface, v6)?;
    let mut ops = vec![Op::SetUp(near.index, true)];
    ops.extend(v6.then(|| Op::ReplaceAddr(host::gateway_addr(wanted.gateway_v6, near.index))));
    let routes = host::routes(&wanted.addresses, near.index, wanted.route_protocol);
    apply(
        host,
        ops,
        routes,
        |route| route.protocol == wanted.route_protocol,
        "the host",
    )?;
    wait_operational(pod, far.index)?;
    far.mac
        .ok_or_else(|| Failure::new(code::KERNEL, format!("{ifname} has no Ethernet address"), ""))
}

/// Makes changes, then adds routes. A route that is there already is replaced if it is ours, and an error otherwise.
fn apply(
    connection: &mut Connection,
    mut ops: Vec<Op>,
    routes: Vec<Route>,
    ours: impl Fn(&Route) -> bool,
    place: &str,
) -> Result<(), Failure> {
    ops.extend(routes.into_iter().map(Op::AddRoute));
    let results = connection.batch(&ops);
    for (op, result) in ops.into_iter().zip(results) {
        match (op, result) {
            (_, Ok(())) => {}
            (Op::AddRoute(route), Err(error)) if error.is_exists() => {
                let filter = RouteFilter {
                    family: Some(route.family()),
                    table: Some(table::MAIN),
                    ..RouteFilter::default()
                };
                let there = connection.routes(filter).map_err(kernel)?;
                if !there.iter().any(|other| other.dst == route.dst && ours(other)) {
                    let msg = format!(
                        "{place} has a route to {} already, which is not of this plugin",
                        route.dst
                    );
                    return Err(Failure::new(
                        code::KERNEL,
                        msg,
                        format!("Delete it: ip route del {}", route.dst),
                    ));
                }
                connection.apply(&Op::ReplaceRoute(route)).map_err(kernel)?;
            }
            (_, Err(error)) => return Err(kernel(error)),
        }
    }
    Ok(())
}

fn pod_settings(ifname: &str) -> margay_netlink::Result<()> {
    // Runtimes turn IPv6 off in containers that have no use for it.
    sysctl::ensure(&format!("net/ipv6/conf/{ifname}/disable_ipv6"), "0")?;
    sysctl::ensure(&format!("net/ipv6/conf/{ifname}/accept_dad"), "0")?;
    Ok(())
}

fn host_settings(interface: &str, v6: bool) -> Result<(), Failure> {
    for (path, value) in host::settings(interface) {
        match sysctl::ensure(&path, value) {
            Err(error) if error.is_not_found() && !v6 && path.starts_with("net/ipv6/") => {}
            result => drop(result.map_err(kernel)?),
        }
    }
    Ok(())
}

/// The kernel drops what is sent on a link until it has noticed, a moment after, that the other end is up.
fn wait_operational(pod: &mut Connection, index: u32) -> Result<(), Failure> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let deadline = Instant::now() + PATIENCE;
    while !pod.link_by_index(index).map_err(kernel)?.operational {
        if Instant::now() > deadline {
            return Err(Failure::try_again(
                "the container's interface did not come up within 5 s",
                "",
            ));
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    Ok(())
}

fn is_own(netns: &Netns) -> Result<bool, Failure> {
    let own = Netns::current().and_then(|own| own.id()).map_err(kernel)?;
    Ok(netns.id().map_err(kernel)? == own)
}

fn families(wanted: &Attached) -> (bool, bool) {
    (
        wanted.addresses.iter().any(IpNetwork::is_ipv4),
        wanted.addresses.iter().any(IpNetwork::is_ipv6),
    )
}

fn any(like: &IpAddr) -> IpNetwork {
    let any = match like {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    IpNetwork::new(any, 0).expect("0 is a prefix length")
}
