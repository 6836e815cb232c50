//! How a call ended: what gRPC calls its status.

use h2::Reason;
use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};

use crate::client::base64;

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";
/// Names of metadata that end so carry bytes.
const BINARY: &str = "-bin";

/// Codes of gRPC that this end gives by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// The end of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// One of gRPC's numbers, as the peer gave it or this end.
    pub code: u32,
    pub details: String,
    /// What the peer said beside: names, and values as they are meant.
    pub metadata: Vec<(String, Vec<u8>)>,
}

impl Status {
    pub fn new(code: Code, details: impl Into<String>) -> Self {
        Self { code: code as u32, details: details.into(), metadata: Vec::new() }
    }

    /// What a call ended with, of which a connection was lost or never made.
    pub fn unavailable(details: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, details)
    }

    /// What the head of an answer says, if that is not how gRPC answers.
    pub fn of_head(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        if status == StatusCode::OK && kind.starts_with(b"application/grpc") {
            return None;
        }
        let code = match status.as_u16() {
            400 => Code::Internal,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::Unimplemented,
            429 | 502 | 503 | 504 => Code::Unavailable,
            _ => Code::Unknown,
        };
        let kind = String::from_utf8_lossy(kind);
        let details = format!("it is answered with HTTP status {} and {kind:?}", status.as_u16());
        Some(Self::new(code, details))
    }

    /// What trailers say; None if they do not end a call.
    pub fn of_trailers(trailers: &HeaderMap) -> Option<Self> {
        let code = trailers.get(STATUS)?.to_str().ok().and_then(|code| code.parse().ok());
        let details = trailers.get(MESSAGE).map_or(String::new(), |raw| unescaped(raw.as_bytes()));
        let mut metadata = Vec::new();
        for (name, value) in trailers {
            let (name, value) = (name.as_str(), value.as_bytes());
            if name == STATUS || name == MESSAGE {
                continue;
            }
            let value = if name.ends_with(BINARY) { base64::decode(value) } else { None }
                .unwrap_or_else(|| value.to_vec());
            metadata.push((name.to_owned(), value));
        }
        Some(Self { code: code.unwrap_or(Code::Unknown as u32), details, metadata })
    }

    /// What an error of its stream, or of its connection, means for a call.
    pub fn of_error(error: &h2::Error) -> Self {
        if error.is_io() || error.is_go_away() {
            return Self::unavailable(format!("the connection was lost: {error}"));
        }
        let code = match error.reason() {
            Some(Reason::REFUSED_STREAM) => Code::Unavailable,
            Some(Reason::CANCEL) => Code::Cancelled,
            Some(Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
            Some(Reason::INADEQUATE_SECURITY) => Code::PermissionDenied,
            _ => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

/// Text whose bytes may be escaped by %XX.
fn unescaped(raw: &[u8]) -> String {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((first, behind)) = rest.split_first() {
        let escaped = behind
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &behind[2..] } else { behind };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn trailers_are_read() {
        let mut trailers = HeaderMap::new();
        assert_eq!(Status::of_trailers(&trailers), None);
        trailers.insert(STATUS, HeaderValue::from_static("13"));
        trailers.insert(MESSAGE, HeaderValue::from_static("two%0Alines, 100%, %C3%A4"));
        trailers.insert("x-bin", HeaderValue::from_static("Zm8="));
        trailers.insert("plain", HeaderValue::from_static("Zm8="));
        let status = Status::of_trailers(&trailers).unwrap();
        assert_eq!((status.code, status.details.as_str()), (13, "two\nlines, 100%, \u{e4}"));
        let mut metadata = status.metadata;
        metadata.sort();
        let expected: [(String, Vec<u8>); 2] =
            [("plain".into(), b"Zm8=".into()), ("x-bin".into(), b"fo".into())];
        assert_eq!(metadata, expected);
    }

    #[test]
    fn a_code_that_is_no_number_is_unknown() {
        let mut trailers = HeaderMap::new();
        trailers.insert(STATUS, HeaderValue::from_static("fine"));
        assert_eq!(Status::of_trailers(&trailers).unwrap().code, 2);
    }

    #[test]
    fn what_is_no_grpc_is_told() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
        assert_eq!(Status::of_head(StatusCode::OK, &headers), None);
        assert_eq!(Status::of_head(StatusCode::NOT_FOUND, &headers).unwrap().code, 12);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        let status = Status::of_head(StatusCode::OK, &headers).unwrap();
        assert_eq!(status.code, 2);
        assert_eq!(status.details, "it is answered with HTTP status 200 and \"text/html\"");
    }
}
