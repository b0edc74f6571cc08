//! The methods, and a server that stops gracefully.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout, Instant};

use crate::contract::*;
use crate::wire::{self, Messages};

const GRACE: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_millis(50);
const METHODS: [&str; 11] = [
    "Unary",
    "ServerStream",
    "ClientStream",
    "BidiStream",
    "Fail",
    "FailLate",
    "Crash",
    "Metadata",
    "Slow",
    "Hang",
    "EarlyEnd",
];

#[derive(Default)]
struct Seen {
    handled: BTreeMap<String, usize>,
    cancelled: usize,
    expired: usize,
}

type Shared = Arc<Mutex<Seen>>;

pub async fn serve(host: &str, port: &str, options: &[&str]) {
    let age = option(options, "grpc.max_connection_age_ms").map_or(Duration::MAX, Duration::from_millis);
    let seen = Shared::default();
    let mut over = signal(SignalKind::terminate()).unwrap();
    let listener = TcpListener::bind(format!("{host}:{port}")).await.unwrap();
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                connections.spawn(connection(accepted.unwrap().0, age, stopped.clone(), seen.clone()));
            }
            _ = over.recv() => break,
        }
    }
    drop((listener, stop));
    let _ = timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
    let seen = seen.lock().unwrap();
    let handled: Vec<_> = seen.handled.iter().map(|(name, count)| format!(r#""{name}": {count}"#)).collect();
    let (handled, cancelled, expired) = (handled.join(", "), seen.cancelled, seen.expired);
    println!(r#"{{"handled": {{{handled}}}, "cancelled": {cancelled}, "expired": {expired}}}"#);
}

/// Until its end; it is sent away when it is too old or when the server stops.
async fn connection(socket: TcpStream, age: Duration, mut stopped: watch::Receiver<()>, seen: Shared) {
    let _ = socket.set_nodelay(true);
    let mut builder = Builder::new();
    builder.initial_window_size(wire::WINDOW).initial_connection_window_size(wire::CONNECTION_WINDOW);
    builder.max_header_list_size(wire::HEADER_LIST).max_concurrent_reset_streams(wire::REMEMBERED);
    let Ok(mut accepting) = builder.handshake(socket).await else { return };
    let mut leaving = false;
    let aged = sleep(age);
    tokio::pin!(aged);
    loop {
        tokio::select! {
            accepted = accepting.accept() => match accepted {
                Some(Ok((request, respond))) => drop(tokio::spawn(stream(request, respond, seen.clone()))),
                _ => return,
            },
            _ = stopped.changed(), if !leaving => {
                leaving = true;
                accepting.graceful_shutdown();
            }
            _ = &mut aged, if !leaving => {
                leaving = true;
                accepting.graceful_shutdown();
            }
        }
    }
}

async fn stream(request: Request<RecvStream>, respond: SendResponse<Bytes>, seen: Shared) {
    let (parts, body) = request.into_parts();
    let call = Call { requests: Messages::new(body), respond, out: None, headers: parts.headers };
    let name = parts.uri.path().strip_prefix("/calls.Peer/").unwrap_or("");
    if METHODS.contains(&name) {
        *seen.lock().unwrap().handled.entry(name.into()).or_default() += 1;
    }
    // An error: the call has ended already.
    let _ = answered(call, name, seen).await;
}

struct Call {
    requests: Messages,
    respond: SendResponse<Bytes>,
    out: Option<SendStream<Bytes>>,
    headers: HeaderMap,
}

impl Call {
    /// The only request, once the client has ended its side.
    async fn single(&mut self) -> Result<Bytes, h2::Error> {
        let found = self.requests.next().await?.unwrap_or_default();
        while self.requests.next().await?.is_some() {}
        Ok(found)
    }

    fn begin(&mut self, metadata: HeaderMap) -> Result<(), h2::Error> {
        if self.out.is_none() {
            self.out = Some(self.respond.send_response(head(metadata), false)?);
        }
        Ok(())
    }

    async fn answer(&mut self, message: &[u8]) -> Result<(), h2::Error> {
        self.begin(HeaderMap::new())?;
        wire::send(self.out.as_mut().unwrap(), message, false).await
    }

    fn end(mut self, status: u32, mut trailers: HeaderMap) -> Result<(), h2::Error> {
        trailers.insert("grpc-status", status.into());
        if status == OK {
            self.begin(HeaderMap::new())?;
        }
        match self.out {
            Some(mut out) => out.send_trailers(trailers),
            None => self.respond.send_response(head(trailers), true).map(drop),
        }
    }
}

fn head(headers: HeaderMap) -> Response<()> {
    let mut response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    response.headers_mut().extend(headers);
    response
}

async fn answered(mut call: Call, name: &str, seen: Shared) -> Result<(), h2::Error> {
    let (mut status, mut trailers) = (OK, HeaderMap::new());
    match name {
        "Unary" => {
            let request = call.single().await?;
            call.answer(&request).await?;
        }
        "ServerStream" => {
            let request = call.single().await?;
            let data = message(unpack_number(&request[4..]));
            for _ in 0..unpack_number(&request) {
                call.answer(&data).await?;
            }
        }
        "ClientStream" => {
            let (mut count, mut size) = (0, 0);
            while let Some(request) = call.requests.next().await? {
                (count, size) = (count + 1, size + request.len());
            }
            call.answer(&pack_sum(count, size)).await?;
        }
        "BidiStream" => {
            while let Some(request) = call.requests.next().await? {
                call.answer(&request).await?;
            }
        }
        "Fail" => {
            status = call.single().await?[0].into();
            if status == OK {
                call.answer(b"").await?;
            }
        }
        "FailLate" => {
            status = call.single().await?[0].into();
            call.answer(b"late").await?;
        }
        "Crash" => {
            call.single().await?;
            status = UNKNOWN;
        }
        "Metadata" => {
            call.single().await?;
            trailers = ours(&call.headers);
            call.begin(trailers.clone())?;
            call.answer(&pack_number(trailers.len())).await?;
        }
        "Slow" => {
            let request = call.single().await?;
            sleep(Duration::from_millis(unpack_number(&request) as u64)).await;
            call.answer(&request).await?;
        }
        "Hang" => return hang(call, seen).await,
        "EarlyEnd" => {
            let request = call.requests.next().await?.unwrap_or_default();
            call.answer(&pack_sum(1, request.len())).await?;
        }
        _ => {
            // Not before it is all here: what a client has sent by then, it would not know.
            call.single().await?;
            status = UNIMPLEMENTED;
        }
    }
    call.end(status, trailers)
}

/// It leaves the deadline to the client: what ends the call is a reset.
async fn hang(mut call: Call, seen: Shared) -> Result<(), h2::Error> {
    let deadline = call.headers.get("grpc-timeout").map(|value| Instant::now() + duration(value.to_str().unwrap()));
    call.begin(HeaderMap::new())?;
    let out = call.out.as_mut().unwrap();
    poll_fn(|context| out.poll_reset(context)).await?;
    let mut seen = seen.lock().unwrap();
    match deadline {
        Some(deadline) if deadline < Instant::now() + LATE => seen.expired += 1,
        _ => seen.cancelled += 1,
    }
    Ok(())
}

fn duration(timeout: &str) -> Duration {
    let (number, unit) = timeout.split_at(timeout.len() - 1);
    let nanoseconds = match unit {
        "H" => 3_600_000_000_000,
        "M" => 60_000_000_000,
        "S" => 1_000_000_000,
        "m" => 1_000_000,
        "u" => 1_000,
        _ => 1,
    };
    Duration::from_nanos(number.parse::<u64>().unwrap() * nanoseconds)
}
