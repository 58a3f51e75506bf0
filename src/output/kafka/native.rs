//! The one place that calls librdkafka past the `rdkafka` crate: `rd_kafka_produce_batch`, which takes a lock and looks
//! the partition up once a batch instead of once a message. It knows neither headers nor timestamps.
use std::{
    ffi::{CString, c_void},
    ptr,
    sync::Arc,
};

use rdkafka::{
    producer::{BaseProducer, Producer as _},
    types::RDKafkaErrorCode,
};
use rdkafka_sys as sys;

use super::producer::Reports;

/// A topic as librdkafka knows it.
pub struct Topic {
    handle: *mut sys::rd_kafka_topic_t,
    /// Keeps the client alive for as long as the handle: declared after it, and `Drop` runs before either goes.
    _producer: Arc<BaseProducer<Reports>>,
}

// SAFETY: librdkafka's objects may be used from any thread (INTRODUCTION.md, "Threads and callbacks": "librdkafka is
// completely thread-safe"); the handle is reference counted inside and freed only in `Drop`, which has `&mut self`.
unsafe impl Send for Topic {}
// SAFETY: as above; `&Topic` only allows `produce`, which locks the topic inside librdkafka.
unsafe impl Sync for Topic {}

/// One message to produce. librdkafka copies key and payload.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    pub key: Option<&'a [u8]>,
    pub payload: &'a [u8],
    /// Comes back in the delivery report.
    pub opaque: usize,
}

impl Topic {
    /// The topic `name` of `producer`. `None` when librdkafka refuses the name.
    pub fn new(producer: &Arc<BaseProducer<Reports>>, name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: the client pointer is valid while `producer` lives, and this struct holds a clone of it. `name` is a
        // C string that librdkafka copies. A null configuration means the client's defaults.
        let handle = unsafe { sys::rd_kafka_topic_new(producer.client().native_ptr(), name.as_ptr(), ptr::null_mut()) };
        (!handle.is_null()).then(|| Self { handle, _producer: producer.clone() })
    }

    /// Puts `messages` into the queue of one partition, in order. Answers those not taken, by position, with the reason.
    /// After the first `QueueFull` none is taken, so the rest can be tried again later in the same order.
    pub fn produce<'a>(
        &self,
        partition: i32,
        messages: impl Iterator<Item = Outgoing<'a>>,
    ) -> Vec<(usize, RDKafkaErrorCode)> {
        let mut raw: Vec<sys::rd_kafka_message_t> = messages
            .map(|m| sys::rd_kafka_message_t {
                err: sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
                rkt: ptr::null_mut(),
                partition,
                payload: m.payload.as_ptr().cast_mut().cast::<c_void>(),
                len: m.payload.len(),
                key: m.key.map_or(ptr::null_mut(), |k| k.as_ptr().cast_mut().cast::<c_void>()),
                key_len: m.key.map_or(0, <[u8]>::len),
                offset: 0,
                _private: m.opaque as *mut c_void,
            })
            .collect();
        let count = i32::try_from(raw.len()).expect("a write holds far fewer than 2^31 messages");
        // SAFETY: `handle` is a live topic of a live client (see `new`). `raw` holds `count` initialised messages; the
        // call reads them, writes only their `err`, and keeps no pointer into `raw`. With `F_COPY` it copies every
        // key and payload before it returns and never writes through those pointers (`rd_kafka_msg_new0` does a
        // memcpy), so the shared borrows `'a`, alive until here, are enough. `_private` is carried, not followed.
        let taken = unsafe {
            sys::rd_kafka_produce_batch(self.handle, partition, sys::RD_KAFKA_MSG_F_COPY, raw.as_mut_ptr(), count)
        };
        if taken == count {
            return Vec::new();
        }
        raw.iter()
            .enumerate()
            .filter(|(_, m)| m.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR)
            .map(|(i, m)| (i, m.err.into()))
            .collect()
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: `handle` came from `rd_kafka_topic_new`, is released once, here, and the client is still alive.
        // Messages in flight hold their own reference to the topic.
        unsafe { sys::rd_kafka_topic_destroy(self.handle) }
    }
}
