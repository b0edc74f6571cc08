//! A connection, and calls on it.

use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::{HeaderMap, Method, Request};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::contract::{check, fail, path, CANCELLED, INTERNAL, OK, UNAVAILABLE, UNKNOWN};
use crate::wire::{self, Messages};

const RECONNECT: Duration = Duration::from_millis(50);

pub struct Client {
    address: String,
    requests: Option<SendRequest<Bytes>>,
    connections: Vec<JoinHandle<()>>,
}

impl Client {
    pub fn new(host: &str, port: &str) -> Self {
        Self { address: format!("{host}:{port}"), requests: None, connections: vec![] }
    }

    async fn connected(&mut self) -> Result<(), ()> {
        let socket = TcpStream::connect(&self.address).await.map_err(drop)?;
        socket.set_nodelay(true).map_err(drop)?;
        let mut builder = Builder::new();
        builder.initial_window_size(wire::WINDOW).initial_connection_window_size(wire::CONNECTION_WINDOW);
        builder.max_header_list_size(wire::HEADER_LIST).max_concurrent_reset_streams(wire::REMEMBERED);
        let (requests, connection) = builder.handshake(socket).await.map_err(drop)?;
        self.connections.push(tokio::spawn(async { connection.await.unwrap_or(()) }));
        self.requests = Some(requests);
        Ok(())
    }

    /// Where requests can be made: the connection that is there, or a new one as soon as there is a server.
    pub async fn ready(&mut self) -> SendRequest<Bytes> {
        loop {
            if let Some(requests) = self.requests.take() {
                if let Ok(requests) = requests.ready().await {
                    self.requests = Some(requests.clone());
                    return requests;
                }
            }
            if self.connected().await.is_err() {
                tokio::time::sleep(RECONNECT).await;
            }
        }
    }

    /// Begins a call.
    pub async fn start(&mut self, path: &str, metadata: HeaderMap) -> Call {
        let requests = self.ready().await;
        begin(requests, &self.address, path, metadata).unwrap_or_else(|error| fail(&error.to_string()))
    }

    pub async fn stream(&mut self, method: &str) -> Call {
        self.start(&path(method), HeaderMap::new()).await
    }

    /// Begins a call with one request.
    pub async fn requested(&mut self, path: &str, request: &[u8]) -> Call {
        let mut call = self.start(path, HeaderMap::new()).await;
        call.send(request, true).await;
        call
    }

    /// A call's answer and its status.
    pub async fn unary(&mut self, path: &str, request: &[u8]) -> (Option<Bytes>, u32) {
        self.requested(path, request).await.answers.single().await
    }

    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// Says goodbye and waits until all of it is out.
    pub async fn close(self) {
        drop(self.requests);
        for connection in self.connections {
            connection.await.unwrap();
        }
    }
}

pub fn begin(
    mut requests: SendRequest<Bytes>,
    address: &str,
    path: &str,
    metadata: HeaderMap,
) -> Result<Call, h2::Error> {
    let request = Request::builder().method(Method::POST).uri(format!("http://{address}{path}"));
    let mut request = request.header("te", "trailers").header("content-type", "application/grpc").body(()).unwrap();
    request.headers_mut().extend(metadata);
    let (response, out) = requests.send_request(request, false)?;
    let answers = Answers { response: Some(response), messages: None, first: HeaderMap::new(), last: HeaderMap::new() };
    Ok(Call { out, answers })
}

pub struct Call {
    pub out: SendStream<Bytes>,
    pub answers: Answers,
}

impl Call {
    /// What cannot be sent any more has a status, which the answers end with.
    pub async fn send(&mut self, message: &[u8], end: bool) {
        let _ = wire::send(&mut self.out, message, end).await;
    }

    pub fn finish(&mut self) {
        let _ = self.out.send_data(Bytes::new(), true);
    }

    pub fn cancel(&mut self) {
        self.out.send_reset(Reason::CANCEL);
    }
}

pub struct Answers {
    response: Option<ResponseFuture>,
    messages: Option<Messages>,
    pub first: HeaderMap,
    pub last: HeaderMap,
}

impl Answers {
    /// Waits for the initial metadata.
    pub async fn begun(&mut self) -> Result<(), h2::Error> {
        if let Some(response) = self.response.take() {
            let (parts, body) = response.await?.into_parts();
            self.first = parts.headers;
            self.messages = Some(Messages::new(body));
        }
        Ok(())
    }

    /// The next message; None and the status: there are no more.
    pub async fn next(&mut self) -> (Option<Bytes>, u32) {
        match self.attempt().await {
            Ok(found) => found,
            Err(error) => (None, status_of(&error)),
        }
    }

    async fn attempt(&mut self) -> Result<(Option<Bytes>, u32), h2::Error> {
        self.begun().await?;
        let messages = self.messages.as_mut().expect("not after an error");
        if let Some(message) = messages.next().await? {
            return Ok((Some(message), OK));
        }
        self.last = messages.body.trailers().await?.unwrap_or_else(|| self.first.clone());
        let status = self.last.get("grpc-status").and_then(|value| value.to_str().ok()?.parse().ok());
        Ok((None, status.unwrap_or(UNKNOWN)))
    }

    /// The only message and the status.
    pub async fn single(&mut self) -> (Option<Bytes>, u32) {
        match self.next().await {
            (None, status) => (None, status),
            (message, _) => match self.next().await {
                (None, status) => (message, status),
                _ => (None, INTERNAL),
            },
        }
    }

    /// Checks that these answers come, and that the call is well after them.
    pub async fn all(&mut self, what: &str, expected: &[Bytes]) {
        for each in expected {
            check(what, self.next().await.0.as_ref(), Some(each));
        }
        check(what, self.next().await, (None, OK));
    }
}

fn status_of(error: &h2::Error) -> u32 {
    match error.reason() {
        _ if error.is_go_away() || error.is_io() => UNAVAILABLE,
        Some(Reason::CANCEL) => CANCELLED,
        Some(Reason::REFUSED_STREAM) | None => UNAVAILABLE,
        _ => INTERNAL,
    }
}
