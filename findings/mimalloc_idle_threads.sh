#!/bin/bash
# mimalloc 3.3.2 (crates.io mimalloc 0.1.52): sixteen threads read into buffers of 1 KiB to 2 MiB and pass them to one thread
# that frees them, like a server with a thread pool for files. At most 64 buffers, 33 MiB, are in use at any time.
#
# Expected: some tens of MiB resident, and, as `purge_delay` is a second, none of it soon after the last buffer.
# Observed: 590 MiB resident at the end, and 540 as long as the reading threads live and idle. A block freed by another thread,
# in a page from which its owner still allocates, is only put on a list; the owner reads the list when it next allocates from
# that page; and there is a page per thread and size. `mi_collect(true)` on the freeing thread changes
# nothing. When the owners end, all of the memory is returned at once. (Buffers of one size do not show this.) So where memory
# is short: use few such threads, end them soon, and call `mi_collect` on each thread that lives on.
#
# Fails if less than ten times the buffers in use stays resident, or if it stays after the threads have ended.
set -euo pipefail
cd "$(mktemp -d)"
mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "idle-threads"
version = "0.1.0"
edition = "2021"

[dependencies]
mimalloc = { version = "=0.1.52", default-features = false }
libmimalloc-sys = { version = "=0.1.49", default-features = false, features = ["extended"] }
TOML
cat > src/main.rs <<'RUST'
use std::collections::VecDeque;
use std::sync::mpsc::{channel, sync_channel};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const THREADS: u64 = 16;
const BUFFERS_PER_THREAD: usize = 400;
const IN_USE: usize = 64;

fn resident_mib(when: &str) -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    println!("{:4} MiB resident {when}", pages * 4096 >> 20);
    pages * 4096 >> 20
}

fn collect() {
    unsafe { libmimalloc_sys::mi_collect(true) }
}

fn main() {
    let (buffers, read) = sync_channel::<Vec<u8>>(IN_USE);
    let (mut readers, mut ends) = (Vec::new(), Vec::new());
    for seed in 0..THREADS {
        let buffers = buffers.clone();
        let (end, told) = channel::<()>();
        ends.push(end);
        readers.push(std::thread::spawn(move || {
            let mut random = 88_172_645_463_325_252 + seed;
            for _ in 0..BUFFERS_PER_THREAD {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let least = 1usize << (10 + random % 11);
                buffers.send(vec![1; least + (random >> 40) as usize % least]).unwrap();
            }
            drop(buffers);
            let _ = told.recv();
        }));
    }
    drop(buffers);
    let (mut held, mut bytes, mut most) = (VecDeque::new(), 0, 0);
    for buffer in read.iter() {
        bytes += buffer.len();
        most = most.max(bytes);
        held.push_back(buffer);
        if held.len() > IN_USE {
            bytes -= held.pop_front().unwrap().len();
        }
    }
    println!("{:4} MiB in use at most", most >> 20);
    resident_mib("at the end");
    drop(held);
    collect();
    std::thread::sleep(Duration::from_secs(4));
    let freed = resident_mib("4 s after the last buffer was freed, and collected by the thread that frees");
    drop(ends);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
    collect();
    let ended = resident_mib("after the reading threads ended");
    std::process::exit(if freed > 10 * (most >> 20) && ended < 50 { 0 } else { 1 });
}
RUST
cargo build -q --release
./target/release/idle-threads
