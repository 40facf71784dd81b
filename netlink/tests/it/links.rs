//! Links, addresses and neighbours.

use margay_netlink::{Addr, BridgeSpec, Connection, Handle, Mac, Neigh, Op, VethSpec};

use crate::kernel::{Pair, net, private};

#[test]
fn veth_ends_are_made_in_two_namespaces_with_what_was_asked() {
    let test = "veth_ends_are_made_in_two_namespaces_with_what_was_asked";
    let (Some(here), Some(there)) = (private(test), private(test)) else {
        return;
    };
    let mut connection = Connection::open_in(&here).expect("connects");
    let (mac, peer_mac) = (Mac([0xee; 6]), Mac([2, 0, 0, 0, 0, 9]));
    let spec = VethSpec {
        name: "host0",
        peer_name: "eth0",
        peer_netns: Some(&there),
        mac: Some(mac),
        peer_mac: Some(peer_mac),
        mtu: Some(1400),
        up: true,
    };
    let near = connection.create_veth(&spec).expect("makes it");
    assert_eq!(
        (near.name.as_str(), near.mac, near.mtu, near.up),
        ("host0", Some(mac), 1400, true)
    );
    assert_eq!(near.kind.as_deref(), Some("veth"));
    assert!(near.peer_netns.is_some(), "the peer is elsewhere: {near:?}");

    let far = Connection::open_in(&there)
        .expect("connects")
        .link_by_name("eth0")
        .expect("is there");
    assert_eq!(
        (far.mac, far.mtu, far.up, far.carrier),
        (Some(peer_mac), 1400, false, false)
    );
    assert_eq!(near.peer, Some(far.index));

    let error = connection.create_veth(&spec).expect_err("it is there");
    assert!(error.is_exists(), "{error}");
    assert!(
        error
            .to_string()
            .contains("create veth host0 with peer eth0: File exists"),
        "{error}"
    );
    assert!(connection.delete_link_by_name("host0").expect("deletes"));
    assert!(
        !connection
            .delete_link_by_name("host0")
            .expect("is no error the second time")
    );
    let gone = connection.link_by_name("host0").expect_err("is gone");
    assert_eq!(gone.to_string(), "link host0: not found");
    assert!(gone.is_not_found());
}

#[tokio::test]
async fn bridge_takes_ports() {
    let Some(netns) = private("bridge_takes_ports") else {
        return;
    };
    let handle = Handle::in_netns(&netns).expect("connects");
    let bridge = handle
        .create_bridge(BridgeSpec {
            name: "br0",
            up: true,
            ..BridgeSpec::default()
        })
        .await
        .expect("makes");
    let port = handle
        .create_veth(VethSpec {
            name: "p0",
            peer_name: "p1",
            mtu: Some(9000),
            ..VethSpec::default()
        })
        .await
        .expect("makes");
    handle.set_master(port.index, Some(bridge.index)).await.expect("joins");
    handle.set_mtu(port.index, 1300).await.expect("sets");
    handle.set_mac(port.index, Mac([2, 1, 1, 1, 1, 1])).await.expect("sets");
    handle
        .apply(Op::Rename(port.index, "p9".into()))
        .await
        .expect("renames");
    let port = handle.link_by_name("p9").await.expect("has its new name");
    assert_eq!(
        (port.master, port.mtu, port.mac),
        (Some(bridge.index), 1300, Some(Mac([2, 1, 1, 1, 1, 1])))
    );
    assert_eq!(bridge.kind.as_deref(), Some("bridge"));
    handle.set_master(port.index, None).await.expect("leaves");
    assert_eq!(handle.link_by_index(port.index).await.expect("is there").master, None);
    let names: Vec<String> = handle
        .links()
        .await
        .expect("lists")
        .into_iter()
        .map(|link| link.name)
        .collect();
    assert_eq!(names, ["lo", "br0", "p1", "p9"]);
}

#[test]
fn addresses_without_detection_are_never_tentative() {
    let Some(pair) = Pair::new("addresses_without_detection_are_never_tentative") else {
        return;
    };
    let mut connection = Connection::open_in(&pair.here).expect("connects");
    let addr = Addr::new(pair.near.index, net("fd00:1::1/128")).nodad();
    connection.apply(&Op::AddAddr(addr.clone())).expect("adds");
    let control = Addr::new(pair.near.index, net("fd00:1::2/128"));
    connection.apply(&Op::AddAddr(control.clone())).expect("adds");

    let addrs = connection.addrs().expect("lists");
    let find = |wanted: &Addr| {
        addrs
            .iter()
            .find(|a| a.network == wanted.network)
            .cloned()
            .expect("is listed")
    };
    assert_eq!(find(&addr), addr);
    assert!(find(&control).tentative, "the control shows that detection runs");
    assert!(
        addrs
            .iter()
            .any(|a| a.network == net("10.0.0.1/24") && a.link == pair.near.index)
    );

    let error = connection.apply(&Op::AddAddr(addr.clone())).expect_err("is there");
    assert!(error.is_exists(), "{error}");
    connection
        .apply(&Op::ReplaceAddr(addr.clone()))
        .expect("replacing is fine");
    connection.apply(&Op::DeleteAddr(addr.clone())).expect("deletes");
    assert!(
        connection
            .apply(&Op::DeleteAddr(addr))
            .expect_err("is gone")
            .is_not_found()
    );
}

#[test]
fn neighbours_are_set_and_removed() {
    let Some(pair) = Pair::new("neighbours_are_set_and_removed") else {
        return;
    };
    let mut connection = Connection::open_in(&pair.here).expect("connects");
    let wanted: Vec<Neigh> = ["10.0.0.77", "fd00::77"]
        .map(|ip| {
            Neigh::permanent(
                pair.near.index,
                ip.parse().expect("an address"),
                Mac([2, 0, 0, 0, 0, 7]),
            )
        })
        .into();
    for neigh in &wanted {
        connection.apply(&Op::ReplaceNeigh(neigh.clone())).expect("sets");
    }
    let found = connection.neighs().expect("lists");
    assert!(wanted.iter().all(|neigh| found.contains(neigh)), "{found:?}");
    for neigh in wanted {
        connection.apply(&Op::DeleteNeigh(neigh.clone())).expect("removes");
        assert!(!connection.neighs().expect("lists").contains(&neigh));
    }
}
