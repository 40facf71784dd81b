//! The network configuration on standard input.

use std::net::IpAddr;
use std::path::PathBuf;

use margay_netlink::Mac;
use serde_json::{Map, Value};

use super::call::{self, Command};
use super::{CniVersion, is_name};
use crate::protocol::{DEFAULT_SOCKET, Failure, code};
use crate::queue;

/// The plugin's configuration, as the runtime passes it:
///
/// ```json
/// {"cniVersion": "1.1.0", "name": "margay", "type": "margay"}
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `cniVersion`
    pub version: CniVersion,
    /// `name`: the network's name.
    pub name: String,
    /// `socket`: where the agent listens, [`DEFAULT_SOCKET`] by default.
    pub socket: PathBuf,
    /// `stateDir`: where DELs wait for the agent, [`queue::DEFAULT_DIR`] by default.
    pub state_dir: PathBuf,
    /// `mtu`: of pods' interfaces; the agent decides by default.
    pub mtu: Option<u32>,
    /// `runtimeConfig.mac`, with capability `mac`.
    pub mac: Option<Mac>,
    /// `runtimeConfig.ips`, with capability `ips`.
    pub ips: Vec<IpAddr>,
    /// `prevResult`, as it came.
    pub prev_result: Option<Value>,
}

/// Bytes of a configuration that are read at most; a `prevResult` is a few hundred.
pub const MAX_CONFIG: usize = 1 << 20;

/// Fields of the specification that need nothing from this plugin.
const IGNORED: [&str; 6] = [
    "type",
    "args",
    "capabilities",
    "dns",
    "ipMasq",
    "cni.dev/valid-attachments",
];
const OWN: &str = "socket, stateDir, mtu";

impl Config {
    /// Reads and checks a configuration. For DEL unknown fields are let through: a container must be removable although
    /// the configuration has changed since.
    pub fn parse(text: &[u8], command: Command) -> Result<Self, Failure> {
        if text.len() > MAX_CONFIG {
            return Err(Failure::new(
                code::DECODE,
                "the network configuration is longer than 1 MiB",
                "",
            ));
        }
        let decoded: Result<Map<String, Value>, _> = serde_json::from_slice(text);
        let mut fields = decoded.map_err(|error| {
            let msg = if text.trim_ascii().is_empty() {
                "there is no network configuration on standard input".to_owned()
            } else {
                format!("the network configuration on standard input is not a JSON object: {error}")
            };
            Failure::new(code::DECODE, msg, "")
        })?;
        let version = text_field(&mut fields, "cniVersion")?
            .unwrap_or_else(|| "0.1.0".into())
            .parse()?;
        let name = text_field(&mut fields, "name")?.unwrap_or_default();
        if !is_name(&name) {
            return Err(invalid(
                &format!("name {name:?} of the network configuration is not a network name"),
                "Start with a letter or digit and use letters, digits, '_', '.' and '-'.",
            ));
        }
        if fields
            .remove("ipam")
            .is_some_and(|ipam| ipam.as_object().is_none_or(|ipam| !ipam.is_empty()))
        {
            return Err(invalid(
                "ipam is set in the network configuration, but this plugin's agent gives out the addresses",
                "Remove ipam; choose pools with IPPool objects and annotations of pods.",
            ));
        }
        let socket = path_field(&mut fields, "socket", DEFAULT_SOCKET)?;
        let state_dir = path_field(&mut fields, "stateDir", queue::DEFAULT_DIR)?;
        let mtu = match fields.remove("mtu") {
            None | Some(Value::Null) => None,
            Some(value) => Some(mtu(&value)?),
        };
        let (mac, ips) = match fields.remove("runtimeConfig") {
            Some(Value::Object(runtime)) => runtime_config(runtime, command)?,
            None | Some(Value::Null) => (None, Vec::new()),
            Some(_) => {
                return Err(invalid(
                    "runtimeConfig of the network configuration is not an object",
                    "",
                ));
            }
        };
        let prev_result = fields.remove("prevResult").filter(|result| !result.is_null());
        fields.retain(|field, _| !IGNORED.contains(&field.as_str()));
        if let Some(field) = fields.keys().next().filter(|_| command != Command::Del) {
            return Err(Failure::new(
                code::UNSUPPORTED_FIELD,
                format!("field {field:?} of the network configuration is not known"),
                format!("Remove it. This plugin's own fields are {OWN}."),
            ));
        }
        Ok(Self {
            version,
            name,
            socket,
            state_dir,
            mtu,
            mac,
            ips,
            prev_result,
        })
    }
}

fn runtime_config(runtime: Map<String, Value>, command: Command) -> Result<(Option<Mac>, Vec<IpAddr>), Failure> {
    let (mut mac, mut ips) = (None, Vec::new());
    for (field, value) in runtime {
        match (field.as_str(), value) {
            ("mac", Value::String(text)) => mac = Some(call::parse_mac("runtimeConfig.mac", &text)?),
            ("ips", Value::Array(items)) => {
                for item in items {
                    let text = item
                        .as_str()
                        .ok_or_else(|| invalid("runtimeConfig.ips holds something else than text", ""))?;
                    ips.push(call::parse_ip("runtimeConfig.ips", text)?);
                }
            }
            _ if command == Command::Del => {}
            _ => {
                return Err(Failure::new(
                    code::UNSUPPORTED_FIELD,
                    format!("field {field:?} of runtimeConfig is not supported"),
                    "This plugin has the capabilities mac and ips; for others chain the plugin that serves them.",
                ));
            }
        }
    }
    Ok((mac, ips))
}

fn mtu(value: &Value) -> Result<u32, Failure> {
    // Below 1280 IPv6 does not work (RFC 8200 section 5).
    let in_range = value
        .as_u64()
        .and_then(|mtu| u32::try_from(mtu).ok())
        .filter(|mtu| (1280..=65535).contains(mtu));
    in_range.ok_or_else(|| {
        invalid(
            &format!("mtu {value} of the network configuration is not in 1280 to 65535"),
            "Leave it out to have it found.",
        )
    })
}

fn path_field(fields: &mut Map<String, Value>, field: &str, default: &str) -> Result<PathBuf, Failure> {
    let text = text_field(fields, field)?.unwrap_or_else(|| default.to_owned());
    if text.starts_with('/') {
        Ok(PathBuf::from(text))
    } else {
        Err(invalid(
            &format!("{field} {text:?} of the network configuration is not an absolute path"),
            "",
        ))
    }
}

fn text_field(fields: &mut Map<String, Value>, field: &str) -> Result<Option<String>, Failure> {
    match fields.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(
            &format!("{field} of the network configuration is not text"),
            "",
        )),
    }
}

fn invalid(msg: &str, details: &str) -> Failure {
    Failure::new(code::INVALID_CONFIG, msg, details)
}
