//! The server on glommio.

use crate::frames::{Framer, PUBLISH, SUBSCRIBE};
use crate::output::{Output, Subscribers};
use futures_lite::io::{AsyncReadExt, AsyncWriteExt, split};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};
use std::net::SocketAddr;
use std::rc::Rc;

const BUFFER: usize = 16 << 10;

async fn client(stream: TcpStream, subscribers: Subscribers) {
    let (mut reader, mut writer) = split(stream);
    let output = Rc::new(Output::default());
    let written = Rc::clone(&output);
    let task = async move {
        let mut bytes = Vec::new();
        loop {
            bytes = written.take(bytes).await;
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    glommio::spawn_local(task).detach();
    let mut framer = Framer::default();
    let mut buffer = vec![0; BUFFER];
    loop {
        match reader.read(&mut buffer).await {
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
    // The caller has pinned this thread, and with it those that it starts.
    let builder = LocalExecutorBuilder::new(Placement::Unbound).ring_depth(4_096);
    let executor = builder.make().expect("io_uring works here, and memory may be locked");
    executor.run(async move {
        let subscribers = Subscribers::default();
        let listener = TcpListener::bind(at).expect("the port was free");
        loop {
            let stream = listener.accept().await.expect("as many connections as files may be open");
            stream.set_nodelay(true).expect("a TCP socket");
            glommio::spawn_local(client(stream, Rc::clone(&subscribers))).detach();
        }
    });
}
