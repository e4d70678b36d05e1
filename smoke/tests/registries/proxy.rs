//! A way to a server on which the first large answer stops in the middle.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// How much of it passes.
pub const PASSES: usize = 8 << 20;

pub struct Proxy {
    pub address: String,
    asked: Arc<Mutex<Vec<String>>>,
    stopped: Receiver<()>,
}

impl Proxy {
    pub fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (told, stopped) = channel();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (heard, server) = (Arc::clone(&asked), server.to_owned());
        let first = Arc::new(Mutex::new(Some(told)));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(&server).unwrap();
                let (heard, first) = (Arc::clone(&heard), Arc::clone(&first));
                std::thread::spawn(move || converse(client, server, &heard, &first));
            }
        });
        Self { address, asked, stopped }
    }

    /// Waits until the large answer has stopped.
    pub fn wait(&self) {
        self.stopped.recv().unwrap();
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Passes one request and its answer on. Whoever hangs up ends it.
fn converse(
    mut client: TcpStream,
    mut server: TcpStream,
    heard: &Mutex<Vec<String>>,
    first: &Mutex<Option<Sender<()>>>,
) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match client.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Ok(_) | Err(_) => return,
        }
    }
    heard.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
    server.write_all(&head).unwrap();
    let mut passed = 0;
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        if client.write_all(&buffer[..count]).is_err() {
            break;
        }
        passed += count;
        if passed >= PASSES
            && let Some(told) = first.lock().unwrap().take()
        {
            told.send(()).unwrap();
            // Until it hangs up, which it does when it is killed.
            while matches!(client.read(&mut byte), Ok(1..)) {}
            break;
        }
    }
    // Whoever has gone need not be told.
    drop(server.shutdown(Shutdown::Both));
    drop(client.shutdown(Shutdown::Both));
}
