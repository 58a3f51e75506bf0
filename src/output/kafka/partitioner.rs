//! Which partition a message belongs to: as the Java client decides it, so that both can write to one topic.

/// Kafka's murmur2 (`org.apache.kafka.common.utils.Utils.murmur2`).
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("chunks of four"));
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (i, &byte) in rest.iter().enumerate() {
            h ^= u32::from(byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// The partition of a key among `count`, which is at least 1.
pub fn of_key(key: &[u8], count: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff) as i32 % count
}

/// Where messages without a key go: to one partition until a batch's worth is there, then to another. Full batches
/// compress better and cost less than a message here and a message there.
#[derive(Debug, Default)]
pub struct Sticky {
    at: usize,
    bytes: usize,
}

/// Bytes after which the partition changes, like `batch.size` of the Java client.
const STICKY_BYTES: usize = 16 << 10;

impl Sticky {
    /// The partition for a message of `bytes`, out of those that have a leader.
    pub fn next(&mut self, available: &[i32], bytes: usize) -> Option<i32> {
        if self.bytes >= STICKY_BYTES {
            self.bytes = 0;
            self.at = rand::random::<u32>() as usize;
        }
        self.bytes += bytes;
        Some(*available.get(self.at.checked_rem(available.len())?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_java_client() {
        // From Kafka's UtilsTest.
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, expected, "{key}");
        }
        assert_eq!(of_key(b"foobar", 12), (-790_332_482_i32 & i32::MAX) % 12);
    }

    #[test]
    fn without_a_key_messages_stay_together_and_avoid_partitions_without_leader() {
        let mut sticky = Sticky::default();
        let seen: Vec<_> = (0..1000).map(|_| sticky.next(&[1, 4], 1024).unwrap()).collect();
        assert!(seen.iter().all(|p| [1, 4].contains(p)));
        assert!(seen.contains(&1) && seen.contains(&4));
        assert!(seen.chunks(16).all(|c| c.iter().all(|p| *p == c[0])), "{seen:?}");
        assert_eq!(sticky.next(&[], 1), None);
    }
}
