//! One address, for an event loop: no thread, no clock, and no socket that is waited for here.

use std::io;
use std::net::TcpStream;
use std::time::Instant;

use bytes::Bytes;

use crate::client::begin::Begin;
use crate::client::state::State;
use crate::client::status::{Code, Status};
use crate::tls::ClientTls;

/// As much of a connection is read before others have their turn.
const TURN_BYTES: usize = 4 << 20;

/// What came of a call, by its number.
#[derive(Debug)]
pub enum News {
    /// A message, in parts.
    Message(u32, Vec<Bytes>),
    /// There is room to send again.
    Room(u32),
    /// It is over, and forgotten.
    Ended(u32, Status),
}

/// An address, and what is under way there. After whatever is called `advance` must be, until there
/// are no news, and then what it wants must be looked at.
pub struct Caller {
    address: String,
    state: State,
}

impl Caller {
    /// Begins without a connection. `limit`: how long messages may be that come.
    pub fn new(address: String, limit: usize) -> Self {
        Self { address, state: State::with_news(limit) }
    }

    /// Has connections carry TLS that are made from now on, or not; what there are go on. Errors: no
    /// certificate can be of this address.
    pub fn set_tls(&mut self, tls: Option<&ClientTls>) -> Result<(), String> {
        let tls = tls.map(|tls| tls.to(&self.address)).transpose()?;
        self.state.set_tls(tls);
        Ok(())
    }

    // --- calls ----------------------------------------------------------------------------------

    /// Begins a call, and returns its number. Errors: this is no method's name, or no address.
    pub fn begin(&mut self, begin: Begin<'_>, now: Instant) -> io::Result<u32> {
        let request = begin.request(&self.address)?;
        Ok(self.state.begin(request, begin, now))
    }

    /// Has a message sent. Returns whether more should be; if not, that is news once it should.
    pub fn send(&mut self, number: u32, message: Bytes) -> bool {
        let Some(call) = self.state.call(number) else { return true };
        if call.send(message).is_none() {
            self.state.end(number, Status::new(Code::ResourceExhausted, "a message of 4 GiB"));
        }
        self.state.call(number).is_none_or(|call| call.has_room())
    }

    /// Sends nothing further.
    pub fn half_close(&mut self, number: u32) {
        if let Some(call) = self.state.call(number) {
            call.half_close();
        }
    }

    /// Asks for the next message of a call, or for its end.
    pub fn ask(&mut self, number: u32) {
        if let Some(call) = self.state.call(number) {
            call.ask();
        }
    }

    /// Ends a call, of which nothing is told any more.
    pub fn forget(&mut self, number: u32) {
        self.state.forget(number, Status::new(Code::Cancelled, "it was cancelled here"));
    }

    /// Ends everything that is under way, of which something has panicked.
    pub fn abandon(&mut self) {
        self.state.end_all(&Status::new(Code::Internal, "the native part has panicked"));
    }

    /// Ends all calls and connections, for good.
    pub fn close(&mut self) {
        self.state.close();
    }

    // --- connections ----------------------------------------------------------------------------

    /// Whether a connection is to be made. Then `connected` or `not_connected` must follow.
    pub fn wants_connection(&mut self, now: Instant) -> bool {
        self.state.wants_connection(now)
    }

    /// Takes a connection, by a number that was not used before.
    pub fn connected(&mut self, connection: usize, stream: TcpStream, now: Instant) {
        self.state.connected(connection, stream, now);
    }

    /// Fails the calls that wait for a connection, as there is none.
    pub fn not_connected(&mut self, reason: &str, now: Instant) {
        self.state.not_connected(Status::unavailable(reason), now);
    }

    /// The numbers of connections that are gone since this was called last.
    pub fn take_gone(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.state.gone)
    }

    /// Whether a connection has something to send for which its socket has no room.
    pub fn wants_write(&self, connection: usize) -> bool {
        self.state.condition(connection).is_some_and(|condition| condition.is_full())
    }

    /// Whether its socket may have something that was not read, be it that it could not be.
    pub fn has_unread(&self, connection: usize) -> bool {
        self.state.condition(connection).is_some_and(|condition| condition.has_unread())
    }

    /// Whether calls wait for something.
    pub fn is_busy(&self) -> bool {
        self.state.is_busy()
    }

    // --- what goes on ---------------------------------------------------------------------------

    /// Writes, and reads, what can be, and goes on with all calls. Returns what came.
    ///
    /// `readable`: a connection whose socket has something to be read.
    pub fn advance(&mut self, readable: Option<usize>, now: Instant) -> Vec<News> {
        if let Some(connection) = readable {
            self.state.set_readable(connection, TURN_BYTES);
        }
        self.state.advance(now);
        let mut news = Vec::new();
        for number in self.state.take_news() {
            let Some(call) = self.state.call(number) else { continue };
            if call.take_room_news() {
                news.push(News::Room(number));
            }
            if let Some(parts) = call.take_message() {
                news.push(News::Message(number, parts));
            }
            if let Some(status) = self.state.take_ended(number) {
                news.push(News::Ended(number, status));
            }
        }
        news
    }

    /// Looks for peers that are gone without a word; to be called twice a second once a call has
    /// begun, as long as this returns true.
    pub fn tick(&mut self, now: Instant) -> bool {
        self.state.tick(now);
        self.state.wants_ticks()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    const LIMIT: usize = 1 << 20;
    const ECHO: Begin<'static> = Begin {
        method: "/t/Echo",
        message: None,
        is_unary: false,
        timeout: None,
        authorization: None,
    };

    fn caller() -> Caller {
        Caller::new("localhost:1".into(), LIMIT)
    }

    fn begin(caller: &mut Caller, now: Instant) -> u32 {
        let begin = Begin { message: Some(Bytes::from_static(b"x")), is_unary: true, ..ECHO };
        caller.begin(begin, now).unwrap()
    }

    /// A caller with a connection, and the peer's end of that.
    fn connected(caller: &mut Caller, connection: usize, now: Instant) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let theirs = listener.accept().unwrap().0;
        theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert!(caller.wants_connection(now));
        caller.connected(connection, ours, now);
        theirs
    }

    fn only_end(news: Vec<News>) -> (u32, Status) {
        let mut news = news.into_iter();
        match (news.next(), news.next()) {
            (Some(News::Ended(number, status)), None) => (number, status),
            other => panic!("{other:?}"),
        }
    }

    /// Goes on until there are news: the kernel may take its time, even within one machine.
    fn news_of(caller: &mut Caller, connection: usize, now: Instant) -> Vec<News> {
        for _ in 0..10_000 {
            let news = caller.advance(Some(connection), now);
            if !news.is_empty() {
                return news;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("nothing comes");
    }

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    #[test]
    fn a_connection_is_wanted_once_when_there_are_calls() {
        let (mut caller, now) = (caller(), Instant::now());
        assert!(!caller.wants_connection(now));
        begin(&mut caller, now);
        assert!(caller.advance(None, now).is_empty());
        assert!(caller.wants_connection(now));
        assert!(!caller.wants_connection(now));
    }

    #[test]
    fn calls_fail_for_want_of_a_connection_and_then_at_once_for_a_while() {
        let (mut caller, now) = (caller(), Instant::now());
        let first = begin(&mut caller, now);
        assert!(caller.wants_connection(now));
        caller.not_connected("nobody is there", now);
        let (number, status) = only_end(caller.advance(None, now));
        assert_eq!((number, status.details.as_str()), (first, "nobody is there"));
        let second = begin(&mut caller, now);
        assert_eq!(only_end(caller.advance(None, now)).0, second);
        assert!(!caller.wants_connection(now));
        let later = now + Duration::from_millis(200);
        begin(&mut caller, later);
        assert!(caller.advance(None, later).is_empty());
        assert!(caller.wants_connection(later));
    }

    #[test]
    fn what_is_forgotten_is_not_told_of() {
        let (mut caller, now) = (caller(), Instant::now());
        let number = begin(&mut caller, now);
        caller.forget(number);
        assert!(!caller.wants_connection(now) && !caller.is_busy());
        assert!(caller.advance(None, now).is_empty());
        assert!(caller.send(number, Bytes::new()));
    }

    /// Goes on until the peer has heard some bytes at the end of what it hears.
    fn heard(caller: &mut Caller, peer: &mut TcpStream, last: &[u8], now: Instant) {
        peer.set_nonblocking(true).unwrap();
        let mut all = Vec::new();
        for _ in 0..10_000 {
            assert!(caller.advance(Some(7), now).is_empty());
            let _ = peer.read_to_end(&mut all); // that is not the end, which is an error
            if all.ends_with(last) {
                assert!(all.starts_with(b"PRI * HTTP/2.0"));
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("only {all:?} is heard");
    }

    #[test]
    fn a_reply_comes_with_its_end() {
        let (mut caller, now) = (caller(), Instant::now());
        let number = begin(&mut caller, now);
        let mut peer = connected(&mut caller, 7, now);
        peer.write_all(&frame(4, 0, 0, b"")).unwrap();
        heard(&mut caller, &mut peer, b"\0\0\0\0\x01x", now);
        let head = b"\x88\x5f\x10application/grpc"; // the status is 200, and this is gRPC
        peer.write_all(&frame(1, 4, 1, head)).unwrap();
        peer.write_all(&frame(0, 0, 1, b"\0\0\0\0\x01y")).unwrap();
        for _ in 0..20 {
            assert!(caller.advance(Some(7), now).is_empty());
            std::thread::sleep(Duration::from_millis(1));
        }
        peer.write_all(&frame(1, 5, 1, b"\0\x0bgrpc-status\x010")).unwrap();
        let news = news_of(&mut caller, 7, now);
        match &news[..] {
            [News::Message(first, parts), News::Ended(second, status)] => {
                assert_eq!((*first, *second, status.code), (number, number, 0));
                assert_eq!(parts.concat(), b"y");
            }
            other => panic!("{other:?}"),
        }
        assert!(!caller.is_busy());
    }

    #[test]
    fn who_greets_and_hangs_up_is_not_connected_to_again_at_once() {
        let goodbye = frame(7, 0, 0, &[0; 8]);
        let nonsense = frame(0, 0, 1, b"of no call");
        for last in [goodbye, nonsense] {
            let (mut caller, now) = (caller(), Instant::now());
            let number = begin(&mut caller, now);
            let mut peer = connected(&mut caller, 7, now);
            peer.write_all(&[frame(4, 0, 0, b""), last].concat()).unwrap();
            let (ended, status) = only_end(news_of(&mut caller, 7, now));
            assert_eq!((ended, status.code), (number, Code::Unavailable as u32));
            begin(&mut caller, now);
            assert!(!caller.wants_connection(now));
        }
    }

    #[test]
    fn a_peer_that_is_gone_ends_what_it_has() {
        let (mut caller, now) = (caller(), Instant::now());
        let number = caller.begin(ECHO, now).unwrap();
        caller.ask(number);
        let peer = connected(&mut caller, 7, now);
        assert!(caller.advance(Some(7), now).is_empty());
        drop(peer);
        let (ended, status) = only_end(news_of(&mut caller, 7, now));
        assert_eq!((ended, status.code), (number, Code::Unavailable as u32));
        assert_eq!(caller.take_gone(), [7]);
    }

    #[test]
    fn a_peer_that_never_greets_is_left() {
        let (mut caller, now) = (caller(), Instant::now());
        let number = begin(&mut caller, now);
        let _peer = connected(&mut caller, 7, now);
        caller.tick(now + Duration::from_secs(2));
        assert!(caller.advance(None, now).is_empty());
        caller.tick(now + Duration::from_secs(4));
        let (ended, status) = only_end(caller.advance(None, now));
        assert_eq!(ended, number);
        assert!(status.details.contains("before receiving SETTINGS"));
    }

    #[test]
    fn silence_is_noticed_whatever_the_deadlines_of_calls() {
        for deadline in [1, 2, 5] {
            let (mut caller, began) = (caller(), Instant::now());
            let mut call = begin(&mut caller, began);
            let mut peer = connected(&mut caller, 7, began);
            peer.write_all(&frame(4, 0, 0, b"")).unwrap();
            heard(&mut caller, &mut peer, b"\0\0\0\0\x01x", began);
            caller.tick(began); // which notes that the peer has greeted
            let mut ticks = true;
            for half_seconds in 1..30 {
                let now = began + Duration::from_millis(500 * half_seconds);
                if half_seconds % (2 * deadline + 2) == 2 * deadline {
                    caller.forget(call);
                } else if half_seconds % (2 * deadline + 2) == 0 {
                    call = begin(&mut caller, now);
                    ticks = true;
                }
                ticks = ticks && caller.tick(now);
                caller.advance(None, now);
                if caller.take_gone() == [7] {
                    assert!((17..=24).contains(&half_seconds), "{deadline} {half_seconds}");
                    break;
                }
                assert!(half_seconds < 24, "{deadline}");
            }
        }
    }

    #[test]
    fn all_that_is_under_way_ends_when_it_is_closed() {
        let (mut caller, now) = (caller(), Instant::now());
        let number = begin(&mut caller, now);
        let _peer = connected(&mut caller, 7, now);
        caller.close();
        assert_eq!(only_end(caller.advance(None, now)).0, number);
        assert_eq!(caller.take_gone(), [7]);
        let late = begin(&mut caller, now);
        assert_eq!(only_end(caller.advance(None, now)).0, late);
        assert!(!caller.wants_connection(now));
    }
}
