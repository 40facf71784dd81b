//! The cluster's DNS: CoreDNS as a Deployment, whose pods wait until there is a pod network.

use crate::spec::Spec;

/// The objects of CoreDNS for this cluster.
pub fn manifest(spec: &Spec) -> String {
    let addresses: Vec<String> = spec.dns().iter().map(|address| format!("\"{address}\"")).collect();
    let first = addresses.first().map_or("None", String::as_str);
    include_str!("../manifests/coredns.yaml")
        .replace(": ADDRESSES", &format!(": [{}]", addresses.join(", ")))
        .replace(": ADDRESS\n", &format!(": {first}\n"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn its_service_has_the_tenth_address_of_each_range() {
        let labels = [
            ("margay.io/kubernetes", "control-plane"),
            ("margay.io/kubernetes-services", "fd00:9::/112,10.9.0.0/24"),
        ];
        let labels: BTreeMap<String, String> = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let spec = Spec::new(&[("a", &labels)], |_| Ok(vec!["10.0.0.1".parse()?])).unwrap();
        let manifest = manifest(&spec);
        assert!(manifest.contains("clusterIP: \"fd00:9::a\"\n"), "{manifest}");
        assert!(
            manifest.contains("clusterIPs: [\"fd00:9::a\", \"10.9.0.10\"]\n"),
            "{manifest}"
        );
    }
}
