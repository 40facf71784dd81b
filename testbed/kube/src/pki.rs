//! The cluster's certificates: one authority, everything signed by it, all made anew for each cluster.

use std::net::IpAddr;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// Signs what the cluster needs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, as PEM.
    pub certificate: String,
    /// Its private key, as PEM: the controller manager signs with it.
    pub key: String,
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn new(name: &str) -> Result<Authority> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let pair = KeyPair::generate()?;
        Ok(Authority {
            certificate: params.self_signed(&pair)?.pem(),
            key: pair.serialize_pem(),
            issuer: Issuer::new(params, pair),
        })
    }

    /// A certificate for `name` in `group` (may be empty), valid for a server at `hosts` (names and addresses) as well
    /// as for a client.
    ///
    /// # Errors
    /// When a host is no name.
    pub fn issue(&self, name: &str, group: &str, hosts: &[String]) -> Result<Identity> {
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name.push(DnType::CommonName, name);
        if !group.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok(Identity {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// A pair of keys, private and public, for signing the tokens of service accounts.
///
/// # Errors
/// When the system gives no randomness.
pub fn token_keys() -> Result<(String, String)> {
    let pair = KeyPair::generate()?;
    Ok((pair.serialize_pem(), pair.public_key_pem()))
}

/// Names and addresses by which the API server is called.
pub fn api_hosts(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<String> {
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "127.0.0.1",
        "::1",
    ];
    let names = names.into_iter().map(str::to_owned);
    names.chain(addresses.into_iter().map(|a| a.to_string())).collect()
}
