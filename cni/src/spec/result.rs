//! Results of ADD, and errors, as the versions of the specification want them.

use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::CniVersion;
use crate::protocol::{Attached, Failure, code};

/// A successful ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Success {
    /// What the agent answered.
    pub attached: Attached,
    /// Name of the interface in the container.
    pub ifname: String,
    /// Its Ethernet address.
    pub mac: String,
    /// Path of the container's network namespace.
    pub netns: String,
}

/// What CHECK needs of a `prevResult`: the addresses of the container's interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// In the order of the result.
    pub addresses: Vec<IpNetwork>,
}

impl Success {
    /// The result document.
    pub fn document(&self, version: CniVersion) -> Value {
        let with_mtu = |mut interface: Value| {
            if version >= CniVersion::V1_1_0 {
                interface["mtu"] = self.attached.mtu.into();
            }
            interface
        };
        let ips: Vec<Value> = self
            .attached
            .addresses
            .iter()
            .map(|address| self.ip(*address, version))
            .collect();
        let routes: Vec<Value> = self
            .attached
            .addresses
            .iter()
            .map(|address| json!({ "dst": if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" }, "gw": self.gateway(*address) }))
            .collect();
        json!({
            "cniVersion": version.as_str(),
            "interfaces": [
                with_mtu(json!({ "name": self.attached.interface, "mac": self.attached.host_mac })),
                with_mtu(json!({ "name": self.ifname, "mac": self.mac, "sandbox": self.netns })),
            ],
            "ips": ips,
            "routes": routes,
            "dns": {},
        })
    }

    fn ip(&self, address: IpNetwork, version: CniVersion) -> Value {
        let mut ip = json!({ "interface": 1, "address": address, "gateway": self.gateway(address) });
        if version < CniVersion::V1_0_0 {
            ip["version"] = if address.is_ipv4() { "4" } else { "6" }.into();
        }
        ip
    }

    fn gateway(&self, address: IpNetwork) -> String {
        match address {
            IpNetwork::V4(_) => self.attached.gateway_v4.to_string(),
            IpNetwork::V6(_) => self.attached.gateway_v6.to_string(),
        }
    }
}

impl Previous {
    /// Reads a result of any version from 0.3.1 on.
    pub fn parse(result: &Value, ifname: &str) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Document {
            #[serde(default)]
            interfaces: Vec<Interface>,
            #[serde(default)]
            ips: Vec<Ip>,
        }
        #[derive(Deserialize)]
        struct Interface {
            name: String,
            #[serde(default)]
            sandbox: String,
        }
        #[derive(Deserialize)]
        struct Ip {
            interface: Option<usize>,
            address: IpNetwork,
        }
        let document = Document::deserialize(result).map_err(|error| {
            Failure::new(
                code::INVALID_CONFIG,
                format!("prevResult is not a CNI result: {error}"),
                "",
            )
        })?;
        let position = document
            .interfaces
            .iter()
            .position(|interface| interface.name == ifname && !interface.sandbox.is_empty());
        let Some(position) = position else {
            let msg = format!("prevResult has no interface {ifname} with a sandbox");
            return Err(Failure::new(
                code::INVALID_CONFIG,
                msg,
                "The runtime must pass the result of ADD.",
            ));
        };
        let own = document.ips.iter().filter(|ip| ip.interface == Some(position));
        Ok(Self {
            addresses: own.map(|ip| ip.address).collect(),
        })
    }
}

/// The error document.
pub fn error_document(failure: &Failure, version: CniVersion) -> Value {
    let mut document = Map::new();
    document.insert("cniVersion".into(), version.as_str().into());
    document.insert("code".into(), failure.code.into());
    document.insert("msg".into(), failure.msg.as_str().into());
    if !failure.details.is_empty() {
        document.insert("details".into(), failure.details.as_str().into());
    }
    Value::Object(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn success() -> Success {
        Success {
            attached: Attached {
                interface: "mgy1".into(),
                host_mac: "ee:ee:ee:ee:ee:ee".into(),
                addresses: vec!["10.244.0.5/32".parse().unwrap(), "fd00::5/128".parse().unwrap()],
                gateway_v4: "169.254.1.1".parse().unwrap(),
                gateway_v6: "fe80::1".parse().unwrap(),
                mtu: 1450,
                route_protocol: 177,
            },
            ifname: "eth0".into(),
            mac: "02:00:00:00:00:01".into(),
            netns: "/run/netns/x".into(),
        }
    }

    #[test]
    fn results_are_as_each_version_wants_them() {
        for (version, ip_version, mtu) in [
            (CniVersion::V0_3_1, json!({"version": "4"}), json!({})),
            (CniVersion::V0_4_0, json!({"version": "4"}), json!({})),
            (CniVersion::V1_0_0, json!({}), json!({})),
            (CniVersion::V1_1_0, json!({}), json!({"mtu": 1450})),
        ] {
            let document = success().document(version);
            assert_eq!(document["cniVersion"], version.as_str());
            let mut first = json!({"interface": 1, "address": "10.244.0.5/32", "gateway": "169.254.1.1"});
            merge(&mut first, &ip_version);
            assert_eq!(document["ips"][0], first, "{version}");
            assert_eq!(document["routes"][1], json!({"dst": "::/0", "gw": "fe80::1"}));
            let mut inside = json!({"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/x"});
            merge(&mut inside, &mtu);
            assert_eq!(document["interfaces"][1], inside, "{version}");

            let previous = Previous::parse(&document, "eth0").unwrap();
            assert_eq!(previous.addresses, success().attached.addresses);
            let failure = Previous::parse(&document, "eth1").unwrap_err();
            assert_eq!(failure.msg, "prevResult has no interface eth1 with a sandbox");
        }
    }

    fn merge(into: &mut Value, more: &Value) {
        for (key, value) in more.as_object().unwrap() {
            into[key] = value.clone();
        }
    }
}
