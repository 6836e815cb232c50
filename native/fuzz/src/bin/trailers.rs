//! What the heads and trailers of an answer say.
#![no_main]

use cosco_fuzz::input::Input;
use cosco_fuzz::memory::bounded;
use cosco_transport::client::Status;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 4] = ["grpc-status", "grpc-message", "content-type", "x-bin"];

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let code = input.number::<2>() as u16;
    let mut headers = HeaderMap::new();
    while !input.is_empty() {
        let name = match NAMES.get(input.below(NAMES.len() + 1)) {
            Some(name) => Ok(HeaderName::from_static(name)),
            None => HeaderName::from_bytes(input.piece()),
        };
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(input.piece())) {
            headers.append(name, value);
        }
    }
    let total: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let most = 4096 + 8 * total + 512 * headers.len();
    let trailers = bounded(most, || Status::of_trailers(&headers));
    assert_eq!(trailers.is_some(), headers.contains_key("grpc-status"));
    if let Some(status) = trailers {
        let told = headers.keys().filter(|name| !name.as_str().starts_with("grpc-"));
        let told: usize = told.map(|name| headers.get_all(name).iter().count()).sum();
        let others = status.metadata.iter().filter(|(name, _)| !name.starts_with("grpc-")).count();
        assert_eq!(others, told);
    }
    if let Ok(code) = StatusCode::from_u16(code) {
        let status = bounded(most, || Status::of_head(code, &headers));
        assert!(code == StatusCode::OK || status.is_some());
        assert!(status.is_none_or(|status| status.code != 0));
    }
});
