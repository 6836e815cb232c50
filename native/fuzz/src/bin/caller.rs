//! Calls of a service, for its event loop, whose peer says what it likes.
#![no_main]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cosco_fuzz::calls::{LIMIT, MEMORY, Talker, beginning, talk};
use cosco_fuzz::http2::Peer;
use cosco_fuzz::input::Input;
use cosco_fuzz::memory::bounded;
use cosco_transport::client::{Caller, News};
use libfuzzer_sys::fuzz_target;

#[derive(Default)]
struct Call {
    is_unary: bool,
    is_asked: bool,
    has_room: bool,
    messages: usize,
}

/// A service that looks whether what it is told may be.
struct Service {
    caller: Caller,
    calls: BTreeMap<u32, Call>,
    peer: Option<Peer>,
    connections: usize,
    now: Instant,
}

impl Service {
    fn connect(&mut self, connects: bool) {
        if connects {
            let (socket, peer) = Peer::new();
            self.peer = Some(peer);
            self.connections += 1;
            self.caller.connected(self.connections, socket, self.now);
        } else {
            self.caller.not_connected("nobody is there", self.now);
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::Message(number, parts) => {
                let call = self.calls.get_mut(&number).expect("a call");
                call.messages += 1;
                assert!(call.is_unary && call.messages == 1 || call.is_asked);
                call.is_asked = false;
                assert!(parts.iter().map(Bytes::len).sum::<usize>() <= LIMIT);
            }
            News::Room(number) => {
                let call = self.calls.get_mut(&number).expect("a call");
                assert!(!call.has_room);
                call.has_room = true;
            }
            News::Ended(number, status) => {
                let call = self.calls.remove(&number).expect("a call");
                assert!(!call.is_unary || (call.messages == 1) == (status.code == 0));
            }
        }
    }
}

impl Talker for Service {
    fn peer(&mut self) -> &mut Option<Peer> {
        &mut self.peer
    }

    fn calls(&self) -> usize {
        self.calls.len()
    }

    fn begin(&mut self, is_unary: bool) {
        let begin = beginning(is_unary, None);
        let number = self.caller.begin(begin, self.now).expect("an address");
        let call = Call { is_unary, has_room: true, ..Call::default() };
        assert!(self.calls.insert(number, call).is_none());
    }

    fn tick(&mut self, passed: Duration) {
        self.now += passed;
        self.caller.tick(self.now);
    }

    /// Goes on until there are no news, and makes the connection that is wanted, or does not.
    fn advance(&mut self, connects: bool) {
        let mut readable = Some(self.connections);
        loop {
            let news = self.caller.advance(readable.take(), self.now);
            let is_quiet = news.is_empty();
            for one in news {
                self.take(one);
            }
            self.caller.take_gone();
            if self.caller.wants_connection(self.now) {
                self.connect(connects);
            } else if is_quiet {
                return;
            }
        }
    }

    fn act(&mut self, action: u8, which: usize, number: usize) {
        let known = self.calls.keys().nth(which % self.calls.len().max(1)).copied();
        let Some(known) = known else { return };
        let call = self.calls.get_mut(&known).expect("one of them");
        match action {
            0 | 1 => {
                call.is_asked = true;
                self.caller.ask(known);
            }
            2 if call.has_room && !call.is_unary => {
                call.has_room = self.caller.send(known, Bytes::from(vec![1; number << 6]));
            }
            3 => self.caller.half_close(known),
            4 => {
                self.caller.forget(known);
                self.calls.remove(&known);
            }
            _ => {
                let _ = self.caller.wants_write(self.connections);
                let _ = self.caller.has_unread(self.connections);
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    bounded(MEMORY, || run(Input::new(data)));
});

fn run(input: Input<'_>) {
    let caller = Caller::new("h".into(), LIMIT);
    let now = Instant::now();
    let mut service = Service { caller, calls: BTreeMap::new(), peer: None, connections: 0, now };
    talk(&mut service, input);
    service.caller.close();
    service.advance(false);
    assert!(service.calls.is_empty() && !service.caller.is_busy());
}
