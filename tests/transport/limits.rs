//! Peers at fault, and peers that take their time.

use crate::common::{DRIVERS, Peer, TIMEOUT};
use crate::ground::{Files, Way};
use crate::{counter, listener, serve, way};
use ringmq::codec::Version;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

fn dial(addr: SocketAddr, say: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(say).unwrap();
    stream
}

/// All that comes until the end; a reset is one.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
    all
}

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";

#[test]
fn who_speaks_something_else_is_told_so() {
    let files = Files::new();
    for &driver in DRIVERS {
        let broker = serve(driver, 1, &files, &[]);
        let mqtt = [0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 0];
        assert_eq!(rest(&mut dial(listener(&broker, "tls"), &mqtt))[0], 21, "an alert");
        assert_eq!(rest(&mut dial(listener(&broker, "wss"), b"GET / HTTP/1.1\r\n\r\n"))[0], 21);
        assert_eq!(counter(&broker, "tls_errors"), 2);
        let ws = listener(&broker, "ws");
        let protocol = "Sec-WebSocket-Protocol: mqtt\r\n";
        let other = |from: &str, to: &str| REQUEST.replace(from, to) + protocol + "\r\n";
        let cases = [
            ("hello\r\n\r\n".to_owned(), "400"),
            (String::from_utf8_lossy(&mqtt).repeat(1_000), "4"),
            (other("GET", "POST"), "405"),
            (other("/mqtt", "/"), "404"),
            (other("Upgrade: websocket\r\n", ""), "426"),
            (other(": 13", ": 8"), "426"),
            (other("AAA==", "A=="), "400"),
            (REQUEST.to_owned() + "\r\n", "400"),
            (REQUEST.to_owned() + "Sec-WebSocket-Protocol: chat\r\n\r\n", "400"),
            (format!("{REQUEST}X: {}", "x".repeat(8_192)), "431"),
            (format!("{REQUEST}{}", "X: y\r\n".repeat(70)) + "\r\n", "431"),
        ];
        let count = cases.len() as u64;
        for (request, status) in cases {
            let answer = rest(&mut dial(ws, request.as_bytes()));
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}\n{answer}");
        }
        assert_eq!(counter(&broker, "websocket_errors"), count);
        let older = "Sec-WebSocket-Protocol: chat, mqttv3.1, mqtt\r\n\r\n";
        let mut stream = dial(ws, format!("{REQUEST}{older}").as_bytes());
        let mut answer = [0; 512];
        let len = stream.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..len]);
        assert!(answer.starts_with("HTTP/1.1 101 ") && answer.contains("Protocol: mqttv3.1\r\n"), "{answer}");
        // Text, which MQTT has none of.
        stream.write_all(&[0x81, 0x80, 0, 0, 0, 0]).unwrap();
        assert_eq!(rest(&mut stream), [0x88, 2, 3, 0xeb]);
        broker.stop();
    }
}

#[test]
fn origins_and_paths_are_those_of_the_listener() {
    let files = Files::new();
    let settings =
        [("listeners.ws.origins", "https://a.example https://b.example"), ("listeners.ws.path", "")];
    let broker = serve(DRIVERS[0], 1, &files, &settings);
    let ws = listener(&broker, "ws");
    let status = |origin: &str| {
        let request =
            format!("{REQUEST}Sec-WebSocket-Protocol: mqtt\r\n{origin}\r\n").replace("/mqtt", "/x?y");
        let mut answer = [0; 12];
        dial(ws, request.as_bytes()).read_exact(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[9..]).into_owned()
    };
    assert_eq!(status(""), "101");
    assert_eq!(status("Origin: https://B.example\r\n"), "101");
    assert_eq!(status("Origin: https://c.example\r\n"), "403");
    broker.stop();
}

#[test]
fn who_takes_too_long_in_any_phase_is_closed_and_counted() {
    let files = Files::new();
    for &driver in DRIVERS {
        let broker = serve(driver, 2, &files, &[("mqtt.idle_timeout_s", "1")]);
        let before = Peer::connect(&way(&broker, &files, "wss"), Version::V5, "before");
        // Part of a ClientHello, part of a request, part of a frame, and nothing at all.
        let mut slow = vec![
            dial(listener(&broker, "tls"), &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
            dial(listener(&broker, "wss"), &[22]),
            dial(listener(&broker, "ws"), REQUEST.as_bytes()),
            dial(listener(&broker, "tls"), b""),
        ];
        let request = format!("{REQUEST}Sec-WebSocket-Protocol: mqtt\r\n\r\n");
        let mut frame = dial(listener(&broker, "ws"), request.as_bytes());
        frame.write_all(&[0x82, 0xff, 0]).unwrap();
        slow.push(frame);
        slow.iter_mut().for_each(|stream| drop(rest(stream)));
        let through = Way { path: "/mqtt", ..way(&broker, &files, "wss") }.connect().unwrap();
        let mut tcp = match &through {
            crate::ground::Through::WebSocket(socket) => socket.get_ref().tcp().try_clone().unwrap(),
            crate::ground::Through::Stream(_) => panic!("a WebSocket"),
        };
        rest(&mut tcp);
        assert_eq!(counter(&broker, "connect_timeouts"), 6);
        drop(through);
        before.disconnect();
        broker.stop();
    }
}
