//! What the rules look like.

/// Names, marks and actions of the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Every interface whose name starts with this is a workload's, and so is every attachment's, whatever its name:
    /// `interfacePrefix`.
    pub interface_prefix: String,
    /// Bits of the packet mark that are ours to use; at least one: `iptablesMarkMask`.
    pub mark_mask: u32,
    /// What happens to a packet that policy allows: `iptablesFilterAllowAction`.
    pub allow_action: AllowAction,
    /// What happens to packets from a workload to its own node that its egress policy allows:
    /// `defaultEndpointToHostAction`.
    pub endpoint_to_host: EndpointToHost,
    /// The most members a set can have: `maxIpsetSize`.
    pub max_set_size: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interface_prefix: "mgy".to_owned(),
            mark_mask: 0xffff_0000,
            allow_action: AllowAction::Accept,
            endpoint_to_host: EndpointToHost::Drop,
            max_set_size: 1_048_576,
        }
    }
}

/// What happens to a packet that policy allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AllowAction {
    /// It is accepted; no further rule of the host's sees it.
    #[default]
    Accept,
    /// The host's own rules after ours decide.
    Return,
}

/// What happens to packets from a workload to its own node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointToHost {
    /// They are dropped.
    #[default]
    Drop,
    /// The host's own rules after ours decide.
    Return,
    /// They are accepted.
    Accept,
}
