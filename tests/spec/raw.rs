//! Packets as bytes, right and wrong ones.

#![allow(dead_code, reason = "each standard uses its part")]

/// A packet: first byte, remaining length, the parts of the rest.
pub fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&[first][..], &varint(body.len() as u32), &body].concat()
}

/// A variable byte integer in its shortest form.
pub fn varint(mut n: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let more = n >= 0x80;
        bytes.push((n & 0x7F) as u8 | if more { 0x80 } else { 0 });
        n >>= 7;
        if !more {
            return bytes;
        }
    }
}

/// Two bytes, the high one first.
pub fn two(n: u16) -> Vec<u8> {
    n.to_be_bytes().to_vec()
}

/// A string or binary data: its length in two bytes, and the bytes, well-formed or not.
pub fn text(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let len = u16::try_from(bytes.len()).expect("it fits the length");
    [&len.to_be_bytes()[..], bytes].concat()
}

/// A property length and properties.
pub fn properties(list: &[&[u8]]) -> Vec<u8> {
    let all = list.concat();
    [varint(all.len() as u32), all].concat()
}

/// A property of one byte.
pub fn p_byte(id: u8, value: u8) -> Vec<u8> {
    vec![id, value]
}

/// A property of two bytes.
pub fn p_two(id: u8, value: u16) -> Vec<u8> {
    [vec![id], two(value)].concat()
}

/// A property of four bytes.
pub fn p_four(id: u8, value: u32) -> Vec<u8> {
    [&[id][..], &value.to_be_bytes()].concat()
}

/// A property that is a string or binary data.
pub fn p_text(id: u8, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![id], text(value)].concat()
}

/// A User Property.
pub fn p_user(name: &str, value: &str) -> Vec<u8> {
    [vec![0x26], text(name), text(value)].concat()
}
