//! hyper's HTTP/2 with gRPC's framing by hand: peers/README.md says what it does.

mod client;
mod contract;
mod server;
mod stories;
mod tally;
mod wire;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", host, port, ref options @ ..] => server::serve(host, port, options).await,
        ["call", story, host, port, ref arguments @ ..] => stories::call(story, host, port, arguments).await,
        _ => contract::fail("serve or call"),
    }
}
