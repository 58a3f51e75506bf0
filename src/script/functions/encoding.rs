//! Encodings, hashes and ids.
use bumpalo::Bump;
use data_encoding::{BASE64, BASE64URL_NOPAD, Encoding, HEXLOWER, HEXLOWER_PERMISSIVE};
use sha2::{Digest as _, Sha256};
use uuid::{Uuid, timestamp::context::NoContext};
use xxhash_rust::xxh3::xxh3_64;

use super::{Arguments, Function, Group, TEXT_BYTES_MAX, kind, numbers::of_text, text_of};
use crate::{
    codec::json::{self, Kind, NotJson, Reader},
    script::{clock, value::Value},
};

pub(super) const ALL: &[Function] = &[
    Function {
        name: "to_json",
        group: Group::Encoding,
        signature: "to_json(x)",
        summary: "Any value as JSON text.",
        example: "to_json(#{ a: [1, true, ()] })",
        gives: "\"{\\\"a\\\":[1,true,null]}\"",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| to_json("to_json", values[0], bump),
    },
    Function {
        name: "parse_json",
        group: Group::Encoding,
        signature: "parse_json(text)",
        summary: "The value of a JSON text. What is not JSON is an error.",
        example: "parse_json(`{\"a\": [1.5, null]}`).a",
        gives: "[1.5, null]",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| {
            let text = Arguments { name: "parse_json", values }.text(0)?;
            let mut reader = Reader::new(text);
            read_json(&mut reader, bump)
                .and_then(|value| reader.end().map(|()| value))
                .map_err(|error| format!("not JSON: {error}"))
        },
    },
    Function {
        name: "to_hex",
        group: Group::Encoding,
        signature: "to_hex(text)",
        summary: "The bytes of a text as hexadecimal digits.",
        example: "to_hex(\"°C\")",
        gives: "\"c2b043\"",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| encode(Arguments { name: "to_hex", values }, &HEXLOWER, bump),
    },
    Function {
        name: "from_hex",
        group: Group::Encoding,
        signature: "from_hex(text)",
        summary: "The text whose bytes are these hexadecimal digits. Bytes that are not UTF-8 are an error: see `bytes_int`.",
        example: "from_hex(\"C2B043\")",
        gives: "\"°C\"",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| decode(Arguments { name: "from_hex", values }, &HEXLOWER_PERMISSIVE, bump),
    },
    Function {
        name: "to_base64",
        group: Group::Encoding,
        signature: "to_base64(text)",
        summary: "The bytes of a text in Base64.",
        example: "to_base64(\"hello?\")",
        gives: "\"aGVsbG8/\"",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| encode(Arguments { name: "to_base64", values }, &BASE64, bump),
    },
    Function {
        name: "from_base64",
        group: Group::Encoding,
        signature: "from_base64(text)",
        summary: "The text that is given in Base64. Bytes that are not UTF-8 are an error: see `bytes_int`.",
        example: "from_base64(\"aGVsbG8/\")",
        gives: "\"hello?\"",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| decode(Arguments { name: "from_base64", values }, &BASE64, bump),
    },
    Function {
        name: "to_base64url",
        group: Group::Encoding,
        signature: "to_base64url(text)",
        summary: "The bytes of a text in the Base64 of addresses and file names, without padding.",
        example: "to_base64url(\"hello?\")",
        gives: "\"aGVsbG8_\"",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| encode(Arguments { name: "to_base64url", values }, &BASE64URL_NOPAD, bump),
    },
    Function {
        name: "from_base64url",
        group: Group::Encoding,
        signature: "from_base64url(text)",
        summary: "The text that is given in the Base64 of addresses, without padding.",
        example: "from_base64url(\"aGVsbG8_\")",
        gives: "\"hello?\"",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| decode(Arguments { name: "from_base64url", values }, &BASE64URL_NOPAD, bump),
    },
    Function {
        name: "bytes_int",
        group: Group::Encoding,
        signature: "bytes_int(hex, start, count, kind)",
        summary: "The whole number in 1 to 8 bytes of a binary payload that is given in hexadecimal digits. `kind`: `u` without, \
                  `i` with a sign, then `be` for the high byte first or `le` for the low one. LoRaWAN and Modbus payloads \
                  are read with it.",
        example: "[bytes_int(\"00d7ff38\", 0, 2, \"ube\"), bytes_int(\"00d7ff38\", 2, 2, \"ibe\"), bytes_int(\"d700\", 0, 2, \"ule\")]",
        gives: "[215, -200, 215]",
        arguments: 4..=4,
        pure: true,
        run: |values, _| {
            let arguments = Arguments { name: "bytes_int", values };
            let (text, start, count) =
                (arguments.text(0)?, arguments.count(1, 0..=65_535)?, arguments.count(2, 1..=8)?);
            let digits = text.get(start * 2..(start + count) * 2).ok_or_else(|| {
                format!(
                    "`bytes_int` looks for bytes {start} to {}, and there are {}",
                    start + count - 1,
                    text.len() / 2
                )
            })?;
            let mut bytes = [0; 8];
            HEXLOWER_PERMISSIVE
                .decode_mut(digits.as_bytes(), &mut bytes[..count])
                .map_err(|_| "`bytes_int` takes a text of hexadecimal digits".to_owned())?;
            let bytes = &bytes[..count];
            let sum = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
            let (signed, value) = match arguments.text(3)? {
                "ube" => (false, bytes.iter().fold(0, sum)),
                "ibe" => (true, bytes.iter().fold(0, sum)),
                "ule" => (false, bytes.iter().rev().fold(0, sum)),
                "ile" => (true, bytes.iter().rev().fold(0, sum)),
                other => return Err(format!("`bytes_int` takes `ube`, `ibe`, `ule` or `ile`, not `{other}`")),
            };
            let unused = 64 - 8 * count as u32;
            if signed {
                return Ok(Value::Int((value << unused).cast_signed() >> unused));
            }
            i64::try_from(value)
                .map(Value::Int)
                .map_err(|_| format!("`bytes_int` read {value}, which needs 64 bits without a sign"))
        },
    },
    Function {
        name: "url_encode",
        group: Group::Encoding,
        signature: "url_encode(text)",
        summary: "The text as a part of an address or query, with `%` escapes.",
        example: "url_encode(\"a b/°\")",
        gives: "\"a%20b%2F%C2%B0\"",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| {
            let text = Arguments { name: "url_encode", values }.text(0)?;
            let mut out = bumpalo::collections::String::with_capacity_in(text.len(), bump);
            for byte in text.bytes() {
                match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
                    _ => {
                        out.push('%');
                        out.extend(
                            [byte >> 4, byte & 15].map(|nibble| char::from(b"0123456789ABCDEF"[usize::from(nibble)])),
                        );
                    }
                }
            }
            if out.len() > TEXT_BYTES_MAX {
                return Err(format!("`url_encode` would make a text of more than {TEXT_BYTES_MAX} bytes"));
            }
            Ok(Value::Text(out.into_bump_str()))
        },
    },
    Function {
        name: "url_decode",
        group: Group::Encoding,
        signature: "url_decode(text)",
        summary: "The text without its `%` escapes. Bytes that are not UTF-8 are an error.",
        example: "url_decode(\"a%20b%2F%C2%B0\")",
        gives: "\"a b/°\"",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| {
            let text = Arguments { name: "url_decode", values }.text(0)?.as_bytes();
            let mut out = bumpalo::collections::Vec::with_capacity_in(text.len(), bump);
            let mut at = 0;
            while at < text.len() {
                let digit = |offset: usize| text.get(at + offset).and_then(|byte| char::from(*byte).to_digit(16));
                match (text[at], digit(1), digit(2)) {
                    (b'%', Some(high), Some(low)) => {
                        out.push((high * 16 + low) as u8);
                        at += 3;
                    }
                    (byte, ..) => {
                        out.push(byte);
                        at += 1;
                    }
                }
            }
            let text = simdutf8::basic::from_utf8(out.into_bump_slice());
            text.map(Value::Text).map_err(|_| "`url_decode` gives bytes that are not UTF-8".to_owned())
        },
    },
    Function {
        name: "sha256",
        group: Group::Hashes,
        signature: "sha256(text)",
        summary: "The SHA-256 of a text, as 64 hexadecimal digits.",
        example: "sha256(\"abc\")",
        gives: "\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| {
            let text = Arguments { name: "sha256", values }.text(0)?;
            let mut digits = [0; 64];
            HEXLOWER.encode_mut(&Sha256::digest(text), &mut digits);
            let digits = std::str::from_utf8(&digits).map_err(|_| String::new())?;
            Ok(Value::Text(bump.alloc_str(digits)))
        },
    },
    Function {
        name: "xxh3",
        group: Group::Hashes,
        signature: "xxh3(text)",
        summary: "The 64-bit XXH3 of a text, as 16 hexadecimal digits. Quick; not for secrets.",
        example: "xxh3(\"abc\")",
        gives: "\"78af5f94892f3950\"",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| {
            let text = Arguments { name: "xxh3", values }.text(0)?;
            let mut digits = [0; 16];
            HEXLOWER.encode_mut(&xxh3_64(text.as_bytes()).to_be_bytes(), &mut digits);
            let digits = std::str::from_utf8(&digits).map_err(|_| String::new())?;
            Ok(Value::Text(bump.alloc_str(digits)))
        },
    },
    Function {
        name: "shard",
        group: Group::Hashes,
        signature: "shard(text, count)",
        summary: "A number from 0 up to `count`, not included, always the same for the same text: the remainder of its XXH3.",
        example: "shard(\"phone-7\", 4)",
        gives: "1",
        arguments: 2..=2,
        pure: true,
        run: |values, _| {
            let arguments = Arguments { name: "shard", values };
            let (text, count) = (arguments.text(0)?, arguments.count(1, 1..=i64::MAX)?);
            Ok(Value::Int((xxh3_64(text.as_bytes()) % count as u64).cast_signed()))
        },
    },
    Function {
        name: "uuid",
        group: Group::Hashes,
        signature: "uuid()",
        summary: "A random UUID, version 4.",
        example: "uuid()",
        gives: "",
        arguments: 0..=0,
        pure: false,
        run: |_, bump| Ok(uuid_text(Uuid::new_v4(), bump)),
    },
    Function {
        name: "uuid_v7",
        group: Group::Hashes,
        signature: "uuid_v7()",
        summary: "A UUID that starts with the time of `now_ms()`, version 7: later ones sort after earlier ones.",
        example: "uuid_v7()",
        gives: "",
        arguments: 0..=0,
        pure: false,
        run: |_, bump| {
            let ms = u64::try_from(clock::now_ms()).unwrap_or(0);
            let at = uuid::Timestamp::from_unix(NoContext, ms / 1000, (ms % 1000) as u32 * 1_000_000);
            Ok(uuid_text(Uuid::new_v7(at), bump))
        },
    },
    Function {
        name: "uuid_of",
        group: Group::Hashes,
        signature: "uuid_of(text)",
        summary: "The UUID of a text, version 8, made of its SHA-256: the same text has the same one. As an id, it makes \
                  messages that come twice tell-tale.",
        example: "uuid_of(\"abc\")",
        gives: "\"ba7816bf-8f01-8fea-8141-40de5dae2223\"",
        arguments: 1..=1,
        pure: true,
        run: |values, bump| {
            let digest = Sha256::digest(Arguments { name: "uuid_of", values }.text(0)?);
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&digest[..16]);
            // Version and variant have their places (RFC 9562, section 5.8).
            bytes[6] = bytes[6] & 0x0f | 0x80;
            bytes[8] = bytes[8] & 0x3f | 0x80;
            Ok(uuid_text(Uuid::from_bytes(bytes), bump))
        },
    },
];

fn uuid_text(uuid: Uuid, bump: &Bump) -> Value<'_> {
    Value::Text(bump.alloc_str(uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer())))
}

fn encode<'a>(arguments: Arguments<'_, 'a>, encoding: &Encoding, bump: &'a Bump) -> Result<Value<'a>, String> {
    let bytes = arguments.text(0)?.as_bytes();
    let length = encoding.encode_len(bytes.len());
    if length > TEXT_BYTES_MAX {
        return Err(format!("`{}` would make a text of more than {TEXT_BYTES_MAX} bytes", arguments.name));
    }
    let out = bump.alloc_slice_fill_copy(length, 0);
    encoding.encode_mut(bytes, out);
    std::str::from_utf8(out).map(Value::Text).map_err(|error| error.to_string())
}

fn decode<'a>(arguments: Arguments<'_, 'a>, encoding: &Encoding, bump: &'a Bump) -> Result<Value<'a>, String> {
    let text = arguments.text(0)?.as_bytes();
    let bad = |at: usize| format!("`{}` cannot read its text: something else stands at byte {at}", arguments.name);
    let length = encoding.decode_len(text.len()).map_err(|error| bad(error.position))?;
    let out = bump.alloc_slice_fill_copy(length, 0);
    let length = encoding.decode_mut(text, out).map_err(|partial| bad(partial.error.position))?;
    let not_utf8 =
        |_| format!("`{}` gives bytes that are not UTF-8; `bytes_int` reads numbers from bytes", arguments.name);
    simdutf8::basic::from_utf8(&out[..length]).map(Value::Text).map_err(not_utf8)
}

/// Any value as JSON text, for the function `name`.
pub(super) fn to_json<'a>(name: &str, value: Value<'_>, bump: &'a Bump) -> Result<Value<'a>, String> {
    let mut out = Vec::new();
    write_json(value, &mut out, 0).map_err(|what| format!("`{name}` cannot write {what} as JSON"))?;
    let text = std::str::from_utf8(&out).map_err(|error| error.to_string())?;
    text_of(name, text, bump)
}

fn write_json(value: Value<'_>, out: &mut Vec<u8>, depth: usize) -> Result<(), String> {
    if depth == json::DEPTH_MAX || out.len() > TEXT_BYTES_MAX {
        return Err("a value that is nested so deep, or is so large,".to_owned());
    }
    match value {
        Value::Unit => out.extend_from_slice(b"null"),
        Value::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        Value::Int(value) => json::integer(value, out),
        Value::Float(value) => json::float(value, out).map_err(|_| format!("`{value}`"))?,
        Value::Big(text) => out.extend_from_slice(text.as_bytes()),
        Value::Text(text) => {
            json::string(text, out);
        }
        Value::List(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_json(*item, out, depth + 1)?;
            }
            out.push(b']');
        }
        Value::Map(members) => {
            out.push(b'{');
            for (at, (name, value)) in members.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                json::string(name, out);
                out.push(b':');
                write_json(*value, out, depth + 1)?;
            }
            out.push(b'}');
        }
        Value::Other(_) => return Err(kind(value).to_owned()),
    }
    Ok(())
}

fn read_json<'a>(reader: &mut Reader<'a>, bump: &'a Bump) -> Result<Value<'a>, NotJson> {
    Ok(match reader.value()? {
        Kind::Null => Value::Unit,
        Kind::Bool(value) => Value::Bool(value),
        Kind::Number(number) => of_text(number.text, number.integer),
        Kind::String(text) if text.is_escaped() => Value::Text(bump.alloc_str(&text.decode())),
        Kind::String(text) => Value::Text(text.raw()),
        Kind::Array => {
            let mut items = bumpalo::collections::Vec::new_in(bump);
            while reader.next_item(items.is_empty())? {
                items.push(read_json(reader, bump)?);
            }
            Value::List(items.into_bump_slice())
        }
        Kind::Object => {
            let mut members: bumpalo::collections::Vec<'_, (&str, Value<'_>)> = bumpalo::collections::Vec::new_in(bump);
            while let Some(key) = reader.next_key(members.is_empty())? {
                let key = if key.is_escaped() { bump.alloc_str(&key.decode()) } else { key.raw() };
                members.push((key, read_json(reader, bump)?));
            }
            // Stable: of members with the same name the last one stays last, and counts.
            members.sort_by(|a, b| a.0.cmp(b.0));
            members.reverse();
            members.dedup_by(|a, b| a.0 == b.0);
            members.reverse();
            Value::Map(members.into_bump_slice())
        }
    })
}
