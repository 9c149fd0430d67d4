//! The one binary: reads the configuration, builds the chosen roles, listens, drains; and the command line.

mod allocator;
mod cli;
mod config;
mod http;
mod log;
mod peers;
mod process;
mod roles;
mod self_profile;
mod server;
mod shares;
mod targets;
mod ui;

use std::process::ExitCode;

use rustix::fs::Mode;

fn main() -> ExitCode {
    allocator::give_memory_back_soon();
    keep_files_private();
    // Before the first client is built: reqwest and object_store take whatever provider stands.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let first = arguments.first().map(String::as_str).unwrap_or_default();
    match first {
        "server" => server::main(&arguments[1..]),
        // Flags without a command mean the server, as in `docker run pyrograph -target=all`.
        flag if flag.starts_with('-') && !["-h", "--help", "-V", "--version"].contains(&flag) => {
            server::main(&arguments)
        }
        _ => cli::main(),
    }
}

/// Keeps other users of this computer out of all files that this process makes: files are 0640, folders 0750, or
/// stricter if the umask was.
fn keep_files_private() {
    let private = Mode::WGRP | Mode::RWXO;
    let before = rustix::process::umask(private);
    rustix::process::umask(private | before);
}
