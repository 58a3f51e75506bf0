//! Reason codes in words, with what to do about them.

/// MQTT 5 (2.4): one table for every packet that carries a reason.
pub fn words(code: u8) -> &'static str {
    match code {
        0x00 => "success",
        0x04 => "the broker left and had a will to publish",
        0x10 => "no subscriber",
        0x80 => "unspecified error; the broker's log may say more",
        0x81 => "the broker could not read a packet of ours",
        0x82 => "the broker calls it a protocol error",
        0x83 => "refused for a reason of the broker's own; its log may say more",
        0x84 => "this version of MQTT is not supported; set `protocol`",
        0x85 => "the client id is not allowed; set another `client_id`",
        0x86 => "wrong user name or password; check `username` and `password`",
        0x87 => "not authorized; give this user or client id the right in the broker",
        0x88 => "the broker is not available",
        0x89 => "the broker is busy",
        0x8a => "this client is banned; ask whoever runs the broker",
        0x8b => "the broker is shutting down",
        0x8c => "the broker wants another way to authenticate",
        0x8d => "the broker heard nothing from us for 1.5 times `keep_alive_s`",
        0x8e => "another client connected with the same `client_id`; give each its own",
        0x8f => "the topic filter is not allowed",
        0x90 => "the topic is not allowed",
        0x93 => "more messages in flight than agreed",
        0x94 => "a topic alias that was not agreed",
        0x95 => "a packet larger than agreed",
        0x96 => "too many messages a second",
        0x97 => "a quota of the broker is used up",
        0x98 => "closed by an administrator",
        0x99 => "the payload is not of the announced format",
        0x9a => "the broker keeps no retained messages; set `retain: false`",
        0x9b => "the broker does not offer this `qos`; set a lower one",
        0x9c => "the broker says: use another server for now",
        0x9d => "the broker has moved; change `url`",
        0x9e => "the broker knows no shared subscriptions (`$share/`)",
        0x9f => "too many connections a second",
        0xa0 => "the longest time of a connection is over",
        0xa1 => "the broker knows no subscription identifiers",
        0xa2 => "the broker allows no wildcards in topic filters",
        _ => "a reason that MQTT does not define",
    }
}

/// The MQTT 5 code for a return code of a 3.1.1 CONNACK.
pub fn from_v4(code: u8) -> u8 {
    match code {
        0 => 0x00,
        1 => 0x84,
        2 => 0x85,
        3 => 0x88,
        4 => 0x86,
        5 => 0x87,
        other => other.max(0x80),
    }
}
