//! Calls of a client, whose server says what it likes.
#![no_main]

use std::time::{Duration, Instant};

use bytes::Bytes;
use cosco_fuzz::calls::{LIMIT, MEMORY, Talker, beginning, talk};
use cosco_fuzz::http2::Peer;
use cosco_fuzz::input::Input;
use cosco_fuzz::memory::bounded;
use cosco_transport::client::{State, Status};
use libfuzzer_sys::fuzz_target;

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(7);

struct Call {
    number: u32,
    is_unary: bool,
    messages: usize,
}

/// A client that looks whether what it is told may be.
struct Client {
    state: State,
    calls: Vec<Call>,
    peer: Option<Peer>,
    connections: usize,
    now: Instant,
}

impl Talker for Client {
    fn peer(&mut self) -> &mut Option<Peer> {
        &mut self.peer
    }

    fn calls(&self) -> usize {
        self.calls.len()
    }

    fn begin(&mut self, is_unary: bool) {
        let begin = beginning(is_unary, Some(TIMEOUT));
        let request = begin.request("h").expect("an address");
        let number = self.state.begin(request, begin, self.now);
        self.calls.push(Call { number, is_unary, messages: 0 });
    }

    fn tick(&mut self, passed: Duration) {
        self.now += passed;
        self.state.tick(self.now);
    }

    /// Goes on; as `Link` does, which has a thread for that.
    fn advance(&mut self, connects: bool) {
        self.state.set_readable(self.connections, usize::MAX);
        self.state.advance(self.now);
        self.state.gone.clear();
        if !self.state.wants_connection(self.now) {
            return;
        }
        if connects {
            let (socket, peer) = Peer::new();
            self.peer = Some(peer);
            self.connections += 1;
            self.state.connected(self.connections, socket, self.now);
        } else {
            self.state.not_connected(Status::unavailable("no"), self.now);
        }
        self.state.advance(self.now);
    }

    fn act(&mut self, action: u8, which: usize, number: usize) {
        let index = which % self.calls.len().max(1);
        let Some(known) = self.calls.get_mut(index) else { return };
        let call = self.state.call(known.number).expect("it was not forgotten");
        match action {
            0 => call.ask(),
            1 => {
                let code = call.status().map(|status| status.code);
                let Some(parts) = call.take_message() else { return };
                known.messages += 1;
                assert!(parts.iter().map(Bytes::len).sum::<usize>() <= LIMIT);
                assert!(!known.is_unary || code == Some(0) && known.messages == 1);
            }
            2 => {
                if call.has_room() {
                    let _ = call.send(Bytes::from(vec![1; number << 6]));
                }
            }
            3 => call.half_close(),
            4 => {
                self.state.forget(known.number, Status::unavailable("nobody waits"));
                assert!(self.state.call(known.number).is_none());
                self.calls.remove(index);
            }
            _ => {
                let had_ended = call.status().cloned();
                self.state.end(known.number, Status::unavailable("it is given up"));
                let call = self.state.call(known.number).expect("it was not forgotten");
                assert!(had_ended.is_none() || call.status() == had_ended.as_ref());
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    bounded(MEMORY, || run(Input::new(data)));
});

fn run(input: Input<'_>) {
    let now = Instant::now();
    let state = State::new(LIMIT);
    let mut client = Client { state, calls: Vec::new(), peer: None, connections: 0, now };
    talk(&mut client, input);
    client.state.close();
    for call in &client.calls {
        assert!(client.state.call(call.number).expect("a call").status().is_some());
    }
    assert!(!client.state.is_busy());
}
