//! Enhanced authentication [4.12 of 5.0]: what a client proves in several packets, at CONNECT and again later.
//!
//! ```text
//!   CONNECT (method, data) ──► begun ── AUTH 0x18 ──► AUTH 0x18 (data) ──► proven ──► CONNACK (method, data)
//!   AUTH 0x19 (method, data) ──► begun ── AUTH 0x18 ──► AUTH 0x18 (data) ──► AUTH 0x00 (method, data)
//! ```
//!
//! A CONNECT is kept as its bytes meanwhile, and handled as any other once its client has proven who it is.

use super::{Fault, Handover, Next, Shard};
use crate::auth::Backoff;
use crate::auth::scram::{Exchange, METHOD, Proven};
use crate::codec::{Auth, Connect, Packet, Properties, Property, PropertyBuf, ReasonCode, Version, decode};
use crate::heap::{allocated, map_bytes};
use crate::io::{Conn, Io};
use crate::limits::{AUTH_WAIT_MS, AUTH_WAITING_MAX};
use crate::map::{Map, Slot};
use crate::session::Refusal;
use crate::time::Moment;
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

/// What is said of a client that does not prove who it is.
const UNPROVEN: &str = "expected a proof of the password";
const NO_DATA: &str = "expected AUTH with the method of CONNECT and data";

const HELD_OFF: Unproven = Unproven {
    code: ReasonCode::CONNECTION_RATE_EXCEEDED,
    text: "expected a pause after too many wrong passwords for this name or from this address",
};

/// Who authenticates in several steps; nothing where nobody does.
#[derive(Default)]
pub(super) struct Exchanges {
    open: Map<Slot, Box<Open>>,
    /// Who has done so, for as long as it is connected.
    proven: Map<Slot, Box<str>>,
    /// What the CONNECT at hand has proven.
    pub fresh: Option<Proven>,
    backoff: Option<Box<Backoff>>,
}

/// An exchange that has begun.
struct Open {
    exchange: Exchange,
    /// Once it is there.
    proven: Option<Proven>,
    /// Empty where the client is connected already.
    connect: Box<[u8]>,
    began: Moment,
}

impl Exchanges {
    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        let open = |open: &Open| size_of::<Open>() + open.exchange.bytes() + allocated(open.connect.len());
        map_bytes::<Slot, Box<Open>>(self.open.capacity())
            + map_bytes::<Slot, Box<str>>(self.proven.capacity())
            + self.open.values().map(|o| open(o)).sum::<usize>()
            + self.proven.values().map(|user| allocated(user.len())).sum::<usize>()
    }
}

/// Why an exchange ends.
struct Unproven {
    code: ReasonCode,
    text: &'static str,
}

impl<I: Io<Handover>> Shard<I> {
    /// CONNECT names an authentication method: the exchange begins, and CONNECT waits as its bytes.
    pub(super) fn begin_connect(
        &mut self,
        conn: Conn,
        connect: &Connect,
        method: &str,
        bytes: &[u8],
    ) -> Next {
        match self.begin(conn, method, data_of(&connect.properties), bytes) {
            Ok(()) => Next::Go,
            Err(Unproven { code, text }) => {
                let refusal = Refusal { code, text: text.into() };
                self.refuse(conn, Version::V5, &refusal)
            }
        }
    }

    /// A packet of a client whose CONNECT waits for what it proves; `None`: there is no such CONNECT.
    pub(super) fn continue_connect(
        &mut self,
        conn: Conn,
        packet: &Packet,
        rest: &[u8],
        behind: &[u8],
    ) -> Option<Result<Next, Fault>> {
        let slot = self.local.conns.slot(conn)?;
        let user = self.door.exchanges.open.get(&slot)?.exchange.user().to_owned();
        let held = self.is_held(conn, &user);
        let open = self.door.exchanges.open.get_mut(&slot)?;
        let proven = match (packet, open.proven.take()) {
            (Packet::Auth(_), Some(proven)) => Ok(proven),
            (Packet::Auth(_), None) if held => Err(HELD_OFF),
            (Packet::Auth(auth), None) => prove(open, auth),
            (Packet::Disconnect(_), _) => {
                self.close_silently(conn);
                return Some(Ok(Next::Gone));
            }
            _ => Err(Unproven { code: ReasonCode::PROTOCOL_ERROR, text: NO_DATA }),
        };
        Some(match proven {
            Ok(proven) => self.connect_proven(conn, slot, proven, rest, behind),
            Err(Unproven { code, text }) => {
                self.door.exchanges.open.remove(&slot);
                self.unproven(conn, &user, code);
                Ok(self.refuse(conn, Version::V5, &Refusal { code, text: text.into() }))
            }
        })
    }

    fn connect_proven(
        &mut self,
        conn: Conn,
        slot: Slot,
        proven: Proven,
        rest: &[u8],
        behind: &[u8],
    ) -> Result<Next, Fault> {
        let Some(mut open) = self.door.exchanges.open.remove(&slot) else { return Ok(Next::Gone) };
        let Ok(Packet::Connect(connect)) = decode(Version::V5, &open.connect) else { return Ok(Next::Gone) };
        self.backed_off(conn, |backoff, from, _| backoff.succeeded(from, &proven.user));
        self.door.exchanges.fresh = Some(proven);
        let next = self.handle_connect(conn, &connect, &open.connect, rest, behind);
        let proven = self.door.exchanges.fresh.take();
        match (&next, proven) {
            // AUTH comes again, and with it CONNECT.
            (Ok(Next::Wait), proven) => {
                open.proven = proven;
                self.door.exchanges.open.insert(slot, open);
            }
            (Ok(Next::Go), Some(proven)) => {
                self.door.exchanges.proven.insert(slot, proven.user);
            }
            _ => {}
        }
        next
    }

    /// AUTH of a client that is connected: it authenticates again.
    pub(super) fn handle_auth(&mut self, conn: Conn, auth: &Auth) -> Result<Next, Fault> {
        let Some(slot) = self.local.conns.slot(conn) else { return Ok(Next::Gone) };
        let Some(user) = self.door.exchanges.proven.get(&slot).cloned() else {
            let text = "expected no AUTH: CONNECT had no authentication method";
            return Err(Fault::new(ReasonCode::PROTOCOL_ERROR, text));
        };
        let fault = |Unproven { code, text }| Err(Fault::new(code, text));
        if self.is_held(conn, &user) {
            return fault(HELD_OFF);
        }
        let open = self.door.exchanges.open.get_mut(&slot);
        match (auth.code, open) {
            (ReasonCode::REAUTHENTICATE, None) => {
                // [MQTT-4.12.1-1]
                let Some(method) = method_of(&auth.properties).filter(|method| *method == METHOD) else {
                    return fault(Unproven { code: ReasonCode::PROTOCOL_ERROR, text: NO_DATA });
                };
                let begun = self.begin(conn, method, data_of(&auth.properties), &[]);
                begun.map(|()| Next::Go).or_else(fault)
            }
            (_, Some(open)) => {
                let proven = prove(open, auth);
                self.door.exchanges.open.remove(&slot);
                match proven {
                    Ok(proven) if proven.user == user => {
                        self.backed_off(conn, |backoff, from, _| backoff.succeeded(from, &user));
                        let said = auth_properties(&proven.signature);
                        self.say_auth(conn, ReasonCode::SUCCESS, &said);
                        Ok(Next::Go)
                    }
                    // [MQTT-4.12.1-2]
                    other => {
                        let text = "expected a proof for the user of this connection";
                        let other_user = Unproven { code: ReasonCode::NOT_AUTHORIZED, text };
                        let why = other.err().unwrap_or(other_user);
                        self.unproven(conn, &user, why.code);
                        fault(why)
                    }
                }
            }
            _ => fault(Unproven { code: ReasonCode::PROTOCOL_ERROR, text: NO_DATA }),
        }
    }

    /// Begins an exchange and asks for its proof.
    fn begin(
        &mut self,
        conn: Conn,
        method: &str,
        data: Option<&[u8]>,
        connect: &[u8],
    ) -> Result<(), Unproven> {
        let refused = |code, text| Err(Unproven { code, text });
        let policy = self.door.policy.clone();
        let Some(passwords) = policy.passwords.as_ref().filter(|_| method == METHOD) else {
            let text =
                "expected no authentication method, or SCRAM-SHA-256 where auth.password_file is configured";
            return refused(ReasonCode::BAD_AUTHENTICATION_METHOD, text);
        };
        let Some(slot) = self.local.conns.slot(conn) else {
            return refused(ReasonCode::UNSPECIFIED_ERROR, UNPROVEN);
        };
        let now = self.local.now;
        let open = &mut self.door.exchanges.open;
        if open.len() >= AUTH_WAITING_MAX {
            // Whoever began to authenticate again and does not go on keeps nobody out.
            open.retain(|_, open| now.since_ms(open.began) < AUTH_WAIT_MS);
        }
        if open.len() >= AUTH_WAITING_MAX {
            let text = "too many clients authenticate; try again later";
            return refused(ReasonCode::SERVER_BUSY, text);
        }
        let mut random = [0; 18];
        if SystemRandom::new().fill(&mut random).is_err() {
            return refused(ReasonCode::SERVER_UNAVAILABLE, "no random bytes");
        }
        let mut nonce = String::new();
        for byte in random {
            // Nothing fails that is written to a string.
            let _ = write!(nonce, "{byte:02x}");
        }
        let find = |user: &str| passwords.verifier_of(user, &policy.secret);
        let Some(exchange) = data.and_then(|data| Exchange::begin(data, &nonce, find)) else {
            return refused(ReasonCode::NOT_AUTHORIZED, "expected the first message of SCRAM-SHA-256");
        };
        if self.is_held(conn, exchange.user()) {
            return Err(HELD_OFF);
        }
        let said = auth_properties(exchange.challenge());
        if !self.say_auth(conn, ReasonCode::CONTINUE_AUTHENTICATION, &said) {
            let text = "expected a Maximum Packet Size with room for AUTH";
            return refused(ReasonCode::PACKET_TOO_LARGE, text);
        }
        let open = Open { exchange, proven: None, connect: connect.into(), began: now };
        self.door.exchanges.open.insert(slot, Box::new(open));
        Ok(())
    }

    /// Says AUTH, where the client takes one of that size.
    fn say_auth(&mut self, conn: Conn, code: ReasonCode, properties: &PropertyBuf) -> bool {
        let auth = Packet::Auth(Auth { code, properties: properties.as_properties() });
        self.local.with_link(conn, |c, ctx| c.link.push_first(&[auth], ctx)).unwrap_or(false)
    }

    /// A proof was wrong, or something else came.
    fn unproven(&mut self, conn: Conn, user: &str, code: ReasonCode) {
        if code == ReasonCode::NOT_AUTHORIZED {
            self.local.counters.connect_wrong += 1;
            self.backed_off(conn, |backoff, from, now| backoff.failed(from, user, now));
        }
    }

    /// Whether too many proofs were wrong for this user from there; also of exchanges that began before.
    fn is_held(&mut self, conn: Conn, user: &str) -> bool {
        let mut held = false;
        self.backed_off(conn, |backoff, from, now| held = backoff.held(from, user, now).is_some());
        self.local.counters.connect_held_off += u64::from(held);
        held
    }

    /// Looks at, or changes, what is remembered of those who guess.
    fn backed_off(&mut self, conn: Conn, look: impl FnOnce(&mut Backoff, IpAddr, Moment)) {
        let peer = self.local.conns.get(conn).and_then(|c| c.peer());
        let from = peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.ip());
        look(self.door.exchanges.backoff.get_or_insert_default(), from, self.local.now);
    }

    /// A connection is gone, or serves no more.
    pub(super) fn drop_exchange(&mut self, conn: Conn) {
        let exchanges = &mut self.door.exchanges;
        if (!exchanges.open.is_empty() || !exchanges.proven.is_empty())
            && let Some(slot) = self.local.conns.slot(conn)
        {
            exchanges.open.remove(&slot);
            exchanges.proven.remove(&slot);
        }
    }
}

/// What AUTH proves for an exchange.
fn prove(open: &Open, auth: &Auth) -> Result<Proven, Unproven> {
    // [MQTT-4.12.0-5]
    let of_exchange =
        auth.code == ReasonCode::CONTINUE_AUTHENTICATION && method_of(&auth.properties) == Some(METHOD);
    let Some(data) = data_of(&auth.properties).filter(|_| of_exchange) else {
        return Err(Unproven { code: ReasonCode::PROTOCOL_ERROR, text: NO_DATA });
    };
    open.exchange.finish(data).ok_or(Unproven { code: ReasonCode::NOT_AUTHORIZED, text: UNPROVEN })
}

/// The method and this as data.
fn auth_properties(data: &str) -> PropertyBuf {
    let mut properties = PropertyBuf::new();
    add_auth(&mut properties, data);
    properties
}

/// Adds the method and this as data.
pub(super) fn add_auth(properties: &mut PropertyBuf, data: &str) {
    properties.push(Property::AuthenticationMethod(METHOD));
    properties.push(Property::AuthenticationData(data.as_bytes()));
}

/// The authentication method of a packet.
pub(super) fn method_of<'a>(properties: &Properties<'a>) -> Option<&'a str> {
    properties.iter().find_map(|property| match property {
        Property::AuthenticationMethod(method) => Some(method),
        _ => None,
    })
}

fn data_of<'a>(properties: &Properties<'a>) -> Option<&'a [u8]> {
    properties.iter().find_map(|property| match property {
        Property::AuthenticationData(data) => Some(data),
        _ => None,
    })
}
