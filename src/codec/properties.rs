//! The properties of one packet, as they stand on the wire, and a builder for them.

use super::packet_type::Places;
use super::property::{AUTHENTICATION_DATA, AUTHENTICATION_METHOD, Kind, row, unknown};
use super::read::Reader;
use super::{DecodeError, PacketType, Property};
use crate::limits::REMAINING_LENGTH_MAX;
use std::fmt;

/// The properties of a packet or of a will, checked, in their wire form without the length in front.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Properties<'a>(&'a [u8]);

/// Which properties a packet holds: bit `id` for each; identifiers end at 0x2A.
pub(super) type Seen = u64;

impl<'a> Properties<'a> {
    /// None.
    pub const EMPTY: Properties<'static> = Properties(&[]);

    /// Properties in their wire form, without the length in front, as a packet of this type may hold them.
    /// For what was kept of a message: [`PacketType::Publish`].
    ///
    /// # Errors
    /// As [`super::decode`] has them for properties.
    pub fn parse(raw: &'a [u8], packet: PacketType) -> Result<Properties<'a>, DecodeError> {
        check(raw, packet.place()).map(|_| Properties(raw))
    }

    /// The wire form, without the length in front.
    pub fn raw(&self) -> &'a [u8] {
        self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes in their wire form, without the length in front.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Each in turn, in the order of the wire.
    pub fn iter(&self) -> PropertyIter<'a> {
        PropertyIter(Reader::new(self.0))
    }

    /// Those from one boundary between properties to another.
    pub(super) fn between(&self, start: usize, end: usize) -> Properties<'a> {
        Properties(self.0.get(start..end).expect("both are boundaries, in order"))
    }

    /// Reads a length and properties, which may stand in `place`, and says which there are.
    #[inline]
    pub(super) fn read(from: &mut Reader<'a>, place: Places) -> Result<(Properties<'a>, Seen), DecodeError> {
        let len = from.varint()?;
        let raw = from.take(len as usize)?;
        let seen = if raw.is_empty() { 0 } else { check(raw, place)? };
        Ok((Properties(raw), seen))
    }
}

/// The rules of the standard for properties in `place`: an identifier that has no place there is malformed
/// [MQTT-2.2.2.2 of 5.0], one that stands there twice a protocol error.
fn check(raw: &[u8], place: Places) -> Result<Seen, DecodeError> {
    let mut from = Reader::new(raw);
    let mut seen: Seen = 0;
    while !from.is_empty() {
        let id = from.u8()?;
        let row = row(id).ok_or_else(|| unknown(id))?;
        if row.places & place == 0 {
            return Err(DecodeError::malformed("a property that may stand here", row.name));
        }
        let bit = 1 << id;
        if seen & bit != 0 && row.repeats & place == 0 {
            return Err(DecodeError::protocol("a property at most once", row.name));
        }
        seen |= bit;
        Property::read(id, &mut from)?.check()?;
    }
    if seen & 1 << AUTHENTICATION_DATA != 0 && seen & 1 << AUTHENTICATION_METHOD == 0 {
        return Err(DecodeError::protocol("Authentication Data only with a method", "no method"));
    }
    Ok(seen)
}

impl<'a> IntoIterator for Properties<'a> {
    type Item = Property<'a>;
    type IntoIter = PropertyIter<'a>;

    fn into_iter(self) -> PropertyIter<'a> {
        self.iter()
    }
}

impl fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// See [`Properties::iter`].
#[derive(Clone, Debug)]
pub struct PropertyIter<'a>(Reader<'a>);

impl<'a> Iterator for PropertyIter<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Property<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let property = self.0.u8().and_then(|id| Property::read(id, &mut self.0));
        Some(property.expect("properties were checked when they were made"))
    }
}

/// Each property as identifier and wire form, without a look at its strings.
pub(super) struct RawIter<'a>(&'a [u8]);

impl<'a> RawIter<'a> {
    pub fn new(properties: Properties<'a>) -> RawIter<'a> {
        RawIter(properties.0)
    }
}

impl<'a> Iterator for RawIter<'a> {
    /// Identifier; identifier and fields as on the wire.
    type Item = (u8, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        if self.0.is_empty() {
            return None;
        }
        let (id, len) = raw_len(self.0).expect("properties were checked when they were made");
        let (whole, rest) = self.0.split_at(len);
        self.0 = rest;
        Some((id, whole))
    }
}

/// The first property's identifier, and its bytes with the identifier.
#[inline]
fn raw_len(raw: &[u8]) -> Result<(u8, usize), DecodeError> {
    let mut from = Reader::new(raw);
    let id = from.u8()?;
    let row = row(id).ok_or_else(|| unknown(id))?;
    for kind in row.fields {
        match kind {
            Kind::Byte => from.u8().map(drop)?,
            Kind::Two => from.u16().map(drop)?,
            Kind::Four => from.u32().map(drop)?,
            Kind::VarInt => from.varint().map(drop)?,
            Kind::Text | Kind::Binary => from.binary().map(drop)?,
        }
    }
    Ok((id, raw.len() - from.left()))
}

/// Properties that are being put together.
#[derive(Clone, Debug, Default)]
pub struct PropertyBuf(Vec<u8>);

impl PropertyBuf {
    /// None yet.
    pub fn new() -> PropertyBuf {
        PropertyBuf::default()
    }

    /// Adds one and says whether it did: not where the standard forbids the value, a string or binary data
    /// is longer than 65,535 bytes, a string holds U+0000, or all would be longer than a packet can be.
    /// Which property may stand where, and how often, is the caller's to know.
    pub fn push(&mut self, property: Property<'_>) -> bool {
        if !property.fits() || property.check().is_err() {
            return false;
        }
        let before = self.0.len();
        property.write(&mut self.0);
        if self.0.len() > REMAINING_LENGTH_MAX as usize {
            self.0.truncate(before);
            return false;
        }
        true
    }

    /// What was added.
    pub fn as_properties(&self) -> Properties<'_> {
        Properties(&self.0)
    }

    /// Bytes so far, without the length in front.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes back what was added since [`PropertyBuf::len`] was `len`. Other lengths would cut a property in
    /// two, so they are rounded down to the end of one.
    pub fn truncate(&mut self, len: usize) {
        let mut end = 0;
        for (_, whole) in RawIter(&self.0) {
            if end + whole.len() > len {
                break;
            }
            end += whole.len();
        }
        self.0.truncate(end);
    }
}
