//! Namespaces and settings.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

use margay_netlink::{Netns, sysctl};

use crate::kernel::{Pair, private};

#[test]
fn work_runs_in_the_namespace_and_the_caller_stays_where_it_was() {
    let Some(netns) = private("work_runs_in_the_namespace_and_the_caller_stays_where_it_was") else {
        return;
    };
    let before = Netns::current().expect("opens").id().expect("has a number");
    let local = [1, 2, 3];
    let inside = netns
        .run(|| (local.len(), Netns::current().and_then(|n| n.id())))
        .expect("runs");
    assert_eq!(inside.0, 3);
    assert_eq!(inside.1.expect("has a number"), netns.id().expect("has a number"));
    assert_ne!(before, netns.id().expect("has a number"));
    assert_eq!(before, Netns::current().expect("opens").id().expect("has a number"));
    let caught = std::panic::catch_unwind(|| netns.run(|| panic!("inside")));
    assert!(caught.is_err(), "a panic is passed on");
}

#[test]
fn sockets_of_a_namespace_work_from_outside() {
    let Some(pair) = Pair::new("sockets_of_a_namespace_work_from_outside") else {
        return;
    };
    let listener = pair
        .there
        .run(|| TcpListener::bind("10.0.0.2:80"))
        .expect("runs")
        .expect("listens");
    let stream = pair
        .here
        .run(|| TcpStream::connect("10.0.0.2:80"))
        .expect("runs")
        .expect("connects");
    let (accepted, from) = listener.accept().expect("accepts");
    assert_eq!(from.ip().to_string(), "10.0.0.1");
    drop((stream, accepted));
}

#[test]
fn a_named_namespace_is_opened_by_path_and_deleted() {
    let test = "a_named_namespace_is_opened_by_path_and_deleted";
    if private(test).is_none() {
        return;
    }
    let path = directory(test).join("ns");
    let made = Netns::create_at(&path).expect("makes");
    assert_eq!(
        Netns::open(&path).expect("opens").id().expect("id"),
        made.id().expect("id")
    );
    let again = Netns::create_at(&path).expect_err("is there");
    assert!(again.is_exists(), "{again}");
    Netns::delete(&path).expect("deletes");
    Netns::delete(&path).expect("deleting twice is fine");
    assert!(!path.exists());
    let error = Netns::open(&path).expect_err("is gone");
    assert!(
        error.is_not_found() && error.to_string().contains("ns: No such file"),
        "{error}"
    );

    std::fs::write(&path, "").expect("writes");
    let error = Netns::open(&path).expect_err("is a plain file").to_string();
    assert!(error.contains("is not a network namespace"), "{error}");
    std::fs::remove_dir_all(path.parent().expect("has one")).expect("cleans up");
}

#[test]
fn settings_are_those_of_the_namespace() {
    let Some(netns) = private("settings_are_those_of_the_namespace") else {
        return;
    };
    let name = "net/ipv4/ip_forward";
    let outside = sysctl::read(name).expect("reads");
    for value in ["1", "0"] {
        netns.run(|| sysctl::write(name, value)).expect("runs").expect("writes");
        assert_eq!(netns.run(|| sysctl::read(name)).expect("runs").expect("reads"), value);
        assert!(
            !netns
                .run(|| sysctl::ensure(name, value))
                .expect("runs")
                .expect("is so already")
        );
    }
    assert_eq!(sysctl::read(name).expect("reads"), outside);

    let missing = sysctl::write("net/ipv4/conf/nosuch/forwarding", "1").expect_err("no such link");
    assert_eq!(
        missing.to_string(),
        "setting net/ipv4/conf/nosuch/forwarding: not found"
    );
    for wrong in ["", "/etc/passwd", "net/../../etc/passwd"] {
        let error = sysctl::write(wrong, "1").expect_err("is refused").to_string();
        assert!(error.contains("is not a path below /proc/sys"), "{error}");
    }
}

fn directory(test: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("{test}-{}", std::process::id()));
    std::fs::create_dir_all(&path).expect("makes a directory");
    path
}
