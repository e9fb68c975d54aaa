//! A network that can be spoilt: a relay on loopback between a process and a server.

#![allow(clippy::unwrap_used, unreachable_pub, missing_docs, dead_code, reason = "part of each test program")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::until;

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Everything passes at once.
    Good,
    /// Each piece waits for so long.
    Late(Duration),
    /// So many bytes pass in a second, in each direction of each connection.
    Slow(u64),
    /// Connections stay, and nothing passes.
    Stalled,
    /// There is no connection, and none is to be had.
    Cut,
}

/// Bytes that are passed on at a time.
const PIECE: usize = 16 << 10;
/// How often one that is stalled looks whether it may go on.
const LOOK: Duration = Duration::from_millis(10);

struct Shared {
    mood: Mutex<Mood>,
    open: Mutex<Vec<TcpStream>>,
    sent: AtomicU64,
}

/// A relay to a server; it ends with the test program.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// One in front of a port of this machine.
    pub fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Shared { mood: Mutex::new(Mood::Good), open: Mutex::default(), sent: AtomicU64::new(0) };
        let shared = Arc::new(shared);
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                serving.relay(&client, server);
            }
        });
        Self { port, shared }
    }

    /// Its address, as that of a coordinator.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What the network does from now on.
    pub fn set(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
        if mood == Mood::Cut {
            for stream in self.shared.open.lock().unwrap().drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// Bytes that went to the server so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Waits until so many more bytes went to the server.
    pub fn has_sent(&self, more: u64) {
        let goal = self.sent() + more;
        until("enough was sent", || (self.sent() >= goal).then_some(()));
    }
}

impl Shared {
    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }

    fn relay(self: &Arc<Self>, client: &TcpStream, server: u16) {
        if self.mood() == Mood::Cut {
            return;
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { return };
        for stream in [client, &server] {
            let _ = stream.set_nodelay(true);
            self.open.lock().unwrap().push(stream.try_clone().unwrap());
        }
        // It may have been cut between the look and the list.
        if self.mood() == Mood::Cut {
            let _ = server.shutdown(Shutdown::Both);
            return;
        }
        for (from, to, counted) in [(client, &server, true), (&server, client, false)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let shared = Arc::clone(self);
            std::thread::spawn(move || shared.pass(from, to, counted));
        }
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream, counted: bool) {
        let mut piece = vec![0; PIECE];
        while let Ok(count) = from.read(&mut piece) {
            match self.mood() {
                Mood::Good => {}
                Mood::Late(time) => std::thread::sleep(time),
                Mood::Slow(a_second) => {
                    std::thread::sleep(Duration::from_micros(count as u64 * 1_000_000 / a_second));
                }
                Mood::Stalled => {
                    while self.mood() == Mood::Stalled {
                        std::thread::sleep(LOOK);
                    }
                }
                Mood::Cut => break,
            }
            if count == 0 || to.write_all(&piece[..count]).is_err() {
                break;
            }
            if counted {
                self.sent.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
