//! FelixConfiguration as this node obeys it. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use margay_api::v3::{EndpointToHostAction, FelixConfigurationSpec, IptablesBackend, LogLevel};
use margay_api::validate::{self, Violation};
use margay_felix::engine::{BackendChoice, EngineConfig};
use margay_felix::render::{self, EndpointToHost};
use margay_netlink::Link;

use super::cluster::Cluster;
use super::overlay;
use crate::kube::events::Notice;
use crate::kube::resource::FELIX_CONFIGURATION;

/// What the command line says where FelixConfiguration says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// Address of `/healthz` and `/readyz`; `None` for none.
    pub health: Option<SocketAddr>,
    /// Address of `/metrics`; `None` for none.
    pub metrics: Option<SocketAddr>,
}

/// The settings in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Prefix of host interfaces.
    pub interface_prefix: String,
    /// Bits of the packet mark that rules use.
    pub mark_mask: u32,
    /// What becomes of packets from pods to their own node.
    pub endpoint_to_host: EndpointToHost,
    /// Which iptables.
    pub backend: BackendChoice,
    /// How often rules and sets are read back.
    pub rules_refresh: Duration,
    /// How long after a write they are read back; zero for never.
    pub post_write_check: Duration,
    /// How often host routes and settings are looked at.
    pub route_refresh: Duration,
    /// Least severity that is logged; `None` leaves it to the command line.
    pub log_level: Option<LogLevel>,
    /// Where `/healthz` and `/readyz` are served.
    pub health: Option<SocketAddr>,
    /// Where `/metrics` is served.
    pub metrics: Option<SocketAddr>,
    /// Interfaces whose MTU bounds that of pods, as a regular expression.
    pub mtu_interfaces: Option<String>,
    /// Whether pods get IPv6 addresses.
    pub ipv6: bool,
}

/// The settings of `node`, whose links are these, and what users must fix.
pub fn settings(cluster: &Cluster, node: &str, defaults: &Defaults, links: &[Link]) -> (Settings, Vec<Notice>) {
    let objects = &cluster.felix_configurations;
    let (spec, faults) = overlay::effective(objects, FELIX_CONFIGURATION, node, |spec| violations(spec, links));
    (from_spec(&spec, defaults), faults)
}

/// What is wrong with a FelixConfiguration, for an agent that acts on it and whose node has these links.
fn violations(spec: &FelixConfigurationSpec, links: &[Link]) -> Vec<Violation> {
    let mut found = validate::felix_configuration(spec);
    found.extend(taken_prefix(spec, &found, links));
    if let Some(Err(error)) = spec.mtu_iface_pattern.as_deref().map(regex_lite::Regex::new) {
        found.push(Violation::new(
            "spec.mtuIfacePattern",
            format!("not a regular expression: {error}"),
        ));
    }
    for (field, interval) in [
        ("iptablesRefreshInterval", spec.iptables_refresh_interval),
        ("ipsetsRefreshInterval", spec.ipsets_refresh_interval),
        ("routeRefreshInterval", spec.route_refresh_interval),
    ] {
        if interval.is_some_and(|time| !time.0.is_zero() && time.0 < Duration::from_secs(1)) {
            let message = "less than a second would keep the node busy; write 1s or more, or 0 for never";
            found.push(Violation::new(format!("spec.{field}"), message));
        }
    }
    found
}

/// Pods' links are veths: with the prefix of any other link, rules for pods would cut off the node.
fn taken_prefix(spec: &FelixConfigurationSpec, found: &[Violation], links: &[Link]) -> Option<Violation> {
    const FIELD: &str = "spec.interfacePrefix";
    let prefix = spec.interface_prefix.as_deref()?;
    if found.iter().any(|violation| violation.field == FIELD) {
        return None;
    }
    let mut others = links.iter().filter(|link| link.kind.as_deref() != Some("veth"));
    let link = others.find(|link| link.name.starts_with(prefix))?;
    let message = format!(
        "\"{prefix}\" is what the name of {} on this node starts with, which is no pod's link: choose another prefix, such \
         as mgy",
        link.name
    );
    Some(Violation::new(FIELD, message))
}

impl Settings {
    /// The part that the policy engine is started with.
    pub fn engine(&self) -> EngineConfig {
        EngineConfig {
            rules: render::Config {
                interface_prefix: self.interface_prefix.clone(),
                mark_mask: self.mark_mask,
                endpoint_to_host: self.endpoint_to_host,
                ..render::Config::default()
            },
            backend: self.backend,
            refresh_interval: self.rules_refresh,
            post_write_check: self.post_write_check,
        }
    }

    /// Whether the policy engine must be started anew to go from `self` to `other`.
    pub fn engine_differs(&self, other: &Self) -> bool {
        let part = |s: &Self| {
            (
                s.interface_prefix.clone(),
                s.mark_mask,
                s.endpoint_to_host,
                s.backend,
                s.rules_refresh,
                s.post_write_check,
            )
        };
        part(self) != part(other)
    }
}

fn from_spec(spec: &FelixConfigurationSpec, defaults: &Defaults) -> Settings {
    let standard = EngineConfig::default();
    // One timer reads back both; the shorter wish wins. Zero means never.
    let refreshes = [spec.iptables_refresh_interval, spec.ipsets_refresh_interval];
    let rules_refresh = refreshes.into_iter().flatten().map(|time| never_if_zero(time.0)).min();
    Settings {
        interface_prefix: spec.interface_prefix.clone().unwrap_or(standard.rules.interface_prefix),
        mark_mask: spec.iptables_mark_mask.unwrap_or(standard.rules.mark_mask),
        endpoint_to_host: match spec.default_endpoint_to_host_action {
            None | Some(EndpointToHostAction::Drop) => EndpointToHost::Drop,
            Some(EndpointToHostAction::Accept) => EndpointToHost::Accept,
            Some(EndpointToHostAction::Return) => EndpointToHost::Return,
        },
        backend: match spec.iptables_backend {
            None | Some(IptablesBackend::Auto) => BackendChoice::Auto,
            Some(IptablesBackend::Nft) => BackendChoice::Nft,
            Some(IptablesBackend::Legacy) => BackendChoice::Legacy,
        },
        rules_refresh: rules_refresh.unwrap_or(standard.refresh_interval),
        post_write_check: spec
            .iptables_post_write_check_interval
            .map_or(standard.post_write_check, |time| time.0),
        route_refresh: spec
            .route_refresh_interval
            .map_or(Duration::from_secs(90), |time| never_if_zero(time.0)),
        log_level: spec.log_severity_screen,
        health: listen(
            spec.health_enabled,
            spec.health_host.as_deref(),
            spec.health_port,
            defaults.health,
            SocketAddr::from((Ipv4Addr::LOCALHOST, 9099)),
        ),
        metrics: listen(
            spec.prometheus_metrics_enabled,
            spec.prometheus_metrics_host.as_deref(),
            spec.prometheus_metrics_port,
            defaults.metrics,
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 9091)),
        ),
        mtu_interfaces: spec.mtu_iface_pattern.clone().filter(|pattern| !pattern.is_empty()),
        ipv6: spec.ipv6_support.unwrap_or(true),
    }
}

fn never_if_zero(time: Duration) -> Duration {
    if time.is_zero() { NEVER } else { time }
}

/// Long enough to be never, short enough to add to any clock.
const NEVER: Duration = Duration::from_secs(10 * 365 * 86_400);

fn listen(
    enabled: Option<bool>,
    host: Option<&str>,
    port: Option<u16>,
    flag: Option<SocketAddr>,
    standard: SocketAddr,
) -> Option<SocketAddr> {
    let base = match (enabled, flag) {
        (Some(false), _) | (None, None) => return None,
        (_, Some(flag)) => flag,
        (Some(true), None) => standard,
    };
    let host = match host {
        None => base.ip(),
        // Both families.
        Some("") => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Some("localhost") => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(text) => text.parse().unwrap_or(base.ip()),
    };
    Some(SocketAddr::new(host, port.unwrap_or(base.port())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::cluster::ClusterChange;
    use super::*;
    use crate::kube::watch::Change;

    fn from(spec: serde_json::Value, defaults: &Defaults) -> Settings {
        from_spec(&serde_json::from_value(spec).unwrap(), defaults)
    }

    #[test]
    fn nothing_written_gives_the_defaults() {
        let flags = Defaults {
            health: Some("127.0.0.1:9099".parse().unwrap()),
            metrics: None,
        };
        let settings = from(json!({}), &flags);
        assert_eq!(
            (settings.interface_prefix.as_str(), settings.mark_mask),
            ("mgy", 0xffff_0000)
        );
        assert_eq!(settings.endpoint_to_host, EndpointToHost::Drop);
        assert_eq!((settings.health, settings.metrics), (flags.health, None));
        assert_eq!(settings.post_write_check, Duration::from_secs(5));
        assert!(settings.ipv6);
    }

    #[test]
    fn what_is_written_acts() {
        let settings = from(
            json!({"interfacePrefix": "pod", "iptablesMarkMask": 65280, "defaultEndpointToHostAction": "ACCEPT",
                "iptablesBackend": "Legacy", "iptablesRefreshInterval": "0s", "ipsetsRefreshInterval": "30s",
                "iptablesPostWriteCheckInterval": "0s",
                "prometheusMetricsEnabled": true, "prometheusMetricsPort": 9999, "healthEnabled": false, "ipv6Support": false}),
            &Defaults {
                health: Some("127.0.0.1:9099".parse().unwrap()),
                metrics: None,
            },
        );
        assert_eq!((settings.interface_prefix.as_str(), settings.mark_mask), ("pod", 65280));
        assert_eq!(settings.endpoint_to_host, EndpointToHost::Accept);
        assert_eq!(settings.backend, BackendChoice::Legacy);
        assert_eq!(settings.rules_refresh, Duration::from_secs(30));
        assert_eq!(settings.engine().post_write_check, Duration::ZERO);
        assert_eq!(settings.metrics, Some("[::]:9999".parse().unwrap()));
        assert_eq!(settings.health, None);
        assert!(!settings.ipv6);
        assert!(settings.engine_differs(&from(json!({}), &Defaults::default())));
    }

    #[test]
    fn what_cannot_be_acted_on_is_ignored_and_named() {
        let mut cluster = Cluster::default();
        let object = json!({"metadata": {"name": "default"}, "spec": {
            "mtuIfacePattern": "eth(", "routeRefreshInterval": "1ms", "iptablesRefreshInterval": "999ms",
            "ipsetsRefreshInterval": "0s"}});
        let object = serde_json::from_value(object).unwrap();
        cluster.apply(ClusterChange::FelixConfiguration(Box::new(Change::Put(object))));
        let (settings, faults) = settings(&cluster, "n1", &Defaults::default(), &[]);
        assert_eq!(settings.mtu_interfaces, None);
        assert_eq!(settings.route_refresh, Duration::from_secs(90));
        assert_eq!(settings.rules_refresh, NEVER);
        let fields: Vec<_> = faults
            .iter()
            .map(|f| f.message.split(':').next().unwrap_or_default())
            .collect();
        assert_eq!(
            fields,
            [
                "spec.mtuIfacePattern",
                "spec.iptablesRefreshInterval",
                "spec.routeRefreshInterval"
            ]
        );
    }

    #[test]
    fn a_prefix_of_another_link_is_ignored_and_told() {
        let link = |name: &str, kind: Option<&str>| Link {
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            ..Link::default()
        };
        let mut cluster = Cluster::default();
        let object =
            json!([{"metadata": {"name": "default"}, "spec": {"interfacePrefix": "up", "iptablesMarkMask": 65280}}]);
        let objects: Vec<_> = serde_json::from_value(object).unwrap();
        cluster.felix_configurations = objects.into_iter().collect();
        let of = |links: &[Link]| settings(&cluster, "n1", &Defaults::default(), links);
        let (taken, faults) = of(&[link("up0a1b2c", Some("veth")), link("uplink1", None)]);
        assert_eq!((taken.interface_prefix.as_str(), taken.mark_mask), ("mgy", 65280));
        assert_eq!(faults.len(), 1);
        assert_eq!(
            faults[0].message,
            "spec.interfacePrefix: \"up\" is what the name of uplink1 on this node starts with, which is no pod's link: choose \
             another prefix, such as mgy; the field is ignored"
        );
        let (free, faults) = of(&[link("up0a1b2c", Some("veth")), link("eth0", None)]);
        assert_eq!((free.interface_prefix.as_str(), faults), ("up", vec![]));
    }
}
