//! Why there is no TLS with a peer, for people. "It" is the peer.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

/// What an error of a session means.
pub fn of_error(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(wrong) => of_certificate(wrong),
        Error::NoCertificatesPresented => "it shows no certificate, and has to".into(),
        Error::NoApplicationProtocol => "it does not speak HTTP/2 (h2) within TLS".into(),
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::PeerIncompatible(what) => {
            format!("it speaks no version or cipher of TLS that is spoken here ({what:?})")
        }
        Error::InvalidMessage(
            InvalidMessage::CertificatePayloadTooLarge | InvalidMessage::HandshakePayloadTooLarge,
        ) => "its certificates, or other words of its handshake, are too long".into(),
        other => format!("it breaks TLS: {other}"),
    }
}

fn of_certificate(wrong: &CertificateError) -> String {
    match wrong {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired".into()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet, by the clock of this machine".into()
        }
        CertificateError::UnknownIssuer => {
            "its certificate is of a CA that is not trusted here".into()
        }
        CertificateError::BadSignature => {
            "its certificate is not signed by the CA that is trusted here, which may be of the same \
             name"
                .into()
        }
        CertificateError::NotValidForName => "its certificate is of another name".into(),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "its certificate is not of {:?}, but of {}",
            expected.to_str(),
            if presented.is_empty() { "nobody".into() } else { presented.join(", ") }
        ),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is for another purpose: not for this end of a connection".into()
        }
        other => format!("its certificate cannot be trusted: {}", Error::from(other.clone())),
    }
}

fn of_alert(alert: AlertDescription) -> String {
    let meaning = match alert {
        AlertDescription::UnknownCA => "it does not trust the CA of the certificate of this end",
        AlertDescription::DecryptError => {
            "it does not trust the signature of the certificate of this end: perhaps it knows \
             another CA of the same name"
        }
        AlertDescription::CertificateRequired => "it wants a certificate of this end",
        AlertDescription::CertificateExpired => "the certificate of this end has expired",
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::AccessDenied => "it does not take the certificate of this end",
        AlertDescription::NoApplicationProtocol => "it does not speak HTTP/2 (h2) within TLS",
        AlertDescription::HandshakeFailure => {
            "it wants a certificate of this end, or no cipher of TLS is common to both"
        }
        AlertDescription::ProtocolVersion => "no version of TLS is common to both",
        _ => "it ends TLS",
    };
    format!("{meaning} (alert {alert:?})")
}
