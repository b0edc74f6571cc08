//! What the client and the server share: contract.py says why the figures are what they are.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

pub const STREAMED: usize = 3;
pub const CONCURRENT: usize = 100;
pub const ENTRIES: usize = 200;
pub const STATUSES: u32 = 17;
pub const REPEATS: usize = 10;
pub const LOADED: usize = 8;
pub const SIZES: [usize; 4] = [0, 1, 100_000, 16 << 20];
pub const TIMEOUTS: [u64; 4] = [50, 100, 250, 500]; // milliseconds

pub const OK: u32 = 0;
pub const CANCELLED: u32 = 1;
pub const UNKNOWN: u32 = 2;
pub const DEADLINE_EXCEEDED: u32 = 4;
pub const UNIMPLEMENTED: u32 = 12;
pub const INTERNAL: u32 = 13;
pub const UNAVAILABLE: u32 = 14;

const PIECE: usize = 4_099;
const RATE: usize = 136; // bytes of a block of SHAKE-256

pub fn path(method: &str) -> String {
    format!("/calls.Peer/{method}")
}

pub fn message(size: usize) -> Bytes {
    let part = shake256(size.to_string().as_bytes(), size.min(PIECE));
    let mut made = part.repeat(size / PIECE + 1);
    made.truncate(size);
    made.into()
}

/// Of an input that is shorter than a block.
fn shake256(input: &[u8], length: usize) -> Vec<u8> {
    let mut block = [0u8; RATE];
    block[..input.len()].copy_from_slice(input);
    block[input.len()] ^= 0x1f;
    block[RATE - 1] ^= 0x80;
    let mut state = [0u64; 25];
    for (lane, bytes) in state.iter_mut().zip(block.chunks_exact(8)) {
        *lane = u64::from_le_bytes(bytes.try_into().unwrap());
    }
    let mut found = Vec::with_capacity(length + RATE);
    while found.len() < length {
        permute(&mut state);
        found.extend(state[..RATE / 8].iter().flat_map(|lane| lane.to_le_bytes()));
    }
    found.truncate(length);
    found
}

/// Keccak-f[1600].
fn permute(state: &mut [u64; 25]) {
    let mut register = 1u8; // of the round constants
    for _ in 0..24 {
        let column: [u64; 5] = std::array::from_fn(|x| (0..5).fold(0, |sum, y| sum ^ state[x + 5 * y]));
        for index in 0..25 {
            state[index] ^= column[(index + 4) % 5] ^ column[(index % 5 + 1) % 5].rotate_left(1);
        }
        let (mut x, mut y, mut last) = (1, 0, state[1]);
        for turn in 0..24u32 {
            (x, y) = (y, (2 * x + 3 * y) % 5);
            let next = state[x + 5 * y];
            state[x + 5 * y] = last.rotate_left((turn + 1) * (turn + 2) / 2 % 64);
            last = next;
        }
        for row in state.chunks_exact_mut(5) {
            let old: [u64; 5] = row.try_into().unwrap();
            for x in 0..5 {
                row[x] = old[x] ^ (!old[(x + 1) % 5] & old[(x + 2) % 5]);
            }
        }
        for bit in 0..7 {
            if register & 1 != 0 {
                state[0] ^= 1 << ((1 << bit) - 1);
            }
            register = (register << 1) ^ if register & 0x80 != 0 { 0x71 } else { 0 };
        }
    }
}

/// `entries` of contract.py, as they go over the wire.
pub fn entries() -> HeaderMap {
    let mut found = HeaderMap::new();
    for number in 0..ENTRIES {
        let (name, value) = if number % 5 != 0 {
            (format!("x-entry-{number}"), format!("value {number} {}", "v".repeat(number % 40)))
        } else {
            let data: Vec<u8> = (0..=255).skip(number).take(1 + number % 50).collect();
            (format!("x-entry-{number}-bin"), base64(&data))
        };
        found.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(&value).unwrap());
    }
    found
}

/// What nobody else has added.
pub fn ours(all: &HeaderMap) -> HeaderMap {
    let mine = all.iter().filter(|(name, _)| name.as_str().starts_with("x-"));
    mine.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Without padding, as gRPC wants it.
fn base64(data: &[u8]) -> String {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut found = String::new();
    for group in data.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, index| bits << 8 | u32::from(*group.get(index).unwrap_or(&0)));
        for index in 0..=group.len() {
            found.push(letters[(bits >> (18 - 6 * index) & 63) as usize].into());
        }
    }
    found
}

pub fn pack_number(number: usize) -> Bytes {
    (number as u32).to_be_bytes().to_vec().into()
}

pub fn pack_stream(count: usize, size: usize) -> Bytes {
    [pack_number(count), pack_number(size)].concat().into()
}

pub fn pack_sum(count: usize, size: usize) -> Bytes {
    [&pack_number(count)[..], &(size as u64).to_be_bytes()].concat().into()
}

pub fn unpack_number(data: &[u8]) -> usize {
    u32::from_be_bytes(data[..4].try_into().unwrap()) as usize
}

/// The number of an option NAME=NUMBER.
pub fn option(words: &[&str], name: &str) -> Option<u64> {
    let value = words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.parse().unwrap())
}

pub fn check<T: PartialEq>(what: &str, found: T, expected: T) {
    if found != expected {
        fail(&format!("{what}: something else came than was expected"));
    }
}

pub fn fail(why: &str) -> ! {
    eprintln!("{why}");
    std::process::exit(1);
}
