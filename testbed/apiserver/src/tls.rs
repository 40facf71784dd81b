//! The certificate authority of one lab and the server's certificate, kept in a directory or only in memory.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::StartError;

pub(super) struct Tls {
    pub(super) ca_pem: String,
    pub(super) acceptor: TlsAcceptor,
}

/// Reads `ca.crt` and `ca.key` from the directory, or makes them; the server's certificate for `names` (host names and
/// addresses) is new each time, so that clients that trust the authority go on trusting it.
pub(super) fn prepare(dir: Option<&Path>, names: Vec<String>) -> Result<Tls, StartError> {
    let (ca_pem, ca_key) = match dir {
        Some(dir) => stored_authority(dir)?,
        None => new_authority()?,
    };
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &Issuer::new(authority_params()?, ca_key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Tls {
        ca_pem,
        acceptor: TlsAcceptor::from(Arc::new(config)),
    })
}

fn stored_authority(dir: &Path) -> Result<(String, KeyPair), StartError> {
    let (certificate, key) = (dir.join("ca.crt"), dir.join("ca.key"));
    if key.exists() && certificate.exists() {
        return Ok((
            fs::read_to_string(certificate)?,
            KeyPair::from_pem(&fs::read_to_string(key)?)?,
        ));
    }
    fs::create_dir_all(dir)?;
    let (pem, pair) = new_authority()?;
    write_private(&key, &pair.serialize_pem())?;
    // The certificate comes last: a directory with only a key is taken for an empty one.
    fs::write(certificate, &pem)?;
    Ok((pem, pair))
}

fn new_authority() -> Result<(String, KeyPair), StartError> {
    let key = KeyPair::generate()?;
    let pem = authority_params()?.self_signed(&key)?.pem();
    Ok((pem, key))
}

fn authority_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "margay-lab-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
}
