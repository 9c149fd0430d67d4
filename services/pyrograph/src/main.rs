//! The binary `pyrograph`: the server with its chosen roles, and the command line.

mod allocator;
mod cli;
mod config;
mod http;
mod log;
mod metrics_text;
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
    // Before the first client is built: reqwest and object_store use the provider that is installed then.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let first = arguments.first().map(String::as_str).unwrap_or_default();
    match first {
        "server" => server::main(&arguments[1..]),
        // Flags without a command start the server, as in `docker run pyrograph -target=all`.
        flag if flag.starts_with('-') && !["-h", "--help", "-V", "--version"].contains(&flag) => {
            server::main(&arguments)
        }
        _ => cli::main(),
    }
}

/// Keeps other users of this computer out of all files that this process creates: files get mode 0640 and folders 0750,
/// or stricter modes if the umask was stricter.
fn keep_files_private() {
    let private = Mode::WGRP | Mode::RWXO;
    let before = rustix::process::umask(private);
    rustix::process::umask(private | before);
}
