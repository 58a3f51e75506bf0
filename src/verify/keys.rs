//! How often each key is in the table and in the topics, in bounded memory.
use std::collections::HashMap;

/// What is known of one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// Rows of the table.
    pub rows: u32,
    /// Rows of messages that the pipeline is done with.
    pub due: u32,
    /// Rows of messages that it has read, or will, and is not done with.
    pub ahead: u32,
    /// Which partition a message of it lies in, and where.
    pub place: u32,
    pub offset: i64,
}

impl Key {
    /// Rows that should be there and are not.
    pub fn missing(&self) -> u32 {
        self.due.saturating_sub(self.rows)
    }

    /// Rows that no message accounts for.
    pub fn surplus(&self) -> u32 {
        self.rows.saturating_sub(self.due).saturating_sub(self.ahead)
    }

    /// No message has this key.
    pub fn is_foreign(&self) -> bool {
        self.due == 0 && self.ahead == 0
    }
}

/// Every key, by its hash of 128 bits.
pub struct Keys {
    // Halves, since a whole one would pad each entry by 8 bytes.
    known: HashMap<[u64; 2], Key>,
    bytes_max: usize,
}

/// Bytes of one place of the map, with its byte of control.
const PLACE_BYTES: usize = size_of::<([u64; 2], Key)>() + 1;

impl Keys {
    /// Keys in at most so many bytes of memory.
    pub fn new(bytes_max: usize) -> Self {
        Self { known: HashMap::new(), bytes_max }
    }

    /// What is known of a key, to be changed.
    ///
    /// # Errors
    /// The memory is full.
    pub fn of(&mut self, hash: u128) -> Result<&mut Key, String> {
        if self.known.len() == self.known.capacity() {
            // The map doubles, and holds the old places until the new ones are filled. Of its places 7 in 8 are used.
            let places = self.known.capacity() / 7 * 8;
            if (places + places.max(4) * 2) * PLACE_BYTES > self.bytes_max {
                return Err(format!(
                    "the keys do not fit into {} bytes of memory: {} of them are known and more come; raise \
                     --memory-bytes-max, or leave out --by to compare counts alone",
                    self.bytes_max,
                    self.known.len()
                ));
            }
        }
        Ok(self.known.entry(halves(hash)).or_default())
    }

    /// What is known of a key, if anything is.
    pub fn get(&self, hash: u128) -> Option<&Key> {
        self.known.get(&halves(hash))
    }

    /// All keys with their hashes, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u128, &Key)> {
        self.known.iter().map(|([high, low], key)| ((u128::from(*high) << 64) | u128::from(*low), key))
    }
}

fn halves(hash: u128) -> [u64; 2] {
    [(hash >> 64) as u64, hash as u64]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stop_before_they_pass_their_memory() {
        let mut keys = Keys::new(1 << 20);
        let full = (0..).find(|&hash| keys.of(hash << 32).is_err()).unwrap();
        assert!((5_000..=17_000).contains(&full), "{full}");
        assert!(keys.known.capacity() / 7 * 8 * PLACE_BYTES <= 1 << 20);
        assert!(keys.of(full << 32).unwrap_err().contains("raise --memory-bytes-max"));
        assert!(
            keys.of(0).is_err() || keys.known.len() < keys.known.capacity(),
            "one that is known may be refused, too"
        );
        assert_eq!(keys.iter().map(|(hash, _)| hash >> 32).max(), Some(full - 1));
    }

    #[test]
    fn what_is_on_its_way_is_neither_missing_nor_surplus() {
        let key = |rows, due, ahead| Key { rows, due, ahead, ..Key::default() };
        for (key, expected) in [
            (key(1, 1, 0), (0, 0)),
            (key(0, 1, 0), (1, 0)),
            (key(2, 1, 0), (0, 1)),
            (key(0, 0, 1), (0, 0)),
            (key(1, 0, 1), (0, 0)),
            (key(2, 0, 1), (0, 1)),
            (key(1, 2, 1), (1, 0)),
            (key(1, 0, 0), (0, 1)),
        ] {
            assert_eq!((key.missing(), key.surplus()), expected, "{key:?}");
        }
        assert!(key(1, 0, 0).is_foreign() && !key(1, 0, 1).is_foreign());
    }
}
