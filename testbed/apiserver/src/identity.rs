//! Who asks.

/// The user that a request's token stands for, and the groups that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
}

/// Its members may do everything, whatever the RBAC objects say.
const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";

impl Identity {
    /// The holder of the lab's token.
    pub(crate) fn administrator() -> Self {
        Self::new("margay-lab:administrator", &[MASTERS, AUTHENTICATED])
    }

    /// Whoever brings no token.
    pub(crate) fn anonymous() -> Self {
        Self::new("system:anonymous", &["system:unauthenticated"])
    }

    pub(crate) fn service_account(namespace: &str, name: &str) -> Self {
        let of_namespace = format!("system:serviceaccounts:{namespace}");
        let groups = ["system:serviceaccounts", &of_namespace, AUTHENTICATED];
        Self::new(&format!("system:serviceaccount:{namespace}:{name}"), &groups)
    }

    pub(crate) fn is_master(&self) -> bool {
        self.groups.iter().any(|g| g == MASTERS)
    }

    fn new(name: &str, groups: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        }
    }
}
