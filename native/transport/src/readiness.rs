//! Which streams have something to do, in the order in which it came up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

/// Numbers of streams, each once.
#[derive(Default)]
pub struct ReadyList(Mutex<Vec<u32>>);

impl ReadyList {
    /// Takes all that are in it.
    pub fn take(&self) -> Vec<u32> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, stream: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
    }
}

/// Puts one stream on the list when it is woken.
pub struct StreamWaker {
    stream: u32,
    is_queued: AtomicBool,
    list: Arc<ReadyList>,
}

impl StreamWaker {
    pub fn new(stream: u32, list: &Arc<ReadyList>) -> Arc<Self> {
        Arc::new(Self { stream, is_queued: AtomicBool::new(false), list: Arc::clone(list) })
    }

    /// Has the stream looked at.
    pub fn queue(&self) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            self.list.push(self.stream);
        }
    }

    /// To be called before it is looked at.
    pub fn taken(&self) {
        self.is_queued.store(false, Ordering::Release);
    }

    pub fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }
}

impl Wake for StreamWaker {
    fn wake(self: Arc<Self>) {
        self.queue();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.queue();
    }
}
