//! The smallest request that tells whether a server answers.

use super::connect;
use pyro_protocol::service::HttpUrl;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How much of an answer is read: its first line has some twenty bytes, and what
/// a server adds in words is of no interest.
const STATUS_LINE_MAX: usize = 256;

/// Whether a GET is answered with a status of 200 to 399. No redirect is
/// followed: a server that redirects is ready.
pub(super) async fn answers(url: &HttpUrl) -> bool {
    let Some(mut stream) = connect(url.address()).await else {
        return false;
    };
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: pyro\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        url.target(),
        url.authority(),
    );
    if stream.write_all(request.as_bytes()).await.is_err() {
        return false;
    }
    let mut line = Vec::with_capacity(STATUS_LINE_MAX);
    while line.len() < STATUS_LINE_MAX && !line.contains(&b'\n') {
        let mut piece = [0; STATUS_LINE_MAX];
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(length) => line.extend(piece.get(..length).unwrap_or_default()),
        }
    }
    status(&line).is_some_and(|status| (200..400).contains(&status))
}

/// The status that an answer begins with: `HTTP/1.x NNN`, and then a space or
/// the end of the line.
fn status(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.")?;
    let [b'0'..=b'9', b' ', hundreds, tens, ones, b' ' | b'\r' | b'\n', ..] = rest else {
        return None;
    };
    [hundreds, tens, ones].into_iter().try_fold(0, |number: u16, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u16::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r19_only_a_status_line_has_a_status() {
        for (answer, expected) in [
            (b"HTTP/1.0 200 OK\r\n".as_slice(), Some(200)),
            (b"HTTP/1.1 302\r\nLocation: x\r\n", Some(302)),
            (b"HTTP/1.1 404\n", Some(404)),
            (b"HTTP/1.1 200", None),
            (b"HTTP/1.1 2000\r\n", None),
            (b"HTTP/2 200 OK\r\n", None),
            (b"HTTP/1.1 2x0 OK\r\n", None),
            (b"SSH-2.0-OpenSSH_9\r\n", None),
            (b"", None),
            (b"\xff\xfe\x00", None),
        ] {
            assert_eq!(status(answer), expected, "{}", answer.escape_ascii());
        }
    }
}
