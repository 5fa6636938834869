//! TLS of a client by rustls, without IO: cipher text in, plain text out, and back.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

/// Why TLS failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file holds no certificate.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// A host that no certificate can name.
    #[error("{0:?} cannot be in a certificate")]
    Host(String),
    /// An error of rustls.
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
    /// An error of rustls's buffers.
    #[error("{0}")]
    Buffer(#[from] std::io::Error),
}

/// What all connections of a run have in common.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    config: Arc<ClientConfig>,
}

impl TlsConfig {
    /// Trusts the authorities of `ca_pem`, or else those of the web; with `is_insecure` it trusts
    /// every certificate.
    ///
    /// # Errors
    /// A file without certificates.
    pub fn new(ca_pem: Option<&[u8]>, is_insecure: bool) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        match ca_pem {
            Some(pem) => {
                let certificates = CertificateDer::pem_slice_iter(pem).flatten();
                if roots.add_parsable_certificates(certificates).0 == 0 {
                    return Err(TlsError::NoCertificate);
                }
            }
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        }
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let config = if is_insecure {
            let verifier = Arc::new(Anybody { provider });
            let dangerous = builder.dangerous();
            dangerous.with_custom_certificate_verifier(verifier).with_no_client_auth()
        } else {
            builder.with_root_certificates(roots).with_no_client_auth()
        };
        Ok(Self { config: Arc::new(config) })
    }
}

/// One connection's TLS.
#[derive(Debug)]
pub struct TlsClient {
    connection: ClientConnection,
}

impl TlsClient {
    /// To a server of that name.
    ///
    /// # Errors
    /// A name that no certificate can hold.
    pub fn new(config: &TlsConfig, host: &str) -> Result<Self, TlsError> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| TlsError::Host(host.to_owned()))?;
        Ok(Self { connection: ClientConnection::new(Arc::clone(&config.config), name)? })
    }

    /// Takes cipher text and appends the plain text that it holds.
    ///
    /// # Errors
    /// What the server did wrong; an alert for it is then among [`Self::take_outgoing`].
    pub fn feed(&mut self, mut cipher: &[u8], plain: &mut Vec<u8>) -> Result<(), TlsError> {
        while !cipher.is_empty() {
            self.connection.read_tls(&mut cipher)?;
            let state = self.connection.process_new_packets()?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            self.connection.reader().read_exact(&mut plain[start..])?;
        }
        Ok(())
    }

    /// Encrypts the bytes. Before the handshake is complete, rustls keeps them.
    pub fn send(&mut self, plain: &[u8]) {
        // The buffer is large enough for what a client sends here: a request, subscriptions, pongs.
        self.connection.writer().write_all(plain).unwrap_or_default();
    }

    /// Appends what has to be sent.
    pub fn take_outgoing(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // A Vec takes everything.
            if self.connection.write_tls(out).is_err() {
                return;
            }
        }
    }
}

/// Accepts every certificate, for tests with self-signed ones.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{ServerConfig, ServerConnection};

    fn server() -> (ServerConnection, String) {
        let signed = rcgen::generate_simple_self_signed(vec!["odin.test".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key)
            .unwrap();
        (ServerConnection::new(Arc::new(config)).unwrap(), signed.cert.pem())
    }

    /// Passes bytes to and fro until nobody has more to say; what the client then read.
    fn talk(client: &mut TlsClient, server: &mut ServerConnection) -> Result<Vec<u8>, TlsError> {
        let mut plain = Vec::new();
        loop {
            let mut out = Vec::new();
            client.take_outgoing(&mut out);
            let mut rest = &out[..];
            while !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
                drop(server.process_new_packets());
            }
            let mut back = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut back).unwrap();
            }
            if out.is_empty() && back.is_empty() {
                return Ok(plain);
            }
            client.feed(&back, &mut plain)?;
        }
    }

    #[test]
    fn talks_to_a_server_that_it_trusts_and_to_no_other() {
        let (mut peer, pem) = server();
        let config = TlsConfig::new(Some(pem.as_bytes()), false).unwrap();
        let mut client = TlsClient::new(&config, "odin.test").unwrap();
        client.send(b"ping");
        talk(&mut client, &mut peer).unwrap();
        let mut heard = [0; 4];
        peer.reader().read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"ping");
        peer.writer().write_all(&[7; 40_000]).unwrap();
        assert_eq!(talk(&mut client, &mut peer).unwrap(), vec![7; 40_000]);

        for (host, is_insecure, is_fine) in
            [("other.test", false, false), ("odin.test", true, true), ("other.test", true, true)]
        {
            let (mut peer, pem) = server();
            let config = TlsConfig::new(Some(pem.as_bytes()), is_insecure).unwrap();
            let mut client = TlsClient::new(&config, host).unwrap();
            assert_eq!(talk(&mut client, &mut peer).is_ok(), is_fine, "{host}");
        }
        assert!(matches!(TlsConfig::new(Some(b"nothing"), false), Err(TlsError::NoCertificate)));
    }
}
