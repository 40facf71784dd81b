//! FelixConfiguration: settings of the policy engine (`default` for the cluster, `node.<name>` for one node).

mod words;

pub use words::*;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Duration, EnabledDisabled, LogLevel, PortRange};

/// Settings of the policy engine. A missing field takes the default that its line names; `node.<name>` goes before
/// `default`. Which values do something today is in [`crate::support`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "kube", derive(kube::CustomResource))]
#[cfg_attr(
    feature = "kube",
    kube(
        group = "projectcalico.org",
        version = "v3",
        kind = "FelixConfiguration",
        plural = "felixconfigurations",
        shortname = "felixconfig",
        shortname = "felixconfigs",
        derive = "PartialEq",
        doc = "Settings of the policy engine: `default` for the cluster, `node.<name>` for one node."
    )
)]
#[serde(rename_all = "camelCase")]
pub struct FelixConfigurationSpec {
    /// Least severity that is logged. Default: Info.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_severity_screen: Option<LogLevel>,
    /// Least severity that goes to the log file. Default: Info.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_severity_file: Option<LogLevel>,
    /// Least severity that goes to syslog. Default: Info.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_severity_sys: Option<LogLevel>,
    /// Log file; `none` for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub log_file_path: Option<String>,
    /// Source files whose debug lines are logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub log_debug_filename_regex: Option<String>,
    /// Prefix of lines that Log rules write. Default: calico-packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), extend("pattern" = "^([a-zA-Z0-9%: /_-])*$"))]
    pub log_prefix: Option<String>,
    /// Most lines that a Log rule writes, as `10/minute`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), extend("pattern" = r"^[1-9]\d{0,3}/(?:second|minute|hour|day)$"))]
    pub log_action_rate_limit: Option<String>,
    /// Lines a Log rule may write at once before the rate counts. Default: 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9999))]
    pub log_action_rate_limit_burst: Option<u32>,
    /// Whether `/healthz` and `/readyz` are served. Default: false in Calico's resource, true in its manifests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_enabled: Option<bool>,
    /// Address they are served on. Default: localhost.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub health_host: Option<String>,
    /// Port they are served on. Default: 9099.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub health_port: Option<u16>,
    /// Longer or shorter patience with single internal components.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub health_timeout_overrides: Option<Vec<HealthTimeoutOverride>>,
    /// Whether `/metrics` is served. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus_metrics_enabled: Option<bool>,
    /// Address metrics are served on. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub prometheus_metrics_host: Option<String>,
    /// Port metrics are served on. Default: 9091.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub prometheus_metrics_port: Option<u16>,
    /// CA that clients of metrics must present a certificate of.
    #[serde(rename = "prometheusMetricsCAFile", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub prometheus_metrics_ca_file: Option<String>,
    /// Certificate that metrics are served with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub prometheus_metrics_cert_file: Option<String>,
    /// Key of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub prometheus_metrics_key_file: Option<String>,
    /// What is asked of clients of metrics. Default: RequireAndVerifyClientCert.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus_metrics_client_auth: Option<ClientAuth>,
    /// Whether metrics of the Go runtime are served. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus_go_metrics_enabled: Option<bool>,
    /// Whether metrics of the process are served. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus_process_metrics_enabled: Option<bool>,
    /// Whether metrics of WireGuard are served. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prometheus_wire_guard_metrics_enabled: Option<bool>,
    /// Whether version and size of the cluster are reported to Calico's makers. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_reporting_enabled: Option<bool>,
    /// Time to the first such report. Default: 300s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_reporting_initial_delay: Option<Duration>,
    /// Time between such reports. Default: 86400s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_reporting_interval: Option<Duration>,
    /// Time between status reports into the datastore; 0 for none. Default: 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reporting_interval: Option<Duration>,
    /// Time such a report lasts. Default: 90s.
    #[serde(rename = "reportingTTL", skip_serializing_if = "Option::is_none")]
    pub reporting_ttl: Option<Duration>,
    /// Whether the state of endpoints is reported. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_reporting_enabled: Option<bool>,
    /// Time before a change of it is reported. Default: 1s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_reporting_delay: Option<Duration>,
    /// Directory for a file per programmed endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub endpoint_status_path_prefix: Option<String>,
    /// Directory for sockets of layer 7 proxies.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub policy_sync_path_prefix: Option<String>,
    /// Facts about the platform that are not to be detected, `a=true,b=`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), extend("pattern" = "^([a-zA-Z0-9-_]+=(true|false|),)*([a-zA-Z0-9-_]+=(true|false|))?$"))]
    pub feature_detect_override: Option<String>,
    /// Features in preview, `a=b,c=d`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256), extend("pattern" = "^([a-zA-Z0-9-_]+=([^=]+),)*([a-zA-Z0-9-_]+=([^=]+))?$"))]
    pub feature_gates: Option<String>,
    /// Go's garbage collection threshold. Default: 40.
    #[serde(rename = "goGCThreshold", skip_serializing_if = "Option::is_none")]
    pub go_gc_threshold: Option<i32>,
    /// Go's thread limit. Default: -1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub go_max_procs: Option<i32>,
    /// Go's memory limit. Default: -1.
    #[serde(rename = "goMemoryLimitMB", skip_serializing_if = "Option::is_none")]
    pub go_memory_limit_mb: Option<i32>,
    /// Whether logging blocks instead of dropping. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug_disable_log_dropping: Option<bool>,
    /// Address of the profiling server. Default: localhost.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub debug_host: Option<String>,
    /// Port of the profiling server; missing for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug_port: Option<u32>,
    /// Where a memory profile is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub debug_memory_profile_path: Option<String>,
    /// Simulates a hang, for tests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug_simulate_calc_graph_hang_after: Option<Duration>,
    /// Simulates a slow dataplane, for tests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug_simulate_dataplane_apply_delay: Option<Duration>,
    /// Simulates a hang, for tests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug_simulate_dataplane_hang_after: Option<Duration>,
    /// Prefix of the host side of pods' interfaces. Default: cali in Calico, mgy here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub interface_prefix: Option<String>,
    /// Interfaces that are no host endpoints. Default: kube-ipvs0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub interface_exclude: Option<String>,
    /// Time between rescans of interfaces; 0 for none. Default: 90s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface_refresh_interval: Option<Duration>,
    /// Regular expression of host interfaces that the MTU follows. Default: `^((en|wl|ww|sl|ib)[Pcopsvx].*|(eth|wlan|wwan).*)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub mtu_iface_pattern: Option<String>,
    /// Whether pods wait for the MTU to be detected. Default: false.
    #[serde(rename = "requireMTUFile", skip_serializing_if = "Option::is_none")]
    pub require_mtu_file: Option<bool>,
    /// Whether IPv6 is programmed. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_support: Option<bool>,
    /// Whether the host's forwarding is switched on. Default: Enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_forwarding: Option<EnabledDisabled>,
    /// Patience with one netlink exchange. Default: 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netlink_timeout: Option<Duration>,
    /// Which kernel interface rules go to. Default: Auto.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iptables_backend: Option<IptablesBackend>,
    /// Bits of the packet mark that rules use. Default: 0xffff0000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 4_294_967_295u64))]
    pub iptables_mark_mask: Option<u32>,
    /// Time between checks of the rules; 0 for none. Default: 180s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iptables_refresh_interval: Option<Duration>,
    /// Time from a write to a check of it; further checks follow after twice that, and so on; 0 for none. Default: 5s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iptables_post_write_check_interval: Option<Duration>,
    /// Time between attempts at the xtables lock. Default: 50ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iptables_lock_probe_interval: Option<Duration>,
    /// What becomes of allowed packets in filter. Default: Accept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iptables_filter_allow_action: Option<AcceptReturn>,
    /// What becomes of denied packets. Default: Drop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iptables_filter_deny_action: Option<DropReject>,
    /// What becomes of allowed packets in mangle. Default: Accept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iptables_mangle_allow_action: Option<AcceptReturn>,
    /// The one interface whose outgoing packets are masqueraded. Default: all.
    #[serde(
        rename = "iptablesNATOutgoingInterfaceFilter",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 1024))]
    pub iptables_nat_outgoing_interface_filter: Option<String>,
    /// Time between checks of the sets; 0 for none. Default: 90s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipsets_refresh_interval: Option<Duration>,
    /// Most addresses in a set. Default: 1048576.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ipset_size: Option<u32>,
    /// Whether hooks go to the head or the end of the host's chains. Default: Insert.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain_insert_mode: Option<ChainInsertMode>,
    /// What becomes of packets from a pod to its node that policy allows. Default: Drop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_endpoint_to_host_action: Option<EndpointToHostAction>,
    /// Whether packets invalid to connection tracking pass. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_conntrack_invalid_check: Option<bool>,
    /// Whether pods may ask for source addresses that are not theirs. Default: Disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_source_spoofing: Option<WorkloadSourceSpoofing>,
    /// What becomes of packets to service addresses that nobody serves. Default: Drop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_loop_prevention: Option<ServiceLoopPrevention>,
    /// Whether floating addresses are programmed. Default: Disabled.
    #[serde(rename = "floatingIPs", skip_serializing_if = "Option::is_none")]
    pub floating_ips: Option<EnabledDisabled>,
    /// Whether sockets of sidecars are joined. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sidecar_acceleration_enabled: Option<bool>,
    /// Whether pods may send VXLAN. Default: false.
    #[serde(rename = "allowVXLANPacketsFromWorkloads", skip_serializing_if = "Option::is_none")]
    pub allow_vxlan_packets_from_workloads: Option<bool>,
    /// Whether pods may send IPIP. Default: false.
    #[serde(rename = "allowIPIPPacketsFromWorkloads", skip_serializing_if = "Option::is_none")]
    pub allow_ipip_packets_from_workloads: Option<bool>,
    /// Ports of hosts that no policy closes. Default: tcp 22, 179, 2379, 2380, 5473, 6443, 6666, 6667; udp 68.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub failsafe_inbound_host_ports: Option<Vec<ProtoPort>>,
    /// Ports that no policy keeps hosts from. Default: tcp 179, 2379, 2380, 5473, 6443, 6666, 6667; udp 53, 67.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub failsafe_outbound_host_ports: Option<Vec<ProtoPort>>,
    /// Node ports of Services. Default: 30000:32767.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub kube_node_port_ranges: Option<Vec<PortRange>>,
    /// CIDRs of hosts outside the cluster that may send tunnel packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub external_nodes_list: Option<Vec<String>>,
    /// Whether rules go to nftables itself. Default: Auto.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nftables_mode: Option<NftablesMode>,
    /// Bits of the packet mark that nftables rules use. Default: 0xffff0000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 4_294_967_295u64))]
    pub nftables_mark_mask: Option<u32>,
    /// Time between checks of nftables rules. Default: 180s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nftables_refresh_interval: Option<Duration>,
    /// What becomes of allowed packets. Default: Accept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nftables_filter_allow_action: Option<AcceptReturn>,
    /// What becomes of denied packets. Default: Drop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nftables_filter_deny_action: Option<DropReject>,
    /// What becomes of allowed packets in mangle. Default: Accept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nftables_mangle_allow_action: Option<AcceptReturn>,
    /// Source ports for masqueraded packets. Default: the kernel's choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat_port_range: Option<PortRange>,
    /// Source address of masqueraded packets. Default: that of the interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub nat_outgoing_address: Option<String>,
    /// Destinations that are not masqueraded. Default: IPPoolsOnly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat_outgoing_exclusions: Option<NatOutgoingExclusions>,
    /// Time between checks of routes; 0 for none. Default: 90s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_refresh_interval: Option<Duration>,
    /// Where routes to other nodes' pods come from. Default: CalicoIPAM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_source: Option<RouteSource>,
    /// Whether no routes are programmed. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_sync_disabled: Option<bool>,
    /// Superseded by routeTableRanges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_table_range: Option<RouteTableRange>,
    /// Further route tables that may be used. Default: 1 to 250.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub route_table_ranges: Option<Vec<RouteTableRange>>,
    /// Whether others' routes to pods' interfaces are removed. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove_external_routes: Option<bool>,
    /// Route protocol number of pods' routes. Default: 3 in Calico, Margay's own here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 255))]
    pub device_route_protocol: Option<u32>,
    /// Preferred source of IPv4 pods' routes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub device_route_source_address: Option<String>,
    /// Preferred source of IPv6 pods' routes.
    #[serde(rename = "deviceRouteSourceAddressIPv6", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub device_route_source_address_ipv6: Option<String>,
    /// Whether the policy engine programs routes between nodes. Default: Disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program_cluster_routes: Option<EnabledDisabled>,
    /// Whether the IPIP device is made. Default: as pools need.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipip_enabled: Option<bool>,
    /// MTU of the IPIP device. Default: 0, detected.
    #[serde(rename = "ipipMTU", skip_serializing_if = "Option::is_none")]
    pub ipip_mtu: Option<u32>,
    /// Whether the VXLAN device is made. Default: as pools need.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vxlan_enabled: Option<bool>,
    /// MTU of the IPv4 VXLAN device. Default: 0, detected.
    #[serde(rename = "vxlanMTU", skip_serializing_if = "Option::is_none")]
    pub vxlan_mtu: Option<u32>,
    /// MTU of the IPv6 VXLAN device. Default: 0, detected.
    #[serde(rename = "vxlanMTUV6", skip_serializing_if = "Option::is_none")]
    pub vxlan_mtu_v6: Option<u32>,
    /// UDP port of VXLAN. Default: 4789.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vxlan_port: Option<u32>,
    /// VXLAN network identifier. Default: 4096.
    #[serde(rename = "vxlanVNI", skip_serializing_if = "Option::is_none")]
    pub vxlan_vni: Option<u32>,
    /// Whether IPv4 between nodes is encrypted. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wireguard_enabled: Option<bool>,
    /// Whether IPv6 between nodes is encrypted. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wireguard_enabled_v6: Option<bool>,
    /// Whether hosts' own traffic is encrypted too. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wireguard_host_encryption_enabled: Option<bool>,
    /// IPv4 WireGuard device. Default: wireguard.cali.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub wireguard_interface_name: Option<String>,
    /// IPv6 WireGuard device. Default: wg-v6.cali.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub wireguard_interface_name_v6: Option<String>,
    /// WireGuard's keepalive; 0 for none. Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wireguard_keep_alive: Option<Duration>,
    /// UDP port of IPv4 WireGuard. Default: 51820.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wireguard_listening_port: Option<u32>,
    /// UDP port of IPv6 WireGuard. Default: 51821.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wireguard_listening_port_v6: Option<u32>,
    /// MTU of the IPv4 WireGuard device. Default: 0, detected.
    #[serde(rename = "wireguardMTU", skip_serializing_if = "Option::is_none")]
    pub wireguard_mtu: Option<u32>,
    /// MTU of the IPv6 WireGuard device. Default: 0, detected.
    #[serde(rename = "wireguardMTUV6", skip_serializing_if = "Option::is_none")]
    pub wireguard_mtu_v6: Option<u32>,
    /// Priority of WireGuard's routing rule. Default: 99.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wireguard_routing_rule_priority: Option<u32>,
    /// Whether WireGuard uses threads of its own. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wireguard_threading_enabled: Option<bool>,
    /// Whether eBPF replaces iptables. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_enabled: Option<bool>,
    /// How programs are attached. Default: TCX.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_attach_type: Option<BpfAttachType>,
    /// What the connect-time load balancer logs.
    #[serde(rename = "bpfCTLBLogFilter", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub bpf_ctlb_log_filter: Option<String>,
    /// Connect-time load balancing. Default: TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_connect_time_load_balancing: Option<BpfConnectTimeLoadBalancing>,
    /// Superseded by bpfConnectTimeLoadBalancing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_connect_time_load_balancing_enabled: Option<bool>,
    /// What connection tracking's clean-up logs. Default: Off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_conntrack_log_level: Option<BpfConntrackLogLevel>,
    /// Who cleans up connection tracking. Default: Auto.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_conntrack_mode: Option<BpfConntrackMode>,
    /// How long idle connections are remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_conntrack_timeouts: Option<BpfConntrackTimeouts>,
    /// Clients that are not answered directly.
    #[serde(rename = "bpfDSROptoutCIDRs", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub bpf_dsr_optout_cidrs: Option<Vec<String>>,
    /// Regular expression of interfaces to the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub bpf_data_iface_pattern: Option<String>,
    /// Regular expression of interfaces without receive offload.
    #[serde(rename = "bpfDisableGROForIfaces", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub bpf_disable_gro_for_ifaces: Option<String>,
    /// Whether unprivileged eBPF is switched off. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_disable_unprivileged: Option<bool>,
    /// Reverse path filtering. Default: Loose.
    #[serde(rename = "bpfEnforceRPF", skip_serializing_if = "Option::is_none")]
    pub bpf_enforce_rpf: Option<BpfEnforceRpf>,
    /// Service addresses that are left alone.
    #[serde(rename = "bpfExcludeCIDRsFromNAT", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub bpf_exclude_cidrs_from_nat: Option<Vec<String>>,
    /// Buffer for flow events. Default: 1.
    #[serde(rename = "bpfExportBufferSizeMB", skip_serializing_if = "Option::is_none")]
    pub bpf_export_buffer_size_mb: Option<u32>,
    /// Mark of connections from outside to a service. Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_ext_to_service_connmark: Option<u32>,
    /// How packets to services travel between nodes. Default: Tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_external_service_mode: Option<BpfExternalServiceMode>,
    /// Interfaces whose packets the kernel tracks. Default: docker+.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub bpf_force_track_packets_from_ifaces: Option<Vec<String>>,
    /// Whether the kernel's connection tracking is passed by. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_host_conntrack_bypass: Option<bool>,
    /// Whether hosts' packets to services are translated without connect-time balancing. Default: Enabled.
    #[serde(rename = "bpfHostNetworkedNATWithoutCTLB", skip_serializing_if = "Option::is_none")]
    pub bpf_host_networked_nat_without_ctlb: Option<EnabledDisabled>,
    /// Hardening of compiled programs. Default: Auto.
    #[serde(rename = "bpfJITHardening", skip_serializing_if = "Option::is_none")]
    pub bpf_jit_hardening: Option<BpfJitHardening>,
    /// Port of the built-in proxy's health. Default: 10256.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_kube_proxy_healthz_port: Option<u32>,
    /// Whether kube-proxy's rules are removed. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_kube_proxy_iptables_cleanup_enabled: Option<bool>,
    /// Least time between updates of services. Default: 1s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_kube_proxy_min_sync_period: Option<Duration>,
    /// Regular expression of interfaces without link layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub bpf_l3_iface_pattern: Option<String>,
    /// Packet filters by interface that limit logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_log_filters: Option<BTreeMap<String, String>>,
    /// What programs log. Default: Off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_log_level: Option<BpfLogLevel>,
    /// Most endpoints of a consistently hashed service. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_maglev_max_endpoints_per_service: Option<u32>,
    /// Most consistently hashed services. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_maglev_max_services: Option<u32>,
    /// Entries of a map. Default: 512000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_map_size_conntrack: Option<u32>,
    /// Entries of a map. Default: 100000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub bpf_map_size_conntrack_cleanup_queue: Option<u32>,
    /// Whether the map of connections grows. Default: DoubleIfFull.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_map_size_conntrack_scaling: Option<BpfMapScaling>,
    /// Entries of a map. Default: 1048576.
    #[serde(rename = "bpfMapSizeIPSets", skip_serializing_if = "Option::is_none")]
    pub bpf_map_size_ipsets: Option<u32>,
    /// Entries of a map. Default: 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_map_size_if_state: Option<u32>,
    /// Entries of a map. Default: 65536.
    #[serde(rename = "bpfMapSizeNATAffinity", skip_serializing_if = "Option::is_none")]
    pub bpf_map_size_nat_affinity: Option<u32>,
    /// Entries of a map. Default: 262144.
    #[serde(rename = "bpfMapSizeNATBackend", skip_serializing_if = "Option::is_none")]
    pub bpf_map_size_nat_backend: Option<u32>,
    /// Entries of a map. Default: 65536.
    #[serde(rename = "bpfMapSizeNATFrontend", skip_serializing_if = "Option::is_none")]
    pub bpf_map_size_nat_frontend: Option<u32>,
    /// Entries of a map for each CPU; 0 for none. Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_map_size_per_cpu_conntrack: Option<u32>,
    /// Entries of a map. Default: 262144.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_map_size_route: Option<u32>,
    /// Source ports for colliding connections. Default: 20000:29999.
    #[serde(rename = "bpfPSNATPorts", skip_serializing_if = "Option::is_none")]
    pub bpf_psnat_ports: Option<PortRange>,
    /// Whether programs keep what explains them. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_policy_debug_enabled: Option<bool>,
    /// Whether programs are measured. Default: Disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_profiling: Option<EnabledDisabled>,
    /// Whether packets skip the host side of a veth. Default: Enabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bpf_redirect_to_peer: Option<BpfRedirectToPeer>,
    /// Where cgroup v2 is mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub cgroup_v2_path: Option<String>,
    /// Whether untracked denials use XDP. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xdp_enabled: Option<bool>,
    /// Whether generic XDP will do. Default: false.
    #[serde(rename = "genericXDPEnabled", skip_serializing_if = "Option::is_none")]
    pub generic_xdp_enabled: Option<bool>,
    /// Time between checks of XDP. Default: 90s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xdp_refresh_interval: Option<Duration>,
    /// Whether the flow collector logs in detail. Default: false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_logs_collector_debug_trace: Option<bool>,
    /// Time between flow logs. Default: 300s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_logs_flush_interval: Option<Duration>,
    /// Where flow logs are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub flow_logs_goldmane_server: Option<String>,
    /// Whether flow logs go to a local socket. Default: Disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_logs_local_reporter: Option<EnabledDisabled>,
    /// Whether open flows are evaluated again. Default: Continuous.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_logs_policy_evaluation_mode: Option<PolicyEvaluationMode>,
    /// Whether rules are programmed by this process. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_internal_dataplane_driver: Option<bool>,
    /// Program that programs rules instead. Default: calico-iptables-plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub dataplane_driver: Option<String>,
    /// Superseded by healthTimeoutOverrides. Default: 90s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataplane_watchdog_timeout: Option<Duration>,
    /// Whether the firewall of Windows is managed. Default: Disabled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows_manage_firewall_rules: Option<EnabledDisabled>,
    /// What is done to the source check of EC2. Default: DoNothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws_src_dst_check: Option<AwsSrcDstCheck>,
    /// OpenStack's metadata server. Default: 127.0.0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub metadata_addr: Option<String>,
    /// Its port. Default: 8775.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata_port: Option<u32>,
    /// OpenStack's region.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub openstack_region: Option<String>,
}

/// A port, its protocol and whom it is open to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProtoPort {
    /// `TCP` or `UDP`. Default: TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The port.
    pub port: u16,
    /// The CIDR it is open to. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net: Option<String>,
}

/// Route tables `min` to `max`, inclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteTableRange {
    /// The lowest.
    pub min: i32,
    /// The highest.
    pub max: i32,
}

/// Patience with one internal component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HealthTimeoutOverride {
    /// The component.
    pub name: String,
    /// How long it may be silent.
    pub timeout: Duration,
}

/// How long the eBPF dataplane remembers idle connections, each a duration or `Auto`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BpfConntrackTimeouts {
    /// Before anything is cleaned up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_grace_period: Option<String>,
    /// Other protocols.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generic_timeout: Option<String>,
    /// ICMP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp_timeout: Option<String>,
    /// Established TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_established: Option<String>,
    /// TCP after both FINs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_fins_seen: Option<String>,
    /// TCP after a reset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_reset_seen: Option<String>,
    /// TCP after a SYN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_syn_sent: Option<String>,
    /// UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_timeout: Option<String>,
}
