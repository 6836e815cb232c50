//! A call that is to begin.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, TE};
use http::{Method, Request, Uri, Version};

/// What a call begins with.
pub struct Begin<'a> {
    /// `/service/method`.
    pub method: &'a str,
    /// The one message that is sent; None: messages follow.
    pub message: Option<Bytes>,
    /// Whether there is one reply, which is told with the end.
    pub is_unary: bool,
    /// When it is given up.
    pub timeout: Option<Duration>,
    /// What the header `authorization` has, if there is to be one.
    pub authorization: Option<&'a str>,
}

impl Begin<'_> {
    /// What HTTP is asked. Errors: this is no method's name, or no address.
    pub fn request(&self, address: &str) -> io::Result<Request<()>> {
        let uri = Uri::builder()
            .scheme("http")
            .authority(address)
            .path_and_query(self.method)
            .build()
            .map_err(io::Error::other)?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        if let Some(timeout) = self.timeout {
            // At most eight digits.
            let value = format!("{}m", timeout.as_millis().clamp(1, 99_999_999));
            headers.insert("grpc-timeout", HeaderValue::try_from(value).map_err(io::Error::other)?);
        }
        if let Some(authorization) = self.authorization {
            // Nothing of the transport shows its value, and no table of HPACK keeps it, here or on
            // the way: who could have a guess compressed beside it would learn whether that is right.
            let mut value = HeaderValue::from_str(authorization)
                .map_err(|_| io::Error::other("a credential that HTTP does not take"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(authorization: Option<&str>) -> Begin<'_> {
        Begin { method: "/a/b", message: None, is_unary: false, timeout: None, authorization }
    }

    #[test]
    fn a_credential_is_a_header_that_is_kept_nowhere() {
        let request = begin(Some("Bearer text")).request("host:1").unwrap();
        let value = &request.headers()[AUTHORIZATION];
        assert!(value.is_sensitive());
        assert_eq!(value.as_bytes(), b"Bearer text");
        assert!(!format!("{request:?}").contains("text"));
    }

    #[test]
    fn without_a_credential_there_is_no_header() {
        assert!(!begin(None).request("host:1").unwrap().headers().contains_key(AUTHORIZATION));
    }

    #[test]
    fn what_is_no_header_is_refused_without_being_shown() {
        let error = begin(Some("Bearer a\r\nb")).request("host:1").unwrap_err();
        assert!(!error.to_string().contains("Bearer"));
    }
}
