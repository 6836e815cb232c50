//! The thread that takes what comes for all connections of a process.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use crate::client::link::Link;
use crate::descriptors::Listed;

/// How often connections are looked after while calls are under way.
const TICK: Duration = Duration::from_millis(500);
/// Without calls for this time, the thread sleeps until there are some.
const DOZE_AFTER: Duration = Duration::from_secs(2);
const EVENTS: usize = 256;
const WAKE: Token = Token(usize::MAX);

/// What is shared with the thread, which lives as long as its process.
pub struct Runtime {
    registry: Registry,
    waker: Waker,
    links: Mutex<Links>,
    /// Whether the thread may sleep although calls have begun.
    dozes: AtomicBool,
    _listed: [Option<Listed>; 2],
}

#[derive(Default)]
struct Links {
    last: usize,
    by_connection: BTreeMap<usize, Arc<Link>>,
}

impl Runtime {
    /// Begins the thread. Errors: there can be none, or no descriptors.
    pub fn start() -> io::Result<Arc<Self>> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let runtime = Arc::new(Self {
            _listed: [&registry.as_raw_fd(), &poll.as_raw_fd()].map(|one| Listed::new(*one)),
            registry,
            waker,
            links: Mutex::default(),
            dozes: AtomicBool::new(false),
        });
        let shared = Arc::clone(&runtime);
        thread::Builder::new().name("cosco-io".into()).spawn(move || shared.run(poll))?;
        Ok(runtime)
    }

    /// Watches the socket of a connection of `link`. Returns the connection's number.
    pub(super) fn add(&self, link: &Arc<Link>, stream: &TcpStream) -> io::Result<usize> {
        let mut links = self.lock();
        links.last += 1;
        let number = links.last;
        let both = Interest::READABLE | Interest::WRITABLE;
        // Watched until it is closed.
        self.registry.register(&mut SourceFd(&stream.as_raw_fd()), Token(number), both)?;
        links.by_connection.insert(number, Arc::clone(link));
        drop(links);
        self.note_call();
        Ok(number)
    }

    /// Forgets connections, which are closed.
    pub(super) fn remove(&self, numbers: &mut Vec<usize>) {
        if !numbers.is_empty() {
            let mut links = self.lock();
            for number in numbers.drain(..) {
                links.by_connection.remove(&number);
            }
        }
    }

    /// Has the thread look after connections, as a call has begun.
    pub(super) fn note_call(&self) {
        if self.dozes.load(Ordering::SeqCst) {
            // It has room for one wish, which is enough.
            let _ = self.waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut poll: Poll) {
        let mut events = Events::with_capacity(EVENTS);
        let mut ticked_at = Instant::now();
        let mut busy_at = ticked_at;
        loop {
            let dozes = self.dozes.load(Ordering::SeqCst);
            if let Err(error) = poll.poll(&mut events, (!dozes).then_some(TICK)) {
                if error.kind() != ErrorKind::Interrupted {
                    thread::sleep(TICK); // somebody has closed what is not his: it will stay so
                }
                continue;
            }
            for event in &events {
                let is_readable = event.is_readable() || event.is_read_closed() || event.is_error();
                let link = self.lock().by_connection.get(&event.token().0).cloned();
                if let Some(link) = link {
                    guarded(&link, || link.on_ready(event.token().0, is_readable));
                }
            }
            let now = Instant::now();
            if dozes {
                self.dozes.store(false, Ordering::SeqCst);
                busy_at = now;
            }
            if now < ticked_at + TICK {
                continue;
            }
            ticked_at = now;
            if self.tick(now) {
                busy_at = now;
            } else if now >= busy_at + DOZE_AFTER {
                self.dozes.store(true, Ordering::SeqCst);
                if self.tick(now) {
                    // It has begun before it could see that this thread dozes.
                    self.dozes.store(false, Ordering::SeqCst);
                }
            }
        }
    }

    /// Returns whether calls wait for something.
    fn tick(&self, now: Instant) -> bool {
        let links: Vec<_> = self.lock().by_connection.values().cloned().collect();
        let is_busy = |link: &&Arc<Link>| guarded(link, || link.tick(now)).unwrap_or(true);
        links.iter().filter(is_busy).count() > 0 // of all, not up to the first
    }
}

/// Does something with a link. Should that panic, the link's calls fail, and others go on: without
/// this thread all would wait for ever.
fn guarded<T>(link: &Link, work: impl FnOnce() -> T) -> Option<T> {
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    if done.is_err() {
        let _ = panic::catch_unwind(AssertUnwindSafe(|| link.abandon()));
    }
    done.ok()
}
