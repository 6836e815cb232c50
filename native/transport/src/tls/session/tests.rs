//! Two ends of a connection, and a wire between them that cuts as it is told.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{READ_BYTES, SEND_BYTES, Session, UNSENT_BYTES};
use crate::socket::{Condition, Socket};
use crate::tls::{ClientTls, ServerTls};

const EVERYTHING: usize = usize::MAX;

/// A CA, of whose certificates there are as many as tests want.
struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        Self::named("a CA of tests")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        pem("CERTIFICATE", self.0.der())
    }

    /// A certificate and its key.
    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (pem("CERTIFICATE", certificate.der()), pem("PRIVATE KEY", key.serialized_der()))
    }

    fn server(&self, clients: Option<(&Ca, bool)>) -> ServerTls {
        self.server_as("localhost", clients, |_| ())
    }

    fn server_as(
        &self,
        name: &str,
        clients: Option<(&Ca, bool)>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> ServerTls {
        let (cert, key) = self.issue(name, change);
        let ca = clients.map(|(ca, _)| ca.pem());
        let requires = clients.is_some_and(|(_, requires)| requires);
        let ca = ca.as_ref().map(String::as_bytes);
        ServerTls::new(cert.as_bytes(), key.as_bytes(), ca, requires).unwrap()
    }

    /// A client that trusts this CA, and has a certificate of another one.
    fn client(&self, own: Option<&Ca>) -> ClientTls {
        let own = own.map(|ca| ca.issue("a.client", |_| ()));
        let own = own.as_ref().map(|(cert, key)| (cert.as_bytes(), key.as_bytes()));
        ClientTls::new(self.pem().as_bytes(), own).unwrap()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = format!("-----BEGIN {label}-----\n");
    for three in der.chunks(3) {
        let all =
            three.iter().chain([&0; 2]).take(3).fold(0, |all, byte| all << 8 | *byte as usize);
        for at in 0..4 {
            let digit = digits[all >> (18 - 6 * at) & 63] as char;
            out.push(if at <= three.len() { digit } else { '=' });
        }
    }
    out + &format!("\n-----END {label}-----\n")
}

fn ready<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

/// One end, what it has to say, and what it has heard.
struct End {
    socket: Socket,
    condition: Arc<Condition>,
    to_say: Vec<u8>,
    heard: Vec<u8>,
    has_ended: bool,
}

impl End {
    fn new(stream: UnixStream, session: Option<Session>) -> Self {
        let socket = Socket::new(TcpStream::from(OwnedFd::from(stream)), session).unwrap();
        let condition = socket.condition();
        Self { socket, condition, to_say: Vec::new(), heard: Vec::new(), has_ended: false }
    }

    /// Says and hears what can be, as HTTP/2 does. Errors: it is over.
    fn go_on(&mut self, room: usize) -> Result<(), String> {
        let mut context = Context::from_waker(Waker::noop());
        let socket = &mut self.socket;
        while !self.to_say.is_empty() {
            let said = ready(Pin::new(&mut *socket).poll_write(&mut context, &self.to_say));
            let Some(said) = said else { break };
            self.to_say.drain(..said.map_err(|error| error.to_string())?);
        }
        if let Poll::Ready(Err(error)) = Pin::new(&mut *socket).poll_flush(&mut context) {
            return Err(error.to_string());
        }
        self.hear(room)
    }

    fn hear(&mut self, room: usize) -> Result<(), String> {
        let mut context = Context::from_waker(Waker::noop());
        let mut space = vec![0; room];
        while !self.has_ended {
            let mut buffer = ReadBuf::new(&mut space);
            let read = Pin::new(&mut self.socket).poll_read(&mut context, &mut buffer);
            let Some(read) = ready(read) else { break };
            read.map_err(|error| error.to_string())?;
            self.has_ended = buffer.filled().is_empty();
            self.heard.extend_from_slice(buffer.filled());
        }
        Ok(())
    }

    fn say_goodbye(&mut self) -> Poll<io::Result<()>> {
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(&mut self.socket).poll_shutdown(&mut context)
    }
}

/// Two ends, and what lies between them.
struct Line {
    client: End,
    server: End,
    wire: [UnixStream; 2],
}

impl Line {
    fn new(client: &ClientTls, server: &ServerTls) -> Self {
        let session = client.to("localhost:1").unwrap().session().unwrap();
        Self::of(Some(session), Some(server.session().unwrap()))
    }

    fn of(client: Option<Session>, server: Option<Session>) -> Self {
        let pairs = [UnixStream::pair().unwrap(), UnixStream::pair().unwrap()];
        let [(ours, near), (far, theirs)] = pairs;
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let (client, server) = (End::new(ours, client), End::new(theirs, server));
        Self { client, server, wire: [near, far] }
    }

    /// Carries up to so many bytes each way. Returns how many it were.
    fn carry(&mut self, cut: usize) -> usize {
        let mut total = 0;
        for (from, to) in [(0, 1), (1, 0)] {
            let mut room = vec![0; cut.min(64 << 10)];
            match self.wire[from].read(&mut room) {
                Ok(count) => {
                    let _ = self.wire[to].write_all(&room[..count]); // the end may be gone
                    total += count;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        total
    }

    fn carry_to_server(&mut self) {
        let mut room = vec![0; 64 << 10];
        let count = self.wire[0].read(&mut room).unwrap();
        self.wire[1].write_all(&room[..count]).unwrap();
    }

    /// Goes on until nothing moves. Returns how each end has ended: empty if it has not.
    fn run(&mut self, cut: usize, room: usize) -> [String; 2] {
        let mut outcome = [String::new(), String::new()];
        loop {
            for (end, outcome) in [&mut self.client, &mut self.server].into_iter().zip(&mut outcome)
            {
                end.condition.set_readable();
                if outcome.is_empty() {
                    *outcome = end.go_on(room).err().unwrap_or_default();
                }
            }
            if self.carry(cut) == 0 {
                return outcome;
            }
        }
    }

    fn has_no_trouble(&mut self) {
        assert_eq!(self.run(EVERYTHING, 8 << 10), ["", ""]);
    }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at * at) >> 3) as u8).collect()
}

#[test]
fn all_comes_through_however_it_is_cut() {
    let ca = Ca::new();
    let (client, server) = (ca.client(Some(&ca)), ca.server(Some((&ca, true))));
    let cuts = (1..12).chain([21, 22, 100, 999, 4096, 16 << 10, EVERYTHING]);
    for (cut, room) in cuts.flat_map(|cut| [(cut, 9), (cut, 8 << 10)]) {
        let mut line = Line::new(&client, &server);
        line.client.to_say = bytes(20_000);
        line.server.to_say = bytes(40_000);
        assert_eq!(line.run(cut, room), ["", ""]);
        assert!(line.server.heard == bytes(20_000) && line.client.heard == bytes(40_000));
        assert_eq!(line.server.condition.first_type(), Some(bytes(4)[3]));
        assert_eq!(line.server.condition.peer_names(), ["a.client"]);
        assert_eq!(line.client.condition.peer_names(), ["localhost"]);
        for end in [&mut line.client, &mut line.server] {
            assert!(!end.condition.is_full() && !end.condition.has_unread());
            assert_eq!(end.socket.session().incoming.capacity(), 0);
        }
    }
}

#[test]
fn a_handshake_is_no_sign_of_life() {
    let ca = Ca::new();
    let mut line = Line::new(&ca.client(None), &ca.server(None));
    while !line.server.socket.session().is_open {
        assert_eq!(line.server.condition.received(), 0);
        for end in [&mut line.client, &mut line.server] {
            end.condition.set_readable();
            end.go_on(100).unwrap();
        }
        line.carry(1);
    }
    line.has_no_trouble();
    let before = line.server.condition.received();
    line.client.to_say = b"x".into();
    line.has_no_trouble();
    assert!(line.server.condition.received() > before);
}

#[test]
fn what_was_read_of_the_socket_comes_though_no_more_may_be_read() {
    let ca = Ca::new();
    let mut line = Line::new(&ca.client(None), &ca.server(None));
    line.has_no_trouble();
    line.client.to_say = bytes(1 << 20);
    line.client.go_on(100).unwrap();
    while line.carry(EVERYTHING) > 0 {
        line.client.go_on(100).unwrap();
    }
    let server = &mut line.server;
    server.condition.set_readable_up_to(1000);
    server.hear(77).unwrap();
    let first = server.heard.len();
    assert!((1000..=READ_BYTES).contains(&first), "{first}");
    assert!(server.condition.has_unread() && server.socket.session().incoming.len() <= READ_BYTES);
    // Nothing that HTTP/2 could have lies here: nobody would say so again.
    server.hear(77).unwrap();
    assert_eq!(server.heard.len(), first);
    let session = server.socket.session();
    assert_eq!(session.taken, session.incoming.len());
}

#[test]
fn who_takes_nothing_is_kept_little_for() {
    let ca = Ca::new();
    let mut line = Line::new(&ca.client(None), &ca.server(None));
    line.has_no_trouble();
    let all = 8 << 20;
    line.server.to_say = bytes(all);
    line.server.go_on(100).unwrap();
    assert!(line.server.condition.is_full() && line.server.socket.session().tls.wants_write());
    let taken = all - line.server.to_say.len();
    assert!(taken <= UNSENT_BYTES + SEND_BYTES + (1 << 20), "{taken}"); // with the kernel's
    let before = line.server.to_say.len();
    line.server.go_on(100).unwrap();
    assert_eq!(line.server.to_say.len(), before);
    line.has_no_trouble();
    assert!(line.client.heard == bytes(all) && !line.server.condition.is_full());
}

#[test]
fn the_end_waits_for_what_was_not_taken() {
    let ca = Ca::new();
    let mut line = Line::new(&ca.client(None), &ca.server(None));
    line.has_no_trouble();
    line.server.to_say = bytes(8 << 20);
    line.server.go_on(100).unwrap();
    let said = (8 << 20) - line.server.to_say.len();
    line.server.to_say.clear();
    assert!(line.server.say_goodbye().is_pending() && line.server.condition.is_full());
    while line.server.say_goodbye().is_pending() {
        assert!(line.carry(EVERYTHING) > 0);
        line.client.condition.set_readable();
        line.client.hear(1 << 20).unwrap();
    }
    line.has_no_trouble();
    assert!(line.client.heard == bytes(said) && line.client.has_ended);
}

#[test]
fn an_answer_of_the_handshake_that_found_no_room_goes_when_http2_only_reads() {
    let ca = Ca::new();
    let mut line = Line::new(&ca.client(None), &ca.server(None));
    let mut filling = line.server.socket.stream().try_clone().unwrap();
    let mut filled = 0;
    while let Ok(count) = filling.write(&[0; 1 << 16]) {
        filled += count;
    }
    line.client.go_on(100).unwrap();
    line.carry_to_server();
    line.server.condition.set_readable();
    line.server.hear(100).unwrap();
    assert!(line.server.condition.is_full());
    while filled > 0 {
        filled -= line.wire[1].read(&mut vec![0; filled]).unwrap();
    }
    line.server.hear(100).unwrap(); // the socket has room, and nothing to read
    assert!(!line.server.condition.is_full());
    line.has_no_trouble();
    assert!(line.server.socket.session().is_open);
}

#[test]
fn both_ends_say_why_there_is_no_handshake() {
    let (ca, other, namesake) = (Ca::new(), Ca::named("another one"), Ca::new());
    let old = |params: &mut CertificateParams| params.not_after = date_time_ymd(2001, 1, 1);
    let not_yet = |params: &mut CertificateParams| params.not_before = date_time_ymd(4000, 1, 1);
    let of_client = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let untrusted = ["certificate is of a CA that is not trusted", "not trust the CA"];
    let cases: [(ClientTls, ServerTls, [&str; 2]); 8] = [
        (ca.client(None), other.server(None), untrusted),
        (ca.client(None), namesake.server(None), ["of the same name", "of the same name"]),
        (
            ca.client(Some(&other)),
            ca.server(Some((&ca, false))),
            ["not trust the CA", "certificate is of a CA that is not trusted"],
        ),
        (
            ca.client(None),
            ca.server(Some((&ca, true))),
            ["wants a certificate of this end", "shows no certificate"],
        ),
        (
            ca.client(None),
            ca.server_as("other.example", None, |_| ()),
            ["not of \"localhost\", but of DnsName(\"other.example\")", "does not take the certif"],
        ),
        (ca.client(None), ca.server_as("localhost", None, old), ["has expired", "has expired"]),
        (ca.client(None), ca.server_as("localhost", None, not_yet), ["not valid yet", "expired"]),
        (
            ca.client(None),
            ca.server_as("localhost", None, of_client),
            ["another purpose", "does not take the certificate"],
        ),
    ];
    for (client, server, expected) in cases {
        let mut line = Line::new(&client, &server);
        line.client.to_say = bytes(100);
        line.server.to_say = bytes(100);
        let outcome = line.run(EVERYTHING, 100);
        for ((reason, expected), end) in
            outcome.iter().zip(expected).zip([&line.client, &line.server])
        {
            assert!(reason.contains(expected), "{reason} / {expected}");
            assert_eq!(end.condition.trouble(), Some(reason.as_str()));
            assert!(end.heard.is_empty());
        }
    }
}

#[test]
fn clients_may_go_without_a_certificate_where_none_is_required() {
    let ca = Ca::new();
    for server in [ca.server(None), ca.server(Some((&ca, false)))] {
        let mut line = Line::new(&ca.client(None), &server);
        line.has_no_trouble();
        assert!(line.server.socket.session().is_open);
        assert!(line.server.condition.peer_names().is_empty());
    }
    let mut line = Line::new(&ca.client(Some(&ca)), &ca.server(None));
    line.has_no_trouble();
    assert!(line.server.condition.peer_names().is_empty()); // nobody has looked at it
}

#[test]
fn tls_on_one_end_alone_is_told_by_both() {
    let ca = Ca::new();
    let client = || ca.client(None).to("localhost:1").unwrap().session().unwrap();
    let mut line = Line::of(Some(client()), None);
    line.server.to_say = b"\0\0\0\x04\0\0\0\0\0".to_vec();
    assert_eq!(line.run(EVERYTHING, 100)[0], "it does not speak TLS, and this end does");
    assert_eq!(line.server.condition.trouble(), Some("it speaks TLS, and this end does not"));

    let mut line = Line::of(None, Some(ca.server(None).session().unwrap()));
    line.client.to_say = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    assert_eq!(line.run(5, 100)[1], "it does not speak TLS, and this end does");
    assert_eq!(line.client.condition.trouble(), Some("it speaks TLS, and this end does not"));

    let mut line = Line::of(None, Some(ca.server(None).session().unwrap()));
    line.client.to_say = b"\x16\x03\x01\0\x06\x02\0\0\x02\0\0".to_vec();
    let reason = &line.run(EVERYTHING, 100)[1];
    assert!(reason.starts_with("it breaks TLS"), "{reason}");
    assert_eq!(line.client.condition.trouble(), Some("it speaks TLS, and this end does not"));
}

/// A client that does with TLS what ours would not.
fn raw(ca: &Ca, alpn: &[&[u8]], versions: &[&'static rustls::SupportedProtocolVersion]) -> Session {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.0.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    Session::new(ClientConnection::new(Arc::new(config), name).unwrap().into())
}

#[test]
fn http2_is_what_both_must_want() {
    let ca = Ca::new();
    for alpn in [&[][..], &[&b"http/1.1"[..]]] {
        let session = raw(&ca, alpn, rustls::ALL_VERSIONS);
        let mut line = Line::of(Some(session), Some(ca.server(None).session().unwrap()));
        for reason in line.run(EVERYTHING, 100) {
            assert!(reason.contains("does not speak HTTP/2"), "{reason}");
        }
    }
}

#[test]
fn the_version_before_is_spoken_too() {
    let ca = Ca::new();
    let session = raw(&ca, &[b"h2"], &[&rustls::version::TLS12]);
    let mut line = Line::of(Some(session), Some(ca.server(None).session().unwrap()));
    (line.client.to_say, line.server.to_say) = (bytes(50_000), bytes(50_000));
    assert_eq!(line.run(7, 100), ["", ""]);
    assert!(line.server.heard == bytes(50_000) && line.client.heard == bytes(50_000));
}

#[test]
fn new_keys_are_taken_but_not_a_flood_of_them() {
    let ca = Ca::new();
    let new_keys = |line: &mut Line, times: usize| {
        for _ in 0..times {
            line.client.socket.session().tls.refresh_traffic_keys().unwrap();
        }
        line.run(EVERYTHING, 100)
    };
    let mut line = Line::new(&ca.client(None), &ca.server(None));
    line.has_no_trouble();
    for _ in 0..100 {
        assert_eq!(new_keys(&mut line, 5), ["", ""]);
        line.client.to_say = b"a word between".to_vec();
        line.server.to_say = b"and back".to_vec();
    }
    line.has_no_trouble();
    assert_eq!(line.client.heard.len(), 100 * 8);
    let reason = &new_keys(&mut line, 1000)[1];
    assert!(reason.contains("TooManyKeyUpdateRequests"), "{reason}");
}

#[test]
fn a_handshake_without_end_is_left() {
    let ca = Ca::new();
    let mut line = Line::of(None, Some(ca.server(None).session().unwrap()));
    // The beginning of a hello of 16 MB, and of a length that may be, which is all that comes.
    line.client.to_say = b"\x16\x03\x01\x40\x00\x01\xff\xff\xff".to_vec();
    line.client.to_say.extend([3; 100_000]);
    let reason = &line.run(EVERYTHING, 100)[1];
    assert!(reason.contains("too long"), "{reason}");

    let mut line = Line::of(None, Some(ca.server(None).session().unwrap()));
    for record in 0..10 {
        line.client.to_say.extend(b"\x16\x03\x01\x40\x00");
        line.client.to_say.extend(if record == 0 { &b"\x01\0\xff\xff"[..] } else { b"" });
        line.client.to_say.extend(vec![3; (16 << 10) - if record == 0 { 4 } else { 0 }]);
    }
    assert!(!line.run(1000, 100)[1].is_empty());

    let mut line = Line::new(&ca.client(None), &ca.server(None));
    line.client.go_on(100).unwrap();
    line.carry(50);
    line.wire[1].shutdown(std::net::Shutdown::Write).unwrap();
    line.server.condition.set_readable();
    assert_eq!(line.server.go_on(100).unwrap_err(), "it hung up amid the handshake");
}

#[test]
fn a_flood_of_records_that_say_nothing_ends_the_connection() {
    let ca = Ca::new();
    let warning = b"\x15\x03\x03\0\x02\x01\x5a"; // it was cancelled by its user
    let change = b"\x14\x03\x03\0\x01\x01";
    for record in [&warning[..], &change[..]] {
        let mut line = Line::of(None, Some(ca.server(None).session().unwrap()));
        line.client.to_say = record.repeat(1000);
        let reason = &line.run(EVERYTHING, 100)[1];
        assert!(reason.starts_with("it breaks TLS"), "{reason}");
    }
}

#[test]
fn the_end_is_told_and_so_is_a_wire_that_is_cut() {
    let ca = Ca::new();
    for says_goodbye in [true, false] {
        let mut line = Line::new(&ca.client(None), &ca.server(None));
        line.client.to_say = bytes(1000);
        line.has_no_trouble();
        if says_goodbye {
            assert!(line.client.say_goodbye().is_ready());
            line.server.to_say = bytes(2000); // half of it is closed: this goes on
        } else {
            line.wire[1].shutdown(std::net::Shutdown::Write).unwrap();
        }
        line.has_no_trouble();
        assert!(line.server.has_ended && line.server.heard == bytes(1000));
        assert_eq!(line.client.heard.len(), if says_goodbye { 2000 } else { 0 });
    }
}

#[test]
fn what_was_changed_on_the_way_is_not_taken() {
    let ca = Ca::new();
    for at in [0, 3, 5, 20, 60] {
        let mut line = Line::new(&ca.client(None), &ca.server(None));
        line.has_no_trouble();
        line.client.to_say = bytes(50);
        line.client.go_on(100).unwrap();
        let mut said = vec![0; 1000];
        let length = line.wire[0].read(&mut said).unwrap();
        said[at] ^= 0x40;
        line.wire[1].write_all(&said[..length]).unwrap();
        let outcome = line.run(EVERYTHING, 100);
        assert!(line.server.heard.is_empty());
        assert!(at == 3 || !outcome[1].is_empty(), "{at} {outcome:?}");
    }
}

#[test]
fn why_a_peer_hung_up_is_told_though_it_takes_nothing_more() {
    let ca = Ca::new();
    let mut line = Line::new(&ca.client(None), &ca.server(Some((&ca, true))));
    line.client.to_say = bytes(100);
    for _ in 0..100 {
        for end in [&mut line.client, &mut line.server] {
            end.condition.set_readable();
            let _ = end.go_on(100);
        }
        if line.server.condition.trouble().is_some() {
            break;
        }
        line.carry(EVERYTHING);
    }
    assert!(line.server.condition.trouble().is_some());
    // The alert is there, and nobody hears: the client says something before it looks.
    let mut alert = vec![0; 1000];
    let length = line.wire[1].read(&mut alert).unwrap();
    line.wire[0].write_all(&alert[..length]).unwrap();
    line.wire[0] = UnixStream::pair().unwrap().0;
    line.client.to_say = bytes(100);
    let reason = line.client.go_on(100).unwrap_err();
    assert!(reason.contains("wants a certificate"), "{reason}");
}

/// Has a server that can send nothing any more look at what a peer has left: its end, and more.
fn left_behind_the_end(more: &[u8]) -> String {
    let ca = Ca::new();
    let mut line = Line::new(&ca.client(None), &ca.server(None));
    line.has_no_trouble();
    assert!(line.client.say_goodbye().is_ready());
    let mut said = vec![0; 1000];
    let length = line.wire[0].read(&mut said).unwrap();
    line.wire[1].write_all(&said[..length]).unwrap();
    line.wire[1].write_all(more).unwrap();
    line.wire[1] = UnixStream::pair().unwrap().0;
    line.server.condition.set_readable();
    line.server.to_say = bytes(100);
    line.server.go_on(100).unwrap_err()
}

#[test]
fn what_is_behind_the_end_is_nothing_and_is_not_waited_for() {
    for more in [&b""[..], b"\x17\x03\x03\0\x05junk!", &[7; 12_000]] {
        let more = more.to_vec();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || tell.send(left_behind_the_end(&more)).unwrap());
        let reason = told.recv_timeout(std::time::Duration::from_secs(20));
        assert!(reason.expect("it ends").contains("roken pipe"));
    }
}

#[test]
fn settings_that_cannot_be_are_refused_in_words() {
    let ca = Ca::new();
    let (cert, key) = ca.issue("localhost", |_| ());
    let (_, other_key) = ca.issue("localhost", |_| ());
    let authority = ca.pem();
    let server = |cert: &str, key: &str, ca: Option<&str>, requires| {
        let made = ServerTls::new(cert.as_bytes(), key.as_bytes(), ca.map(str::as_bytes), requires);
        made.err().unwrap()
    };
    for (error, expected) in [
        (server("", &key, None, false), "the certificate: there is no certificate"),
        (server(&key, &key, None, false), "the certificate: there is no certificate"),
        (server(&cert, "x", None, false), "the key: there is no private key"),
        (server(&cert, &cert, None, false), "the key: there is no private key"),
        (server(&cert, &other_key, None, false), "the key is not that of the certificate"),
        (server(&cert, &key, Some(""), true), "the CA: there is no certificate"),
        (server(&cert, &key, None, true), "without their CA"),
        (server(&pem("CERTIFICATE", b"x"), &key, None, false), "cannot be used"),
        (ClientTls::new(b"", None).err().unwrap(), "the CA: there is no certificate"),
        (ClientTls::new(pem("CERTIFICATE", b"x").as_bytes(), None).err().unwrap(), "be read"),
        (ClientTls::new(b"-----BEGIN CERTIFICATE-----\n", None).err().unwrap(), "is no PEM"),
    ] {
        assert!(error.contains(expected), "{error} / {expected}");
    }
    let own = Some((cert.as_bytes(), other_key.as_bytes()));
    assert!(ClientTls::new(authority.as_bytes(), own).err().unwrap().contains("not that of"));
    let client = ca.client(None);
    for address in ["localhost:1", "127.0.0.1:1", "[::1]:1", "a_b.example:1"] {
        assert!(client.to(address).is_ok(), "{address}");
    }
    assert!(client.to("a b:1").err().unwrap().contains("no certificate can be of \"a b\""));
}
