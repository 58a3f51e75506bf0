//! HTTP in its simplest form: version 1.0, one request a connection, the body ends where the connection ends.
use std::{
    io::{Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

/// Status code and body of the answer of `address`, or why there is none.
pub fn request(method: &str, address: &str, path: &str, headers: &str, body: &[u8]) -> Result<(u16, String), String> {
    let fail = |error: std::io::Error| format!("{method} http://{address}{path}: {error}");
    let target = address.to_socket_addrs().map_err(fail)?.next().ok_or("no such host")?;
    let mut socket = TcpStream::connect_timeout(&target, Duration::from_secs(5)).map_err(fail)?;
    socket.set_read_timeout(Some(Duration::from_secs(60))).map_err(fail)?;
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n{headers}\r\n");
    socket.write_all(&[head.as_bytes(), body].concat()).map_err(fail)?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).map_err(fail)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("`{address}` does not speak HTTP"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(|| format!("`{address}` answers without a status"))?, body.to_owned()))
}

/// The answer to a GET.
pub fn get(address: &str, path: &str) -> Result<(u16, String), String> {
    request("GET", address, path, "", b"")
}
