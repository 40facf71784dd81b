//! Links, addresses, routes and kernel settings of a lab.

use std::net::{IpAddr, Ipv4Addr};

use margay_netlink::{Addr, Mac, NextHop, Route, VethSpec, sysctl};

use super::{PodNetns, host, net};

const HOST_MAC: Mac = Mac([0xee; 6]);

/// A pod's link, with the addresses and routes at both ends.
pub(super) async fn link(links: &margay_netlink::Handle, pod: &PodNetns) {
    pod.netns.run(|| settings(false)).unwrap();
    let veth = VethSpec {
        name: &pod.interface,
        peer_name: "eth0",
        peer_netns: Some(&pod.netns),
        mac: Some(HOST_MAC),
        up: true,
        ..VethSpec::default()
    };
    let host_end = links.create_veth(veth).await.unwrap().index;
    sysctl::write(&format!("net/ipv4/conf/{}/proxy_arp", pod.interface), "1").unwrap();
    sysctl::write(&format!("net/ipv4/conf/{}/route_localnet", pod.interface), "1").unwrap();
    sysctl::write(&format!("net/ipv4/neigh/{}/proxy_delay", pod.interface), "0").unwrap();
    let inside = margay_netlink::Handle::in_netns(&pod.netns).unwrap();
    up(&inside, "lo").await;
    let eth0 = up(&inside, "eth0").await;
    for &address in &pod.addresses {
        inside.add_addr(Addr::new(eth0, host(address)).nodad()).await.unwrap();
        links
            .route_replace(Route::on_link(host(address), host_end))
            .await
            .unwrap();
        let gateway = match address {
            IpAddr::V4(_) => {
                let gateway = Ipv4Addr::new(169, 254, 1, 1).into();
                inside.route_replace(Route::on_link(host(gateway), eth0)).await.unwrap();
                gateway
            }
            IpAddr::V6(_) => HOST_MAC.link_local().into(),
        };
        inside
            .route_replace(default(gateway).hop(NextHop::via_dev(gateway, eth0)))
            .await
            .unwrap();
    }
}

pub(super) fn default(like: IpAddr) -> Route {
    Route::unicast(net(if like.is_ipv4() { "0.0.0.0/0" } else { "::/0" }))
}

pub(super) async fn up(links: &margay_netlink::Handle, name: &str) -> u32 {
    let index = links.link_by_name(name).await.unwrap().index;
    links.set_up(index, true).await.unwrap();
    index
}

/// Kernel settings of the calling thread's namespace.
pub(super) fn settings(router: bool) {
    let forward = if router { "1" } else { "0" };
    for (path, value) in [
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/router_solicitations", "0"),
        ("net/ipv4/icmp_ratelimit", "0"),
        ("net/ipv6/icmp/ratelimit", "0"),
        ("net/ipv4/ping_group_range", "0 2147483647"),
        ("net/ipv4/ip_forward", forward),
        ("net/ipv6/conf/all/forwarding", forward),
    ] {
        sysctl::write(path, value).unwrap();
    }
}
