//! An S3 server in memory whose responses a test can replace.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clock::Clock;
use parking_lot::Mutex;
use storage::{Backend, Config, Metrics, OpenError, S3Config, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const BUCKET: &str = "test";

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Empty for a listing.
    pub(crate) key: String,
    pub(crate) query: String,
    pub(crate) headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

pub(crate) struct Reply {
    status: u16,
    headers: String,
    body: Vec<u8>,
    pause: Duration,
}

type Rule = dyn Fn(&Request, usize) -> Option<Reply> + Send + Sync;

pub(crate) struct FakeS3 {
    port: u16,
    clock_ahead: Mutex<Duration>,
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    rule: Box<Rule>,
    requests: Mutex<Vec<String>>,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: String::new(), body: body.into(), pause: Duration::ZERO }
    }

    pub(crate) fn error(status: u16, code: &str) -> Self {
        Self::new(status, format!("<Error><Code>{code}</Code><Message>as the test wants</Message></Error>"))
    }

    pub(crate) fn header(mut self, header: &str) -> Self {
        self.headers.push_str(&format!("{header}\r\n"));
        self
    }

    pub(crate) fn after(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }
}

impl FakeS3 {
    /// Starts a server. `rule` may answer a request, given the number of earlier ones; others get the proper response.
    pub(crate) async fn start(
        rule: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Arc::new(Self {
            port: listener.local_addr().unwrap().port(),
            clock_ahead: Mutex::default(),
            objects: Mutex::default(),
            rule: Box::new(rule),
            requests: Mutex::default(),
        });
        let accepting = server.clone();
        Clock::system().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = accepting.clone();
                Clock::system().spawn(async move { server.serve(stream).await });
            }
        });
        server
    }

    pub(crate) fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn config(&self) -> Config {
        let s3 = S3Config {
            bucket_name: BUCKET.into(),
            endpoint: format!("http://{}", self.authority()),
            access_key_id: "key".into(),
            secret_access_key: "secret".into(),
            ..S3Config::default()
        };
        Config { backend: Backend::S3, s3, ..Config::default() }
    }

    pub(crate) async fn open(&self) -> Result<Store, OpenError> {
        self.open_metered(Metrics::default()).await
    }

    pub(crate) async fn open_metered(&self, metrics: Metrics) -> Result<Store, OpenError> {
        storage::open(&self.config(), Clock::system(), metrics).await
    }

    pub(crate) fn put_ahead(&self, ahead: Duration) {
        *self.clock_ahead.lock() = ahead;
    }

    /// Method and key of every request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().clone()
    }

    async fn serve(&self, mut stream: TcpStream) {
        let Some(request) = read(&mut stream).await else {
            return;
        };
        let before = {
            let mut requests = self.requests.lock();
            requests.push(format!("{} {}", request.method, request.key));
            requests.len() - 1
        };
        let reply = (self.rule)(&request, before).unwrap_or_else(|| self.answer(&request));
        Clock::system().sleep(reply.pause).await;
        let date = httpdate::fmt_http_date(SystemTime::now() + *self.clock_ahead.lock());
        let head = format!(
            "HTTP/1.1 {} x\r\nconnection: close\r\ndate: {date}\r\ncontent-length: {}\r\n{}\r\n",
            reply.status,
            reply.body.len(),
            reply.headers
        );
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&reply.body).await;
    }

    fn answer(&self, request: &Request) -> Reply {
        let mut objects = self.objects.lock();
        match request.method.as_str() {
            "PUT" if request.headers.contains_key("if-none-match") && objects.contains_key(&request.key) => {
                Reply::error(412, "PreconditionFailed")
            }
            "PUT" => {
                objects.insert(request.key.clone(), request.body.clone());
                Reply::new(200, "").header("etag: \"1\"")
            }
            "DELETE" => {
                objects.remove(&request.key);
                Reply::new(204, "")
            }
            _ if request.key.is_empty() => list(&objects, &request.query),
            _ => match objects.get(&request.key) {
                None => Reply::error(404, "NoSuchKey"),
                Some(bytes) => read_object(bytes, request.headers.get("range").map(String::as_str)),
            },
        }
    }
}

fn read_object(bytes: &[u8], range: Option<&str>) -> Reply {
    let dated =
        |reply: Reply| reply.header("etag: \"1\"").header("last-modified: Sun, 06 Nov 1994 08:49:37 GMT");
    let Some((from, to)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return dated(Reply::new(200, bytes));
    };
    let last = bytes.len() - 1;
    let (from, to) = match from {
        "" => (bytes.len().saturating_sub(to.parse().unwrap()), last),
        from => (from.parse().unwrap(), to.parse().unwrap_or(last).min(last)),
    };
    let range = format!("content-range: bytes {from}-{to}/{}", bytes.len());
    dated(Reply::new(206, &bytes[from..=to]).header(&range))
}

fn list(objects: &BTreeMap<String, Vec<u8>>, query: &str) -> Reply {
    let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or_default();
    let prefix = prefix.replace("%2F", "/");
    let mut xml = "<ListBucketResult><IsTruncated>false</IsTruncated>".to_owned();
    let now = "2026-11-24T00:00:00.000Z";
    for (key, bytes) in objects.iter().filter(|(key, _)| key.starts_with(&prefix)) {
        xml.push_str(&format!(
            "<Contents><Key>{key}</Key><LastModified>{now}</LastModified><ETag>1</ETag><Size>{}</Size></Contents>",
            bytes.len()
        ));
    }
    Reply::new(200, xml + "</ListBucketResult>")
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).ok()?;
    let mut lines = text.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = bytes.split_off(head + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let key = path.trim_start_matches('/').strip_prefix(BUCKET)?.trim_start_matches('/').to_owned();
    Some(Request { method, key, query: query.to_owned(), headers, body })
}
