//! Calls of somebody whose peer says what it likes: the steps that the inputs of `client` and of
//! `caller` are made of.

use std::time::Duration;

use bytes::Bytes;
use cosco_transport::client::Begin;

use crate::http2::{self, ANSWERS, Peer};
use crate::input::Input;

/// How long messages may be that come.
pub const LIMIT: usize = 12 << 10;
/// What may be kept. Of each call: what may come before it is read, and what it has to send. Beside
/// that: heads of answers, which may be as long as errors that travel in them; a read; what h2 has.
pub const MEMORY: usize = MAX_CALLS * ((2 << 20) + LIMIT + (128 << 10)) + (8 << 20);
const MAX_CALLS: usize = 8;
const MAX_STEPS: usize = 200;

/// Who calls.
pub trait Talker {
    /// The other end of its connection, if there is one.
    fn peer(&mut self) -> &mut Option<Peer>;
    /// How many calls it knows of.
    fn calls(&self) -> usize;
    /// Begins a call.
    fn begin(&mut self, is_unary: bool);
    /// Has time pass, and looks for peers that are silent.
    fn tick(&mut self, passed: Duration);
    /// Does something of a call; a number for what and which, and one for how much.
    fn act(&mut self, action: u8, which: usize, number: usize);
    /// Goes on as far as possible; `connects`: a connection is made if one is wanted.
    fn advance(&mut self, connects: bool);
}

/// How a call begins.
#[must_use]
pub fn beginning(is_unary: bool, timeout: Option<Duration>) -> Begin<'static> {
    let message = is_unary.then(|| Bytes::from_static(b"a question"));
    Begin { method: "/a/b", message, is_unary, timeout, authorization: None }
}

/// Takes the steps of an input.
pub fn talk(talker: &mut impl Talker, mut input: Input<'_>) {
    talker.begin(input.byte() & 1 == 1);
    talker.advance(true);
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        let mut connects = true;
        let step = input.byte() % 20;
        match step {
            ..ANSWERS => {
                let said = http2::any_answer(step, LIMIT, &mut input);
                if let Some(peer) = talker.peer() {
                    peer.send(&said);
                }
            }
            10 => {
                if let Some(peer) = talker.peer() {
                    peer.drain();
                }
            }
            11 => *talker.peer() = None,
            12 => talker.tick(Duration::from_millis(input.number::<2>())),
            13 if talker.calls() < MAX_CALLS => {
                talker.begin(input.byte() & 1 == 1);
                connects = input.byte() & 1 == 1;
            }
            14.. => talker.act(step - 14, input.below(8), usize::from(input.byte())),
            _ => {}
        }
        talker.advance(connects);
    }
}
