//! A connection of a server, of which a stranger has the other end.
#![no_main]

use std::collections::BTreeMap;

use bytes::Bytes;
use cosco_fuzz::http2::{
    self, END_HEADERS, HEADERS, PREFACE, Peer, REQUEST, SETTINGS, flood, frame, length_near,
};
use cosco_fuzz::input::Input;
use cosco_fuzz::memory::bounded;
use cosco_transport::{Connection, Event, Limits, SMALL_BYTES};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { streams: 6, window_bytes: 64 << 10 };
/// Besides what was allowed: heads of calls, tables of HPACK, small frames that nobody has looked
/// at, a read, and answers that the peer does not take.
const MEMORY: usize = 4 << 20;
const MAX_ALLOWED: usize = 256 << 10;
const MAX_STEPS: usize = 200;

#[derive(Default)]
struct Call {
    is_asked: bool,
    /// Bytes of short messages that may come with the one that was asked for.
    more_bytes: usize,
    allowed: usize,
    /// Whether it ends by itself, and then without a word.
    is_finished: bool,
}

/// A server that keeps account of what it has asked for.
struct Server {
    connection: Connection,
    calls: BTreeMap<u32, Call>,
    /// The call whose messages were the last event: its end may come with them.
    answered: Option<u32>,
    is_over: bool,
}

impl Server {
    fn advance(&mut self, is_readable: bool) {
        let mut is_first = true;
        loop {
            let events = self.connection.advance(is_readable && is_first);
            is_first = false;
            assert!(self.connection.calls() <= LIMITS.streams as usize);
            if events.is_empty() {
                return;
            }
            for event in events {
                assert!(!self.is_over, "{event:?} after the end");
                self.take(event);
            }
        }
    }

    fn take(&mut self, event: Event) {
        let answered = self.answered.take();
        match event {
            Event::Call(number, ..) => {
                assert!(self.calls.insert(number, Call::default()).is_none());
            }
            Event::Messages(number, messages) => {
                let call = self.calls.get_mut(&number).expect("a call");
                assert!(std::mem::take(&mut call.is_asked));
                let lengths: Vec<usize> =
                    messages.iter().map(|parts| parts.iter().map(Bytes::len).sum()).collect();
                let (first, further) = lengths.split_first().expect("a message");
                assert!(*first <= call.allowed.max(SMALL_BYTES));
                assert!(further.iter().all(|length| *length <= SMALL_BYTES));
                assert!(further.iter().map(|length| length + 1).sum::<usize>() <= call.more_bytes);
                self.answered = Some(number);
            }
            Event::Large(number, length) => {
                let call = &self.calls[&number];
                assert!(call.is_asked && length > SMALL_BYTES);
            }
            Event::Ended(number) | Event::Broken(number, _) => {
                assert!(self.calls[&number].is_asked || answered == Some(number))
            }
            Event::Writable(number) => assert!(self.calls.contains_key(&number)),
            Event::Cancelled(number) => assert!(self.calls.remove(&number).is_some()),
            Event::Closed(_) => {
                assert!(self.calls.values().all(|call| call.is_finished));
                self.is_over = true;
            }
        }
    }

    /// One of the calls, if there are any.
    fn any(&self, which: usize) -> Option<u32> {
        self.calls.keys().nth(which % self.calls.len().max(1)).copied()
    }

    fn act(&mut self, action: u8, which: usize, number: usize) {
        let Some(stream) = self.any(which) else { return };
        let call = self.calls.get_mut(&stream).expect("one of them");
        match action {
            0 => {
                (call.is_asked, call.more_bytes) = (true, number << 8);
                self.connection.ask(stream, call.more_bytes);
            }
            1 => {
                let length = (number << 10).min(MAX_ALLOWED);
                call.allowed = call.allowed.max(length);
                self.connection.allow(stream, length);
            }
            2 => {
                let _ = self.connection.send(stream, Bytes::from(vec![1; number << 6]));
            }
            _ => {
                call.is_finished = true;
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                self.connection.finish(stream, trailers);
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let most = MEMORY + LIMITS.window_bytes as usize + LIMITS.streams as usize * MAX_ALLOWED;
    bounded(most, || serve(Input::new(data)));
});

fn serve(mut input: Input<'_>) {
    let (socket, mut peer) = Peer::new();
    let connection = Connection::new(socket, LIMITS, None).expect("a socket");
    let mut server = Server { connection, calls: BTreeMap::new(), answered: None, is_over: false };
    let control = input.byte();
    if control & 1 == 1 {
        peer.send(PREFACE);
        peer.send(&frame(SETTINGS, 0, 0, &[]));
    }
    for _ in 0..MAX_STEPS {
        if input.is_empty() || server.is_over {
            break;
        }
        match input.byte() % 16 {
            0..=2 => peer.send(&http2::any_frame(&mut input)),
            3 => peer.send(input.piece()),
            4 | 5 => {
                let (stream, flags) = (u32::from(input.byte()) | 1, input.byte() & 1);
                peer.send(&frame(HEADERS, END_HEADERS | flags, stream, REQUEST));
            }
            6 => {
                let stream = u32::from(input.byte());
                let length = length_near(SMALL_BYTES, &mut input);
                peer.send(&flood(stream, length, input.below(8)));
            }
            7 => drop(peer.drain()),
            8 => server.connection.ping(),
            9 => server.connection.stop(),
            action => server.act((action - 10) % 4, input.below(8), usize::from(input.byte())),
        }
        server.advance(control & 2 == 0 || !input.is_empty());
    }
    peer.drain();
    server.advance(true);
    drop(peer);
    server.advance(true);
    assert!(server.is_over && server.connection.calls() == 0);
}
