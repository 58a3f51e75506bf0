//! Payloads are read once: what a scan has found stays with the batch, for every step that asks for it.
use std::{cell::RefCell, sync::Arc};

use crate::{
    codec::json::scan,
    message::{Batch, Documents, Layout, MessageRef, Scanned, Slot},
};

/// Scans every payload of `batch` with `layout`, unless that is done.
pub fn scan_batch(batch: &mut Batch, layout: &Arc<Layout>) {
    if batch.is_scanned(layout) {
        return;
    }
    let mut documents = Documents::with_capacity(layout.clone(), batch.len());
    for message in batch.iter() {
        documents.push(|slots| scan_payload(layout, message.payload(), slots));
    }
    batch.set_documents(documents);
}

/// Scans one payload into `slots`, which are `layout.len()`.
pub(super) fn scan_payload(layout: &Layout, payload: &[u8], slots: &mut [Slot]) -> Scanned {
    let Ok(json) = simdutf8::basic::from_utf8(payload) else { return Scanned::Other };
    match scan(layout, json, slots) {
        Ok(depth) => Scanned::Json { depth: u8::try_from(depth).unwrap_or(u8::MAX), complete: false },
        Err(error) if error.too_deep => Scanned::TooDeep,
        Err(_) => Scanned::Other,
    }
}

thread_local! {
    /// Slots of a payload that no step has scanned.
    static SLOTS: RefCell<Vec<Slot>> = const { RefCell::new(Vec::new()) };
}

/// Hands `read` the slots of one payload, which is JSON; answers `None` when it is not.
pub(super) fn with_slots<T>(
    message: MessageRef<'_>,
    layout: &Layout,
    read: impl FnOnce(&str, &[Slot]) -> T,
) -> Option<T> {
    let json = simdutf8::basic::from_utf8(message.payload()).ok()?;
    SLOTS.with_borrow_mut(|slots| {
        slots.clear();
        slots.resize(layout.len(), Slot::default());
        scan(layout, json, slots).is_ok().then(|| read(json, slots))
    })
}
