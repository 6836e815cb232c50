//! A connection of a server with TLS, of which a stranger has the other end: one who can make the
//! handshake, and then says what he likes, in records or beside them.
#![no_main]

use std::io::{Cursor, Write};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use cosco_fuzz::http2::{self, END_HEADERS, HEADERS, PREFACE, Peer, REQUEST, SETTINGS, frame};
use cosco_fuzz::input::Input;
use cosco_fuzz::memory::bounded;
use cosco_transport::tls::ServerTls;
use cosco_transport::{Connection, Event, Limits};
use libfuzzer_sys::fuzz_target;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

const LIMITS: Limits = Limits { streams: 6, window_bytes: 64 << 10 };
/// As without TLS, and beside that: a handshake, what was read of the socket, what was not sent;
/// and all that the stranger's end keeps, as it is counted with it.
const MEMORY: usize = 8 << 20;
const MAX_STEPS: usize = 100;

/// What both ends go by, made once.
fn settings() -> &'static (ServerTls, Arc<ClientConfig>) {
    static MADE: OnceLock<(ServerTls, Arc<ClientConfig>)> = OnceLock::new();
    MADE.get_or_init(|| {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
        let (chain, key) = (cert.pem(), signing_key.serialize_pem());
        let server =
            ServerTls::new(chain.as_bytes(), key.as_bytes(), Some(chain.as_bytes()), false);
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec()];
        (server.expect("settings"), Arc::new(client))
    })
}

/// The stranger: what goes through its session is enciphered well.
struct Stranger {
    peer: Peer,
    tls: ClientConnection,
}

impl Stranger {
    /// Sends what its session has to say, changed at a place if `change` says so.
    fn say(&mut self, change: Option<(usize, u8)>) {
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).expect("memory");
        }
        if let (Some((at, how)), false) = (change, records.is_empty()) {
            let at = at % records.len();
            records[at] ^= how;
        }
        self.peer.send(&records);
    }

    /// Has its session hear what has come.
    fn hear(&mut self) {
        let mut heard = Cursor::new(self.peer.hear());
        while let Ok(1..) = self.tls.read_tls(&mut heard) {
            if self.tls.process_new_packets().is_err() {
                return;
            }
        }
    }

    fn tell(&mut self, data: &[u8]) {
        let _ = self.tls.writer().write(data); // as far as there is room
    }
}

/// Goes on, and answers nothing. Returns whether the connection is over.
fn advance(connection: &mut Connection, is_readable: bool) -> bool {
    let mut is_first = true;
    loop {
        let events = connection.advance(is_readable && is_first);
        is_first = false;
        assert!(connection.calls() <= LIMITS.streams as usize);
        if events.is_empty() {
            return false;
        }
        for event in events {
            match event {
                Event::Call(call, ..) => {
                    assert!(connection.peer_names().is_empty());
                    connection.ask(call, 1 << 10);
                    let _ = connection.send(call, Bytes::from_static(&[1; 5000]));
                }
                Event::Closed(_) => return true,
                _ => {}
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    settings();
    bounded(MEMORY, || run(Input::new(data)));
});

fn run(mut input: Input<'_>) {
    let (server, client) = settings();
    let (socket, peer) = Peer::new();
    let session = server.session().expect("a session");
    let mut connection = Connection::new(socket, LIMITS, Some(session)).expect("a socket");
    let name = ServerName::try_from("localhost").expect("a name");
    let tls = ClientConnection::new(Arc::clone(client), name).expect("a session");
    let mut stranger = Stranger { peer, tls };
    let control = input.byte();
    let mut is_over = false;
    if control & 1 == 1 {
        while stranger.tls.is_handshaking() {
            stranger.say(None);
            assert!(!advance(&mut connection, true));
            stranger.hear();
        }
        stranger.tell(PREFACE);
        stranger.tell(&frame(SETTINGS, 0, 0, &[]));
    }
    for _ in 0..MAX_STEPS {
        if input.is_empty() || is_over {
            break;
        }
        match input.byte() % 12 {
            0 => stranger.peer.send(input.piece()),
            1 => {
                let (kind, length) = (input.byte(), input.number::<2>() as u16);
                let mut record = vec![0x14 + kind % 5, 3, 3];
                record.extend(length.to_be_bytes());
                record.extend(input.piece());
                stranger.peer.send(&record);
            }
            2 => stranger.say(None),
            3 => stranger.say(Some((input.number::<2>() as usize, input.byte()))),
            4 => stranger.tell(&http2::any_frame(&mut input)),
            5 => stranger.tell(input.piece()),
            6 => {
                let stream = u32::from(input.byte()) | 1;
                stranger.tell(&frame(HEADERS, END_HEADERS, stream, REQUEST));
            }
            7 if !stranger.tls.is_handshaking() => {
                for _ in 0..input.below(64) {
                    let _ = stranger.tls.refresh_traffic_keys();
                }
            }
            8 => stranger.tls.send_close_notify(),
            9 => stranger.hear(),
            10 => connection.ping(),
            _ => connection.stop(),
        }
        is_over = advance(&mut connection, control & 2 == 0 || input.byte() & 1 == 0);
    }
    stranger.peer.drain();
    is_over = is_over || advance(&mut connection, true);
    drop(stranger);
    assert!(is_over || advance(&mut connection, true));
    assert_eq!(connection.calls(), 0);
}
