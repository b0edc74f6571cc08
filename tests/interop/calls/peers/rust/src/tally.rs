//! What a client counts and prints.

use std::collections::BTreeMap;

const SUMS: [&str; 4] = ["request_messages", "request_bytes", "response_messages", "response_bytes"];

#[derive(Default)]
struct Line {
    calls: Option<usize>,
    sums: [Option<usize>; 4],
}

/// Calls by path and status.
#[derive(Default)]
pub struct Tally {
    lines: BTreeMap<(String, u32), Line>,
    uncertain: usize,
}

impl Tally {
    /// A call. Messages are given by their lengths; None: this call's are not known.
    pub fn add(&mut self, path: &str, status: u32, requests: Option<&[usize]>, responses: Option<&[usize]>) {
        let none = || Line { calls: Some(0), sums: [Some(0); 4] };
        let line = self.lines.entry((path.into(), status)).or_insert_with(none);
        line.calls = line.calls.map(|calls| calls + 1);
        for (sums, sizes) in line.sums.chunks_exact_mut(2).zip([requests, responses]) {
            sums[0] = sums[0].zip(sizes).map(|(sum, sizes)| sum + sizes.len());
            sums[1] = sums[1].zip(sizes).map(|(sum, sizes)| sum + sizes.iter().map(|size| 5 + size).sum::<usize>());
        }
    }

    /// A call of which it is not known whether it was sent; there must be no certain one like it.
    pub fn add_uncertain(&mut self, path: &str, status: u32) {
        self.lines.insert((path.into(), status), Line::default());
        self.uncertain += 1;
    }

    pub fn show(&self) {
        let shown = |number: Option<usize>| number.map_or("null".into(), |number| number.to_string());
        let lines = self.lines.iter().map(|((path, status), line)| {
            let sums = SUMS.iter().zip(line.sums).map(|(name, sum)| format!(r#", "{name}": {}"#, shown(sum)));
            let (calls, sums) = (shown(line.calls), sums.collect::<String>());
            format!(r#"{{"method": "{path}", "grpc_status": {status}, "calls": {calls}{sums}}}"#)
        });
        let counts = lines.collect::<Vec<_>>().join(", ");
        println!(r#"{{"counts": [{counts}], "uncertain": {}}}"#, self.uncertain);
    }
}
