//! One message of an archive, and its form in a segment.
use crate::message::MessageRef;

/// A message as it was received.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Empty where the input has none.
    pub topic: &'a str,
    pub key: Option<&'a [u8]>,
    /// -1 where there is none.
    pub partition: i32,
    /// -1 where there is none.
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    pub received_at_ms: i64,
    pub qos: u8,
    pub retain: bool,
    /// Name of the component that read it.
    pub input: &'a str,
    pub headers: Headers<'a>,
    pub payload: &'a [u8],
}

/// Names and values of a message's headers, in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    count: u32,
    bytes: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        let (name, value) = (number(&mut self.bytes)? as usize, number(&mut self.bytes)? as usize);
        Some((text(take(&mut self.bytes, name)?)?, take(&mut self.bytes, value)?))
    }
}

const HAS_KEY: u8 = 1;
const HAS_TIMESTAMP: u8 = 2;
const RETAIN: u8 = 4;

impl<'a> Row<'a> {
    /// Appends a message.
    pub fn write(message: MessageRef<'_>, out: &mut Vec<u8>) {
        let (source, origin) = (message.source(), message.origin());
        let (topic, key, input) = (message.topic(), message.key(), source.input());
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let flags = flag(key.is_some(), HAS_KEY)
            | flag(origin.timestamp_ms.is_some(), HAS_TIMESTAMP)
            | flag(origin.retain, RETAIN);
        let key = key.unwrap_or_default();
        out.extend_from_slice(&[flags, origin.qos]);
        out.extend_from_slice(&origin.received_at_ms.to_le_bytes());
        out.extend_from_slice(&origin.timestamp_ms.unwrap_or_default().to_le_bytes());
        out.extend_from_slice(&origin.partition.to_le_bytes());
        out.extend_from_slice(&origin.offset.to_le_bytes());
        // Each lies in an arena of at most 4 GiB.
        let length = |out: &mut Vec<u8>, bytes: usize| out.extend_from_slice(&(bytes as u32).to_le_bytes());
        length(out, topic.len());
        length(out, input.len());
        length(out, key.len());
        length(out, message.payload().len());
        let headers_at = out.len();
        out.extend_from_slice(&[0; 8]);
        let mut count = 0_u32;
        for (name, value) in message.headers() {
            length(out, name.len());
            length(out, value.len());
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(value);
            count += 1;
        }
        let header_bytes = (out.len() - headers_at - 8) as u32;
        out[headers_at..][..4].copy_from_slice(&count.to_le_bytes());
        out[headers_at + 4..][..4].copy_from_slice(&header_bytes.to_le_bytes());
        for part in [topic.as_bytes(), input.as_bytes(), key, message.payload()] {
            out.extend_from_slice(part);
        }
    }

    /// Takes the next message off the front; `None` when it is cut off or no message at all.
    pub fn read(from: &mut &'a [u8]) -> Option<Self> {
        let [flags, qos] = *array(from)?;
        let received_at_ms = i64::from_le_bytes(*array(from)?);
        let timestamp_ms = i64::from_le_bytes(*array(from)?);
        let partition = i32::from_le_bytes(*array(from)?);
        let offset = i64::from_le_bytes(*array(from)?);
        let (topic, input, key) = (number(from)? as usize, number(from)? as usize, number(from)? as usize);
        let payload = number(from)? as usize;
        let (count, header_bytes) = (number(from)?, number(from)? as usize);
        let headers = Headers { count, bytes: take(from, header_bytes)? };
        let topic = text(take(from, topic)?)?;
        let input = text(take(from, input)?)?;
        let key = Some(take(from, key)?).filter(|_| flags & HAS_KEY != 0);
        Some(Self {
            topic,
            key,
            partition,
            offset,
            timestamp_ms: (flags & HAS_TIMESTAMP != 0).then_some(timestamp_ms),
            received_at_ms,
            qos,
            retain: flags & RETAIN != 0,
            input,
            headers,
            payload: take(from, payload)?,
        })
    }
}

fn array<'a, const N: usize>(from: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(first)
}

fn number(from: &mut &[u8]) -> Option<u32> {
    array(from).map(|bytes| u32::from_le_bytes(*bytes))
}

fn take<'a>(from: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (first, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(first)
}

fn text(bytes: &[u8]) -> Option<&str> {
    simdutf8::basic::from_utf8(bytes).ok()
}
