//! What of an archive is handed out and what became of it: up to where all is done.
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::walk::{Piece, Plan, Selection};
use crate::ack::{Outcome, Settle};

/// A place in an archive: what stands before it is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    pub hour: Option<i64>,
    /// Name of the file.
    pub name: String,
    /// Number of the next message in it.
    pub row: u64,
}

/// How far a replay is; for whoever shows or saves it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Messages in the files that have to be looked at.
    total: AtomicU64,
    /// Of these, how many are done, and how many of them were wanted.
    done: AtomicU64,
    messages: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    position: Option<Position>,
    divided: HashSet<String>,
    fault: Option<String>,
}

impl Progress {
    /// Goes on where an earlier replay has stopped. `divided` names ranges that go out in pieces.
    pub fn resume(position: Option<Position>, divided: HashSet<String>) -> Self {
        Self { inner: Mutex::new(Inner { position, divided, fault: None }), ..Self::default() }
    }

    /// Messages done, of how many, and how many of them were wanted.
    pub fn counts(&self) -> (u64, u64, u64) {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        (get(&self.done), get(&self.total), get(&self.messages))
    }

    /// Up to where all is done.
    pub fn position(&self) -> Option<Position> {
        self.inner.lock().position.clone()
    }

    /// Ranges that go out in pieces.
    pub fn divided(&self) -> HashSet<String> {
        self.inner.lock().divided.clone()
    }

    /// Why reading has stopped.
    pub fn fault(&self) -> Option<String> {
        self.inner.lock().fault.clone()
    }

    pub(super) fn fail(&self, reason: String) {
        self.inner.lock().fault = Some(reason);
    }

    pub(super) fn plan(&self, plan: &Plan) {
        let done = self.position().map_or(0, |position| plan.rows_before(&position));
        self.total.store(plan.rows(), Ordering::Relaxed);
        self.done.store(done, Ordering::Relaxed);
    }
}

/// The open batches.
pub(super) struct Ledger {
    plan: Arc<Plan>,
    selection: Arc<Selection>,
    progress: Arc<Progress>,
    books: Mutex<Books>,
    changed: Notify,
}

#[derive(Default)]
struct Books {
    next: u64,
    open: HashMap<u64, Open>,
    /// Batches of the files in order. Those that are settled leave it at the front only.
    order: VecDeque<u64>,
    settled: HashMap<u64, About>,
    /// To be divided.
    again: VecDeque<u64>,
}

/// What must be known of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    pub part: usize,
    pub first: u64,
    pub end: u64,
    pub messages: u64,
}

struct Open {
    about: About,
    /// It is a piece of this one.
    parent: Option<u64>,
    /// So many pieces of it are open.
    left: usize,
}

impl From<&Piece> for About {
    fn from(piece: &Piece) -> Self {
        Self { part: piece.part, first: piece.first, end: piece.end, messages: piece.messages }
    }
}

impl Ledger {
    pub fn new(plan: Arc<Plan>, progress: Arc<Progress>, selection: Arc<Selection>) -> Self {
        Self { plan, selection, progress, books: Mutex::default(), changed: Notify::new() }
    }

    /// Takes a batch of the files into account; answers its token.
    pub fn track(&self, piece: &Piece) -> u64 {
        let books = &mut *self.books.lock();
        let token = books.open(About::from(piece), None);
        books.order.push_back(token);
        token
    }

    /// The pieces of a batch take its place.
    pub fn divide(&self, parent: u64, pieces: Vec<Piece>) -> Vec<(u64, Piece)> {
        let books = &mut *self.books.lock();
        if let Some(open) = books.open.get_mut(&parent) {
            open.left = pieces.len();
        }
        pieces.into_iter().map(|piece| (books.open(About::from(&piece), Some(parent)), piece)).collect()
    }

    /// A batch that is to be divided.
    pub fn again(&self) -> Option<(u64, About)> {
        let books = &mut *self.books.lock();
        let token = books.again.pop_front()?;
        Some((token, books.open.get(&token)?.about))
    }

    /// True when nothing is open.
    pub fn is_idle(&self) -> bool {
        self.books.lock().open.is_empty()
    }

    /// Waits until a batch was settled.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Counts what is done from the beginning on without a gap.
    fn advance(&self, books: &mut Books) {
        while let Some(about) = books.order.front().and_then(|token| books.settled.remove(token)) {
            books.order.pop_front();
            let position = self.plan.position(about.part, about.end);
            self.progress.done.store(self.plan.rows_before(&position), Ordering::Relaxed);
            self.progress.messages.fetch_add(about.messages, Ordering::Relaxed);
            self.progress.inner.lock().position = Some(position);
        }
    }
}

impl Books {
    fn open(&mut self, about: About, parent: Option<u64>) -> u64 {
        let token = self.next;
        self.next += 1;
        self.open.insert(token, Open { about, parent, left: 0 });
        token
    }

    fn delivered(&mut self, token: u64) {
        let Some(Open { about, parent, .. }) = self.open.remove(&token) else { return };
        match parent {
            None => drop(self.settled.insert(token, about)),
            Some(parent) => {
                let Some(open) = self.open.get_mut(&parent) else { return };
                open.left = open.left.saturating_sub(1);
                if open.left == 0 {
                    self.delivered(parent);
                }
            }
        }
    }
}

impl Settle for Ledger {
    fn settle(&self, token: u64, outcome: Outcome) {
        let books = &mut *self.books.lock();
        match outcome {
            Outcome::Delivered => {
                books.delivered(token);
                self.advance(books);
            }
            Outcome::Divide => {
                if let Some(Open { about, .. }) = books.open.get(&token) {
                    let name = self.plan.name(&self.selection, about.part, about.first, about.end);
                    self.progress.inner.lock().divided.insert(name);
                    books.again.push_back(token);
                }
            }
            // It stays open: the pipeline stops, and the next replay starts before it.
            Outcome::Undelivered => {}
        }
        self.changed.notify_one();
    }
}
