//! ringmq's io_uring and epoll drivers beside monoio and glommio: CPU time of a server for one message.
//!
//! ```text
//! cargo run --release --manifest-path benches/runtimes/Cargo.toml [-- ROUNDS [SECONDS]]
//! ```
//!
//! Four servers without any rule of MQTT, each a process of its own on the first core, under the load of one client on
//! the second: 1,000 connections that send one frame and wait for its echo, 100 connections with 32 frames under way,
//! and one publisher whose frames go to 1,000 subscribers. A cell is the median of all rounds, interleaved, of the
//! server's CPU nanoseconds for one frame that arrived at the client.

mod frames;
mod load;
mod ours;
mod output;
mod with_glommio;
mod with_monoio;

use ringmq::io::IoMode;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What is compared: a name, and what serves under it until it is ended.
const SERVERS: &[(&str, fn(SocketAddr))] = &[
    ("ringmq, io_uring", |at| ours::serve(at, IoMode::Uring)),
    ("ringmq, epoll", |at| ours::serve(at, IoMode::Epoll)),
    ("monoio", with_monoio::serve),
    ("glommio", with_glommio::serve),
];

const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;
const ROUNDS: usize = 3;
const SECONDS: u64 = 2;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [serve, name, at] = &args[..]
        && serve == "--serve"
    {
        let (_, server) = SERVERS.iter().find(|(known, _)| known == name).expect("a name of the table");
        ringmq::io::pin_to_core(SERVER_CORE).expect("there is a first core");
        return server(at.parse().expect("an address"));
    }
    let number =
        |at: usize| args.get(at).map(|text| text.parse::<u64>().expect("expected [ROUNDS [SECONDS]]"));
    compare(number(0).unwrap_or(ROUNDS as u64) as usize, Duration::from_secs(number(1).unwrap_or(SECONDS)));
}

fn compare(rounds: usize, measured: Duration) {
    ringmq::io::pin_to_core(LOAD_CORE).expect("two cores are needed: one for the servers, one for the load");
    let mut cells = vec![vec![Vec::new(); load::SHAPES.len()]; SERVERS.len()];
    for _ in 0..rounds {
        for (row, (name, _)) in SERVERS.iter().enumerate() {
            for (column, shape) in load::SHAPES.iter().enumerate() {
                let server = Server::start(name);
                let delivered = load::run(server.at, server.process.id(), shape, measured);
                cells[row][column].push(delivered);
            }
        }
    }
    print!("| CPU ns for one frame, median of {rounds} x {} s ", measured.as_secs());
    load::SHAPES.iter().for_each(|shape| print!("| {} ", shape.name));
    println!("|\n|---{}|", "|---".repeat(load::SHAPES.len()));
    for ((name, _), row) in SERVERS.iter().zip(&mut cells) {
        print!("| {name} ");
        for cell in row {
            cell.sort_by(f64::total_cmp);
            print!("| {:.0} ", cell[cell.len() / 2]);
        }
        println!("|");
    }
}

/// A server in a process of its own, which ends with this value.
struct Server {
    process: Child,
    at: SocketAddr,
}

impl Server {
    fn start(name: &str) -> Server {
        let free =
            TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        command.args(["--serve", name, &free.to_string()]).stdin(Stdio::null());
        Server { process: command.spawn().expect("this program can be started"), at: free }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has no state to save; that it has ended already would have failed the load.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
