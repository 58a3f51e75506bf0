//! A proxy that stands between streamer and a service and does it harm: cuts connections at once or after so many bytes
//! of requests or answers, delays, limits the rate, hangs, answers in the service's place.
//!
//! What happens to a connection is decided when it is opened, by a function of the test's. One that throws seeded dice
//! does the same again in the same order of connections.
use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

/// Which half of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Half {
    Requests,
    Answers,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    /// Nothing.
    Pass,
    /// It is closed as soon as it is open.
    Refuse,
    /// It is cut when so many bytes of one half have passed.
    Cut(Half, u64),
    /// What comes on one half is held up by so much.
    Delay(Half, Duration),
    /// From so many bytes on nothing comes through on one half, though the connection stays.
    Hang(Half, u64),
    /// So many bytes a second pass on one half.
    Rate(Half, u64),
    /// The service never sees it: this is the answer to whatever is asked.
    Answer(&'static str),
}

type Fates = Box<dyn FnMut() -> Fate + Send>;

/// Bytes of one half that are replaced by as many others.
type Rewrite = (Half, Vec<u8>, Vec<u8>);

struct Shared {
    target: String,
    rewrite: Mutex<Option<Rewrite>>,
    fates: Mutex<Fates>,
    open: Mutex<Vec<TcpStream>>,
    harm: AtomicU32,
    ended: AtomicBool,
}

pub struct Proxy {
    /// `host:port` to connect to instead of the service's.
    pub address: String,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Stands in front of a Kafka broker. Brokers tell clients where to connect; in their answers the proxy's port takes
    /// the place of theirs, so that all connections come this way.
    pub fn kafka(target: &str) -> Self {
        let proxy = Self::new(target);
        // Host and port stand side by side in every version of the answers that name a broker.
        let announced = |address: &str| {
            let (host, port) = address.split_once(':').expect("host:port");
            [host.as_bytes(), &port.parse::<u32>().expect("a port").to_be_bytes()].concat()
        };
        proxy.rewrite(Some((Half::Answers, announced(target), announced(&proxy.address))));
        proxy
    }

    /// Stands in front of `target`, `host:port`, and lets everything pass.
    pub fn new(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            rewrite: Mutex::default(),
            fates: Mutex::new(Box::new(|| Fate::Pass)),
            open: Mutex::default(),
            harm: AtomicU32::new(0),
            ended: AtomicBool::new(false),
        });
        let of_thread = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if of_thread.ended.load(Ordering::Relaxed) {
                    break;
                }
                if let Ok(client) = client {
                    // A service that is away refuses; so does the proxy in front of it.
                    let _ = of_thread.connect(client);
                }
            }
        });
        Self { address: format!("127.0.0.1:{port}"), shared }
    }

    /// Decides about connections from now on, and cuts the open ones.
    pub fn set(&self, fates: impl FnMut() -> Fate + Send + 'static) {
        *lock(&self.shared.fates) = Box::new(fates);
        self.cut();
    }

    /// Replaces something from now on, or nothing any more.
    pub fn rewrite(&self, rewrite: Option<Rewrite>) {
        *lock(&self.shared.rewrite) = rewrite;
    }

    /// Cuts every open connection.
    pub fn cut(&self) {
        for socket in lock(&self.shared.open).drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// How many connections have come to harm by a fate.
    pub fn harm(&self) -> u32 {
        self.shared.harm.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(&self.address);
    }
}

impl Shared {
    fn connect(self: &Arc<Self>, mut client: TcpStream) -> std::io::Result<()> {
        let fate = lock(&self.fates)();
        match fate {
            Fate::Refuse => {
                self.harm.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Fate::Answer(answer) => {
                self.harm.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || self::answer(&mut client, answer));
                return Ok(());
            }
            _ => {}
        }
        let service = TcpStream::connect(&self.target)?;
        client.set_nodelay(true)?;
        service.set_nodelay(true)?;
        lock(&self.open).push(client.try_clone()?);
        for (half, from, to) in
            [(Half::Requests, client.try_clone()?, service.try_clone()?), (Half::Answers, service, client)]
        {
            let shared = self.clone();
            std::thread::spawn(move || {
                if shared.carry(half, fate, &from, &to).is_ok() {
                    // Who has said all may still listen.
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                let (client, service) = if half == Half::Requests { (from, to) } else { (to, from) };
                let _ = (client.shutdown(Shutdown::Both), service.shutdown(Shutdown::Write));
                if half == Half::Answers {
                    drain(&service);
                }
            });
        }
        Ok(())
    }

    /// Carries one half until it ends; an error when it is cut.
    fn carry(&self, half: Half, fate: Fate, mut from: &TcpStream, mut to: &TcpStream) -> std::io::Result<()> {
        let (mut bytes, mut passed, mut harmed) = (vec![0; 16 << 10], 0_u64, false);
        loop {
            let count = from.read(&mut bytes)?;
            if count == 0 {
                return Ok(());
            }
            let bytes = &mut bytes[..count];
            if let Some((which, old, new)) = &*lock(&self.rewrite)
                && *which == half
            {
                replace(bytes, old, new);
            }
            let room = |limit: u64| usize::try_from(limit.saturating_sub(passed)).unwrap_or(usize::MAX).min(count);
            let (through, pause) = match fate {
                Fate::Cut(which, limit) | Fate::Hang(which, limit) if which == half => (room(limit), Duration::ZERO),
                Fate::Delay(which, by) if which == half => (count, by),
                Fate::Rate(which, bytes_per_s) if which == half => {
                    (count, Duration::from_secs_f64(count as f64 / bytes_per_s as f64))
                }
                _ => (count, Duration::ZERO),
            };
            if !harmed && (through < count || !pause.is_zero()) {
                harmed = true;
                self.harm.fetch_add(1, Ordering::Relaxed);
            }
            std::thread::sleep(pause);
            to.write_all(&bytes[..through])?;
            passed += through as u64;
            if through < count && matches!(fate, Fate::Cut(..)) {
                return Err(ErrorKind::ConnectionAborted.into());
            }
        }
    }
}

/// Answers a request without having read it to its end.
fn answer(client: &mut TcpStream, answer: &str) -> std::io::Result<()> {
    let mut bytes = [0; 16 << 10];
    client.set_read_timeout(Some(Duration::from_secs(2)))?;
    if client.read(&mut bytes)? == 0 {
        return Ok(());
    }
    client.write_all(answer.as_bytes())?;
    client.shutdown(Shutdown::Write)?;
    // Closed with bytes unread, the connection would be reset, and the answer with it.
    while client.read(&mut bytes)? > 0 {}
    Ok(())
}

/// Takes what a service still says to a client that is cut off. The ClickHouse of the tests ends when it cannot say it,
/// and that is not the fault that is looked for here.
fn drain(mut service: &TcpStream) {
    let mut bytes = [0; 16 << 10];
    let _ = service.set_read_timeout(Some(Duration::from_secs(10)));
    while service.read(&mut bytes).is_ok_and(|count| count > 0) {}
}

/// Puts `new` in the place of each `old`, which is as long. One that two reads divide is missed; heads and answers that
/// hold an address are short.
fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    for at in 0..bytes.len().saturating_sub(old.len() - 1) {
        if bytes[at..].starts_with(old) {
            bytes[at..at + old.len()].copy_from_slice(new);
        }
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service that says back what it hears.
    fn echo() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                std::thread::spawn(move || std::io::copy(&mut &socket, &mut &socket));
            }
        });
        Proxy::new(&address)
    }

    fn heard(proxy: &Proxy, said: &[u8]) -> Vec<u8> {
        let mut socket = TcpStream::connect(&proxy.address).expect("the proxy accepts");
        let _ = socket.write_all(said).and_then(|()| socket.shutdown(Shutdown::Write));
        let mut heard = Vec::new();
        // A reset is an end like any other.
        let mut bytes = [0; 1000];
        while let Ok(count @ 1..) = socket.read(&mut bytes) {
            heard.extend(&bytes[..count]);
        }
        heard
    }

    #[test]
    fn each_fate_does_what_it_says() {
        let proxy = echo();
        proxy.set(|| Fate::Cut(Half::Requests, 3));
        assert_eq!(proxy.harm(), 0);
        assert!(b"hel".starts_with(&heard(&proxy, b"hello")[..]));
        proxy.set(|| Fate::Cut(Half::Answers, 2));
        assert!(b"he".starts_with(&heard(&proxy, b"hello")[..]));
        proxy.set(|| Fate::Refuse);
        assert_eq!(heard(&proxy, b"hello"), b"");
        proxy.set(|| Fate::Answer("no"));
        assert_eq!(heard(&proxy, b"hello"), b"no");
        assert_eq!(proxy.harm(), 4);
    }

    #[test]
    fn addresses_in_answers_are_replaced() {
        let mut bytes = *b"a 127:1 b 127:1";
        replace(&mut bytes, b"127:1", b"127:2");
        assert_eq!(&bytes, b"a 127:2 b 127:2");
    }
}
