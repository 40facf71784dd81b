//! VERSION and bad input.

use serde_json::{Value, json};

use crate::node::{Node, variables};

#[test]
fn version_needs_nothing_else() {
    let Some(node) = Node::new("version_needs_nothing_else") else {
        return;
    };
    let outcome = node.call_with(&[("CNI_COMMAND".into(), "VERSION".into())], r#"{"cniVersion":"1.0.0"}"#);
    assert_eq!(outcome.status, 0);
    assert_eq!(
        outcome.document,
        json!({"cniVersion": "1.1.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]})
    );
}

#[test]
fn each_wrong_variable_is_named() {
    let Some(node) = Node::new("each_wrong_variable_is_named") else {
        return;
    };
    let pod = node.pod("c1");
    let cases = [
        ("CNI_COMMAND", None, "CNI_COMMAND is not set"),
        ("CNI_COMMAND", Some("GC"), "CNI_COMMAND=\"GC\" is not supported"),
        ("CNI_COMMAND", Some("add"), "CNI_COMMAND=\"add\" is not supported"),
        ("CNI_CONTAINERID", None, "CNI_CONTAINERID is not set"),
        (
            "CNI_CONTAINERID",
            Some("../../x"),
            "CNI_CONTAINERID=\"../../x\" is not a container id",
        ),
        (
            "CNI_CONTAINERID",
            Some("-x"),
            "CNI_CONTAINERID=\"-x\" is not a container id",
        ),
        ("CNI_IFNAME", None, "CNI_IFNAME is not set"),
        (
            "CNI_IFNAME",
            Some("a/b"),
            "CNI_IFNAME: interface name \"a/b\": has a slash",
        ),
        (
            "CNI_IFNAME",
            Some("abcdefghijklmnop"),
            "CNI_IFNAME: interface name \"abcdefghijklmnop\": is longer than 15",
        ),
        (
            "CNI_IFNAME",
            Some(".."),
            "CNI_IFNAME: interface name \"..\": is a directory's name",
        ),
        ("CNI_NETNS", None, "CNI_NETNS is not set"),
        (
            "CNI_NETNS",
            Some("run/x"),
            "CNI_NETNS=\"run/x\" is not an absolute path",
        ),
        (
            "CNI_NETNS",
            Some("/etc/hostname"),
            "CNI_NETNS: /etc/hostname: is not a network namespace",
        ),
        (
            "CNI_NETNS",
            Some("/proc/self/ns/net"),
            "CNI_NETNS: /proc/self/ns/net is the host's own network namespace",
        ),
        ("CNI_ARGS", None, "CNI_ARGS does not name the pod"),
        (
            "CNI_ARGS",
            Some("K8S_POD_NAMESPACE=a"),
            "CNI_ARGS does not name the pod",
        ),
        (
            "CNI_ARGS",
            Some("K8S_POD_NAMESPACE"),
            "CNI_ARGS: \"K8S_POD_NAMESPACE\" has no '='",
        ),
        ("CNI_ARGS", Some("COLOUR=red"), "CNI_ARGS: \"COLOUR\" is not known"),
        (
            "CNI_ARGS",
            Some("MAC=01:00:5e:00:00:01"),
            "CNI_ARGS: MAC: 01:00:5e:00:00:01 is not a unicast address",
        ),
        (
            "CNI_ARGS",
            Some("IP=10.0.0.300"),
            "CNI_ARGS: IP: \"10.0.0.300\" is not an IP address",
        ),
    ];
    for (name, value, message) in cases {
        let mut env = variables("ADD", &pod);
        env.retain(|(key, _)| key != name);
        env.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        let outcome = node.call_with(&env, &node.config().to_string());
        let (code, msg) = outcome.error();
        assert_eq!(code, 4, "{name}={value:?}: {msg}");
        assert!(msg.starts_with(message), "{name}={value:?}: {msg}");
    }
    let mut env = variables("ADD", &pod);
    env.retain(|(key, _)| key != "CNI_NETNS");
    env.push(("CNI_NETNS".into(), "/run/netns/no-such".into()));
    let outcome = node.call_with(&env, &node.config().to_string());
    assert_eq!(outcome.error().0, 3);
    assert!(
        outcome.error().1.starts_with("CNI_NETNS: the container is gone"),
        "{outcome:?}"
    );
    assert!(
        node.agent.asked().is_empty() && node.links().is_empty(),
        "nothing was done"
    );
}

#[test]
fn each_wrong_field_is_named() {
    let Some(node) = Node::new("each_wrong_field_is_named") else {
        return;
    };
    let pod = node.pod("c1");
    let cases: [(&str, Value, u64, &str); 15] = [
        (
            "cniVersion",
            json!("0.2.0"),
            1,
            "cniVersion \"0.2.0\" in the network configuration is not supported",
        ),
        (
            "cniVersion",
            json!("2.0.0"),
            1,
            "cniVersion \"2.0.0\" in the network configuration is not supported",
        ),
        (
            "cniVersion",
            Value::Null,
            1,
            "cniVersion \"0.1.0\" in the network configuration is not supported",
        ),
        (
            "cniVersion",
            json!(1),
            7,
            "cniVersion of the network configuration is not text",
        ),
        (
            "name",
            Value::Null,
            7,
            "name \"\" of the network configuration is not a network name",
        ),
        (
            "name",
            json!("a/b"),
            7,
            "name \"a/b\" of the network configuration is not a network name",
        ),
        (
            "ipam",
            json!({"type": "host-local"}),
            7,
            "ipam is set in the network configuration",
        ),
        (
            "mtu",
            json!(68),
            7,
            "mtu 68 of the network configuration is not in 1280 to 65535",
        ),
        (
            "mtu",
            json!("1500"),
            7,
            "mtu \"1500\" of the network configuration is not in 1280 to 65535",
        ),
        (
            "socket",
            json!("cni.sock"),
            7,
            "socket \"cni.sock\" of the network configuration is not an absolute path",
        ),
        (
            "log_file",
            json!("/var/log/x"),
            2,
            "field \"log_file\" of the network configuration is not known",
        ),
        (
            "runtimeConfig",
            json!({"portMappings": []}),
            2,
            "field \"portMappings\" of runtimeConfig is not supported",
        ),
        (
            "runtimeConfig",
            json!({"mac": "nonsense"}),
            4,
            "runtimeConfig.mac: Ethernet address \"nonsense\"",
        ),
        (
            "runtimeConfig",
            json!({"ips": ["x"]}),
            4,
            "runtimeConfig.ips: \"x\" is not an IP address",
        ),
        (
            "runtimeConfig",
            json!([]),
            7,
            "runtimeConfig of the network configuration is not an object",
        ),
    ];
    for (field, value, expected, message) in cases {
        let mut config = node.config();
        config[field] = value.clone();
        let outcome = node.call("ADD", &pod, config);
        let (code, msg) = outcome.error();
        assert_eq!(code, expected, "{field}={value}: {msg}");
        assert!(msg.starts_with(message), "{field}={value}: {msg}");
    }
    let long = format!("{{\"x\":\"{}\"}}", "y".repeat(1 << 20));
    for (text, message) in [
        ("", "there is no network configuration on standard input"),
        ("[]", "the network configuration on standard input is not a JSON object"),
        (
            "{\"cniVersion\":",
            "the network configuration on standard input is not a JSON object",
        ),
        (long.as_str(), "the network configuration is longer than 1 MiB"),
    ] {
        let outcome = node.call_with(&variables("ADD", &pod), text);
        let (code, msg) = outcome.error();
        assert_eq!(code, 6, "{msg}");
        assert!(msg.starts_with(message), "{msg}");
    }
    assert!(
        node.agent.asked().is_empty() && node.links().is_empty(),
        "nothing was done"
    );
}
