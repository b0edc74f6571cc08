//! gRPC's messages in HTTP/2's DATA, with its flow control.

use std::future::poll_fn;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::{RecvStream, SendStream};

const PREFIX: usize = 5;
pub const WINDOW: u32 = 1 << 20; // of a stream
pub const CONNECTION_WINDOW: u32 = 1 << 22;
pub const HEADER_LIST: u32 = 1 << 16;
/// Streams that were reset, and whose frames in flight are known for what they are.
pub const REMEMBERED: usize = 1_000;

/// Sends a message as the peer takes it; `end`: there are no more.
pub async fn send(out: &mut SendStream<Bytes>, message: &[u8], end: bool) -> Result<(), h2::Error> {
    let mut data = BytesMut::with_capacity(PREFIX + message.len());
    data.put_u8(0);
    data.put_u32(message.len() as u32);
    data.put_slice(message);
    let mut rest = data.freeze();
    while rest.has_remaining() {
        out.reserve_capacity(rest.len());
        match poll_fn(|context| out.poll_capacity(context)).await {
            Some(granted) => {
                let part = rest.split_to(granted?.min(rest.len()));
                out.send_data(part, end && rest.is_empty())?;
            }
            None => return Err(h2::Reason::STREAM_CLOSED.into()),
        }
    }
    Ok(())
}

/// Messages of one direction of a stream.
pub struct Messages {
    pub body: RecvStream,
    buffer: BytesMut,
}

impl Messages {
    pub fn new(body: RecvStream) -> Self {
        Self { body, buffer: BytesMut::new() }
    }

    /// The next message; None: there are no more.
    pub async fn next(&mut self) -> Result<Option<Bytes>, h2::Error> {
        loop {
            if self.buffer.len() >= PREFIX {
                let size = (&self.buffer[1..PREFIX]).get_u32() as usize;
                if self.buffer.len() >= PREFIX + size {
                    self.buffer.advance(PREFIX);
                    return Ok(Some(self.buffer.split_to(size).freeze()));
                }
            }
            match self.body.data().await {
                Some(part) => {
                    let part = part?;
                    self.buffer.extend_from_slice(&part);
                    self.body.flow_control().release_capacity(part.len())?;
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(h2::Reason::PROTOCOL_ERROR.into()), // in the middle of a message
            }
        }
    }
}
