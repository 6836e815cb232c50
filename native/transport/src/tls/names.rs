//! Who a certificate is of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// More names of one certificate are not told.
const MAX_NAMES: usize = 256;

/// The DNS names, URIs and IP addresses of a certificate that was verified; no names if it cannot be
/// read as strictly as that is done here.
pub fn of_certificate(der: &[u8]) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(der) else { return Vec::new() };
    let Ok(Some((_, SubjectAltName(names)))) = certificate.tbs_certificate.get() else {
        return Vec::new();
    };
    names.iter().filter_map(as_text).take(MAX_NAMES).collect()
}

fn as_text(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        // With a colon, so that it is no other kind of name: a CA may allow the one and not the other.
        GeneralName::UniformResourceIdentifier(uri) => {
            Some(uri.to_string()).filter(|uri| uri.contains("://"))
        }
        GeneralName::IpAddress(address) => ip_of(address.as_bytes()).map(|ip| ip.to_string()),
        _ => None,
    }
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(|bytes| Ipv4Addr::from(bytes).into());
    let v6 = || <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).into());
    v4().or_else(v6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn certificate(names: Vec<SanType>) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn names_are_told_as_text() {
        let names = vec![
            SanType::DnsName("a.example".try_into().unwrap()),
            SanType::URI("spiffe://cluster/daemon".try_into().unwrap()),
            SanType::URI("b.example".try_into().unwrap()),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
            SanType::IpAddress("::1".parse().unwrap()),
            SanType::Rfc822Name("who@a.example".try_into().unwrap()),
        ];
        let expected = ["a.example", "spiffe://cluster/daemon", "10.0.0.1", "::1"];
        assert_eq!(of_certificate(&certificate(names)), expected);
    }

    #[test]
    fn what_is_no_certificate_is_nobodys() {
        let whole = certificate(vec![SanType::DnsName("a".try_into().unwrap())]);
        assert_eq!(of_certificate(&whole), ["a"]);
        for length in 0..whole.len() {
            assert!(of_certificate(&whole[..length]).is_empty());
        }
        assert!(of_certificate(&certificate(Vec::new())).is_empty());
    }

    #[test]
    fn names_are_bounded() {
        let names = (0..2 * MAX_NAMES).map(|n| SanType::IpAddress(Ipv4Addr::from(n as u32).into()));
        assert_eq!(of_certificate(&certificate(names.collect())).len(), MAX_NAMES);
    }

    #[test]
    fn addresses_have_four_or_sixteen_bytes() {
        assert_eq!(ip_of(&[1, 2, 3, 4, 5]), None);
        assert_eq!(ip_of(&[]), None);
    }
}
