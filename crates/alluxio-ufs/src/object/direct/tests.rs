//! The direct way against a server that answers with given bytes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use tokio::net::TcpListener;

use super::*;

const PAGE: usize = 64 * 1024;

/// Answers one request after the other over as few connections as the client uses, each as told;
/// returns the address, and the requests and the number of connections when all are answered.
async fn server(
    answers: Vec<Vec<u8>>,
    closes: bool,
) -> (String, tokio::task::JoinHandle<(Vec<String>, usize)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        let (mut requests, mut connections) = (Vec::new(), 0);
        let mut answers = answers.into_iter().peekable();
        while answers.peek().is_some() {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections += 1;
            while let Some(answer) = answers.peek() {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                        break;
                    }
                    request.push(byte[0]);
                }
                if request.is_empty() {
                    break;
                }
                requests.push(String::from_utf8(request).unwrap());
                stream.write_all(answer).await.unwrap();
                answers.next();
                if closes {
                    break;
                }
            }
        }
        (requests, connections)
    });
    (address, serving)
}

fn request(address: &str) -> Request<Buffer> {
    Request::get(format!("http://{address}/b/k%20k?x=y"))
        .header("range", "bytes=0-9")
        .header("authorization", "signed")
        .body(Buffer::new())
        .unwrap()
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 {status}\r\n{headers}\r\n").into_bytes();
    answer.extend_from_slice(body);
    answer
}

fn ok(body: &[u8]) -> Vec<u8> {
    let headers = format!("content-length: {}\r\netag: \"e\"\r\n", body.len());
    answer("206 Partial Content", &headers, body)
}

fn direct() -> Direct {
    Direct {
        has_proxy: false,
        ..Direct::new(Buffers::new(PAGE as u64, 8 * PAGE as u64))
    }
}

async fn fetch(direct: &Direct, address: &str) -> opendal::Result<Response<HttpBody>> {
    match direct.fetch(&request(address)).await? {
        Fetched::Answer(answer) => Ok(answer),
        Fetched::LengthUnknown => panic!("the length is told"),
    }
}

async fn body_of(answer: Response<HttpBody>) -> opendal::Result<Vec<u8>> {
    Ok(answer.into_body().to_buffer().await?.to_vec())
}

#[tokio::test]
async fn answers_come_over_one_kept_connection_and_the_request_is_as_it_was_signed() {
    let body: Vec<u8> = (0..=u8::MAX).cycle().take(3 * PAGE + 5).collect();
    let (address, serving) = server(vec![ok(&body), ok(b""), ok(b"abc")], false).await;
    let direct = direct();
    assert!(direct.takes(&request(&address)));
    let first = fetch(&direct, &address).await.unwrap();
    assert_eq!(first.status(), 206);
    assert_eq!(first.headers()["etag"], "\"e\"");
    assert_eq!(body_of(first).await.unwrap(), body);
    let empty = fetch(&direct, &address).await.unwrap();
    assert_eq!(body_of(empty).await.unwrap(), b"");
    let third = fetch(&direct, &address).await.unwrap();
    assert_eq!(body_of(third).await.unwrap(), b"abc");
    let (requests, connections) = serving.await.unwrap();
    assert_eq!(connections, 1);
    let expected = format!(
        "GET /b/k%20k?x=y HTTP/1.1\r\nhost: {address}\r\nrange: bytes=0-9\r\n\
         authorization: signed\r\n\r\n"
    );
    assert_eq!(requests, [&*expected; 3]);
}

#[tokio::test]
async fn the_body_comes_in_blocks_of_a_pages_length() {
    use futures::StreamExt as _;
    let body = vec![7; 2 * PAGE + 5];
    let (address, _serving) = server(vec![ok(&body)], false).await;
    let direct = direct();
    let connection = connect(&request(&address)).await.unwrap();
    let (connection, head) = ask(connection, &request(&address)).await.unwrap();
    let length = length_of(&head).unwrap();
    let blocks = Blocks::new(connection, length, direct.buffers.clone(), None);
    let lengths: Vec<_> = blocks.map(|block| block.unwrap().len()).collect().await;
    assert_eq!(lengths, [PAGE, PAGE, 5]);
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced() {
    let (address, serving) = server(vec![ok(b"a"), ok(b"b")], true).await;
    let direct = direct();
    for expected in [b"a", b"b"] {
        let answer = fetch(&direct, &address).await.unwrap();
        assert_eq!(body_of(answer).await.unwrap(), expected);
    }
    assert_eq!(serving.await.unwrap().1, 2);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error_that_may_pass() {
    let cut = answer("206 Partial Content", "content-length: 9\r\n", b"abc");
    let (address, _serving) = server(vec![cut], true).await;
    let answer = fetch(&direct(), &address).await.unwrap();
    let error = body_of(answer).await.unwrap_err();
    assert!(error.is_temporary(), "{error}");
}

#[tokio::test]
async fn an_error_answer_is_told_with_its_body() {
    let refused = answer("404 Not Found", "content-length: 4\r\n", b"gone");
    let (address, _serving) = server(vec![refused], false).await;
    let answer = fetch(&direct(), &address).await.unwrap();
    assert_eq!(answer.status(), 404);
    assert_eq!(body_of(answer).await.unwrap(), b"gone");
}

#[tokio::test]
async fn what_is_no_http_is_an_error_that_may_pass() {
    for nonsense in ["SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\nname without end"] {
        let (address, _serving) = server(vec![nonsense.as_bytes().to_vec()], true).await;
        let error = fetch(&direct(), &address).await.err().unwrap();
        assert!(error.is_temporary(), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_tells_no_length_is_left_to_the_general_client() {
    let chunked = answer(
        "206 Partial Content",
        "transfer-encoding: chunked\r\n",
        b"3\r\nabc\r\n0\r\n\r\n",
    );
    let (address, _serving) = server(vec![chunked.clone(), chunked], false).await;
    let direct = direct();
    let asked = request(&address);
    assert!(matches!(
        direct.fetch(&asked).await,
        Ok(Fetched::LengthUnknown)
    ));
    assert!(!direct.takes(&asked));
}

#[test]
fn other_requests_go_the_general_way() {
    let direct = direct();
    let to = |method: &str, uri: &str| {
        Request::builder()
            .method(method)
            .uri(uri)
            .header("range", "bytes=0-9")
            .body(Buffer::new())
            .unwrap()
    };
    assert!(direct.takes(&to("GET", "http://h/k")));
    assert!(!direct.takes(&to("GET", "https://h/k")));
    assert!(!direct.takes(&to("HEAD", "http://h/k")));
    assert!(!direct.takes(&to("GET", "http://user:word@h/k")));
    let mut whole = to("GET", "http://h/k");
    whole.headers_mut().remove("range");
    assert!(!direct.takes(&whole));
    let proxied = Direct {
        has_proxy: true,
        ..direct
    };
    assert!(!proxied.takes(&to("GET", "http://h/k")));
}
