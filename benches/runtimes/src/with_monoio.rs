//! The server on monoio, with io_uring.

use crate::frames::{Framer, PUBLISH, SUBSCRIBE};
use crate::output::{Output, Subscribers};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt, Splitable};
use monoio::net::{ListenerOpts, TcpListener, TcpStream};
use std::net::SocketAddr;
use std::rc::Rc;

const BUFFER: usize = 16 << 10;

async fn client(stream: TcpStream, subscribers: Subscribers) {
    let (mut reader, mut writer) = stream.into_split();
    let output = Rc::new(Output::default());
    let written = Rc::clone(&output);
    monoio::spawn(async move {
        let mut spare = Vec::new();
        loop {
            let bytes = written.take(spare).await;
            let (result, back) = writer.write_all(bytes).await;
            if result.is_err() {
                return;
            }
            spare = back;
        }
    });
    let mut framer = Framer::default();
    let mut buffer = Vec::with_capacity(BUFFER);
    loop {
        let (result, back) = reader.read(buffer).await;
        buffer = back;
        match result {
            Ok(n) if n > 0 => framer.take(&buffer[..n], |frame| match frame[0] {
                PUBLISH => subscribers.borrow().iter().for_each(|subscriber| subscriber.put(frame)),
                SUBSCRIBE => {
                    subscribers.borrow_mut().push(Rc::clone(&output));
                    output.put(frame);
                }
                _ => output.put(frame),
            }),
            _ => break,
        }
    }
    subscribers.borrow_mut().retain(|subscriber| !Rc::ptr_eq(subscriber, &output));
}

/// Serves until the process ends.
pub fn serve(at: SocketAddr) {
    let builder = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new().with_entries(4_096);
    builder.build().expect("io_uring works here").block_on(async move {
        let subscribers = Subscribers::default();
        let options = ListenerOpts::new().backlog(4_096);
        let listener = TcpListener::bind_with_config(at, &options).expect("the port was free");
        loop {
            let (stream, _) = listener.accept().await.expect("as many connections as files may be open");
            stream.set_nodelay(true).expect("a TCP socket");
            monoio::spawn(client(stream, Rc::clone(&subscribers)));
        }
    });
}
