//! TLS settings: whom to trust and who we are. Certificates are read when a connection is made, so renewed files count.
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error as RustlsError, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
};

use crate::diagnostic::Fault;

/// TLS settings of one connection. Paths start at the folder of the pipeline file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the certificates of the authorities to trust. Without it, those the operating system trusts.
    pub ca: Option<PathBuf>,
    /// PEM file with our own certificate and its chain, for servers that ask for one. Needs `key`.
    pub cert: Option<PathBuf>,
    /// PEM file with the private key of `cert`.
    pub key: Option<PathBuf>,
    /// Accept any certificate of the server. Whoever sits on the wire can then read and change everything.
    #[serde(default)]
    pub insecure: bool,
}

/// Why TLS cannot be set up: which file, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read `{setting}` from `{}`: {source}", path.display())]
    Pem { setting: &'static str, path: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("`{setting}` file `{}` holds no certificate in PEM form", path.display())]
    Empty { setting: &'static str, path: PathBuf },
    #[error("`ca` file `{}` holds a certificate that cannot be used: {source}", path.display())]
    Authority { path: PathBuf, source: RustlsError },
    #[error("certificate `{}` and its key cannot be used: {source}", path.display())]
    Identity { path: PathBuf, source: RustlsError },
    #[error("the operating system lists no certificate authorities to trust: set `tls.ca`")]
    NoAuthorities,
    #[error("no TLS version is available: {0}")]
    Versions(RustlsError),
}

impl Tls {
    /// Faults in these values, `field` being the name of the section they stand in. Reads no files.
    pub fn check(&self, field: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut need = |have: &Option<PathBuf>, other: &Option<PathBuf>, missing: &str, given: &str| {
            if have.is_some() && other.is_none() {
                faults.push(
                    Fault::new("missing-field", &format!("{field}.{given}"), format!("`{given}` without `{missing}`"))
                        .label(format!("needs `{missing}` beside it"))
                        .help("a client certificate is the two files `cert` and `key` together"),
                );
            }
        };
        need(&self.cert, &self.key, "key", "cert");
        need(&self.key, &self.cert, "cert", "key");
        if self.insecure && self.ca.is_some() {
            faults.push(
                Fault::new("contradiction", &format!("{field}.insecure"), "`insecure` makes `ca` useless")
                    .label("accepts any certificate, so `ca` is never looked at")
                    .help("remove `insecure`, or remove `ca`"),
            );
        }
        faults
    }

    /// The settings as the TLS library wants them. Reads the files; relative paths start at `folder`.
    ///
    /// # Errors
    /// A file cannot be read or holds nothing useful; worth another try after someone has mended it.
    pub fn client_config(&self, folder: &Path) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Versions)?;
        let builder = if self.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        } else {
            builder.with_root_certificates(self.authorities(folder)?)
        };
        let config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let path = folder.join(cert);
                let chain = certificates("tls.cert", &path)?;
                let key_path = folder.join(key);
                let key = PrivateKeyDer::from_pem_file(&key_path).map_err(|source| TlsError::Pem {
                    setting: "tls.key",
                    path: key_path,
                    source,
                })?;
                builder.with_client_auth_cert(chain, key).map_err(|source| TlsError::Identity { path, source })?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }

    fn authorities(&self, folder: &Path) -> Result<RootCertStore, TlsError> {
        let mut store = RootCertStore::empty();
        if let Some(ca) = &self.ca {
            let path = folder.join(ca);
            for certificate in certificates("tls.ca", &path)? {
                store.add(certificate).map_err(|source| TlsError::Authority { path: path.clone(), source })?;
            }
        } else {
            // One broken certificate among the system's many is no reason to trust none.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if store.is_empty() {
                return Err(TlsError::NoAuthorities);
            }
        }
        Ok(store)
    }
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = |source| TlsError::Pem { setting, path: path.to_owned(), source };
    let all = CertificateDer::pem_file_iter(path).map_err(pem)?.collect::<Result<Vec<_>, _>>().map_err(pem)?;
    if all.is_empty() { Err(TlsError::Empty { setting, path: path.to_owned() }) } else { Ok(all) }
}

/// The name a server's certificate must bear.
///
/// # Errors
/// `host` is neither a DNS name nor an IP address.
pub fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(bare.to_owned())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("`{host}` is no name a certificate can bear")))
}

/// `insecure: true`: any certificate will do; the handshake's signatures are still checked.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(yaml: &str) -> Vec<String> {
        let tls: Tls = serde_yaml::from_str(yaml).unwrap();
        tls.check("tls").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_certificate_needs_its_key() {
        assert!(faults("{ca: a.pem, cert: b.pem, key: c.pem}").is_empty());
        assert_eq!(faults("{cert: b.pem}"), ["`tls.cert`: `cert` without `key`"]);
        assert_eq!(faults("{key: b.pem}"), ["`tls.key`: `key` without `cert`"]);
        assert_eq!(faults("{ca: a.pem, insecure: true}"), ["`tls.insecure`: `insecure` makes `ca` useless"]);
    }

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), "not PEM").unwrap();
        let error = |yaml: &str| {
            let tls: Tls = serde_yaml::from_str(yaml).unwrap();
            tls.client_config(folder.path()).unwrap_err().to_string()
        };
        assert!(error("{ca: ca.pem}").contains("holds no certificate"));
        assert!(error("{ca: missing.pem}").starts_with("cannot read `tls.ca` from `"));
    }
}
