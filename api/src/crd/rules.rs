//! Rules that belong to the API itself, whatever Margay supports.

use serde_json::{Value, json};

use crate::validate::resources::{HOST_LINKS, INTERFACE_PREFIX};

/// Rules on the whole object: its name, where only some names mean anything.
pub(super) fn object(kind: &str) -> Vec<Value> {
    match kind {
        "BGPConfiguration" => vec![
            named(
                "default or node.<node name>",
                "self.metadata.name == 'default' || self.metadata.name.startsWith('node.')",
            ),
            json!({
                "rule": "self.metadata.name == 'default' || !has(self.spec.nodeToNodeMeshEnabled)",
                "message": "nodeToNodeMeshEnabled can only be set in the BGPConfiguration named default",
            }),
        ],
        "FelixConfiguration" => vec![named(
            "default or node.<node name>",
            "self.metadata.name == 'default' || self.metadata.name.startsWith('node.')",
        )],
        "ClusterInformation" | "IPAMConfiguration" => vec![named("default", "self.metadata.name == 'default'")],
        _ => Vec::new(),
    }
}

fn named(names: &str, rule: &str) -> Value {
    json!({"rule": rule, "message": format!("the name must be {names}; any other would be ignored")})
}

/// The block size that counts, missing or not.
const BLOCK_SIZE: &str =
    "(has(self.blockSize) && self.blockSize != 0 ? self.blockSize : (self.cidr.contains(':') ? 122 : 26))";

/// Rules on a spec as a whole.
pub(super) fn spec(kind: &str) -> Vec<Value> {
    let rule = |rule: String, message: &str| json!({"rule": rule, "message": message});
    match kind {
        "IPPool" => vec![
            json!({
                "rule": format!("self.cidr.contains(':') ? {BLOCK_SIZE} >= 116 && {BLOCK_SIZE} <= 128 : {BLOCK_SIZE} >= 20 && {BLOCK_SIZE} <= 32"),
                "message": "blockSize must be between 20 and 32 in an IPv4 pool, between 116 and 128 in an IPv6 pool",
                "fieldPath": ".blockSize",
            }),
            json!({
                "rule": format!("!isCIDR(self.cidr) || {BLOCK_SIZE} >= cidr(self.cidr).prefixLength()"),
                "message": "a block does not fit into the pool (blockSize defaults to 26 for IPv4, 122 for IPv6): make the pool larger or the block smaller",
                "fieldPath": ".blockSize",
            }),
            json!({
                "rule": format!("{BLOCK_SIZE} == {}", BLOCK_SIZE.replace("self.", "oldSelf.")),
                "message": "blockSize cannot be changed while addresses may be in use; create another pool and delete this one",
                "fieldPath": ".blockSize",
            }),
        ],
        "BGPPeer" => {
            let set = |field: &str| format!("has(self.{field}) && self.{field} != ''");
            let number = "has(self.asNumber) && self.asNumber != 0";
            vec![
                rule(
                    format!(
                        "{} || {} || {}",
                        set("peerIP"),
                        set("peerSelector"),
                        set("localWorkloadSelector")
                    ),
                    "one of peerIP (with asNumber, a router) and peerSelector (nodes) must be set",
                ),
                rule(
                    format!("!({} && {})", set("peerIP"), set("peerSelector")),
                    "peerIP and peerSelector cannot both be set",
                ),
                rule(
                    format!("!({}) || {number}", set("peerIP")),
                    "asNumber must be set when peerIP is set",
                ),
                rule(
                    format!("!({}) || !({number})", set("peerSelector")),
                    "asNumber must be empty when peerSelector is set: each node has its own",
                ),
                rule(
                    format!("!({} && {})", set("node"), set("nodeSelector")),
                    "node and nodeSelector cannot both be set",
                ),
            ]
        }
        _ => Vec::new(),
    }
}

const WHOLE_CIDR: &str = "isCIDR(self) && cidr(self) == cidr(self).masked()";

const PEER_ADDRESS: &str = r"self == '' || isIP(self) || (self.matches('^[0-9.]+:[0-9]{1,5}$') && isIP(self.split(':')[0]) && int(self.split(':')[1]) >= 1 && int(self.split(':')[1]) <= 65535) || (self.matches('^\\[[0-9a-fA-F:.]+\\]:[0-9]{1,5}$') && isIP(self.split(']')[0].substring(1)) && int(self.split(']:')[1]) >= 1 && int(self.split(']:')[1]) <= 65535)";

/// Rules on one field of a spec.
pub(super) fn field(kind: &str, field: &str) -> Vec<Value> {
    match (kind, field) {
        ("IPPool", "cidr") => vec![
            json!({
                "rule": WHOLE_CIDR,
                "message": "must be a CIDR without host bits, such as 10.0.0.0/16 or fd00::/64",
            }),
            json!({
                "rule": "self == oldSelf",
                "message": "cannot be changed while addresses may be in use; create another pool and delete this one",
            }),
        ],
        ("BGPPeer", "peerIP") => vec![json!({
            "rule": PEER_ADDRESS,
            "message": "must be an IP address, optionally with a port as <IPv4>:<port> or [<IPv6>]:<port>",
        })],
        ("FelixConfiguration", "interfacePrefix") => {
            let links = HOST_LINKS.map(|link| format!("'{link}'")).join(", ");
            vec![json!({
                "rule": format!("self.matches('^[a-z][a-z0-9]{{0,3}}$') && ![{links}].exists(link, link.startsWith(self) || self.startsWith(link))"),
                "message": INTERFACE_PREFIX,
            })]
        }
        _ => Vec::new(),
    }
}
