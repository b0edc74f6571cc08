//! What a client plays.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{begin, Call, Client};
use crate::contract::*;
use crate::tally::Tally;

pub async fn call(story: &str, host: &str, port: &str, arguments: &[&str]) {
    let count = arguments.iter().find_map(|word| word.parse().ok()).unwrap_or(0);
    let (mut client, mut tally) = (Client::new(host, port), Tally::default());
    match story {
        "shapes" => shapes(&mut client, &mut tally).await,
        "endings" => endings(&mut client, &mut tally).await,
        "reuse" => reuse(&mut client, &mut tally, count).await,
        "load" => (client, tally) = load(client, tally, count).await,
        _ => fail("no such story"),
    }
    client.close().await;
    tally.show();
}

async fn shapes(client: &mut Client, tally: &mut Tally) {
    for size in SIZES {
        let (data, sizes) = (message(size), [size; STREAMED]);
        let several = vec![data.clone(); STREAMED];
        check("unary", client.unary(&path("Unary"), &data).await, (Some(data), OK));
        tally.add(&path("Unary"), OK, Some(&[size]), Some(&[size]));
        let mut out = client.requested(&path("ServerStream"), &pack_stream(STREAMED, size)).await;
        out.answers.all("answers", &several).await;
        tally.add(&path("ServerStream"), OK, Some(&[8]), Some(&sizes));
        gathered(client, &several).await;
        tally.add(&path("ClientStream"), OK, Some(&sizes), Some(&[12]));
        echoed(client, &several).await;
        tally.add(&path("BidiStream"), OK, Some(&sizes), Some(&sizes));
    }
    // Streams without a message.
    client.requested(&path("ServerStream"), &pack_stream(0, 0)).await.answers.all("no answers", &[]).await;
    tally.add(&path("ServerStream"), OK, Some(&[8]), Some(&[]));
    gathered(client, &[]).await;
    tally.add(&path("ClientStream"), OK, Some(&[]), Some(&[12]));
    echoed(client, &[]).await;
    tally.add(&path("BidiStream"), OK, Some(&[]), Some(&[]));
    together(client, tally).await;
    metadata(client, tally).await;
}

async fn gathered(client: &mut Client, requests: &[Bytes]) {
    let mut call = client.stream("ClientStream").await;
    for each in requests {
        call.send(each, false).await;
    }
    call.finish();
    let size = requests.iter().map(Bytes::len).sum();
    call.answers.all("requests", &[pack_sum(requests.len(), size)]).await;
}

async fn echoed(client: &mut Client, requests: &[Bytes]) {
    let Call { mut out, mut answers } = client.stream("BidiStream").await;
    // The server does not take more than it can answer.
    let sending = async {
        for each in requests {
            let _ = crate::wire::send(&mut out, each, false).await;
        }
        let _ = out.send_data(Bytes::new(), true);
    };
    tokio::join!(sending, answers.all("both", requests));
}

/// Streams that are all open before the first one ends.
async fn together(client: &mut Client, tally: &mut Tally) {
    let mut calls = vec![];
    for _ in 0..CONCURRENT {
        calls.push(client.stream("BidiStream").await);
    }
    for _ in 0..2 {
        for (size, call) in calls.iter_mut().enumerate() {
            call.send(&message(size), false).await;
        }
        for (size, call) in calls.iter_mut().enumerate() {
            check("together", call.answers.next().await.0, Some(message(size)));
        }
    }
    for (size, call) in calls.iter_mut().enumerate() {
        call.finish();
        call.answers.all("together", &[]).await;
        tally.add(&path("BidiStream"), OK, Some(&[size; 2]), Some(&[size; 2]));
    }
}

async fn metadata(client: &mut Client, tally: &mut Tally) {
    for _ in 0..3 {
        let mut call = client.start(&path("Metadata"), entries()).await;
        call.send(b"", true).await;
        call.answers.all("metadata", &[pack_number(ENTRIES)]).await;
        check("metadata before", ours(&call.answers.first), entries());
        check("metadata behind", ours(&call.answers.last), entries());
        tally.add(&path("Metadata"), OK, Some(&[0]), Some(&[4]));
    }
}

async fn endings(client: &mut Client, tally: &mut Tally) {
    for status in 0..STATUSES {
        check("status", client.unary(&path("Fail"), &[status as u8]).await.1, status);
        let answers: &[usize] = if status == OK { &[0] } else { &[] };
        tally.add(&path("Fail"), status, Some(&[1]), Some(answers));
        let mut late = client.requested(&path("FailLate"), &[status as u8]).await;
        check("late", late.answers.next().await.0, Some(Bytes::from_static(b"late")));
        check("late status", late.answers.next().await, (None, status));
        tally.add(&path("FailLate"), status, Some(&[1]), Some(&[4]));
    }
    for size in 0..REPEATS {
        check("crash", client.unary(&path("Crash"), &message(size)).await.1, UNKNOWN);
        tally.add(&path("Crash"), UNKNOWN, Some(&[size]), Some(&[]));
        for name in [path("Missing"), "/calls.Nobody/Missing".into()] {
            check("missing", client.unary(&name, &message(size)).await.1, UNIMPLEMENTED);
            // Headers go out before the message: the server may have answered in between.
            tally.add(&name, UNIMPLEMENTED, None, Some(&[]));
        }
    }
    cancelled(client, tally).await;
    expired(client, tally).await;
    for _ in 0..REPEATS {
        let mut call = client.stream("EarlyEnd").await;
        // No more than this: whether another one went out before the end came, nobody would know here.
        call.send(&message(100), false).await;
        call.answers.all("early end", &[pack_sum(1, 100)]).await;
        tally.add(&path("EarlyEnd"), OK, Some(&[100]), Some(&[12]));
    }
}

async fn cancelled(client: &mut Client, tally: &mut Tally) {
    // More than goes out when nobody reads.
    let endless = pack_stream(10_000, 100_000);
    for size in 0..REPEATS {
        let data = message(size);
        let mut hanging = client.requested(&path("Hang"), &data).await;
        check("hanging", hanging.answers.begun().await.is_ok(), true); // it has reached the handler
        hanging.cancel();
        tally.add(&path("Hang"), CANCELLED, Some(&[size]), Some(&[]));

        let mut both = client.stream("BidiStream").await;
        for _ in 0..3 {
            both.send(&data, false).await;
            check("before it is cancelled", both.answers.next().await.0.as_ref(), Some(&data));
        }
        both.cancel();
        tally.add(&path("BidiStream"), CANCELLED, Some(&[size; 3]), Some(&[size; 3]));

        let mut out = client.requested(&path("ServerStream"), &endless).await;
        check("endless", out.answers.next().await.1, OK);
        out.cancel();
        // How many had been sent by then, nobody knows here.
        tally.add(&path("ServerStream"), CANCELLED, Some(&[endless.len()]), None);
    }
}

async fn expired(client: &mut Client, tally: &mut Tally) {
    for milliseconds in TIMEOUTS {
        let mut several = JoinSet::new();
        for _ in 0..REPEATS {
            let mut metadata = HeaderMap::new();
            metadata.insert("grpc-timeout", format!("{milliseconds}m").parse().unwrap());
            let mut call = client.start(&path("Hang"), metadata).await;
            several.spawn(async move {
                call.send(b"never", true).await;
                match timeout(Duration::from_millis(milliseconds), call.answers.single()).await {
                    Ok((_, status)) => status,
                    Err(_) => {
                        call.cancel();
                        DEADLINE_EXCEEDED
                    }
                }
            });
        }
        for status in several.join_all().await {
            // The server may have been first, and has cancelled it then.
            check("deadline", status == DEADLINE_EXCEEDED || status == CANCELLED, true);
            tally.add(&path("Hang"), status, Some(&[5]), Some(&[]));
        }
    }
}

async fn reuse(client: &mut Client, tally: &mut Tally, count: usize) {
    for number in 0..count {
        let data = message(number % 1_000);
        check("unary", client.unary(&path("Unary"), &data).await, (Some(data.clone()), OK));
        tally.add(&path("Unary"), OK, Some(&[data.len()]), Some(&[data.len()]));
    }
}

/// Servers come and go meanwhile. A call that found none is not known to have been sent, or how far.
async fn load(client: Client, tally: Tally, count: usize) -> (Client, Tally) {
    let address = client.address();
    let client = Arc::new(tokio::sync::Mutex::new(client));
    let shared = Arc::new(Mutex::new((tally, 0..count)));
    let mut several = JoinSet::new();
    for _ in 0..LOADED {
        let (client, shared, address) = (client.clone(), shared.clone(), address.clone());
        several.spawn(async move {
            loop {
                let Some(number) = shared.lock().unwrap().1.next() else { return };
                let data = message(number % 1_000);
                let requests = client.lock().await.ready().await;
                let mut status = UNAVAILABLE;
                if let Ok(mut call) = begin(requests, &address, &path("Unary"), HeaderMap::new()) {
                    call.send(&data, true).await;
                    let (answer, found) = call.answers.single().await;
                    check("load", found != OK || answer.as_ref() == Some(&data), true);
                    status = found;
                }
                let tally = &mut shared.lock().unwrap().0;
                match status {
                    OK => tally.add(&path("Unary"), OK, Some(&[data.len()]), Some(&[data.len()])),
                    UNAVAILABLE => tally.add_uncertain(&path("Unary"), UNAVAILABLE),
                    // By a server that does not wait for it: h2 may not have sent the message yet, and drops it then.
                    CANCELLED => tally.add(&path("Unary"), CANCELLED, None, Some(&[])),
                    _ => fail(&format!("status {status}")),
                }
            }
        });
    }
    several.join_all().await;
    let (tally, _) = Arc::into_inner(shared).unwrap().into_inner().unwrap();
    (Arc::into_inner(client).unwrap().into_inner(), tally)
}
