//! A server of plain bytes on tonic, for denials: `tonic serve HOST PORT` (../README.md).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use tokio::signal::unix::{signal, SignalKind};
use tokio_stream::{Stream, StreamExt};
use tonic::body::BoxBody;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status, Streaming};
use tower::{service_fn, Service};

#[derive(Clone, Copy)]
struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Plain;
    type Decoder = Plain;

    fn encoder(&mut self) -> Plain {
        Plain
    }

    fn decoder(&mut self) -> Plain {
        Plain
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let size = from.remaining();
        Ok(Some(from.copy_to_bytes(size)))
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

#[derive(Clone, Default)]
struct Peer {
    handled: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl Peer {
    fn count(&self, method: &'static str) {
        *self.handled.lock().unwrap().entry(method).or_default() += 1;
    }

    async fn answer(self, request: http::Request<BoxBody>) -> http::Response<BoxBody> {
        let mut grpc = Grpc::new(Plain);
        match request.uri().path() {
            "/calls.Peer/Unary" => {
                let unary = service_fn(move |request: Request<Bytes>| {
                    self.count("Unary");
                    async move { Ok::<_, Status>(Response::new(request.into_inner())) }
                });
                grpc.unary(unary, request).await
            }
            "/calls.Peer/BidiStream" => {
                let both = service_fn(move |request: Request<Streaming<Bytes>>| {
                    self.count("BidiStream");
                    async move {
                        let answers = request.into_inner().map(|each| each);
                        Ok::<Response<Answers>, Status>(Response::new(Box::pin(answers)))
                    }
                });
                grpc.streaming(both, request).await
            }
            _ => Status::unimplemented("").into_http(),
        }
    }
}

impl NamedService for Peer {
    const NAME: &'static str = "calls.Peer";
}

impl Service<http::Request<BoxBody>> for Peer {
    type Response = http::Response<BoxBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<BoxBody>) -> Self::Future {
        let peer = self.clone();
        Box::pin(async move { Ok(peer.answer(request).await) })
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, command, host, port] = &arguments[..] else {
        panic!("peer serve HOST PORT")
    };
    assert_eq!(command, "serve");
    let peer = Peer::default();
    let mut ended = signal(SignalKind::terminate()).unwrap();
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    tonic::transport::Server::builder()
        .add_service(peer.clone())
        .serve_with_shutdown(format!("{host}:{port}").parse().unwrap(), async move {
            ended.recv().await;
        })
        .await
        .unwrap();
    let handled = peer.handled.lock().unwrap();
    let listed: Vec<String> = handled.iter().map(|(name, count)| format!("\"{name}\": {count}")).collect();
    println!("{{\"handled\": {{{}}}, \"cancelled\": 0, \"expired\": 0}}", listed.join(", "));
}
