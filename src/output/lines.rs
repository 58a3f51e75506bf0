//! Messages as lines of text.
//!
//! A payload with a line end in it would come out as two messages. JSON is written without the white space between its
//! values, so it has none; any other payload with a line end is rejected.
use super::{Parcel, Rejection, WriteError};
use crate::codec::json;

/// The lines of a parcel, and what became of the messages that are none.
pub(super) fn frame(parcel: &Parcel) -> (Vec<u8>, Result<(), WriteError>) {
    let mut out = Vec::with_capacity(parcel.bytes() + parcel.len());
    let mut rejected = Vec::new();
    for (index, message) in parcel.iter().enumerate() {
        let payload = message.payload();
        if memchr::memchr2(b'\n', b'\r', payload).is_none() {
            out.extend_from_slice(payload);
        } else if !compact(payload, &mut out) {
            rejected.push(Rejection {
                index: index as u32,
                code: "newline-in-line".to_owned(),
                reason: "the payload has a line end in it and is not JSON, so it cannot be written as one line"
                    .to_owned(),
            });
            continue;
        }
        out.push(b'\n');
    }
    (out, WriteError::rejected(rejected).into_result())
}

/// Appends JSON on one line. Answers false, and appends nothing, when it is not JSON.
fn compact(payload: &[u8], out: &mut Vec<u8>) -> bool {
    simdutf8::basic::from_utf8(payload).is_ok_and(|text| json::compact(text, out).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::parcel;

    #[test]
    fn every_message_is_one_line_or_rejected() {
        let (out, result) = frame(&parcel(&["{ \"a\": 1 }", "{\n \"a b\":\r\n 1.10 }", "a\nb", "plain", ""]));
        assert_eq!(String::from_utf8(out).unwrap(), "{ \"a\": 1 }\n{\"a b\":1.10}\nplain\n\n");
        let rejected = result.unwrap_err().rejected;
        assert_eq!(rejected.iter().map(|r| (r.index, r.code.as_str())).collect::<Vec<_>>(), [(2, "newline-in-line")]);
    }
}
